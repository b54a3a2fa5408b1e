"""Which encoding a text file is in: named by the user, or detected and said with its confidence."""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import RowsUnreadable, SettingInvalid

BLOCK_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 17
SPARSE = 0.3
MARKS = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LATIN = ("cp1252", "latin_1")
DENSE = (
    *("gb18030", "big5", "big5hkscs", "euc_kr", "euc_jp", "shift_jis"),
    *("cp1251", "cp1253", "cp1255", "cp1256", "cp1252"),
)
REMEDY = "save it as UTF-8, or name its encoding in data.encoding (predict: --encoding)"


@dataclass(frozen=True)
class Encoding:
    """An encoding by Python's name, how sure it is (0 to 1), and what that rests on."""

    name: str
    confidence: float
    why: str


def choose(path: Path, asked: str = "auto") -> Encoding:
    """The encoding of a text file, under which every byte of it decodes.

    Raises RowsUnreadable with the first bad byte, SettingInvalid for an unknown encoding.
    """
    if asked != "auto":
        return _named(path, asked)
    with path.open("rb") as file:
        head = file.read(BLOCK_BYTES)
    found = marked(head) or _without_mark(head)
    if found is None and first_bad_byte(path, "utf-8") is None:
        found = Encoding("utf-8", 1.0, "every byte decodes")
    if looks_binary(head, found):
        raise RowsUnreadable(f"{path} holds binary data, not text; save the rows as CSV in UTF-8.")
    candidates = [found] if found else detected(_sample(path))
    return next((c for c in candidates if first_bad_byte(path, c.name) is None), None) or _give_up(
        path, found.name if found else "utf-8"
    )


def looks_binary(head: bytes, found: Encoding | None) -> bool:
    """Whether bytes are full of what no text has: NUL and other control characters."""
    if found and found.name.startswith(("utf-16", "utf-32")):
        return False
    controls = len(head) - len(head.translate(None, bytes({*range(32)} - {*b"\t\n\r\f\x1b"})))
    return controls > 0.02 * len(head)


def marked(head: bytes) -> Encoding | None:
    """The encoding whose byte order mark bytes begin with."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return Encoding(name, 1.0, "the file begins with its byte order mark")
    return None


def _without_mark(head: bytes) -> Encoding | None:
    """UTF-16 without its mark: every other byte of plain letters is NUL."""
    even, odd = (head[start::2].count(0) for start in (0, 1))
    if max(even, odd) < 0.1 * len(head) or min(even, odd) > 0.1 * max(even, odd):
        return None
    return Encoding("utf-16-be" if even > odd else "utf-16-le", 0.9, "every other byte is NUL")


def _give_up(path: Path, name: str) -> Encoding:
    bad = first_bad_byte(path, name) or 0
    raise RowsUnreadable(
        f"The encoding of {path} cannot be told: byte 0x{_byte_at(path, bad):02X} at offset {bad} "
        f"is not {name.upper()}; {REMEDY}."
    )


def _named(path: Path, asked: str) -> Encoding:
    try:
        name = codecs.lookup(asked).name
        codecs.getincrementaldecoder(name)
        "a".encode(name)
    except LookupError:
        raise SettingInvalid(
            f"data.encoding: {asked!r} is no text encoding that Python knows; try 'auto', "
            "'utf-8', 'gb18030', 'big5' or 'cp1252'."
        ) from None
    bad = first_bad_byte(path, name)
    if bad is not None:
        raise RowsUnreadable(
            f"{path} is not {asked}: byte 0x{_byte_at(path, bad):02X} at offset {bad} cannot be "
            "decoded; set data.encoding = 'auto', or name the right one."
        )
    return Encoding("utf-8-sig" if name == "utf-8" else name, 1.0, "named in data.encoding")


def first_bad_byte(path: Path, encoding: str) -> int | None:
    """The offset of the first byte of a file that does not decode, or None."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read = 0
    try:
        for block in _blocks(path):
            read += len(block)
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:  # error.object begins with what an earlier block left over
        return read - len(error.object) + error.start
    except UnicodeError:  # UTF-16 or UTF-32 without a mark
        return 0
    return None


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _byte_at(path: Path, offset: int) -> int:
    with path.open("rb") as file:
        file.seek(offset)
        return (file.read(1) or b"\0")[0]


def _sample(path: Path) -> bytes:
    with path.open("rb") as file:
        return telling(file)


def telling(lines: Iterable[bytes]) -> bytes:
    """The lines that are not ASCII, up to SAMPLE_BYTES: all that tells encodings apart."""
    sample = bytearray()
    for line in lines:
        if not line.isascii():
            sample += line
        if len(sample) >= SAMPLE_BYTES:
            break
    return bytes(sample[: sample.rfind(b"\n") + 1 or None])


def detected(sample: bytes) -> list[Encoding]:
    """What bytes that are not UTF-8 may be, the likeliest first.

    Where few bytes are beyond ASCII and these stand alone, the text is in Latin letters, of which
    Windows-1252 (with Latin-1 inside it) is by far the most frequent. Elsewhere charset-normalizer
    measures which decoding gives a text like those of a language.
    """
    runs = re.findall(rb"[\x80-\xff]+", sample)
    high = sum(map(len, runs))
    if high < 1.5 * len(runs) and high < SPARSE * len(sample):
        why = "it has single accented letters among plain ones"
        return [Encoding(name, 0.8, why) for name in LATIN]
    return _by_language(sample)


def _by_language(sample: bytes) -> list[Encoding]:
    try:
        from charset_normalizer import from_bytes
    except ImportError:  # a serving environment
        return []
    found = from_bytes(sample, cp_isolation=list(DENSE), preemptive_behaviour=False)
    ranked = sorted(
        (m for m in found if m.encoding in DENSE),
        key=lambda m: (round(m.chaos, 1), -round(m.coherence, 1), DENSE.index(m.encoding)),
    )
    return [
        Encoding(m.encoding, round(1 - m.chaos, 2), f"what it gives looks {m.language}")
        for m in ranked
    ]
