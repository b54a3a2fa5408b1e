"""Keys over HTTP: listed, made and shown once, rotated, revoked; never above who makes them."""

from typing import Any

from modelyard.core.errors import UnknownName
from modelyard.ledger import customers
from modelyard.ledger.keys import NewKey
from modelyard.service import customer_documents as documents
from modelyard.service.access import KEY, ORGANISATION, refuse_key_of, refuse_releases
from modelyard.service.operations import Asked, Operation

ADMIN_KEYS = "/v1/admin-keys"


def keys(asked: Asked) -> Any:
    """The keys of an organisation, without what is secret."""
    return {"keys": customers.listed(asked.engine, "key", asked.scope())}


def add_key(asked: Asked) -> Any:
    """Make a key for a project or a user; it is shown this once."""
    scope, new = asked.scope(), asked.body
    project, user = new.project or None, new.user or None
    if user:
        customers.find(asked.engine, "user", user, scope)
    refuse_key_of(asked.caller, user)
    refuse_releases(asked.caller, new.releases)
    made = customers.add_key(
        asked.engine,
        new.name,
        project=project,
        user=user,
        releases=new.releases,
        days=new.days,
        scope=scope,
    )
    return _shown(*made)


def rotate_key(asked: Asked) -> Any:
    """Make a key in place of another; the old one holds for a while more."""
    scope = asked.scope()
    old = customers.find(asked.engine, "key", asked.ids["key"], scope)
    refuse_key_of(asked.caller, old["user_id"])
    refuse_releases(asked.caller, customers.shown(old)["releases"])
    return _shown(*customers.rotate_key(asked.engine, old["id"], asked.body.overlap_hours, scope))


def revoke_key(asked: Asked) -> None:
    """Revoke a key; it holds no longer within a second."""
    scope = asked.scope()
    old = customers.find(asked.engine, "key", asked.ids["key"], scope)
    refuse_key_of(asked.caller, old["user_id"])
    customers.revoke_key(asked.engine, old["id"], scope)


def admin_keys(asked: Asked) -> Any:
    """The keys of whoever runs the service, without what is secret."""
    found = customers.listed(asked.engine, "key")
    return {"keys": [each for each in found if each["role"] == "admin"]}


def add_admin_key(asked: Asked) -> Any:
    """Make a key for whoever runs the service; it is shown this once."""
    return _shown(*customers.add_key(asked.engine, asked.body.name, days=asked.body.days))


def rotate_admin_key(asked: Asked) -> Any:
    """Make an admin's key in place of another; the old one holds for a while more."""
    hours = asked.body.overlap_hours
    return _shown(*customers.rotate_key(asked.engine, _admin_key(asked), hours))


def revoke_admin_key(asked: Asked) -> None:
    """Revoke an admin's key; it holds no longer within a second."""
    customers.revoke_key(asked.engine, _admin_key(asked))


def _admin_key(asked: Asked) -> str:
    """The id in the path, where it is that of an admin's key; raises UnknownName."""
    found = customers.find(asked.engine, "key", asked.ids["key"])
    if found["role"] != "admin":
        raise UnknownName(
            f"The key {found['id']} is a customer's; see it among those of its organisation."
        )
    return str(found["id"])


def _shown(row: customers.Row, made: NewKey) -> customers.Row:
    return row | {"key": made.text}


OPERATIONS = (
    Operation("GET", f"{ORGANISATION}/keys", keys, documents.KeysReply),
    Operation(
        "POST",
        f"{ORGANISATION}/keys",
        add_key,
        documents.NewKeyReply,
        documents.NewCustomerKey,
    ),
    Operation("POST", f"{KEY}/rotate", rotate_key, documents.NewKeyReply, documents.Rotation),
    Operation("DELETE", KEY, revoke_key),
    Operation("GET", ADMIN_KEYS, admin_keys, documents.KeysReply),
    Operation("POST", ADMIN_KEYS, add_admin_key, documents.NewKeyReply, documents.NewAdminKey),
    Operation(
        "POST",
        f"{ADMIN_KEYS}/{{key}}/rotate",
        rotate_admin_key,
        documents.NewKeyReply,
        documents.Rotation,
    ),
    Operation("DELETE", f"{ADMIN_KEYS}/{{key}}", revoke_admin_key),
)
