"""The ladder: rungs made and checked one after the other, and which of them is taken."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from modelyard import targets
from modelyard.checks import limits
from modelyard.core.events import Events, Noted, Progress
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.rungs import NETWORKS, SMALLER_ALONE, RungName, kind_of, pattern_of
from modelyard.runtime.encoded import of_pieces
from modelyard.runtime.graph import Graph
from modelyard.runtime.index import Index
from modelyard.runtime.peak import peak_memory_bytes
from modelyard.runtime.runtime import Runtime
from modelyard.stages.checked_rows import CheckedRows
from modelyard.stages.choice import AS_CHEAP, said
from modelyard.stages.rungs import ROUNDING, RUNGS, Answer, Rung
from modelyard.stages.speed import Speed, rates, speeds
from modelyard.stages.students import Students

MOST_STUDENTS = 6
"""Smaller networks that a climb tries."""
MEMORY_ROWS = 64
SIZE = "model_bytes"
NOTHING = Measure("", 0.0, 0.0, 0.0, 0)


@dataclass
class Ladder:
    """The rungs of one Model: made, checked, and kept where a killed run finds them again."""

    project: Project
    rows: CheckedRows
    students: Students
    kept: Path
    events: Events

    @cached_property
    def original(self) -> Sequence[Answer]:
        """The network's own answers, before it became a graph."""
        from modelyard.models.export import network_outputs

        self.events(Progress("reading the network's own answers", 0, 1))
        answer = self.rows.model.spec.target
        width = targets.find(answer.kind).width(answer.state)
        network = self.students.teacher
        return self.rows.answers(
            lambda some: of_pieces(network_outputs(network, some), width), answer.state
        )

    def graph(self, name: RungName) -> Path:
        """The rung's graph."""
        file = self.kept / f"{name}.onnx"
        if not file.is_file():
            self.events(Progress(f"making {name}", 0, 1))
            form = RUNGS[name.graph]
            rows = self.students.calibration() if form.is_calibrated else None
            draft = file.with_suffix(".draft")
            draft.unlink(missing_ok=True)
            form.make(self.students.plain_graph(name.ways), draft, rows)
            draft.rename(file)
        return file

    def rung(self, name: RungName) -> Rung:
        """The rung, checked on the validation rows."""
        file = self.kept / f"{name}.json"
        if found := Rung.load(file):
            return found
        original, graph = self.original, self.graph(name)
        self.events(Progress(f"checking {name}", 0, 1))
        state = self.students.state(name.ways)
        found = self.rows.checked(
            Rung(
                name=str(name),
                size_bytes=graph.stat().st_size,
                measure=NOTHING,
                loss=0.0,
                agreement=None,
                largest_difference=0.0,
                about="; ".join(self._about(name)),
                state=state,
            ),
            original,
            self.rows.answers(Graph(graph).outputs, state),
            self.project.accept,
        )
        found.save(file)
        if name.ways:
            self.events(Noted(said(found)))
        return found

    def runtime(self, name: RungName) -> Runtime:
        """What serves a rung; of candidates it has the vectors of the plain graph."""
        return self.rows.runtime(self.graph(name), self.students.state(()), self._index)

    @cached_property
    def _index(self) -> Index | None:
        return self.rows.index(Graph(self.graph(RungName())).outputs)

    def rates(self, *each: RungName) -> list[float]:
        """Rows a second of rungs, measured in turn."""
        found = rates({str(one): self.runtime(one) for one in each}, self.rows.asked)
        return [found[str(one)].value for one in each]

    def speeds(self, each: Sequence[RungName]) -> dict[str, Speed]:
        """How fast rungs are, measured in turn, and what memory each takes."""
        if not self.rows.asked:
            return {}
        self.events(Progress("measuring speed", 0, 1))
        some = self.rows.encoded.first(MEMORY_ROWS)
        memory = {str(one): peak_memory_bytes(self.graph(one), some) for one in each}
        return speeds({str(one): self.runtime(one) for one in each}, self.rows.asked, memory)

    def _about(self, name: RungName) -> Iterator[str]:
        """What each of its ways has done, in words."""
        for count in range(1, len(name.ways) + 1):
            yield self.students.about(name.ways[:count])


def climb(ladder: Ladder) -> list[RungName]:
    """The rungs that are worth a look, each made and checked.

    First every form of the network's own graph; then smaller networks, each in the ways of the best
    one before it and one way more, in the quickest form in which it does not lose too much. A way
    is left where it loses too much in all of them or is no quicker.
    """
    tried = [
        RungName((), form)
        for form, made in RUNGS.items()
        if made.is_quicker or SIZE in ladder.project.accept
    ]
    forms = _by_rate(ladder, tried)
    best = RungName((), forms[0])
    left: set[str] = set()
    for _ in range(MOST_STUDENTS):
        way = _next(ladder, best, tried, left)
        if way is None:
            break
        name = _checked(ladder, best.with_way(way), forms, tried)
        if name and _is_quicker(ladder, name, best):
            best = name
        else:
            left.add(kind_of(way))
    return tried


def _by_rate(ladder: Ladder, own: Sequence[RungName]) -> list[str]:
    """Forms of the network's own graph that lose no more than they may, the quickest first.

    Of those that are no quicker than fp32, fp32 alone.
    """
    able = [name for name in own if _is_kept(ladder, name)] or [RungName()]
    found = dict(zip(able, ladder.rates(*able), strict=True))
    plain = RungName()
    some = [name for name in able if name == plain or found[name] > found.get(plain, 0.0)]
    return [name.graph for name in sorted(some, key=lambda name: -found[name])]


def _checked(
    ladder: Ladder, name: RungName, forms: Sequence[str], tried: list[RungName]
) -> RungName | None:
    """The rung in the first of these forms in which it does not lose too much; all are noted."""
    for form in forms:
        own = replace(name, graph=form)
        tried.append(own)
        if _is_kept(ladder, own):
            return own
    return None


def _next(
    ladder: Ladder, best: RungName, tried: Sequence[RungName], left: Collection[str]
) -> str | None:
    """The next way that nothing speaks against."""
    seen = {way for name in tried for way in name.ways}
    able = sorted(ladder.students.ways(), key=lambda way: NETWORKS.index(pattern_of(way)))
    for way in able:
        if way in SMALLER_ALONE and SIZE not in ladder.project.accept:
            continue
        before = best.with_way(way).ways[:-1]
        if way not in seen and kind_of(way) not in left and way in ladder.students.ways(before):
            return way
    return None


def _is_kept(ladder: Ladder, name: RungName) -> bool:
    """Whether the rung loses no more than it may, and breaks no limit that the plain one keeps."""
    rung, plain = ladder.rung(name), ladder.rung(RungName())
    accept = ladder.project.accept
    more = set(broken(rung.measures, accept)) - set(broken(plain.measures, accept))
    return not more and rung.loss <= ladder.project.compress.max_loss + ROUNDING


def _is_quicker(ladder: Ladder, name: RungName, than: RungName) -> bool:
    own, its = ladder.rates(name, than)
    return own * AS_CHEAP > its


def broken(measures: Iterable[Measure], accept: Mapping[str, str]) -> list[str]:
    """The limits that these measures do not hold."""
    return [
        each.name
        for each in measures
        if each.name in accept and not limits.holds(accept[each.name], each.value)
    ]


def measures_of(rung: Rung, speed: Speed) -> tuple[Measure, ...]:
    """All of a rung that limits may be set on and that validation rows can tell."""
    size = float(rung.size_bytes)
    return (*rung.measures, *speed.measures, Measure(SIZE, size, size, size, 0))
