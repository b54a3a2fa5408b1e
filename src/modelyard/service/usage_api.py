"""Usage over HTTP: what an organisation has used in a month; a program sees that of its project."""

from typing import Any

from modelyard.ledger.periods import BY, MONTH, columns, month, this_month
from modelyard.ledger.usage import used
from modelyard.service import customer_documents as documents
from modelyard.service.access import ORGANISATION
from modelyard.service.operations import Asked, Operation

QUERY = (
    {
        "name": "month",
        "in": "query",
        "description": "as in 2026-11 (UTC); this month if it is left out",
        "schema": {"type": "string", "pattern": MONTH},
    },
    {
        "name": "by",
        "in": "query",
        "description": "what it is told apart by, with commas between",
        "style": "form",
        "explode": False,
        "schema": {
            "type": "array",
            "minItems": 1,
            "items": {"enum": list(BY)},
            "default": ["release"],
        },
    },
)


def usage(asked: Asked) -> Any:
    """What an organisation has used in a month; a project's key sees that of its project."""
    scope = asked.scope()
    text = asked.query.get("month", this_month())
    by = columns(asked.query.get("by", "release").split(","))
    rows = used(asked.engine, month(text), by, scope)
    return {"organisation_id": scope.organisation_id, "month": text, "usage": rows}


OPERATIONS = (Operation("GET", f"{ORGANISATION}/usage", usage, documents.UsageReply, query=QUERY),)
