"""Licences: what a release made of a backbone and of rows may be used for."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from modelyard.core.project import Project

Allows = Literal["any use", "research", "unknown"]
NOT_FOR_SALE = re.compile(
    r"(?<![a-z])(nc|non-?commercial|research|academic|evaluation)(?![a-z])", re.IGNORECASE
)
FOR_ANY_USE = re.compile(
    r"(0bsd|afl|agpl|apache|artistic|bsd|bsl-1\.0|cc0|cc-by|cdla|creativeml-openrail|ecl|epl|eupl|"
    r"gpl|isc|lgpl|mit|mpl|ms-pl|ncsa|odbl|odc-by|openrail|osl|pddl|postgresql|public domain|"
    r"unlicense|wtfpl|zlib)(?![a-z])",
    re.IGNORECASE,
)


def allows(licence: str) -> Allows:
    """What a licence allows, by its SPDX or Hugging Face name or its plain words.

    >>> allows("apache-2.0"), allows("cc-by-nc-4.0"), allows("research only"), allows("other")
    ('any use', 'research', 'research', 'unknown')
    """
    if NOT_FOR_SALE.search(licence):
        return "research"
    return "any use" if FOR_ANY_USE.match(licence.strip()) else "unknown"


def licence_problem(project: Project, backbones: Mapping[str, str]) -> str | None:
    """Why release.use does not go with the licences, or None where it does; one sentence.

    `backbones` gives the licence of each by its name.
    """
    if project.release.use != "commercial":
        return None
    for name, licence in backbones.items():
        if allows(licence) == "research":
            return (
                f"release.use is commercial, and the backbone {name!r} is licensed {licence!r}; "
                "choose another backbone, or set release.use to research."
            )
    if allows(project.release.rows_license) == "research":
        return (
            f"release.use is commercial, and the rows are licensed "
            f"{project.release.rows_license!r}; train on rows that may be sold, or set release.use "
            "to research."
        )
    return None


def licence_doubts(project: Project, backbones: Sequence[str]) -> list[str]:
    """What nobody knows about the licences of a release for commercial use, a sentence each."""
    if project.release.use != "commercial":
        return []
    of = [*(("backbone", each) for each in backbones), ("rows", project.release.rows_license)]
    return [
        f"release.use is commercial, and whether the licence of the {what} allows it is not "
        f"known: it says {licence!r}. Ask whoever owns the {what}."
        for what, licence in of
        if allows(licence) == "unknown"
    ]
