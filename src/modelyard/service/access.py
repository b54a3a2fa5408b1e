"""Access: which right each path asks of a key, where the service is not for its developer alone.

What is not listed here is for whoever runs the service: a new route is closed until it is opened.
"""

from modelyard.ledger.roles import Right

PUBLIC = frozenset(
    (
        "/", "/docs", "/openapi.json", "/assets/release.json", "/assets/{name}",
        "/health", "/livez", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready",
    )
)  # fmt: skip
"""What says how to ask, and whether anybody answers; it holds nothing of any customer."""
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
