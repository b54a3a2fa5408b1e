"""A figure, where it is written, and the registry of what measures it."""

import datetime
import json
import operator
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from modelyard.core.flow import processor

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results.json"
WORK = ROOT / "bench" / "work"
OPS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Figure:
    """A measured figure beside its bar; `low` and `high` are said in `measured_on`."""

    name: str
    value: float
    low: float
    high: float
    bar: float
    op: str
    unit: str
    measured_on: str

    @property
    def holds(self) -> bool:
        """Whether the value keeps the bar."""
        return bool(OPS[self.op](self.value, self.bar))

    def row(self, command: str) -> dict[str, object]:
        """The figure as a row of results.json."""
        return {
            **asdict(self),
            "holds": self.holds,
            "command": command,
            "machine": machine(),
            "commit": commit(),
        }


class SureFigure(Figure):
    """A figure whose whole interval is to keep the bar."""

    @property
    def holds(self) -> bool:
        """Whether both ends keep the bar."""
        return all(bool(OPS[self.op](end, self.bar)) for end in (self.low, self.high))


Measures = Callable[[], list[Figure]]
REGISTRY: dict[str, Measures] = {}


def measures(name: str) -> Callable[[Measures], Measures]:
    """Register a function that measures some figures, by the name ROWS= takes."""

    def register(function: Measures) -> Measures:
        REGISTRY[name] = function
        return function

    return register


def of_runs(
    name: str, runs: Sequence[float], bar: float, op: str, unit: str, measured_on: str
) -> Figure:
    """The median of several runs, with the least and the most of them."""
    said = f"{measured_on}; median, least and most of {len(runs)}"
    return Figure(name, statistics.median(runs), min(runs), max(runs), bar, op, unit, said)


def counted(name: str, failures: Sequence[str], tries: int, measured_on: str) -> Figure:
    """How many of several tries failed; none may."""
    said = f"{measured_on}; {tries} tries"
    if failures:
        said += "; first failure: " + failures[0][:200]
    count = float(len(failures))
    return Figure(name, count, count, count, 0, "<=", "failures", said)


def machine() -> str:
    """The machine, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    features = " ".join(sorted({"avx512_bf16", "avx512_vnni", "avx2"} & _features()))
    cards = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return (
        f"{processor()} ({features}), {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, "
        f"{cards or 'no'} GPU"
    )


def _features() -> set[str]:
    """What the processor can do, as Linux names it; nothing where Linux does not say."""
    told = Path("/proc/cpuinfo")
    return set(told.read_text(encoding="utf-8").split()) if told.exists() else set()


def commit() -> str:
    """The commit measured, with + where the tree, results aside, differs from it."""
    found = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results.*")
    return f"{found}+" if found and changed else found or "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def write(name: str, figures: Sequence[Figure], command: str | None = None) -> None:
    """Put figures into results.json and results.md, in place of older ones of that name.

    `command` is what measures them, where `make bench ROWS=name` does not.
    """
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    fresh = {figure.name: figure.row(command or f"make bench ROWS={name}") for figure in figures}
    rows = [fresh.pop(row["name"], row) for row in rows] + list(fresh.values())
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    RESULTS.write_text(text, encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(_table(rows), encoding="utf-8")


def _table(rows: Sequence[dict[str, object]]) -> str:
    lines = [
        "# Figures",
        "",
        f"Measured by `make bench`; written {datetime.date.today().isoformat()}. "
        "The same rows, for programs: [results.json](results.json).",
        "",
        "| what | figure | from – to | bar | holds | measured on | command | commit | machine |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    machines = sorted({str(row["machine"]) for row in rows})
    for row in rows:
        lines.append(
            f"| {row['name']} | {_number(row['value'])} {row['unit']} | "
            f"{_number(row['low'])} – {_number(row['high'])} | {row['op']} {row['bar']} | "
            f"{'yes' if row['holds'] else '**no**'} | {row['measured_on']} | "
            f"`{row['command']}` | {row['commit']} | {machines.index(str(row['machine'])) + 1} |"
        )
    told = [f"{number}. {each}" for number, each in enumerate(machines, 1)]
    return "\n".join([*lines, "", "Machines:", "", *told]) + "\n"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
