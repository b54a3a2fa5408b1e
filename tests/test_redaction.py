"""Redaction: what points to a person is gone, whatever stands around it; the rest stays."""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.ledger.redaction import is_card, is_iban, is_resident, redacted

DIGITS = "0123456789"
AROUND = st.sampled_from(
    ["", " ", "\n", "，", "。", "(", ")", "<", ">", "; ", "电话", "请联系", '"']
)
LETTERS = st.text("abcdefghij", min_size=1, max_size=12)


def digits(least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(DIGITS, min_size=least, max_size=most or least)


def ended(begun: str, ends: str, holds: Callable[[str], bool]) -> str:
    """With the check digit that makes it hold."""
    return next(begun + each for each in ends if holds(begun + each))


def grouped(text: str) -> str:
    return " ".join(text[n : n + 4] for n in range(0, len(text), 4))


def iban(country: str, rest: str) -> str:
    return next(
        f"{country}{n:02d}{rest}" for n in range(2, 99) if is_iban(f"{country}{n:02d}{rest}")
    )


CARDS = st.builds(
    lambda begun: ended(begun, DIGITS, is_card), st.sampled_from("3456").flatmap(
        lambda first: digits(12, 17).map(lambda rest: first + rest)
    )
)  # fmt: skip
IBANS = st.builds(iban, st.sampled_from(["DE", "GB", "fr"]), digits(11, 26))
RESIDENTS = st.builds(lambda begun: ended(begun, DIGITS + "X", is_resident), digits(17))
MOBILES = st.builds(lambda second, rest: f"1{second}{rest}", st.sampled_from("3456789"), digits(9))
BYTE = st.integers(0, 255).map(str)
IPV6 = st.ip_addresses(v=6).filter(lambda each: len(str(each)) > 2)
FOUND = {
    "email": st.builds(lambda a, b: f"{a}@{b}.com", LETTERS, LETTERS)
    | st.builds(lambda a, n, b: f"{a}.{n}+x@mail.{b}.co.uk", LETTERS, digits(1, 3), LETTERS)
    | st.builds(lambda n: f"{n}＠qq.com", digits(5, 10)),
    "phone": MOBILES
    | MOBILES.map(lambda n: f"+86 {n}")
    | MOBILES.map(lambda n: f"{n[:3]}-{n[3:7]}-{n[7:]}")
    | MOBILES.map(lambda n: n.translate({ord(d): ord(d) + 0xFEE0 for d in DIGITS}))
    | digits(10).map(lambda n: f"+49 30 {n[:4]} {n[4:]}")
    | digits(7).map(lambda n: f"(212) 5{n[:2]}-{n[3:]}")
    | digits(8).map(lambda n: f"010-{n}"),
    "card": CARDS | CARDS.map(grouped) | CARDS.map(lambda n: grouped(n).replace(" ", "-")),
    "iban": IBANS | IBANS.map(grouped),
    "id": RESIDENTS | RESIDENTS.map(str.lower),
    "ip": st.builds(lambda *four: ".".join(four), BYTE, BYTE, BYTE, BYTE) | IPV6.map(str),
    "key": st.text("0123456789abcdef", min_size=60, max_size=60).map(
        lambda n: f"my_{n[:12]}_{n[12:]}"
    )
    | st.text("aB3_-", min_size=20, max_size=60).map(lambda n: f"sk-{n}"),
    "login": st.builds(lambda a, b: f"postgresql://{a}:{b}p@ss@db", LETTERS, LETTERS),
}


@pytest.mark.parametrize("kind", FOUND)
@given(data=st.data())
def test_what_is_found_is_gone_and_its_kind_is_told(kind: str, data: st.DataObject) -> None:
    sample, before, after = (data.draw(each) for each in (FOUND[kind], AROUND, AROUND))
    found = redacted(f"{before}{sample}{after}")
    # one may be another too: the last 19 digits of an IBAN may be a card's
    assert "[" in found
    assert sample not in found
    assert sum(each.isdecimal() for each in found) < 4, found
    assert found.startswith(before) or kind == "phone"  # "(0…" may be a phone's own
    assert redacted(found) == found


@given(st.text())
def test_any_text_is_taken_and_twice_is_as_once(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


@given(
    st.text(
        st.characters(exclude_categories=["Nd", "Cs"], exclude_characters="@＠:_-"), max_size=200
    )
)
def test_a_text_without_digits_and_signs_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "on 2026-11-03 at 08:30:15 it fell by 12.345678 percent to 1,234,567.89",
        "03.11.2026, 03-11-2026 and 3 11 2026",
        "order 123456789 of 1048576 rows, sha256 e3b0c44298fc1c14",
        "see std::vector, a :: b, version 1.2.3 and @home",
        "http://example.com/a?b=c@d",
        "0.13800138000 of 4111111111111112",
        "the film was good 这部电影很好",
    ],
)  # fmt: skip
def test_what_only_looks_a_little_like_it_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4111 1111 1111 1111 12/27", "[card] 12/27"),
        ("to12 DE89 3704 0044 0532 0130 00 by Monday", "to12 [iban] by Monday"),
        ("https://ann:secret@example.com/x", "https://[login]@example.com/x"),
        ("::ffff:10.0.0.1", "::ffff:[ip]"),
        ("身份证11010519491231002X手机138 0013 8000", "身份证[id]手机[phone]"),
        ("（ann@example.com）", "（[email]）"),
    ],
)
def test_it_ends_where_it_ends(text: str, said: str) -> None:
    assert redacted(text) == said


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "a.", "1.", "1 ", "@", "a@", "a@a.", "eyJ", "sk-", "my_0", "://", "a://a", ":", "1:",
     "ab12 ", "ab12", "+1 ", "(0", "0-", "1234 ", "é", "eyJaaaaaaaaa.", "110105194912310021 "],
)  # fmt: skip
def test_no_text_takes_longer_than_its_length_says(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    begun = time.process_time()
    redacted(text)
    assert time.process_time() - begun < 5


def test_a_random_text_of_digits_is_taken_in_time() -> None:
    rng = random.Random(0)
    text = "".join(rng.choice("0123456789 -.:@abcDE") for _ in range(100_000))
    begun = time.process_time()
    redacted(text)
    assert time.process_time() - begun < 5
