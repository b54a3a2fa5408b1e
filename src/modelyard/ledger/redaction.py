"""Redaction: what tells who somebody is, out of text that is kept, as far as its form shows it.

Addresses, numbers of accounts, cards, telephones and identity cards, and secrets are found by
their form and their check digits. Names, and whatever else words say, are not.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

EDGE, END = r"(?<![\w@])", r"(?![\w@])"
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""Of the digits of a Chinese identity number (GB 11643-1999)."""


def redacted(value: Any) -> Any:
    """A value of JSON with what is personal in its texts replaced by what it was.

    Bytes, such as an image's, are replaced by how many they were and their SHA-256.

    >>> redacted({"text": "Mail ann@example.com or call +49 30 1234567"})
    {'text': 'Mail [e-mail] or call [telephone]'}
    >>> redacted(["Card 4111 1111 1111 1111, order 4111 1111 1111 1112"])
    ['Card [card], order 4111 1111 1111 1112']
    """
    match value:
        case str():
            return _of_text(value)
        case Mapping():
            return {_of_text(str(name)): redacted(each) for name, each in value.items()}
        case bytes():
            return summary(value)
        case Sequence():
            return [redacted(each) for each in value]
    return value


def summary(value: bytes) -> dict[str, Any]:
    """What stands for bytes that are not kept.

    >>> summary(b"")["bytes"]
    0
    """
    return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}


def _of_text(text: str) -> str:
    for stands, form, is_one in KINDS:
        text = form.sub(partial(_replaced, stands, is_one), text)
    return text


def _replaced(stands: str, is_one: Callable[[str], bool], found: re.Match[str]) -> str:
    return stands if is_one(found[0]) else found[0]


def _digits(text: str) -> list[int]:
    return [int(each) for each in text if each.isascii() and each.isdigit()]


def _is_card(text: str) -> bool:
    """By the check digit of cards (Luhn; ISO/IEC 7812-1)."""
    digits = _digits(text)[::-1]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[1::2]]
    return 13 <= len(digits) <= 19 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """By the check digits of accounts (ISO 13616)."""
    own = text.replace(" ", "").upper()
    turned = own[4:] + own[:4]
    return 15 <= len(own) <= 34 and int("".join(str(int(each, 36)) for each in turned)) % 97 == 1


def _is_identity(text: str) -> bool:
    """By the check digit of Chinese identity numbers (GB 11643-1999)."""
    total = sum(int(digit) * weight for digit, weight in zip(text, WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == text[-1].upper()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_telephone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 15


def _is_any(_: str) -> bool:
    return True


HEX = "[0-9A-Fa-f]"
FORMS = (
    ("e-mail", r"(?<![\w.+%'-])[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}", _is_any),
    ("secret", r"(?<=://)[^\s/@:]{1,256}:[^\s/@]{1,256}(?=@)", _is_any),
    ("secret", r"\b(?:my|sk|pk|ghp|xox[bap])[_-][A-Za-z0-9_-]{16,}", _is_any),
    ("account", rf"{EDGE}[A-Za-z]{{2}}\d{{2}}(?: ?[A-Za-z0-9]){{11,30}}{END}", _is_iban),
    ("identity number", r"(?<!\d)\d{17}[\dXx](?!\d)", _is_identity),
    ("card", r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", _is_card),
    ("address", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\w)", _is_address),
    ("address", rf"(?<![\w:]){HEX}{{0,4}}(?::{HEX}{{0,4}}){{2,7}}(?![\w:])", _is_address),
    ("telephone", r"(?<!\d)1[3-9]\d{9}(?!\d)", _is_any),
    ("telephone", r"(?<![\w+])\+\d[\d ()/.-]{6,22}\d", _is_telephone),
    ("telephone", r"(?<!\w)(?:\(0\d{1,5}\)|0\d{1,5})[ /-]\d[\d /-]{4,14}\d", _is_telephone),
    ("telephone", r"(?<!\d)(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?!\d)", _is_telephone),
)
"""What each kind looks like, and whether what looks so is one; the more certain ones first.

Each looks a bounded way ahead, so that no text takes long.
"""
KINDS = tuple((f"[{name}]", re.compile(form), is_one) for name, form, is_one in FORMS)
