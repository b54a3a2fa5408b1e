"""A folder of text or image files by class: <class>/…/<name>.txt, one row for each file."""

from collections.abc import Iterator
from pathlib import Path

from modelyard.core.errors import RowsEmpty, RowsUnreadable
from modelyard.data.encodings import REMEDY, Encoding, choose, detected, marked, telling
from modelyard.data.files import Record

TEXT, IMAGE, LABEL, FILE = ("text", "image", "label", "file")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
MADE_FROM = "CLASS/NAME.txt, or CLASS/NAME.png (jpg, jpeg, webp, gif, bmp) where there are no texts"


def files_in(folder: Path) -> list[Path]:
    """The text files of a folder in the order of their paths, or where there are none its images.

    Raises RowsEmpty.
    """
    by_class = sorted(path for path in folder.glob("*/**/*") if _is_shown(folder, path))
    texts = [path for path in by_class if path.suffix == ".txt"]
    found = texts or [path for path in by_class if is_image(path)]
    if not found:
        raise RowsEmpty(
            f"{folder} holds no text files or images by class; put each text in CLASS/NAME.txt, "
            "or each image in CLASS/NAME.png, with a folder for each class."
        )
    return found


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in IMAGES


def others_in(folder: Path) -> list[Path]:
    """The files of a folder that make no rows; hidden ones aside."""
    rows = set(files_in(folder))
    return sorted(p for p in folder.rglob("*") if _is_shown(folder, p) and p not in rows)


def _is_shown(folder: Path, path: Path) -> bool:
    """Whether a path is a file, and nothing on the way to it is hidden."""
    parts = path.relative_to(folder).parts
    return path.is_file() and not any(part.startswith(".") for part in parts)


def encoding_of(files: list[Path], asked: str) -> Encoding:
    """The encoding of those files that are not Unicode; UTF-8 where there are none.

    Raises RowsUnreadable, for a named encoding also where some file does not decode.
    """
    if asked != "auto":
        chosen = {choose(path, asked) for path in files}
        return chosen.pop()
    others = [path for path in files if not _is_unicode(path.read_bytes())]
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


def records(folder: Path, files: list[Path], encoding: str, named: bool) -> Iterator[Record]:
    """One record for each file, with the columns text, label and file."""
    for number, path in enumerate(files, start=1):
        name = path.relative_to(folder).as_posix()
        values = {TEXT: None, LABEL: name.partition("/")[0], FILE: name}
        content = path.read_bytes()
        own = None if named else _unicode_of(content)
        try:
            text = content.decode(own or encoding)
        except UnicodeError as error:
            yield Record(number, values, f"the file is neither UTF-8 nor {encoding} ({error})")
            continue
        yield Record(number, {**values, TEXT: text.strip()})


def image_records(folder: Path, files: list[Path]) -> Iterator[Record]:
    """One record for each file, with the columns image (its path), label and file."""
    for number, path in enumerate(files, start=1):
        name = path.relative_to(folder).as_posix()
        yield Record(number, {IMAGE: name, LABEL: name.partition("/")[0], FILE: name})


def _is_unicode(content: bytes) -> bool:
    return _unicode_of(content) is not None


def _unicode_of(content: bytes) -> str | None:
    """The Unicode encoding of bytes: by their mark, or UTF-8 where all of them decode."""
    if found := marked(content):
        return found.name
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    return "utf-8"
