"""The doors of what serves: releases and the ledger wired together into a service."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.artefacts import Model
from modelyard.core.project_file import read_project
from modelyard.doors import RESOLVED, open_release, release_folder, release_info
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.engine_check import as_quick_here
from modelyard.runtime.graph import Graph
from modelyard.runtime.runtime import Runtime
from modelyard.runtime.signing_key import config_folder

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from modelyard.ledger.ledger import Ledger
    from modelyard.service.app import Service
    from modelyard.service.following import Follower, Opened
    from modelyard.service.metering import Meter

EXAMPLE_ROWS = 16


@dataclass(frozen=True)
class Serving:
    """How releases are served.

    `releases` are served as long as the process lives; none is the newest of the project here.
    Where what is `deployed` in the ledger is served in their place, `repository` is a folder with
    releases that may be loaded too. With a `database` each request needs a key and is counted
    there; None asks nobody for one. `tell` gets a sentence where another engine serves than a
    release was made with, or where one cannot be served.
    """

    releases: Sequence[Path] = ()
    public_key: Path | None = None
    candidates: Path | None = None
    threads: int | None = None
    is_shared: bool = False
    database: str | None = None
    deployed: bool = False
    repository: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    proxies: tuple[str, ...] = ()
    logs: bool = False
    tell: Callable[[str], None] = lambda sentence: None


def serve_releases(serving: Serving, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Verify and open releases and serve them until stopped; `ready` gets the address."""
    from modelyard import __version__
    from modelyard.service.app import Service
    from modelyard.service.request_log import to_stderr
    from modelyard.service.server import Listening, serve
    from modelyard.service.traces import traced

    with ExitStack() as stack:
        log = to_stderr if serving.logs else None
        service = Service(server_version=__version__, log=log)
        folders = () if serving.deployed else (serving.releases or (release_folder(None),))
        for folder in folders:
            service.add(*opened(folder, serving))
        if serving.database is not None:
            stack.enter_context(_counted(service, serving))
        listening = Listening(
            serving.certificate,
            serving.private_key,
            serving.proxies,
            is_shared=serving.is_shared,
        )
        app, ended = traced(service.app())
        stack.callback(ended)
        serve(app, host, port, ready, listening)


def opened(given: Path, serving: Serving) -> "Opened":
    """A release, verified and opened with the engine that is the quickest here."""
    from modelyard.service.following import Opened

    folder = release_folder(given)
    runtime = open_release(folder, serving.public_key, serving.candidates, serving.threads)
    runtime, told = as_quick_here(
        runtime,
        lambda: Graph(folder / str(runtime.spec.graph), serving.threads),
        lambda: _examples(runtime),
    )
    if told:
        serving.tell(told)
    limits = read_project(folder / RESOLVED).serve
    return Opened(runtime, release_info(folder, runtime), limits)


@contextmanager
def _counted(service: "Service", serving: Serving) -> "Iterator[None]":
    """Have a service count in the ledger, and follow what is deployed there."""
    from modelyard.ledger.database import hurried
    from modelyard.ledger.directory import Directory
    from modelyard.ledger.ledger import Ledger
    from modelyard.service.metering import Meter

    engine = hurried(ledger_database(serving.database))
    keys = hurried(ledger_database(serving.database))  # no other work has them wait
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        stack.callback(keys.dispose)
        ledger = Ledger(engine, tell=serving.tell)
        stack.callback(ledger.close)
        follower = _follower(service, serving, ledger) if serving.deployed else None
        if follower:
            follower.start()
            stack.callback(follower.close)
        directory = Directory(keys, follower.changed if follower else lambda generation: None)
        stack.callback(directory.close)
        service.meter = Meter(directory, ledger)
        yield


@contextmanager
def metered(database: str) -> "Iterator[Meter]":
    """A meter that counts in a database, for an app that is made without a door."""
    from modelyard.service.app import Service

    service = Service()
    with _counted(service, Serving(database=database)):
        assert service.meter is not None
        yield service.meter


def _follower(service: "Service", serving: Serving, ledger: "Ledger") -> "Follower":
    from modelyard.service.following import Follower
    from modelyard.service.repository import Repository, router

    follower = Follower(
        ledger.engine, ledger, service, lambda folder: opened(folder, serving), serving.tell
    )
    found = partial(releases_in, serving.repository) if serving.repository else dict
    service.more.append(router(Repository(ledger.engine, follower, service.catalogue, found)))
    return follower


def place_release(engine: "Engine", given: Path, public_key: Path | None = None) -> int:
    """Verify a release and have services load it; the generation from which they do."""
    from modelyard.ledger import deployments
    from modelyard.runtime import seal

    folder = release_folder(given)
    seal.verify(folder, public_key)
    spec = Model(folder).spec
    return deployments.place(engine, spec.name, spec.version, folder)


def releases_in(repository: Path) -> dict[tuple[str, str], Path]:
    """The releases that lie in a folder, by name and version."""
    folders = sorted(path.parent for path in repository.glob("*/model.json"))
    specs = {folder: Model(folder).spec for folder in folders}
    return {(spec.name, spec.version): folder for folder, spec in specs.items()}


def ledger_url(given: str | None) -> str:
    """The URL of the ledger's database: the one given, or where it is if none is."""
    from modelyard.ledger.database import default_url

    return given or default_url(config_folder())


def ledger_database(url: str | None) -> "Engine":
    """The ledger's database with its tables, made where there are none."""
    from modelyard.ledger.revisions import ready

    return ready(ledger_as_it_is(url))


@contextmanager
def using_ledger(url: str | None) -> "Iterator[Engine]":
    """The ledger's database with its tables, for one command."""
    engine = ledger_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


def ledger_as_it_is(url: str | None) -> "Engine":
    """The ledger's database, whatever tables it has."""
    from modelyard.ledger.database import default_file, opened

    found = ledger_url(url)
    if found == default_file(config_folder()):
        config_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    return opened(found)


def _examples(runtime: Runtime) -> Encoded:
    """Rows to look at where there are no others."""
    from modelyard import inputs

    sources = runtime.spec.columns
    return runtime.columns.encode(
        {each.column: [inputs.find(each.kind).example()] * EXAMPLE_ROWS for each in sources}
    )
