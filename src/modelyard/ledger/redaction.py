"""Redaction: what points to a person or opens a door is replaced by its kind, as `[email]`.

Found by its form, and by its check digits where it has some. So this is not complete: names,
addresses, and numbers written in a way that nobody has thought of stay. Each pattern is bounded or
starts where nothing of its kind stands before, so that no text takes longer than its length says.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import AddressValueError, IPv6Address

Find = Callable[[str], str]

LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)[^\s/?#]{1,300}@", re.IGNORECASE | re.ASCII)
SECRET = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"my_[0-9a-f]{12}_[0-9a-f]{8,48}"
    r"|(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|AKIA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{30,}|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r")"
)
EMAIL = re.compile(
    r"[A-Za-z0-9._%+-]{0,63}[A-Za-z0-9_][@＠]"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
)
IPV6 = re.compile(
    r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:]|\.\d)"
)
OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = re.compile(rf"(?<!\d)(?<!\d\.){OCTET}(?:\.{OCTET}){{3}}(?!\d|\.\d)")
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
RESIDENT = re.compile(r"(?<!\d)\d{6}[ -]?\d{8}[ -]?\d{3}[\dXx](?![0-9A-Za-z])")
DIGITS = re.compile(r"\d+(?:[ -]\d+)*")
DATE = r"(?!\d{1,2}[ .-]\d{1,2}[ .-]\d{4}(?!\d))"
PHONE = re.compile(
    r"(?<!\d)(?<!\d\.)(?:"
    r"(?:[+＋]|[0０]{2})\d{1,3}(?:[ ().-]{0,2}\d){6,12}"
    r"|[1１][3-9３-９]\d[ -]?\d{4}[ -]?\d{4}"
    r"|\([2-9]\d{2}\) ?\d{3}[ .-]?\d{4}|[2-9]\d{2}[ .-]\d{3}[ .-]\d{4}"
    rf"|{DATE}\(?[0０]\d{{1,4}}\)?(?:[ -]{{0,2}}\d){{6,9}}"
    r")(?!\d)"
)
RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CARD_DIGITS = range(13, 20)
IBAN_SHORTEST = 15


def redacted(text: str) -> str:
    """A text without what is found in it.

    >>> redacted("write to ann@example.com or call +44 20 7946 0958")
    'write to [email] or call [phone]'
    >>> redacted("我的电话是13800138000，谢谢")
    '我的电话是[phone]，谢谢'
    """
    for find in FINDS:
        text = find(text)
    return text


def _logins(text: str) -> str:
    return LOGIN.sub(r"\1[login]@", text)


def _checked(pattern: re.Pattern[str], length: Callable[[str], int], mark: str, text: str) -> str:
    """A text with a mark for what a pattern finds, as far as `length` says that it is one.

    Where it says 0, another may begin within what was found.
    """
    parts, done, place = [], 0, 0
    while found := pattern.search(text, place):
        place = found.start() + 1
        if size := length(found[0]):
            parts += [text[done : found.start()], mark]
            done = place = found.start() + size
    return "".join((*parts, text[done:]))


def _ipv6_length(found: str) -> int:
    try:
        IPv6Address(found)
    except AddressValueError:
        return 0
    return len(found) if len(found) > 2 else 0  # "::" alone is more often something else


def _iban_length(found: str) -> int:
    """How much of what begins like an IBAN is one, up to the end of a word."""
    ends = range(len(found), IBAN_SHORTEST - 1, -1)
    whole = (end for end in ends if not found[end : end + 1].isalnum() and is_iban(found[:end]))
    return next(whole, 0)


def is_iban(text: str) -> bool:
    """Whether the check digits hold (ISO 13616; ISO 7064, mod 97-10).

    >>> is_iban("GB82 WEST 1234 5698 7654 32"), is_iban("GB82 WEST 1234 5698 7654 33")
    (True, False)
    """
    plain = re.sub("[ -]", "", text)
    turned = plain[4:] + plain[:4]
    return len(plain) >= IBAN_SHORTEST and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _resident_length(found: str) -> int:
    return len(found) if is_resident(found) else 0


def is_resident(text: str) -> bool:
    """Whether the check digit of a Chinese resident identity number holds (GB 11643).

    >>> is_resident("11010519491231002X"), is_resident("110105194912310021")
    (True, False)
    """
    plain = re.sub("[ -]", "", text).upper()
    whole = sum(w * int(c) for w, c in zip(RESIDENT_WEIGHTS, plain[:17], strict=True))
    return "10X98765432"[whole % 11] == (plain[17] if plain[17] == "X" else str(int(plain[17])))


def _cards(text: str) -> str:
    return DIGITS.sub(lambda found: "".join(_without_cards(found[0])), text)


def _without_cards(run: str) -> Iterator[str]:
    """A run of groups of digits, with those together that are a card's number as one."""
    groups = re.split("([ -])", run)  # at even places groups, at odd ones what parts them
    place = 0
    while place < len(groups):
        end = _card_end(groups, place)
        if end:
            yield "[card]"
            place = end
        else:
            yield groups[place]
            place += 1


def _card_end(groups: list[str], place: int) -> int:
    """Where a card's number ends that begins at a place; 0 where none does."""
    digits, ends = "", 0
    for end in range(place, 0 if place % 2 else len(groups), 2):
        if len(digits) + len(groups[end]) >= CARD_DIGITS.stop:
            break
        digits += groups[end]
        if len(digits) in CARD_DIGITS and is_card(digits):
            ends = end + 1
    return ends


def is_card(digits: str) -> bool:
    """Whether the check digit holds (Luhn; ISO/IEC 7812).

    >>> is_card("4111111111111111"), is_card("4111111111111112")
    (True, False)
    """
    doubled = [int(each) * (1 + number % 2) for number, each in enumerate(reversed(digits))]
    return sum(each - 9 * (each > 9) for each in doubled) % 10 == 0 and any(doubled)


FINDS: tuple[Find, ...] = (
    _logins,
    partial(SECRET.sub, "[key]"),
    partial(EMAIL.sub, "[email]"),
    partial(_checked, IPV6, _ipv6_length, "[ip]"),
    partial(IPV4.sub, "[ip]"),
    partial(_checked, IBAN, _iban_length, "[iban]"),
    partial(_checked, RESIDENT, _resident_length, "[id]"),
    _cards,
    partial(PHONE.sub, "[phone]"),
)
"""In this order: what is a part of something else is looked for after it."""
