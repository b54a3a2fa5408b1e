"""Prepare: rows read, judged, looked at and parted into training, validation and test."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard import inputs, targets
from modelyard.core.artefacts import ROW, Dataset
from modelyard.core.errors import RowsEmpty, SettingInvalid, TextTooLong
from modelyard.core.events import Decided, Events, Noted, Warned
from modelyard.core.project import Project
from modelyard.core.stages import Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.data import candidates, look, same
from modelyard.data.candidates import Catalogue
from modelyard.data.files import Record
from modelyard.data.row_keys import row_key, values_told
from modelyard.data.source import (
    Rows,
    candidates_file,
    columns_wanted,
    files_digest,
    first,
    read,
    source_digest,
)
from modelyard.data.split import PARTS, Parted, split
from modelyard.runtime.columns import is_missing
from modelyard.runtime.index import names_in

if TYPE_CHECKING:
    import pyarrow as pa
Told = dict[str, list[str] | None]
"""Of a row the ids of candidates: those that are right, its pool, and those seen."""


@dataclass
class Sorted:
    """Records that are kept, with their truths, and what is said of each that is not."""

    rows: Rows
    kept: list[Record] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    refused: list[tuple[Record, str, str]] = field(default_factory=list)
    """Record, kind of reason, reason."""
    catalogue: Catalogue | None = None
    """What is picked from, where the target is such."""
    seen: Counter[bool] = field(default_factory=Counter)
    """Whether what rows have seen is among the candidates."""

    def refuse(self, reasons: Mapping[int, tuple[str, str]]) -> None:
        """Move kept records, by index, to the refused ones."""
        kept, truths = self.kept, self.truths
        self.refused += [(kept[index], *reason) for index, reason in sorted(reasons.items())]
        self.kept = [each for index, each in enumerate(kept) if index not in reasons]
        self.truths = [each for index, each in enumerate(truths) if index not in reasons]

    def places(self) -> list[str]:
        """Where each kept record stands in the source."""
        return [self.rows.place(record) for record in self.kept]


def causes(project: Project) -> dict[str, str]:
    """What the rows are, and the files they name."""
    named = [n for n, column in project.inputs.items() if inputs.find(column.kind).is_file]
    files = {"files": files_digest(project, named)} if named else {}
    return {"rows": source_digest(project), **files}


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Most of the time and of the memory goes to near duplicates."""
    characters = facts.rows * facts.mean_characters
    return Estimate(
        seconds=2 + 0.00012 * facts.rows + 1.2e-6 * characters,
        memory_bytes=int(300_000_000 + 5_000 * facts.rows + 8 * characters),
        disk_bytes=int(2 * characters + 100 * facts.rows),
    )


@stage(
    "prepare",
    version="7",
    reads=("data", "inputs", "target"),
    gives=Dataset,
    causes=causes,
    estimate=estimate,
)
def prepare(project: Project, draft: Draft, events: Events) -> None:
    """Write the parts, data-report.json, and refused.jsonl with what was left out and why."""
    refuse_names(project)
    rows = read(project, events)
    found = _judged(project, rows)
    _refuse_same(project, found)
    if found.catalogue:
        _join(project, found)
    _require_rows(found)
    target = targets.find(project.target.kind)
    target.check(found.truths)
    alike = _near(project, found, events)
    parted = _parted(project, found)
    told = look.Truths(
        [target.names(truth) for truth in found.truths], target.amounts(found.truths)
    )
    kept = look.Kept(found.places(), told, _told(project, found.kept))
    counts = Counter(kind for _, kind, _ in found.refused)
    report = look.report(kept, parted, alike, counts, project.data.split.seed)
    report["source"] = {
        "name": rows.name,
        "columns": rows.columns,
        "encoding": look.of_encoding(rows.encoding),
    }
    _write(project, draft.out, found, parted, report)
    _tell(project, report, found, parted, events)


def refuse_names(project: Project) -> None:
    """Raise SettingInvalid where a column's name stands twice or is taken."""
    target = project.target.column
    if target in project.inputs:
        raise SettingInvalid(
            f"The column {target!r} is both an input and the target; take it out of [inputs]."
        )
    if ROW in (*project.inputs, target):
        raise SettingInvalid(f"The column name {ROW!r} is taken; give the column another name.")
    _refuse_candidates(project)


def _refuse_candidates(project: Project) -> None:
    """Raise SettingInvalid where keys of candidates have no effect or undo each other."""
    target = project.target
    written = {name: getattr(target, name) for name in ("candidates", "pool", "seen")}
    chosen = [name for name, value in written.items() if value is not None]
    if chosen and targets.find(target.kind).reads != "vectors":
        raise SettingInvalid(
            f"target.{chosen[0]} is {written[chosen[0]]!r}, and a target of kind {target.kind!r} "
            "picks from no candidates; take the key out, or choose another target.kind."
        )
    columns = {"column": target.column, "pool": target.pool, "seen": target.seen}
    for name, other in combinations(columns, 2):
        if columns[name] is not None and columns[name] == columns[other]:
            raise SettingInvalid(
                f"target.{name} and target.{other} are both the column {columns[name]!r}; name "
                "another column, or take one of the keys out."
            )


def glance(project: Project, most: int) -> "pa.Table":
    """Some of the source's first rows, as a Dataset keeps them, for what is tried before a run."""
    found = _judged(project, first(project))
    kept = list(zip(found.kept, found.truths, strict=True))
    order = np.random.default_rng(project.data.split.seed).permutation(len(kept))[:most]
    some = [kept[place] for place in order.tolist()]
    return _table(project, [record for record, _ in some], [truth for _, truth in some])


def _judged(project: Project, rows: Rows) -> Sorted:
    """Each record by itself: usable, or refused with a reason."""
    found = Sorted(rows, catalogue=_catalogue(project))
    for raw in rows.records:
        record = _read(project, raw, rows.beside)
        reason = _reason(project, rows, record)
        truth, problem = _truth(project, found, record) if reason is None else (None, None)
        if reason or problem:
            found.refused.append((record, *(reason or ("wrong target", str(problem)))))
        else:
            found.kept.append(record)
            found.truths.append(truth)
    return found


def _read(project: Project, record: Record, beside: Path) -> Record:
    """A record with each input's value as a Dataset keeps it."""
    if record.problem:
        return record
    values = dict(record.values)
    for name, chosen in project.inputs.items():
        value = values.get(name)
        missing = len(project.inputs) > 1 and is_missing(value)
        read = inputs.find(chosen.kind).read
        values[name] = None if missing else read(value, beside)
    return Record(record.number, values)


def _catalogue(project: Project) -> Catalogue | None:
    """What the target picks from, if it does."""
    if targets.find(project.target.kind).reads != "vectors":
        return None
    return Catalogue.open(candidates_file(project) if project.target.candidates else None)


def _truth(project: Project, found: Sorted, record: Record) -> tuple[Any, str | None]:
    """The target's value as the Dataset keeps it, or what is wrong with it."""
    column = project.target.column
    values = {name: record.values[name] for name in project.inputs}
    read = targets.find(project.target.kind).read
    try:
        truth = read(record.values[column], values)
        if not found.catalogue:
            return truth, None
        told: Told = {"right": list(map(found.catalogue.id_of, truth)), "pool": None, "seen": None}
        for name in ("pool", "seen"):
            column = getattr(project.target, name)
            if column and not is_missing(named := record.values.get(column)):
                told[name] = _named(found, found.catalogue, name, names_in(named))
        return _settled(told), None
    except ValueError as error:
        return None, f"column {column!r} {error}"


def _named(found: Sorted, known: Catalogue, name: str, named: Sequence[str]) -> list[str]:
    """The ids of a row's pool or of what it has seen, which may be for sale no longer."""
    if name == "pool":
        return list(map(known.id_of, named))
    seen = list(map(known.known, named))
    found.seen.update(each is not None for each in seen)
    return [each for each in seen if each is not None]


def _settled(told: Told) -> Told:
    """What a row tells of candidates: the right ones are in its pool, and were not seen."""
    right, pool, seen = list(dict.fromkeys(told["right"] or ())), told["pool"], told["seen"]
    return {
        "right": right,
        "pool": pool and list(dict.fromkeys([*right, *pool])),
        "seen": seen and [each for each in dict.fromkeys(seen) if each not in right],
    }


def _join(project: Project, found: Sorted) -> None:
    """Make one of rows that ask the same, with the right candidates of all of them."""
    equal = candidates.joined(_keys(project, found.kept, str.strip))
    for index, kept_at in equal.items():
        both = found.truths[kept_at], found.truths[index]
        told: Told = {n: [*(own or ()), *(both[1][n] or ())] for n, own in both[0].items()}
        told["pool"] = both[0]["pool"] and told["pool"]
        found.truths[kept_at] = _settled(told)
    places = found.places()
    found.refuse(
        {
            index: ("joined", f"its candidates are those of {places[first]} too, which is equal")
            for index, first in equal.items()
        }
    )


def _reason(project: Project, rows: Rows, record: Record) -> tuple[str, str] | None:
    """What is wrong with a record, as (kind, sentence), or None."""
    if record.problem:
        return "unreadable", record.problem
    there = [name for name in project.inputs if not is_missing(record.values.get(name))]
    if not there:
        names = ", ".join(map(repr, project.inputs))
        return "empty", f"column {names} is empty" if len(project.inputs) == 1 else (
            f"the columns {names} are all empty"
        )
    for name in there:
        if reason := _input_reason(project, rows, record, name):
            return reason
    for name in columns_wanted(project):
        optional = (project.target.pool, project.target.seen)
        if name not in (*project.inputs, *optional) and is_missing(record.values.get(name)):
            return "missing value", f"column {name!r} has no value"
    return None


def _input_reason(
    project: Project, rows: Rows, record: Record, name: str
) -> tuple[str, str] | None:
    value, kind = record.values.get(name), inputs.find(project.inputs[name].kind)
    if isinstance(value, str) and len(kind.words(value)) > project.data.max_characters:
        raise _too_long(project, rows, record, name)
    problem = kind.check(value)
    return ("wrong input", f"column {name!r}: {problem}") if problem else None


def _too_long(project: Project, rows: Rows, record: Record, name: str) -> TextTooLong:
    length, limit = len(record.values[name]), project.data.max_characters
    return TextTooLong(
        f"{rows.name}, {rows.place(record)}: the text in {name!r} has {length:,} "
        f"characters and the limit is {limit:,}; shorten it, or raise data.max_characters."
    )


def _refuse_same(project: Project, found: Sorted) -> None:
    """Refuse contradictory rows, all of them, and of exact duplicates all but the first.

    Rows of a table may well be equal, and differ in what they lead to.
    """
    if not _identifies(project):
        return
    places = found.places()
    said = list(map(repr, found.truths))
    against = {}
    if targets.find(project.target.kind).contradicts:
        against = same.contradictory(_keys(project, found.kept, same.normalised), said)
    exact = same.duplicates(_keys(project, found.kept, str.strip), said)
    reasons = {index: ("duplicate", f"duplicate of {places[i]}") for index, i in exact.items()}
    reasons |= {
        index: ("contradictory", f"the same text as {places[i]}, which has another label")
        for index, i in against.items()
    }
    found.refuse(reasons)


def _require_rows(found: Sorted) -> None:
    if found.kept:
        return
    kinds = Counter(kind for _, kind, _ in found.refused)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    record, _, reason = found.refused[0]
    raise RowsEmpty(
        f"None of the {len(found.refused):,} rows of {found.rows.name} can be used ({told}; "
        f"{found.rows.place(record)}: {reason}); mend the rows, or name other columns."
    )


def _near(project: Project, found: Sorted, events: Events) -> list[same.Alike]:
    """Rows with almost the same words, refused where the project says so."""
    told = _told(project, found.kept)
    if not _identifies(project) or not any(any(each.words) for each in told.values()):
        return []
    kinds = {name: inputs.find(column.kind) for name, column in project.inputs.items()}
    values = [values_told(kinds, record.values) for record in found.kept]
    keys = [
        same.normalised("\n".join(own.values()) or f"row {record.number}")
        for record, own in zip(found.kept, values, strict=True)
    ]
    alike = same.almost_equal(keys, events)
    if project.data.near_duplicates == "keep":
        return alike
    places = found.places()
    reasons = {
        each.index: ("near duplicate", f"{each.similarity:.2f} like {places[each.first]}")
        for each in alike
    }
    found.refuse(reasons)
    return []


def _parted(project: Project, found: Sorted) -> Parted:
    settings = project.data.split
    name = settings.by or settings.group or settings.time or settings.given
    column = [record.values[name] for record in found.kept] if name else None
    keys = _keys(project, found.kept, same.normalised)
    target = targets.find(project.target.kind)
    return split(target.strata(found.truths), keys, settings, column)


def _identifies(project: Project) -> bool:
    """Whether equal inputs make equal rows."""
    return any(inputs.find(column.kind).identifies for column in project.inputs.values())


def _keys(project: Project, records: Sequence[Record], shape: Callable[[str], str]) -> list[str]:
    """What equal rows have in common; a row of a table its place alone."""
    kinds = {name: inputs.find(column.kind) for name, column in project.inputs.items()}
    keys = ((record, row_key(kinds, record.values, shape)) for record in records)
    return [f"row {record.number}" if key is None else key for record, key in keys]


def _told(project: Project, records: Sequence[Record]) -> dict[str, look.Told]:
    """The input columns as the report tells them: values, and the words in them."""
    told = {}
    for name, column in project.inputs.items():
        values = [record.values[name] for record in records]
        words = inputs.find(column.kind).words
        told[name] = look.Told(
            column.kind, values, ["" if value is None else words(value) for value in values]
        )
    return told


def _values(project: Project, records: Sequence[Record]) -> dict[str, list[Any]]:
    return {name: [record.values[name] for record in records] for name in project.inputs}


def _write(
    project: Project, out: Path, found: Sorted, parted: Parted, report: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _table(project, found.kept, found.truths)
    for place, name in enumerate(PARTS):
        pq.write_table(table.filter(pa.array(parted.part == place)), out / f"{name}.parquet")
    text = json.dumps(report, ensure_ascii=False, indent=1)
    (out / "data-report.json").write_text(text, encoding="utf-8")
    if found.catalogue:
        kept = found.catalogue.kept(found.truths)
        ids, texts = list(kept), list(kept.values())
        pq.write_table(pa.table({"id": ids, "text": texts}), out / candidates.FILE)
    _write_refused(project, out / "refused.jsonl", found)


def _table(project: Project, kept: Sequence[Record], truths: Sequence[Any]) -> "pa.Table":
    import pyarrow as pa

    numbers = [record.number for record in kept]
    return pa.table({ROW: numbers, **_values(project, kept), project.target.column: truths})


def _write_refused(project: Project, file: Path, found: Sorted) -> None:
    wanted = columns_wanted(project)
    # half a surrogate pair becomes its escape, which is how JSON writes it
    with file.open("w", encoding="utf-8", errors="backslashreplace") as lines:
        for record, kind, reason in sorted(found.refused, key=lambda each: each[0].number):
            values = record.values
            if not record.problem:
                values = {name: values.get(name) for name in wanted}
            told = {"row": record.number, "place": found.rows.place(record), "kind": kind}
            told |= {"reason": reason, "values": values}
            lines.write(json.dumps(told, ensure_ascii=False, default=_shortly) + "\n")


def _shortly(value: Any) -> str:
    """What JSON cannot write, told in a few words."""
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)


def _tell(
    project: Project, report: Mapping[str, Any], found: Sorted, parted: Parted, events: Events
) -> None:
    rows, by_kind = report["rows"], report["refused"]
    told = ", ".join(f"{count:,} {kind}" for kind, count in by_kind.items())
    refused = f"{rows['refused']:,} refused ({told}; see refused.jsonl)" if told else "none refused"
    events(Noted(f"{rows['read']:,} rows read, {refused}."))
    counts = ", ".join(f"{count:,} {part}" for part, count in report["split"]["rows"].items())
    events(Decided("split", counts, parted.way))
    if parted.moved:
        events(
            Noted(
                f"{len(parted.moved):,} rows were moved to training, where an equal text stands "
                "(but for case, width or white space)."
            )
        )
    if gone := found.seen[False]:
        events(
            Noted(
                f"{gone:,} of the {found.seen.total():,} candidates that rows have seen are not "
                "among the candidates and were passed over."
            )
        )
    _warn(project, report, found, parted, events)


def _warn(
    project: Project, report: Mapping[str, Any], found: Sorted, parted: Parted, events: Events
) -> None:
    near = report["near_duplicates"]
    like = near["like_a_training_row"]
    if any(like.values()):
        events(
            Warned(
                f"{like['validation']:,} validation and {like['test']:,} test rows are almost "
                'equal to a training row; data.near_duplicates = "refuse" leaves them out.'
            )
        )
    for names in report["labels_alike"]:
        events(Warned(f"The labels {names} differ only by case or white space; is one meant?"))
    names = list(map(targets.find(project.target.kind).names, found.truths))
    trained = {n for own, part in zip(names, parted.part, strict=True) if not part for n in own}
    unseen = [n for own in names for n in own if n not in trained]
    if unseen:
        events(
            Warned(
                f"{len(unseen):,} rows outside training have a label that no training row has "
                f"({', '.join(map(repr, sorted(set(unseen))[:5]))})."
            )
        )
