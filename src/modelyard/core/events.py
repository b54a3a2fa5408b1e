"""What stages tell while they work; doors draw it (a bar, a line, a JSON object)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """One thing that happened; `event` names its kind on the wire."""

    event: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        """The event as one flat JSON object.

        >>> Noted(text="8,530 rows").to_json()
        {'event': 'noted', 'text': '8,530 rows'}
        """
        return {"event": self.event, **asdict(self)}


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage begins; `why` says why it is not reused."""

    event = "stage-started"
    stage: str
    why: str


@dataclass(frozen=True)
class StageSkipped(Event):
    """A stage's artefact stands already."""

    event = "stage-skipped"
    stage: str
    digest: str


@dataclass(frozen=True)
class StageDone(Event):
    """A stage has published its artefact."""

    event = "stage-done"
    stage: str
    digest: str
    seconds: float


@dataclass(frozen=True)
class Progress(Event):
    """How far long work has come; `figures` are live ones such as loss or rows_per_s."""

    event = "progress"
    what: str
    done: float
    total: float
    unit: str = ""
    seconds_left: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decided(Event):
    """A choice made for the user, and why."""

    event = "decided"
    what: str
    choice: str
    why: str


@dataclass(frozen=True)
class Noted(Event):
    """A fact a person should read."""

    event = "noted"
    text: str


@dataclass(frozen=True)
class Warned(Event):
    """Something a person should look at."""

    event = "warned"
    text: str


Events = Callable[[Event], None]
"""Where events go: any function of one event."""


def silent(event: Event) -> None:
    """Take an event and say nothing."""
