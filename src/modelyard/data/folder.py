"""A folder of text files by class: <class>/…/<name>.txt, one row for each file."""

from collections.abc import Iterator
from pathlib import Path

from modelyard.core.errors import RowsEmpty, RowsUnreadable
from modelyard.data.encodings import REMEDY, Encoding, choose, detected, telling
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
    others = [path for path in files if not _is_utf8(path.read_bytes())]
    if not others:
        return Encoding("utf-8", 1.0, "every byte of every file decodes")
    found = detected(telling(line for path in others for line in _lines(path)))
    if not found:
        raise RowsUnreadable(
            f"{len(others):,} of {len(files):,} files are in an encoding that cannot be told, such "
            f"as {others[0]}; {REMEDY}."
        )
    why = f"{len(others):,} of {len(files):,} files are not UTF-8; {found[0].why}"
    return Encoding(found[0].name, found[0].confidence, why)


def _lines(path: Path) -> list[bytes]:
    return (path.read_bytes() + b"\n").splitlines(keepends=True)


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
