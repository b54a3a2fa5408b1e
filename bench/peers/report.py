"""What the rounds come to: figures beside their bars, and the page bench/peers.md."""

import datetime
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, commit, machine, of_runs
from bench.peers.catalogue import IN_PROCESS, OURS, SERVED
from bench.peers.rounds import CLIENTS, ROWS_TOGETHER, Job, Round
from modelyard.checks.difference import Difference

PAGE = Path(__file__).resolve().parent.parent / "peers.md"
BARRED = ("litserve", "bentoml", "mlflow")
"""Servers that have bars to keep; the others stand beside."""
Of = Callable[[Round], float]


def engine_rate(name: str) -> Of:
    """Texts a second in process."""
    return lambda each: each.in_process[name].rows_per_s


def engine_one_ms(name: str) -> Of:
    """Milliseconds of one text in process."""
    return lambda each: each.in_process[name].one_row_ms


def rate(name: str) -> Of:
    """Rows a second over HTTP, with 32 clients."""
    return lambda each: each.over_http[name].rows_per_s


def together(each: Round) -> float:
    """Rows a second of this project over HTTP, several rows a request."""
    return each.over_http[OURS].together_rows_per_s


def p99(name: str, at: str) -> Of:
    """Milliseconds of the 99th percentile at half of the load that `at` can bear."""
    return lambda each: each.over_http[name].offered_p99_ms[at]


@dataclass(frozen=True)
class Measured:
    """All rounds of a model."""

    job: Job
    lost: Difference
    rounds: Sequence[Round]
    seconds: float

    def median(self, of: Of) -> float:
        """Of the rounds."""
        return statistics.median(of(each) for each in self.rounds)

    def figure(self, what: str, of: Of, bar: float, op: str, unit: str, told: str) -> Figure:
        """A ratio or difference of each round, with the least and the most of them."""
        runs = [of(each) for each in self.rounds]
        said = f"{self.job.title}, MiniLM, loads of {self.seconds:g} s, in turn; {told}"
        return of_runs(f"{self.job.title}: {what}", runs, bar, op, unit, said)


def figures(measured: Measured) -> list[Figure]:
    """The figures that have a bar; a peer that was not measured has none."""
    found = [*_own(measured)]
    first = measured.rounds[0]
    if "pipeline" in first.in_process:
        found = [_over_pipeline(measured), _lost(measured), *found]
    for name in BARRED:
        if name in first.over_http:
            found += _over_peer(measured, name)
    return found


def _over_pipeline(measured: Measured) -> Figure:
    def times(each: Round) -> float:
        return engine_rate(OURS)(each) / engine_rate("pipeline")(each)

    ours, theirs = (measured.median(engine_rate(name)) for name in (OURS, "pipeline"))
    told = f"this project (int8) {ours:.0f}, pipeline(batch_size=32) (fp32) {theirs:.0f} texts/s"
    return measured.figure("engine over pipeline(batch_size=32)", times, 6, ">=", "×", told)


def _lost(measured: Measured) -> Figure:
    lost = measured.lost
    said = f"{lost.rows:,} test rows, the fp32 model's accuracy less int8's; paired 95 % interval"
    ends = (100 * lost.value, 100 * lost.low, 100 * lost.high)
    name = f"{measured.job.title}: accuracy lost by int8"
    return Figure(name, *ends, 0.5, "<=", "points", said)


def _own(measured: Measured) -> list[Figure]:
    engine, served = engine_rate(OURS), rate(OURS)
    ceiling = measured.median(lambda each: each.ceiling_texts_per_s)
    one = measured.median(engine_one_ms(OURS))
    return [
        measured.figure(
            "engine over the ceiling",
            lambda each: engine(each) / each.ceiling_texts_per_s,
            0.55, ">=", "×",
            f"int8 products of this machine would do {ceiling:.0f} texts/s of "
            f"{measured.job.tokens_per_text:.1f} tokens, the engine does "
            f"{measured.median(engine):.0f}",
        ),
        measured.figure(
            f"HTTP with {CLIENTS} clients over the engine",
            lambda each: served(each) / engine(each),
            0.85, ">=", "×",
            f"{measured.median(served):.0f} rows/s, one row a request",
        ),
        measured.figure(
            f"HTTP with {CLIENTS} clients over the engine, {ROWS_TOGETHER} rows a request",
            lambda each: together(each) / engine(each),
            0.85, ">=", "×",
            f"{measured.median(together):.0f} rows/s; beside the figure of one row a request, and "
            "not in its place",
        ),
        measured.figure(
            "one row at a time, p50 through HTTP over the engine's",
            lambda each: each.over_http[OURS].one_row_ms - engine_one_ms(OURS)(each),
            2, "<=", "ms",
            f"the engine's is {one:.2f} ms",
        ),
    ]  # fmt: skip


def _over_peer(measured: Measured, name: str) -> list[Figure]:
    title = SERVED[name].title

    theirs = measured.median(rate(name))
    offered = measured.median(lambda each: each.over_http[name].offered[name])
    waits = [measured.median(p99(who, name)) for who in (name, OURS)]
    return [
        measured.figure(
            f"HTTP rows/s over {title}'s",
            lambda each: rate(OURS)(each) / rate(name)(each),
            5, ">=", "×",
            f"{CLIENTS} clients, one row a request; {title} {theirs:.0f} rows/s",
        ),
        measured.figure(
            f"p99 of {title} over this project's, at half of its top load",
            lambda each: p99(name, name)(each) / p99(OURS, name)(each),
            1, ">", "×",
            f"open loop at {offered:.0f} rows/s; {title} {waits[0]:.0f} ms, this project "
            f"{waits[1]:.0f} ms",
        ),
    ]  # fmt: skip


def page(found: Sequence[Measured], told: Sequence[Figure], command: str) -> str:
    """The page for people."""
    seconds, rounds = found[0].seconds, len(found[0].rounds)
    parts = [
        "# Beside its peers",
        f"Measured by `{command}` on {datetime.date.today().isoformat()}, commit {commit()}, on "
        f"{machine()}. Every peer serves the fine-tuned fp32 model, this project its int8 release "
        f"of the same layers. All run in turn, {rounds} rounds, each load {seconds:g} s after a "
        "warm-up; figures are medians over the rounds. One load generator asks all "
        "(`modelyard.service.load`), one row a request, on the same machine as the server.",
        "## Against the bars",
        _bars(told),
        *(part for each in found for part in _of_model(each)),
        "## Settings",
        _settings(found),
    ]
    return "\n\n".join(parts) + "\n"


def _bars(told: Sequence[Figure]) -> str:
    lines = ["| what | figure | from – to | bar | holds |", "|---|---|---|---|---|"]
    for each in told:
        lines.append(
            f"| {each.name} | {each.value:.3g} {each.unit} | {each.low:.3g} – {each.high:.3g} | "
            f"{each.op} {each.bar:g} | {'yes' if each.holds else '**no**'} |"
        )
    return "\n".join(lines)


def _of_model(measured: Measured) -> list[str]:
    job = measured.job
    ceiling = measured.median(lambda each: each.ceiling_texts_per_s)
    return [
        f"## {job.title}",
        f"{len(job.texts)} test texts of {job.tokens_per_text:.1f} tokens on average. Products in "
        f"int8 alone would do {ceiling:.0f} texts/s on this machine.",
        _in_process(measured),
        _over_http(measured),
    ]


def _in_process(measured: Measured) -> str:
    lines = ["| in process | texts/s | one text, p50 ms |", "|---|---|---|"]
    for name in measured.rounds[0].in_process:
        many, one = (measured.median(of(name)) for of in (engine_rate, engine_one_ms))
        lines.append(f"| {IN_PROCESS[name].title} | {many:.0f} | {one:.1f} |")
    return "\n".join(lines)


def _over_http(measured: Measured) -> str:
    head = (
        "over HTTP", f"rows/s, {CLIENTS} clients", "p50 ms", "p95 ms", "p99 ms",
        "one client, p50 ms", "half load, rows/s", "p99 ms there", "ours there, p99 ms",
        "first answer, s", "unanswered",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in measured.rounds[0].over_http:
        lines.append("| " + " | ".join(_http_cells(measured, name)) + " |")
    return "\n".join(lines)


def _http_cells(measured: Measured, name: str) -> list[str]:
    def cell(form: str, of: Of) -> str:
        return format(measured.median(of), form)

    halves = ["", "", ""]
    if name != OURS:
        halves = [
            cell(".0f", lambda each: each.over_http[name].offered[name]),
            cell(".0f", p99(name, name)),
            cell(".1f", p99(OURS, name)),
        ]
    return [
        SERVED[name].title,
        cell(".0f", rate(name)),
        cell(".1f", lambda each: each.over_http[name].p50_ms),
        cell(".1f", lambda each: each.over_http[name].p95_ms),
        cell(".1f", lambda each: each.over_http[name].p99_ms),
        cell(".1f", lambda each: each.over_http[name].one_row_ms),
        *halves,
        cell(".1f", lambda each: each.over_http[name].first_answer_s),
        str(sum(each.over_http[name].unanswered for each in measured.rounds)),
    ]


def _settings(found: Sequence[Measured]) -> str:
    first = found[0].rounds[0]
    lines = [f"- **{SERVED[name].title}**: {SERVED[name].setting}." for name in first.over_http]
    lines += [
        f"- **{IN_PROCESS[name].title}**, in process: {IN_PROCESS[name].setting}."
        for name in first.in_process
    ]
    return "\n".join(lines)
