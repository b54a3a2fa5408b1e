"""Tagged tokens in columns: a token and its tag on each line, a blank line after each sentence.

The token is the first column and the tag the last, as in the CoNLL shared tasks (Tjong Kim Sang
and De Meulder 2003). Read are IOB1, BIO (IOB2), BIOES and BILOU, whichever the file is in; a
sentence becomes a row with its `text`, and its `spans` in characters.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import RowsUnreadable
from modelyard.data.extent import Extent

TEXT, SPANS = "text", "spans"
OUTSIDE = "O"
DOCUMENT = "-DOCSTART-"
HAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
HAN_SHARE = 0.2
FIRST, INSIDE, LAST, ONLY = ("B",), ("I", "M"), ("E", "L"), ("S", "U")
SCHEMES = {"BIOES": {"E", "S"}, "BILOU": {"L", "U"}}
LOOK_SENTENCES = 20_000


@dataclass(frozen=True)
class Sentence:
    """A sentence of a file: the number of its first line, tokens, tags, and what is wrong."""

    line: int
    tokens: list[str]
    tags: list[str]
    problem: str | None = None


@dataclass(frozen=True)
class Form:
    """How a file is to be read: the scheme of its tags, and whether spaces part its tokens."""

    scheme: str
    spaced: bool


def sentences(path: Path, encoding: str, extent: Extent | None = None) -> Iterator[Sentence]:
    """The sentences of a file; `extent` follows how far it is read."""
    line, problem = 0, None
    tokens: list[str] = []
    tags: list[str] = []
    with (extent or Extent()).open(path, encoding, newline=None) as file:
        for number, text in enumerate(file, start=1):
            fields = _fields(text)
            if not fields or fields[0].startswith(DOCUMENT):
                if tokens or problem:
                    yield Sentence(line, tokens, tags, problem)
                tokens, tags, problem = [], [], None
                continue
            line = line if tokens or problem else number
            problem = problem or _problem(number, fields)
            tokens.append(fields[0])
            tags.append(fields[-1])
    if tokens or problem:
        yield Sentence(line, tokens, tags, problem)


def _fields(line: str) -> list[str]:
    """The columns of a line, parted by tabs, or else by white space."""
    if "\t" in line:
        return [field.strip() for field in line.split("\t")] if line.strip() else []
    return line.split()


def _problem(number: int, fields: Sequence[str]) -> str | None:
    if len(fields) < 2 or not fields[0]:
        return f"line {number} has {len([f for f in fields if f])} field, not a token and its tag"
    prefix, dash, label = fields[-1].partition("-")
    known = prefix in (*FIRST, *INSIDE, *LAST, *ONLY) and dash and label.strip()
    if fields[-1] == OUTSIDE or known:
        return None
    return f"line {number} has the tag {fields[-1]!r}, which is neither O nor such as B-PLACE"


def form_of(path: Path, encoding: str) -> Form:
    """Look at a file's first sentences; raises RowsUnreadable where none can be read."""
    prefixes: set[str] = set()
    letters = han = 0
    bare = False
    for count, each in enumerate(sentences(path, encoding)):
        if each.problem:
            continue
        prefixes |= {tag.partition("-")[0] for tag in each.tags}
        bare = bare or _begins_inside(each.tags)
        joined = "".join(each.tokens)
        letters, han = letters + len(joined), han + len(HAN.findall(joined))
        if count >= LOOK_SENTENCES:
            break
    if not letters:
        raise RowsUnreadable(
            f"{path} holds no sentence of tokens and tags; each line is a token and its tag, such "
            "as `London B-PLACE`, and a blank line ends a sentence."
        )
    scheme = next((name for name, own in SCHEMES.items() if own & prefixes), None)
    return Form(scheme or ("IOB1" if bare else "BIO"), han < HAN_SHARE * letters)


def _begins_inside(tags: Sequence[str]) -> bool:
    """Whether a span begins with I-, as in IOB1."""
    before = OUTSIDE
    for tag in tags:
        prefix, _, label = tag.partition("-")
        if prefix == "I" and before != label:
            return True
        before = label or OUTSIDE
    return False


def row_of(sentence: Sentence, form: Form) -> dict[str, Any]:
    """A sentence's text, and its spans as start, end and label."""
    text, starts = joined(sentence.tokens, form.spaced)
    spans = [
        {"start": starts[first], "end": starts[last] + len(sentence.tokens[last]), "label": label}
        for first, last, label in ranges(sentence.tags)
    ]
    return {TEXT: text, SPANS: spans}


def joined(tokens: Sequence[str], spaced: bool) -> tuple[str, list[int]]:
    """Tokens as a text, and where each begins.

    Chinese has no spaces; there only two words of Latin letters or digits are parted.

    >>> joined(["我", "在", "New", "York"], spaced=False), joined(["a", "b"], spaced=True)
    (('我在New York', [0, 1, 2, 6]), ('a b', [0, 2]))
    """
    text, starts = "", []
    for before, token in zip(["", *tokens], tokens, strict=False):
        if before and (spaced or _are_words(before, token)):
            text += " "
        starts.append(len(text))
        text += token
    return text, starts


def _are_words(*tokens: str) -> bool:
    return (
        all(token.isascii() and token.isalnum() for token in tokens) and max(map(len, tokens)) > 1
    )


def ranges(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """The first and the last token and the label of each span, in whichever scheme.

    >>> ranges(["I-A", "I-A", "O", "B-A", "B-A", "E-A", "S-B"])
    [(0, 1, 'A'), (3, 3, 'A'), (4, 5, 'A'), (6, 6, 'B')]
    """
    found: list[tuple[int, int, str]] = []
    is_open = False
    for place, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        goes_on = is_open and prefix in (*INSIDE, *LAST) and found[-1][2] == label
        if goes_on:
            found[-1] = (found[-1][0], place, label)
        elif tag != OUTSIDE:
            found.append((place, place, label))
        is_open = tag != OUTSIDE and prefix not in (*LAST, *ONLY)
    return found
