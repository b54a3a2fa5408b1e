"""How far a file of rows has been read, for whoever says how much is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path


@dataclass
class Extent:
    """What of a file has been read: `done` of `total`, in bytes or in rows."""

    total: int = 0
    done: Callable[[], int] = int

    @property
    def share(self) -> float:
        """From 0 to 1; 0 while nobody knows."""
        return self.done() / self.total if self.total else 0.0

    @contextmanager
    def open(self, path: Path, encoding: str, newline: str | None) -> Iterator[TextIOWrapper]:
        """Open a text file and follow how far it is read, in bytes."""
        with path.open("rb") as raw, TextIOWrapper(raw, encoding, newline=newline) as file:
            self.total, self.done = path.stat().st_size, raw.tell
            yield file
            self.done = lambda: self.total
