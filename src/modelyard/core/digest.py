"""Digests of content: SHA-256, in hexadecimal."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_json(value: Any) -> str:
    """The SHA-256 of a value as JSON with sorted keys: equal values, equal digests.

    >>> of_json({"a": 1, "b": 2}) == of_json({"b": 2, "a": 1})
    True
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_of_bytes
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def of_text(text: str) -> str:
    """A text's own name: the first 12 digits of its SHA-256.

    >>> of_text("Yes, it does.")
    '4bc325590b77'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _of_bytes(value: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(value).hexdigest()}


def row_digest(values: Sequence[Any]) -> int:
    """A row's input values, in the order of the project's inputs, as 64 bits of SHA-256.

    >>> row_digest(["a fine film"]) == row_digest(("a fine film",)) != row_digest(["a bad film"])
    True
    """
    return int(of_json(list(values))[:16], 16)


def files_in(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below `folder`, sorted."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def of_folder(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """The SHA-256 of each file below `folder`, or of `names` alone, by relative path."""
    chosen = files_in(folder) if names is None else names
    return {name: of_file(folder / name) for name in chosen}
