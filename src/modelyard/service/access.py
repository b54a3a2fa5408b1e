"""Access: which right each path asks of a key, where the service is not for its developer alone.

What is not listed here is for whoever runs the service: a new route is closed until it is opened.
"""

from collections.abc import Sequence

from modelyard.core.errors import NotAllowed
from modelyard.ledger.directory import Caller
from modelyard.ledger.roles import Right, may

PUBLIC = frozenset(
    (
        "/", "/docs", "/openapi.json", "/assets/release.json", "/assets/{name}",
        "/health", "/livez", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready",
    )
)  # fmt: skip
"""What says how to ask, and whether anybody answers; it holds nothing of any customer."""
ORGANISATION = "/v1/organisations/{organisation}"
PROJECT = f"{ORGANISATION}/projects/{{project}}"
KEY = f"{ORGANISATION}/keys/{{key}}"
RIGHTS: dict[tuple[str, str], Right] = {
    ("GET", "/v1/models"): "look",
    ("GET", "/v1/models/{name}"): "look",
    ("POST", "/v1/models/{name}/predict"): "predict",
    ("POST", "/v1/embeddings"): "predict",
    ("POST", "/v1/moderations"): "predict",
    ("GET", "/v2/models/{name}"): "look",
    ("GET", "/v2/models/{name}/ready"): "look",
    ("POST", "/v2/models/{name}/infer"): "predict",
    ("GET", "/v2/models/{name}/versions/{version}"): "look",
    ("GET", "/v2/models/{name}/versions/{version}/ready"): "look",
    ("POST", "/v2/models/{name}/versions/{version}/infer"): "predict",
    ("POST", "/v2/repository/index"): "deploy",
    ("POST", "/v2/repository/models/{name}/load"): "deploy",
    ("POST", "/v2/repository/models/{name}/unload"): "deploy",
    ("GET", "/report"): "look",
    ("GET", "/v1/organisations"): "account",
    ("POST", "/v1/organisations"): "customers",
    ("GET", ORGANISATION): "account",
    ("GET", f"{ORGANISATION}/projects"): "account",
    ("POST", f"{ORGANISATION}/projects"): "projects",
    ("GET", f"{ORGANISATION}/users"): "account",
    ("POST", f"{ORGANISATION}/users"): "users",
    ("PATCH", f"{ORGANISATION}/users/{{user}}"): "users",
    ("DELETE", f"{ORGANISATION}/users/{{user}}"): "users",
    ("GET", f"{ORGANISATION}/keys"): "account",
    ("POST", f"{ORGANISATION}/keys"): "keys",
    ("DELETE", KEY): "keys",
    ("POST", f"{KEY}/rotate"): "keys",
    **{("GET", f"{each}/limits"): "account" for each in (ORGANISATION, PROJECT, KEY)},
    **{("PUT", f"{each}/limits"): "limits" for each in (ORGANISATION, PROJECT, KEY)},
    **{("DELETE", f"{each}/limits/{{limit}}"): "limits" for each in (ORGANISATION, PROJECT, KEY)},
    ("GET", f"{ORGANISATION}/usage"): "usage",
    ("GET", "/v1/prices"): "customers",
    ("PUT", "/v1/prices"): "customers",
    ("GET", "/v1/admin-keys"): "customers",
    ("POST", "/v1/admin-keys"): "customers",
    ("DELETE", "/v1/admin-keys/{key}"): "customers",
    ("POST", "/v1/admin-keys/{key}/rotate"): "customers",
}


def right_for(method: str, path: str) -> Right | None:
    """The right that a route asks for; None where it asks for no key.

    >>> right_for("GET", "/docs") is None, right_for("HEAD", "/v1/models")
    (True, 'look')
    >>> right_for("GET", "/metrics")
    'customers'
    """
    if path in PUBLIC and method in ("GET", "HEAD"):
        return None
    return RIGHTS.get(("GET" if method == "HEAD" else method, path), "customers")


def refuse_key_of(caller: Caller, user: str | None) -> None:
    """Refuse to make or end a key of another user: NotAllowed.

    The key would follow that user's role, which may become a higher one. So only who may change
    users makes keys for them; a developer makes them for projects and for itself.
    """
    if user is not None and user != caller.user_id and not may(caller.role, "users"):
        raise NotAllowed(
            f"A key of the role {caller.role} makes and ends keys of projects and of its own user; "
            "ask an owner for those of other users."
        )


def refuse_releases(caller: Caller, releases: Sequence[str] | None) -> None:
    """Refuse a key for releases that its maker's key may not ask, where none is all: NotAllowed."""
    own = caller.releases
    if own is not None and not (releases and own.issuperset(releases)):
        raise NotAllowed(
            f"The key may ask {', '.join(sorted(own))} alone, and so may those that it makes; name "
            "some of these as releases."
        )
