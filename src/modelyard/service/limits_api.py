"""Limits and prices over HTTP.

A customer's own limits stand beside those of an admin, so they only lower what it may use.
"""

from typing import Any

from modelyard.ledger import customers
from modelyard.ledger.limits import SetBy
from modelyard.service import customer_documents as documents
from modelyard.service.access import KEY, ORGANISATION, PROJECT
from modelyard.service.operations import Asked, Operation

PRICES = "/v1/prices"


def limits(asked: Asked) -> Any:
    """The limits of an organisation, a project or a key."""
    kind, owner, _ = _subject(asked)
    return {"limits": [vars(each) for each in customers.limits_of(asked.engine, kind, owner)]}


def set_limit(asked: Asked) -> Any:
    """Set or change a limit; one that a customer sets stands beside the admin's."""
    kind, owner, scope = _subject(asked)
    new = asked.body
    made = customers.set_limit(
        asked.engine,
        kind,
        owner,
        new.measure,
        new.amount,
        new.period,
        is_hard=new.is_hard,
        set_by=_set_by(asked),
        scope=scope,
    )
    return vars(made)


def remove_limit(asked: Asked) -> None:
    """Remove a limit; what an admin has set only an admin may."""
    kind, owner, scope = _subject(asked)
    number = int(asked.ids["limit"])
    customers.remove_limit(asked.engine, number, (kind, owner), set_by=_set_by(asked), scope=scope)


def prices(asked: Asked) -> Any:
    """All prices."""
    return {"prices": customers.prices(asked.engine)}


def set_price(asked: Asked) -> Any:
    """Set or change a price."""
    new = asked.body
    customers.set_price(asked.engine, new.release, new.measure, new.micros, new.per)
    return new.model_dump()


def _subject(asked: Asked) -> tuple[str, str, customers.Scope]:
    """The kind and the id of what the path names, and the scope it is in; raises UnknownName."""
    scope = asked.scope()
    kind = next((each for each in ("key", "project") if each in asked.ids), "organisation")
    return kind, customers.find(asked.engine, kind, asked.ids[kind], scope)["id"], scope


def _set_by(asked: Asked) -> SetBy:
    return "admin" if asked.caller.role == "admin" else "customer"


OPERATIONS = (
    *(
        operation
        for path in (ORGANISATION, PROJECT, KEY)
        for operation in (
            Operation("GET", f"{path}/limits", limits, documents.LimitsReply),
            Operation("PUT", f"{path}/limits", set_limit, documents.LimitReply, documents.NewLimit),
            Operation("DELETE", f"{path}/limits/{{limit}}", remove_limit),
        )
    ),
    Operation("GET", PRICES, prices, documents.PricesReply),
    Operation("PUT", PRICES, set_price, documents.PriceReply, documents.NewPrice),
)
