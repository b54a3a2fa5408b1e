"""Following: a process serves what the ledger says is to be served, as soon as it says so."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from modelyard.core.errors import LedgerAway, ModelyardError, SettingInvalid
from modelyard.core.project import Serve
from modelyard.ledger.deployments import Standing, follow, standing
from modelyard.ledger.ledger import Ledger
from modelyard.runtime.runtime import Runtime
from modelyard.service.app import Service
from modelyard.service.catalogue import Alias
from modelyard.service.release_info import ReleaseInfo

APPLY_SECONDS = 60.0
RETRY_SECONDS = 1.0


class Opened(NamedTuple):
    """A release that has been verified and opened."""

    runtime: Runtime
    info: ReleaseInfo
    limits: Serve


Place = tuple[str, str]
Open = Callable[[Path], Opened]


@dataclass
class Follower:
    """Loads and unloads releases and turns aliases, in a thread, as the ledger says."""

    engine: Engine
    ledger: Ledger
    service: Service
    open: Open
    tell: Callable[[str], None] = lambda sentence: None
    problems: dict[Place, str] = field(default_factory=dict)
    """Why a release that is to be loaded is not."""
    _folders: dict[Place, str] = field(default_factory=dict)
    _followed: tuple[str, int] = ("", -1)
    _wake: threading.Event = field(default_factory=threading.Event)
    _is_closed: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve what is to be served now, and follow from then on."""
        self._follow()
        self._thread = threading.Thread(target=self._work, daemon=True, name="follower")
        self._thread.start()

    def changed(self, generation: int) -> None:
        """Look again; called from any thread."""
        self._wake.set()

    def close(self) -> None:
        """Follow no more."""
        self._is_closed = True
        self._wake.set()
        if self._thread:
            self._thread.join()

    def _work(self) -> None:
        while True:
            self._wake.wait(RETRY_SECONDS)
            if self._is_closed:
                return
            is_told = self._wake.is_set()
            self._wake.clear()
            if is_told or self._followed[0] != self.ledger.worker:
                try:
                    self._follow()
                except LedgerAway:
                    self._wake.wait(RETRY_SECONDS)
                    self._wake.set()

    def _follow(self) -> None:
        found = standing(self.engine)
        wanted = {(p.name, p.version): p.folder for p in found.placements if p.is_loaded}
        opened = {
            place: self._opened(place, Path(folder))
            for place, folder in wanted.items()
            if self._folders.get(place) != folder
        }
        gone = self._folders.keys() - wanted.keys()
        done: Future[None] = Future()
        self.service.call(lambda: _finished(done, lambda: self._apply(found, opened, gone)))
        done.result(APPLY_SECONDS)
        self._folders = {
            place: folder for place, folder in wanted.items() if place not in self.problems
        }
        self._followed = self.ledger.worker, found.generation
        follow(self.engine, *self._followed)

    def _apply(self, found: Standing, opened: dict[Place, Opened | None], gone: set[Place]) -> None:
        for each in opened.values():
            if each:
                self.service.add(*each)
        self.service.catalogue.lead(
            {
                (lead.name, lead.alias): Alias(tuple(lead.shares.items()), lead.shadow)
                for lead in found.leads
            }
        )
        for name, version in gone:
            self.service.catalogue.remove(name, version)

    def _opened(self, place: Place, folder: Path) -> Opened | None:
        self.problems.pop(place, None)
        try:
            opened = self.open(folder)
            if (opened.info.name, opened.info.version) != place:
                raise SettingInvalid(
                    f"The folder {folder} holds {opened.info.name} {opened.info.version} now."
                )
        except (ModelyardError, OSError) as error:
            self.problems[place] = str(error)
            self.tell(f"{place[0]} {place[1]} is not served: {error}")
            return None
        return opened


def _finished(done: "Future[None]", work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 – told to the thread that waits
        done.set_exception(error)
    else:
        done.set_result(None)
