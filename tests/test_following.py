"""Following: what a process serves when releases come, break, are replaced and go."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from starlette.requests import Request
from tests.service_host import COLUMN, info_of

from modelyard.core.errors import RequestInvalid, ServiceBusy, SettingInvalid
from modelyard.core.project import Serve
from modelyard.ledger import deployments
from modelyard.ledger.database import writing
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.workers import let_go
from modelyard.runtime.runtime import Runtime
from modelyard.service import following
from modelyard.service.app import Service
from modelyard.service.asking import asked
from modelyard.service.catalogue import Alias
from modelyard.service.following import Follower, Opened
from modelyard.service.repository import Repository

TEN_SECONDS = 10.0


@dataclass
class Process:
    """A process that follows, with releases that break as a test wants."""

    engine: Engine
    follower: Follower
    service: Service
    broken: dict[Path, Exception]
    told: list[str] = field(default_factory=list)

    def place(self, version: str, folder: Path) -> None:
        self.followed(deployments.place(self.engine, "tiny", version, folder))

    def followed(self, generation: int) -> None:
        self.follower.changed(generation)
        deployments.await_followed(self.engine, generation, TEN_SECONDS)

    @property
    def served(self) -> set[str]:
        return {each.info.version for each in self.service.catalogue.all()}


@pytest.fixture
def process(engine: Engine, tiny_runtime: Runtime, tiny_folder: Path) -> Iterator[Process]:
    """It serves version 1; a folder is named as the version that it holds, and a letter."""
    broken: dict[Path, Exception] = {}
    told: list[str] = []

    def opened(folder: Path) -> Opened:
        if folder in broken:
            raise broken[folder]
        info = replace(info_of(tiny_runtime, tiny_folder), version=folder.name[0])
        return Opened(tiny_runtime, info, Serve.model_validate({}))

    ledger, service = Ledger(engine), Service()
    follower = Follower(engine, ledger, service, opened, told.append)
    made = Process(engine, follower, service, broken, told)
    deployments.place(engine, "tiny", "1", Path("/1a"))
    follower.start()
    yield made
    follower.close()
    ledger.close()
    service.catalogue.close()


def test_what_could_not_be_replaced_is_served_on_and_can_be_unloaded(process: Process) -> None:
    process.broken[Path("/1b")] = SettingInvalid("The seal is broken.")
    process.place("1", Path("/1b"))
    assert process.served == {"1"}
    assert process.follower.problems == {("tiny", "1"): "The seal is broken."}
    process.followed(deployments.load(process.engine, "tiny", "1", is_loaded=False))
    assert process.served == set()
    assert process.follower.problems == {}


def test_a_release_that_is_placed_back_is_no_problem_any_more(process: Process) -> None:
    process.broken[Path("/1b")] = SettingInvalid("The seal is broken.")
    process.place("1", Path("/1b"))
    process.place("1", Path("/1a"))
    assert process.served == {"1"}
    assert process.follower.problems == {}


def test_a_release_that_breaks_in_any_way_keeps_no_other_from_being_served(
    process: Process,
) -> None:
    process.broken[Path("/2a")] = ZeroDivisionError("of no use")
    process.place("2", Path("/2a"))
    assert process.follower.problems == {("tiny", "2"): "ZeroDivisionError: of no use"}
    assert process.told == ["tiny 2 is not served: ZeroDivisionError: of no use"]
    process.place("3", Path("/3a"))
    assert process.served == {"1", "3"}
    repository = Repository(process.engine, process.follower, process.service.catalogue)
    with pytest.raises(RequestInvalid, match="of no use"):
        followed(process, lambda: repository.load("tiny@2"))


def followed(process: Process, work: Callable[[], None]) -> None:
    """Do something while the process is told, as its directory would, that things change."""
    is_over = threading.Event()

    def tell() -> None:
        while not is_over.wait(0.02):
            process.follower.changed(0)

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        work()
    finally:
        is_over.set()
        teller.join()


def test_what_stands_against_following_is_told_once_and_tried_again(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.01)
    add, failures = process.service.add, iter([TimeoutError("too slow")] * 3)

    def fails(*given: object) -> None:
        if error := next(failures, None):
            raise error
        add(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(process.service, "add", fails)
    process.place("2", Path("/2a"))
    assert process.served == {"1", "2"}
    assert process.told == [
        "What is deployed could not be followed: TimeoutError: too slow",
    ]


def test_a_shadow_is_held_from_the_moment_it_is_to_be_asked(
    tiny_runtime: Runtime, tiny_folder: Path
) -> None:
    """It is unloaded after the answer, and before its own turn has come."""
    service, closed = Service(), []
    for version in "12":
        info = replace(info_of(tiny_runtime, tiny_folder), version=version)
        service.add(tiny_runtime, info, Serve.model_validate({}))
    service.catalogue.lead({("tiny", "prod"): Alias((("1", 1),), "2")})
    admission = service.catalogue.find("tiny@2").admission
    close = admission.close
    admission.close = lambda: closed.append(close())  # type: ignore[method-assign,func-returns-value]

    async def shadowed() -> None:
        request = Request({"type": "http", "path_params": {"name": "tiny"}})
        with asked(service.catalogue, service.metrics, request) as ask:
            await ask.answers([{COLUMN: "good"}])
        service.catalogue.remove("tiny", "2")
        assert closed == []
        async with asyncio.timeout(TEN_SECONDS):
            while not closed:
                await asyncio.sleep(0.01)

    asyncio.run(shadowed())
    assert (
        'shadow_rows_total{outcome="same",release="tiny",version="2"} 1.0'
        in service.metrics.text().decode()
    )
    assert len(closed) == 1
    service.catalogue.close()


def test_a_worker_under_a_new_name_is_waited_for(process: Process) -> None:
    """Struck off and back, it serves as before, and what is changed then is not yet followed."""
    ledger = process.follower.ledger
    before = ledger.worker
    process.follower.close()
    with writing(process.engine) as connection:
        let_go(connection, before)
    ends = time.monotonic() + TEN_SECONDS
    while ledger.worker == before:
        assert time.monotonic() < ends
    generation = deployments.place(process.engine, "tiny", "2", Path("/2a"))
    with pytest.raises(ServiceBusy):
        deployments.await_followed(process.engine, generation, 0.3)
