"""Drawing events: a live bar on a terminal, lines in a log, JSON for programs."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelyard.core.events import (
    Decided,
    Event,
    Events,
    Noted,
    Progress,
    StageDone,
    StageSkipped,
    StageStarted,
    Warned,
)

LOG_EVERY_S = 10.0


@contextmanager
def events(as_json: bool) -> Iterator[Events]:
    """A function that draws events, for the time of the `with` block."""
    if as_json:
        yield _print_json
    elif sys.stderr.isatty():
        with _bar() as draw:
            yield draw
    else:
        yield _lines()


def _print_json(event: Event) -> None:
    print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)


def _lines() -> Events:
    last_s = 0.0

    def draw(event: Event) -> None:
        nonlocal last_s
        if isinstance(event, Progress):
            now_s = time.monotonic()
            if now_s - last_s < LOG_EVERY_S:
                return
            last_s = now_s
        print(sentence(event), file=sys.stderr, flush=True)

    return draw


@contextmanager
def _bar() -> Iterator[Events]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("  {task.description}"), BarColumn(24), TextColumn("{task.fields[told]}"))
    with Bar(*columns, console=console, transient=True) as bar:
        yield _drawing(bar, lambda text: console.print(text, markup=False))


def _drawing(bar: Any, say: Callable[[str], None]) -> Events:
    tasks: dict[str, Any] = {}

    def draw(event: Event) -> None:
        if not isinstance(event, Progress):
            for task in tasks.values():
                bar.remove_task(task)
            tasks.clear()
            say(sentence(event))
            return
        if event.what not in tasks:
            tasks[event.what] = bar.add_task(event.what, total=event.total, told="")
        bar.update(tasks[event.what], completed=event.done, total=event.total, told=_told(event))

    return draw


def sentence(event: Event) -> str:
    """An event as one line of text."""
    match event:
        case StageStarted(stage, why):
            return f"▶ {stage} ({why})"
        case StageSkipped(stage, _):
            return f"= {stage}: nothing changed"
        case StageDone(stage, digest, seconds):
            return f"✓ {stage} in {seconds:.1f} s ({digest[:12]})"
        case Decided(what, choice, why):
            return f"  {what}: {choice}, because {why}"
        case Noted(text):
            return f"  {text}"
        case Warned(text):
            return f"  ! {text}"
        case Progress():
            return f"  {event.what} {_told(event)}"
        case _:
            return f"  {event.to_json()}"


def _told(event: Progress) -> str:
    parts = [f"{event.done:,.0f}/{event.total:,.0f} {event.unit}".strip()]
    parts += [f"{name} {value:.4g}" for name, value in event.figures.items()]
    if event.seconds_left is not None:
        minutes, seconds = divmod(round(event.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)
