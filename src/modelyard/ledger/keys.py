"""Keys: made of chance, shown once, kept as a digest."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

PREFIX = "my"
KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([0-9a-f]{{48}})")

IDS = {
    "organisation": "^org_[0-9a-f]{16}$",
    "project": "^prj_[0-9a-f]{16}$",
    "user": "^usr_[0-9a-f]{16}$",
    "key": "^[0-9a-f]{12}$",
}
"""The form that the ids of each kind have."""


@dataclass(frozen=True)
class NewKey:
    """A key as it is shown, once."""

    id: str
    text: str
    digest: bytes


def new_key() -> NewKey:
    """A key of 192 random bits; a plain SHA-256 of so many cannot be searched for."""
    name, secret = secrets.token_hex(6), secrets.token_hex(24)
    return NewKey(name, f"{PREFIX}_{name}_{secret}", digest_of(secret))


def parted(text: str) -> tuple[str, str] | None:
    """A key's id and its secret; None where the text is no key.

    >>> parted("my_00112233aabb_" + "0" * 48)[0]
    '00112233aabb'
    >>> parted("sk-123") is None
    True
    """
    found = KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def is_same(secret: str, digest: bytes) -> bool:
    """Whether a secret has this digest, in a time that does not depend on them."""
    return hmac.compare_digest(digest_of(secret), digest)


def new_id(prefix: str) -> str:
    """An id of 64 random bits."""
    return f"{prefix}_{secrets.token_hex(8)}"
