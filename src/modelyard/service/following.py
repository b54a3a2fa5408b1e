"""Following: a process serves what the ledger says is to be served, as soon as it says so."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from modelyard.core.errors import LedgerAway, ModelyardError, SettingInvalid
from modelyard.core.project import Serve
from modelyard.ledger.deployments import Standing, standing
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
    problems: Mapping[Place, str] = field(default_factory=dict)
    """Why a release that is to be loaded is not; another takes its place, as other threads read."""
    _folders: dict[Place, str] = field(default_factory=dict)
    """Where each release that is served lies; the old place where it could not be replaced."""
    _followed: tuple[str, int] = ("", -1)
    _told: str = ""
    """What stood against following when it was last tried."""
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
            if (is_told or self._followed[0] != self.ledger.worker) and not self._has_followed():
                self._wake.wait(RETRY_SECONDS)
                self._wake.set()

    def _has_followed(self) -> bool:
        """Follow; whatever stands against it now is tried again, and told once."""
        try:
            self._follow()
        except LedgerAway:  # which all requests tell already
            return False
        except Exception as error:  # noqa: BLE001 – without this thread nothing is followed any more
            reason = f"What is deployed could not be followed: {type(error).__name__}: {error}"
            if reason != self._told:
                self.tell(reason)
            self._told = reason
            return False
        self._told = ""
        return True

    def _follow(self) -> None:
        found = standing(self.engine)
        wanted = {(p.name, p.version): p.folder for p in found.placements if p.is_loaded}
        tried = {
            place: self._opened(place, Path(folder))
            for place, folder in wanted.items()
            if self._folders.get(place) != folder
        }
        opened = {place: each for place, each in tried.items() if isinstance(each, Opened)}
        gone = self._folders.keys() - wanted.keys()
        self._call(lambda: self._apply(found, opened, gone))
        kept = {place: folder for place, folder in self._folders.items() if place in wanted}
        self._folders = kept | {place: wanted[place] for place in opened}
        self.problems = {place: each for place, each in tried.items() if isinstance(each, str)}
        self._followed = self.ledger.worker, found.generation
        self.ledger.follow(found.generation)

    def _call(self, work: Callable[[], None]) -> None:
        """Have something done where requests are answered, and wait for it; raises what it does."""
        done: Future[None] = Future()
        self.service.call(lambda: _finished(done, work))
        done.result(APPLY_SECONDS)

    def _apply(self, found: Standing, opened: dict[Place, Opened], gone: set[Place]) -> None:
        for each in opened.values():
            self.service.add(*each)
        self.service.catalogue.lead(
            {
                (lead.name, lead.alias): Alias(tuple(lead.shares.items()), lead.shadow)
                for lead in found.leads
            }
        )
        for name, version in gone:
            self.service.catalogue.remove(name, version)

    def _opened(self, place: Place, folder: Path) -> Opened | str:
        """The release, or why it cannot be opened, which is told: whatever it is, others go on."""
        try:
            opened = self.open(folder)
            if (opened.info.name, opened.info.version) != place:
                raise SettingInvalid(
                    f"The folder {folder} holds {opened.info.name} {opened.info.version} now."
                )
        except Exception as error:  # noqa: BLE001 – a broken release may fail in any way
            is_said = isinstance(error, ModelyardError | OSError)
            reason = str(error) if is_said else f"{type(error).__name__}: {error}"
            self.tell(f"{place[0]} {place[1]} is not served: {reason}")
            return reason
        return opened


def _finished(done: "Future[None]", work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 – told to the thread that waits
        done.set_exception(error)
    else:
        done.set_result(None)
