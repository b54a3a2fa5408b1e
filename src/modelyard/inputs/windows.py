"""Windows: a text's tokens where each of them is answered for, and where they stand in it.

A text longer than a window is read as windows that overlap by a quarter; a token that two of
them hold is answered for by the one in which it has more of the text on both sides.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from modelyard.inputs.shapes import OTHER, shapes_of
from modelyard.runtime.encoded import Array, Encoded, Places, Ragged

CHUNK_ROWS = 1024
OVERLAP = 4
"""A window shares this part of itself, 1 / OVERLAP, with the next one."""
NOWHERE = (0, 0)
JOINERS = "\u200d\ufe0e\ufe0f"
NO_SHAPES = np.array([OTHER], np.int32)


@dataclass(frozen=True)
class Window:
    """A window's tokens, the start and end of each, and the shapes of their words, if read."""

    tokens: Sequence[int]
    places: list[tuple[int, int]]
    shapes: NDArray[np.int32]


class Chunk(NamedTuple):
    """Windows end to end: tokens (N,), places (N, 2), shapes (N,) if read, and lengths (P,)."""

    tokens: NDArray[np.int32]
    places: NDArray[np.int32]
    shapes: NDArray[np.int32]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, windows: Sequence[Window]) -> "Chunk":
        """Some windows, in their order."""
        return cls(
            np.array([token for each in windows for token in each.tokens], np.int32),
            np.array([p for each in windows for p in each.places], np.int32).reshape(-1, 2),
            np.concatenate([NO_SHAPES[:0], *(each.shapes for each in windows)]),
            np.array([len(each.tokens) for each in windows], np.int64),
        )


@dataclass(frozen=True)
class Reader:
    """Reads texts as windows of tokens, at most `most` of each, with the tokens' places."""

    tokenizer: Tokenizer
    window_tokens: int
    most: int
    pad_id: int
    shapes: bool

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """B texts as pieces; some at a time, as tokenizers keep much beside tokens."""
        chunks = [Chunk.of([])]
        row_of: list[int] = []
        for start in range(0, len(texts), CHUNK_ROWS):
            windows: list[Window] = []
            some = self.tokenizer.encode_batch(list(texts[start : start + CHUNK_ROWS]))
            for row, encoding in enumerate(some, start):
                own = list(self._windows(texts[row], encoding))
                windows += own
                row_of += [row] * len(own)
            chunks.append(Chunk.of(windows))
        return self._encoded(texts, chunks, row_of)

    def _windows(self, text: str, encoding: Encoding) -> Iterator[Window]:
        """A text's windows; NOWHERE stands for tokens that another one answers for."""
        encodings = [encoding, *encoding.overflowing[: self.most - 1]]
        shared, last = overlap(self.window_tokens), len(encodings) - 1
        for number, each in enumerate(encodings):
            places = _places(text, each)
            real = [n for n, special in enumerate(each.special_tokens_mask) if not special]
            others = real[: shared - shared // 2] if number else []
            others += real[len(real) - shared // 2 :] if number < last else []
            for place in others:
                places[place] = NOWHERE
            shapes = shapes_of(text, each) if self.shapes else NO_SHAPES
            nothing = Window([self.pad_id], [NOWHERE], NO_SHAPES)
            yield Window(each.ids, places, shapes) if each.ids else nothing

    def _encoded(
        self, texts: Sequence[str], chunks: Sequence[Chunk], row_of: Sequence[int]
    ) -> Encoded:
        tokens, places, shapes, lengths = (np.concatenate(own) for own in zip(*chunks, strict=True))
        ends = lengths.cumsum()
        arrays: dict[str, Array | Ragged] = {
            "input_ids": Ragged(tokens, ends, self.pad_id, mask="attention_mask")
        }
        if self.shapes:
            arrays["token_type_ids"] = Ragged(shapes, ends)
        stand = Places(texts, Ragged(places, ends))
        return Encoded(arrays, np.array(row_of, np.int64), lengths, stand)


def overlap(window_tokens: int) -> int:
    """How many tokens two windows share."""
    return window_tokens // OVERLAP


def _places(text: str, encoding: Encoding) -> list[tuple[int, int]]:
    """Where each token stands: without white space at its ends, with the marks on its letters."""
    found = []
    for start, end in encoding.offsets:
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        found.append((start, end) if start < end else NOWHERE)
    return found if text.isascii() else list(_with_marks(text, found))


def _with_marks(text: str, places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Places that take in what belongs to their last letter and is no token: accents and such."""
    taken = {start for start, _ in places}
    for start, end in places:
        while start < end < len(text) and end not in taken and _is_mark(text[end]):
            end += 1
        yield start, end


def _is_mark(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character).startswith("M")
