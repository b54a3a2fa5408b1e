"""Roles: what the bearer of a key may do."""

from typing import Literal, get_args

Role = Literal["admin", "owner", "developer", "billing", "viewer", "service"]
UserRole = Literal["owner", "developer", "billing", "viewer"]
Right = Literal[
    "predict", "look", "account", "usage", "projects", "keys", "limits", "users", "customers",
    "deploy",
]  # fmt: skip
USER_ROLES: tuple[UserRole, ...] = get_args(UserRole)
RIGHTS: dict[Role, frozenset[Right]] = {
    "admin": frozenset(get_args(Right)) - {"predict"},
    "owner": frozenset(
        ("predict", "look", "account", "usage", "projects", "keys", "limits", "users")
    ),
    "developer": frozenset(("predict", "look", "account", "usage", "keys")),
    "billing": frozenset(("look", "account", "usage", "limits")),
    "viewer": frozenset(("look", "account", "usage")),
    "service": frozenset(("predict", "look", "usage")),
}
"""`admin` is whoever runs the service, `service` a program of a customer, the others people.

`look` is at models, `account` at what an organisation has; the rest is to change or to ask. A key
sees its own organisation alone, and that of a project its own project alone.
"""


def may(role: Role, right: Right) -> bool:
    """Whether a role has a right.

    >>> may("billing", "predict"), may("service", "predict")
    (False, True)
    """
    return right in RIGHTS[role]
