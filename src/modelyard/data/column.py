"""What a column of rows looks like: text, an amount, a category, pictures, lists, an id."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.data import files, folder
from modelyard.data.split import GIVEN, moment_of

FEW = 10
"""Different numbers that may be grades or codes rather than amounts."""
MOST_CATEGORIES = 1000
MOST_CLASSES = 200
MOST_CHARACTERS = 60
"""In the name of a label."""
FIRST = 1000
"""Values that are looked at where that takes long."""
LOOK_FILES = 20
SEPARATORS = ("|", ";")
ID_NAME = re.compile(r"(?:^|.*[^a-z])(?:id|uuid|guid)|.*(?:编号|序号)", re.IGNORECASE)
CAMEL_ID = re.compile(r".*[a-z]I[dD]")
TEXT_NAMES = {"text", "sentence", "message", "content", "review", "comment", "文本", "内容", "评论"}
SPAN_KEYS = {"start", "end", "label"}


@dataclass(frozen=True)
class Column:
    """A column's name, its values that are not missing, and how many rows there are."""

    name: str
    values: Sequence[Any]
    rows: int
    beside: Path
    """The folder that paths of files start from."""

    @cached_property
    def texts(self) -> list[str]:
        """The values as text."""
        return [str(value) for value in self.values]

    @cached_property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(set(self.texts))

    @cached_property
    def mean_characters(self) -> float:
        """The length of a value."""
        return sum(map(len, self.texts)) / max(1, len(self.texts))

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers, or None where some are none."""
        found = list(map(_number, self.values))
        return None if None in found or not found else [n for n in found if n is not None]

    @cached_property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(n.is_integer() for n in self.numbers or [0.5])

    @cached_property
    def lists(self) -> list[Any] | None:
        """The first values as lists or objects, JSON in a text read; None where some are none."""
        found = list(map(_listed, self.values[:FIRST]))
        return None if None in found or not any(found) else found

    @cached_property
    def is_text(self) -> bool:
        """Whether values are words: different ones, with white space or in a script without it."""
        if self.numbers or self.is_time or not all(isinstance(v, str) for v in self.values):
            return False
        some = self.texts[:FIRST]
        share = sum(map(_has_words, some)) / max(1, len(some))
        is_so = share > 0.5 or self.name.strip().casefold() in TEXT_NAMES
        return is_so and self.distinct > 1 and self.distinct > self._many

    @cached_property
    def is_chinese(self) -> bool:
        """Whether a fifth of the letters are Chinese."""
        text = "".join(self.texts[:FIRST])[:20_000]
        return sum("\u3400" <= c <= "\u9fff" for c in text) > 0.2 * max(1, len(text))

    @cached_property
    def is_images(self) -> bool:
        """Whether values are pictures' files that are there, or the bytes of such."""
        some = self.values[:LOOK_FILES]
        return bool(some) and all(_is_image(value, self.beside) for value in some)

    @cached_property
    def is_time(self) -> bool:
        """Whether values are dates."""
        some = [None if _number(v) is not None else _moment(v) for v in self.values[:FIRST]]
        return bool(some) and all(found is not None and found[0] == "date" for found in some)

    @cached_property
    def is_parts(self) -> bool:
        """Whether values say which rows are for training and which for the test."""
        few = set(self.texts) if self.distinct < FEW else ()
        found = {text.strip().casefold() for text in few}
        return found >= {"train", "test"} and found <= GIVEN.keys()

    @cached_property
    def is_id(self) -> bool:
        """Whether values only say which row it is, or whose."""
        if ID_NAME.fullmatch(self.name.strip()) or CAMEL_ID.fullmatch(self.name.strip()):
            return self.distinct > min(MOST_CLASSES, len(self.values) / 2)
        if self.distinct < len(self.values):
            return False
        if self.numbers is None:
            return self.distinct > FEW and not self.is_text
        return self.is_whole and max(self.numbers) - min(self.numbers) == len(self.values) - 1

    @cached_property
    def labels(self) -> list[list[str]] | None:
        """The first values as labels, several at once; None where they are not such."""
        if self.lists is not None:
            parts = [value if isinstance(value, list) else [value] for value in self.lists]
        elif any(mark in text for text in self.texts[:FIRST] for mark in SEPARATORS):
            parts = [_parted(text) for text in self.texts[:FIRST]]
        else:
            return None
        flat = [part for own in parts for part in own]
        if not all(
            isinstance(part, str | int) and len(str(part)) <= MOST_CHARACTERS for part in flat
        ):
            return None
        different = len(set(map(str, flat)))
        apart = self.lists is not None or different < self.distinct  # they come together anew
        return parts if apart and 1 <= different <= most_classes(len(parts)) else None

    @cached_property
    def is_spans(self) -> bool:
        """Whether values are pieces of a text: offsets, each with a label."""
        return self.lists is not None and all(map(_are_spans, self.lists))

    @property
    def is_class(self) -> bool:
        """Whether there are two values or more, each often."""
        return 2 <= self.distinct <= most_classes(self.rows)

    @property
    def is_amount(self) -> bool:
        """Whether values are numbers, and more than a few or broken ones."""
        several = self.distinct > min(FEW, self.rows / 3) or not self.is_whole
        return bool(self.numbers) and self.distinct > 2 and several

    @property
    def _many(self) -> float:
        """Different values that are no categories any more, where there are more of them."""
        return min(len(self.values) / 2, MOST_CATEGORIES)

    @property
    def kind(self) -> str:
        """The kind of input, or nothing where `reason` says why it is none."""
        if self.reason:
            return ""
        if self.is_images:
            return "image"
        if self.is_text:
            return "text"
        return "number" if self.is_amount else "category"

    @cached_property
    def reason(self) -> str:
        """Why it says nothing by itself, or cannot be read."""
        if self.distinct < 2:
            return "one value" if self.values else "no value"
        if self.is_images:
            return ""
        if self.lists is not None or any(isinstance(v, bytes | list | dict) for v in self.values):
            return "lists"
        if self.is_time:
            return "times"
        if self.is_parts:
            return "the parts of a split"
        if self.is_id:
            return "an id"
        if self.distinct > self._many and not self.is_text and not self.numbers:
            return "too many values for categories"
        return ""


def most_classes(rows: int) -> int:
    """Different values that a class may have."""
    return max(2, min(rows // 3, MOST_CLASSES))


def is_missing(value: Any) -> bool:
    """Nothing, white space alone, or not a number."""
    if isinstance(value, float | Decimal):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().casefold() in ("", "nan"))


def _number(value: Any) -> float | None:
    if isinstance(value, int | float | Decimal | str):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            return None
        return found if math.isfinite(found) else None
    return None


def _moment(value: Any) -> tuple[str, float] | None:
    return moment_of(value) if isinstance(value, str | date) else None


def _listed(value: Any) -> Any:
    """A list or an object, or None."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list | dict) else None


def _has_words(text: str) -> bool:
    """White space, or letters of a script that may do without it."""
    return len(text.split()) > 1 or sum(c > "\u2e7f" for c in text) > 5


def _is_image(value: Any, beside: Path) -> bool:
    if isinstance(value, str):
        return folder.is_image(Path(value)) and files.is_file(beside, value)
    return isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)


def _parted(text: str) -> list[str]:
    mark = next((each for each in SEPARATORS if each in text), "\n")
    return [part.strip() for part in text.split(mark)]


def _are_spans(value: Any) -> bool:
    """A list of starts, ends and labels, or CLUENER's object of labels, of texts, of places."""
    if isinstance(value, dict):
        return all(
            isinstance(own, dict) and all(map(_are_places, own.values())) for own in value.values()
        )
    return all(map(_is_span, value))


def _are_places(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)


def _is_span(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() >= SPAN_KEYS
    return isinstance(value, list) and [*map(type, value)] == [int, int, str]
