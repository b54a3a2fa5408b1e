"""httpx, as far as both clients use it the same."""

from modelyard.core.errors import ExtraMissing, SettingInvalid

MOST_PORT = 65_535


def service_url(url: str) -> str:
    """The URL of a service without a slash at its end; raises SettingInvalid, ExtraMissing."""
    try:
        import httpx
    except ModuleNotFoundError:
        raise ExtraMissing(
            "The client needs httpx; install it with `pip install 'modelyard[client]'`."
        ) from None
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # as the look-up of the name will
    except (httpx.InvalidURL, TypeError, UnicodeError):
        parsed = httpx.URL()
    others = (parsed.userinfo, parsed.query, parsed.fragment, (parsed.port or 0) > MOST_PORT)
    if parsed.scheme not in ("http", "https") or not parsed.host or any(others):
        raise SettingInvalid(
            "The URL of the service is not one to ask; give it without user, password and query, "
            "such as https://models.example.com or http://127.0.0.1:8000."
        )
    return str(parsed).rstrip("/")
