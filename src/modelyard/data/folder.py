"""A folder of text files by class: <class>/…/<name>.txt, one row for each file."""

from collections.abc import Iterator
from pathlib import Path

from modelyard.core.errors import RowsEmpty
from modelyard.data.encodings import SAMPLE_BYTES, Encoding, choose, detected
from modelyard.data.files import Record

TEXT, LABEL, FILE = COLUMNS = ("text", "label", "file")


def files_in(folder: Path) -> list[Path]:
    """The text files of a folder in the order of their paths; raises RowsEmpty."""
    found = sorted(path for path in folder.glob("*/**/*.txt") if path.is_file())
    if not found:
        raise RowsEmpty(
            f"{folder} holds no text files by class; put each text in CLASS/NAME.txt, "
            "with a folder for each class."
        )
    return found


def encoding_of(files: list[Path], asked: str) -> Encoding:
    """The encoding of those files that are not UTF-8, or UTF-8 where there are none."""
    if asked != "auto":
        return choose(files[0], asked)
    sample = bytearray()
    for path in files:
        content = path.read_bytes()
        if not _is_utf8(content) and len(sample) < SAMPLE_BYTES:
            sample += content + b"\n"
    others = detected(bytes(sample)) if sample else []
    return others[0] if others else Encoding("utf-8", 1.0, "every byte of every file decodes")


def records(folder: Path, files: list[Path], encoding: str) -> Iterator[Record]:
    """One record for each file, with the columns text, label and file."""
    for number, path in enumerate(files, start=1):
        name = path.relative_to(folder).as_posix()
        values = {TEXT: None, LABEL: name.partition("/")[0], FILE: name}
        content = path.read_bytes()
        try:
            text = content.decode("utf-8-sig" if _is_utf8(content) else encoding)
        except UnicodeError as error:
            yield Record(number, values, f"the file is neither UTF-8 nor {encoding} ({error})")
            continue
        yield Record(number, {**values, TEXT: text.strip()})


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
