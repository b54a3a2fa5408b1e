"""Roles: what the bearer of a key may do."""

from typing import Literal

Role = Literal["admin", "owner", "developer", "billing", "viewer", "service"]
Right = Literal["predict", "look", "usage", "keys", "limits", "users", "customers", "deploy"]
USER_ROLES: tuple[Role, ...] = ("owner", "developer", "billing", "viewer")
RIGHTS: dict[Role, frozenset[Right]] = {
    "admin": frozenset(("look", "usage", "keys", "limits", "users", "customers", "deploy")),
    "owner": frozenset(("predict", "look", "usage", "keys", "limits", "users")),
    "developer": frozenset(("predict", "look", "usage", "keys")),
    "billing": frozenset(("look", "usage", "limits")),
    "viewer": frozenset(("look", "usage")),
    "service": frozenset(("predict", "look")),
}
"""`admin` is whoever runs the service, `service` a program of a customer, the others people."""


def may(role: Role, right: Right) -> bool:
    """Whether a role has a right.

    >>> may("billing", "predict"), may("service", "predict")
    (False, True)
    """
    return right in RIGHTS[role]
