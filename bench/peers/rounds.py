"""One round: every engine and every server in its turn, on the same texts."""

import json
import os
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ceiling import int8_operations_per_s
from bench.figures import ROOT
from bench.peers import environments
from bench.peers.catalogue import IN_PROCESS, OURS, SERVED, Engine, Server
from bench.peers.running import Running, running
from modelyard.checks.latency import quantile
from modelyard.service.load import Load, Request, ask, offer

CLIENTS = 32
ROWS_TOGETHER = 8
CHECKED_TEXTS = 16


@dataclass(frozen=True)
class Job:
    """A fine-tuned model, and the texts that all are asked."""

    name: str
    title: str
    release: Path
    texts: list[str]
    texts_file: Path
    labels: list[str]
    """What the fp32 model says of each text; a server that says otherwise measures nothing."""
    tokens_per_text: float
    operations_per_text: float


@dataclass(frozen=True)
class InProcess:
    """An engine's rate with all texts at once, and how long one text takes."""

    rows_per_s: float
    one_row_ms: float


@dataclass(frozen=True)
class OverHttp:
    """What clients met: 32 at once, one alone, and at rates that others can half bear."""

    first_answer_s: float
    rows_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    one_row_ms: float
    offered: dict[str, float]
    """Rows a second, by the peer whose half load it is."""
    offered_p99_ms: dict[str, float]
    unanswered: int
    """Requests refused or lost, at any load."""
    together_rows_per_s: float = 0.0
    """With several rows a request, where that was measured."""


@dataclass(frozen=True)
class Round:
    """What one round found."""

    ceiling_texts_per_s: float
    in_process: dict[str, InProcess] = field(default_factory=dict)
    over_http: dict[str, OverHttp] = field(default_factory=dict)


def one_round(job: Job, peers: Collection[str], seconds: float) -> Round:
    """All in turn: the ceiling, engines in process, the peers' servers, ours last.

    Ours comes last as it is also offered what each peer can half bear.
    """
    found = Round(int8_operations_per_s() / job.operations_per_text)
    for engine in IN_PROCESS.values():
        if engine.environment in (None, environments.BASE, *peers):
            found.in_process[engine.name] = _engine(engine, job, seconds)
    for name in [each for each in SERVED if each in peers]:
        found.over_http[name] = _server(SERVED[name], job, seconds, {})
    halves = {name: half_load(each.rows_per_s) for name, each in found.over_http.items()}
    found.over_http[OURS] = _server(SERVED[OURS], job, seconds, halves)
    return found


def half_load(top_rows_per_s: float) -> float:
    """The rate at which waiting is compared.

    >>> half_load(84.0)
    42.0
    """
    return top_rows_per_s / 2


def labels_of(engine: Engine, release: Path, texts_file: Path) -> list[str]:
    """What an engine says of all texts."""
    told = _told(engine, release, texts_file, 0)
    return [str(label) for label in told["labels"]]


def _engine(engine: Engine, job: Job, seconds: float) -> InProcess:
    print(f"    {engine.name} in process", flush=True)
    return InProcess(**_told(engine, job.release, job.texts_file, seconds))


def _told(engine: Engine, release: Path, texts_file: Path, seconds: float) -> dict[str, Any]:
    own = engine.environment
    surroundings = environments.surroundings(own) if own else dict(os.environ)
    command = engine.command(release, texts_file, seconds)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=surroundings, cwd=ROOT, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _server(server: Server, job: Job, seconds: float, offers: Mapping[str, float]) -> OverHttp:
    """A server at each load; a peer without offers gets half of what it has just done."""
    print(f"    {server.name} over HTTP", flush=True)
    with running(server, job.release, job.name, job.texts[0]) as up:
        _refuse_others(up, job)
        request = up.request(job.texts)
        top, one = ask(request, CLIENTS, seconds), ask(request, 1, seconds / 2)
        together = _together(up, job, seconds) if server.name == OURS else 0.0
        rates = dict(offers) or {server.name: half_load(top.rows_per_s)}
        offered = {name: offer(request, rate, seconds) for name, rate in rates.items()}
    return OverHttp(
        first_answer_s=up.first_answer_s,
        rows_per_s=top.rows_per_s,
        p50_ms=_ms(top, 50),
        p95_ms=_ms(top, 95),
        p99_ms=_ms(top, 99),
        one_row_ms=_ms(one, 50),
        offered=rates,
        offered_p99_ms={name: _ms(load, 99) for name, load in offered.items()},
        unanswered=sum(load.refused + load.lost for load in (top, one, *offered.values())),
        together_rows_per_s=together,
    )


def _together(up: Running, job: Job, seconds: float) -> float:
    """Rows a second where each request brings several."""
    starts = range(0, len(job.texts) - ROWS_TOGETHER + 1, ROWS_TOGETHER)
    several = [
        {"rows": [{"text": text} for text in job.texts[start : start + ROWS_TOGETHER]]}
        for start in starts
    ]
    bodies = [json.dumps(each).encode() for each in several]
    load = ask(Request.to(up.url, up.path, bodies), CLIENTS, seconds)
    return ROWS_TOGETHER * load.rows_per_s


def _refuse_others(up: Running, job: Job) -> None:
    """End where a server does not answer as the model does."""
    wrong = [
        f"{text!r}: {found!r}, not {label!r}"
        for text, label in zip(job.texts[:CHECKED_TEXTS], job.labels, strict=False)
        if (found := up.label(text)) != label
    ]
    most = 1 if up.server.name == OURS else 0  # int8 may differ where the model wavers
    if len(wrong) > most:
        raise SystemExit(f"{up.server.title} answers otherwise than the model: {wrong[0]}")


def _ms(load: Load, share: int) -> float:
    if not load.milliseconds:
        raise SystemExit("a server gave no answer while it was measured")
    return quantile(load.milliseconds, share).value
