"""Hostile requests over real sockets, with a customer's key and without one.

Whatever comes: no 5xx, the worker answers the next good request at once, and nothing is counted
but what was answered, for the key that asked.
"""

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import Engine, select
from tests.service_host import info_of, open_runtime, served, slowed, write_release

from modelyard.core.project import Serve
from modelyard.ledger import customers, schema, usage
from modelyard.ledger.database import opened, reading
from modelyard.ledger.revisions import ready
from modelyard.runtime.runtime import Runtime
from modelyard.service import bodies, connection
from modelyard.serving import metered

PATH = "/v1/models/tiny/predict"
LIMITS = Serve(max_rows=8, max_characters=500, max_body_bytes=20_000)
BODY = json.dumps({"rows": [{"text": "a good film"}]}).encode()
AT_ONCE_S = 1.0
PATIENCE_S = 0.3
LONGEST_S = 20
FAILED = re.compile(r'status="5\d\d"')
Counts = dict[str, int]


@dataclass
class Hostel:
    """A metered service with two customers' keys, and what it has counted of each."""

    port: int
    engine: Engine
    keys: dict[str, str]
    ids: dict[str, str]

    def counted(self) -> Counts:
        """Requests by project; records and roll-ups agree on them."""
        assert not usage.differences(self.engine)
        rows = usage.used(self.engine, usage.Period(0, 2**40), ["project_id"])
        return {row["project_id"]: row["requests"] for row in rows}

    def added(self, before: Counts) -> Counts:
        """What has been counted since, by the name of the project."""
        now = self.counted()
        names = {project: name for name, project in self.ids.items()}
        return {
            names[project]: count - before.get(project, 0)
            for project, count in now.items()
            if count > before.get(project, 0)
        }

    def outcomes(self) -> Counter[str]:
        """How the requests that there is a record of have ended."""
        with reading(self.engine) as connection:
            return Counter(connection.execute(select(schema.records.c.outcome)).scalars())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), LONGEST_S)

    def get(self, path: str, key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        address = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(address, headers=headers, trust_env=False)

    def head(self, key: str | None, *lines: str, target: str = PATH) -> bytes:
        """The head of a POST, with nothing that says how long its body is."""
        own = [f"POST {target} HTTP/1.1", "Host: a", "Content-Type: application/json"]
        own += [f"Authorization: Bearer {self.keys[key]}"] if key else []
        return "\r\n".join([*own, *lines, "", ""]).encode("latin-1")

    def whole(self, key: str | None, *lines: str, target: str = PATH) -> bytes:
        """A good request."""
        return self.head(key, f"Content-Length: {len(BODY)}", *lines, target=target) + BODY

    def answers_at_once(self) -> None:
        """A good request is answered soon, and counted once; nothing has failed."""
        before, began = self.counted(), time.monotonic()
        with self.connect() as connection:
            connection.sendall(self.whole("good"))
            assert first_of(connection) == 200
        assert time.monotonic() - began < AT_ONCE_S
        assert self.added(before) == {"good": 1}
        told = self.get("/metrics", "admin")
        assert told.status_code == 200 and not FAILED.search(told.text), told.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("hostile") / "release")


@contextmanager
def hostel_in(folder: Path, ledger: Path, runtime: Runtime | None = None) -> Iterator[Hostel]:
    url = f"sqlite:///{ledger}"
    engine = ready(opened(url))
    customers.add_organisation(engine, "acme")
    keys, ids = {"admin": customers.add_key(engine, "me")[1].text}, {}
    for name in ("good", "own", "other"):
        ids[name] = customers.add_project(engine, "acme", name)["id"]
        keys[name] = customers.add_key(engine, name, project=name)[1].text
    runtime = runtime or open_runtime(folder)
    with metered(url) as meter, served(runtime, info_of(runtime, folder), LIMITS, meter) as at:
        yield Hostel(int(at.rpartition(":")[2]), engine, keys, ids)
    engine.dispose()


@pytest.fixture(scope="module")
def lasting(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostel]:
    with hostel_in(folder, tmp_path_factory.mktemp("ledger") / "ledger.sqlite3") as made:
        yield made


@pytest.fixture
def hostel(lasting: Hostel) -> Iterator[Hostel]:
    """The service, which is looked at again once a test has done its worst."""
    yield lasting
    lasting.answers_at_once()


def first_of(connection: socket.socket) -> int | None:
    """The status of the first reply."""
    with connection.makefile("rb") as stream:
        return status_of(stream)


def status_of(stream: BufferedReader) -> int | None:
    """The status of the next reply, which is read whole; None where the connection is closed."""
    try:
        line = stream.readline()
        if not line:
            return None
        length = 0
        while (header := stream.readline().strip()) != b"":
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert len(stream.read(length)) == length
    except ConnectionError:  # closed with bytes unread
        return None
    return int(line.split()[1])


def replies(connection: socket.socket) -> list[int]:
    """The statuses of all replies, up to the end of the connection."""
    with connection.makefile("rb") as stream:
        return list(iter(lambda: status_of(stream), None))


def sent(hostel: Hostel, data: bytes) -> list[int]:
    """The statuses of the replies to bytes, up to the end of the connection."""
    with hostel.connect() as connection:
        connection.sendall(data)
        return replies(connection)


CLOSE = "Connection: close"
CHUNKED = "Transfer-Encoding: chunked"
LENGTH = f"Content-Length: {len(BODY)}"
IN_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: a\r\n"
UNREADABLE = {
    "both lengths": ((LENGTH, CHUNKED), IN_CHUNKS),
    "both lengths, the other way round": ((CHUNKED, LENGTH), IN_CHUNKS),
    "two lengths": ((LENGTH, "Content-Length: 3"), BODY),
    "two lengths in one": ((f"{LENGTH}, 3",), BODY),
    "the same length twice": ((LENGTH, LENGTH), BODY),
    "a length below nothing": (("Content-Length: -1",), BODY),
    "a length with a sign": ((f"Content-Length: +{len(BODY)}",), BODY),
    "a length in hexadecimal": (("Content-Length: 0x10",), BODY),
    "a length beyond any number": (("Content-Length: " + "9" * 30,), BODY),
    "a transfer coding that is none": (("Transfer-Encoding: xchunked",), IN_CHUNKS),
    "chunked, but not last": (("Transfer-Encoding: chunked, identity",), IN_CHUNKS),
    "chunked after a tab": (("Transfer-Encoding:\tchunked", LENGTH), IN_CHUNKS),
    "chunked after a vertical tab": (("Transfer-Encoding: \x0bchunked", LENGTH), IN_CHUNKS),
    "a space before the colon": (("Transfer-Encoding : chunked", LENGTH), IN_CHUNKS),
    "a folded header": (("Transfer-Encoding:", " chunked", LENGTH), IN_CHUNKS),
    "a bare LF in the head": ((f"x: y\nTransfer-Encoding: chunked\r\n{LENGTH}",), IN_CHUNKS),
    "a bare CR in the head": ((f"x: y\rTransfer-Encoding: chunked\r\n{LENGTH}",), IN_CHUNKS),
    "a NUL in a value": (("x: a\0b", LENGTH), BODY),
    "a NUL in a name": (("x\0y: a", LENGTH), BODY),
    "a chunk's size that is none": ((CHUNKED,), b"zz\r\n" + BODY),
    "a chunk's size beyond any number": ((CHUNKED,), b"f" * 20 + b"\r\n" + BODY),
    "a chunk longer than it says": ((CHUNKED,), b"3\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a bare LF after a chunk's size": ((CHUNKED,), b"%x\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
}


@pytest.mark.parametrize("key", ["own", None])
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_request_is_refused(hostel: Hostel, name: str, key: str | None) -> None:
    before = hostel.counted()
    lines, body = UNREADABLE[name]
    assert sent(hostel, hostel.head(key, *lines) + body + SMUGGLED) == [400]
    assert not hostel.added(before)


@pytest.mark.parametrize("key", ["own", None])
def test_a_body_over_the_limit_is_refused_before_it_is_there(
    hostel: Hostel, key: str | None
) -> None:
    before = hostel.counted()
    with hostel.connect() as connection:  # the rest of it never comes
        connection.sendall(hostel.head(key, "Content-Length: 20001") + b" " * 100)
        assert first_of(connection) == (413 if key else 401)
    with hostel.connect() as connection:
        connection.sendall(hostel.head(key, CHUNKED) + b"5000\r\n" + b" " * 0x5000 + b"\r\n")
        assert first_of(connection) == (413 if key else 401)
    assert not hostel.added(before)


def flooded(hostel: Hostel, begin: bytes, piece: bytes) -> int:
    """How many bytes are taken of what has no end, before the connection is closed."""
    taken = 0
    with hostel.connect() as connection, suppress(ConnectionError):
        connection.sendall(begin)
        while taken < MOST_TAKEN:
            connection.sendall(piece)
            taken += len(piece)
    return taken


MOST_TAKEN = 64 << 20
ENDLESS = {
    "headers": ((), b"", b"x: " + b"a" * 1000 + b"\r\n"),
    "a header": (("x: a",), b"", b"a" * 1000),
    "trailers": ((CHUNKED,), b"0\r\n", b"x: " + b"a" * 1000 + b"\r\n"),
    "a trailer": ((CHUNKED,), b"0\r\nx: a", b"a" * 1000),
    "a chunk's extension": ((CHUNKED,), b"1;a=", b"a" * 1000),
}


@pytest.mark.parametrize("key", ["own", None])
@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_cut_off(hostel: Hostel, name: str, key: str | None) -> None:
    before = hostel.counted()
    lines, body, piece = ENDLESS[name]
    head = hostel.head(key, *lines)
    begin = head + body if body else head[:-2].removesuffix(b"\r\n" * (name == "a header"))
    assert flooded(hostel, begin, piece * 64) < MOST_TAKEN
    assert not hostel.added(before)


@pytest.mark.parametrize("key", ["own", None])
def test_headers_beyond_number_are_refused(hostel: Hostel, key: str | None) -> None:
    before = hostel.counted()
    many = [f"x-{number}: {number}" for number in range(1001)]
    assert sent(hostel, hostel.whole(key, *many, CLOSE)) == [400]
    assert sent(hostel, hostel.whole(key, *many[:900], CLOSE)) == [200 if key else 401]
    assert hostel.added(before) == ({"own": 1} if key else {})


def test_a_key_behind_the_body_is_none(hostel: Hostel) -> None:
    before = hostel.counted()
    trailer = f"Authorization: Bearer {hostel.keys['other']}\r\n\r\n".encode()
    body = IN_CHUNKS.removesuffix(b"\r\n") + trailer
    assert sent(hostel, hostel.head(None, CHUNKED, CLOSE) + body) == [401]
    assert sent(hostel, hostel.head("own", CHUNKED, CLOSE) + body) == [200]
    assert hostel.added(before) == {"own": 1}


def test_requests_sent_at_once_are_counted_each_for_its_own_key(hostel: Hostel) -> None:
    before = hostel.counted()
    wrong = hostel.whole(None, "Authorization: Bearer my_x")
    data = hostel.whole("own") + hostel.whole("other") + wrong + hostel.whole("other", CLOSE)
    assert sent(hostel, data) == [200, 200, 401, 200]
    assert hostel.added(before) == {"own": 1, "other": 2}


def test_a_request_inside_a_body_is_none(hostel: Hostel) -> None:
    before = hostel.counted()
    inner = hostel.whole("other")
    head = hostel.head("own", f"Content-Length: {len(inner)}", CLOSE)
    assert sent(hostel, head + inner) == [422]
    assert not hostel.added(before)


def test_what_follows_a_last_request_is_not_read(hostel: Hostel) -> None:
    before = hostel.counted()
    assert sent(hostel, hostel.whole("own", CLOSE) + hostel.whole("other")) == [200]
    assert hostel.added(before) == {"own": 1}


@pytest.mark.parametrize("key", ["own", None])
def test_what_cannot_be_read_lets_those_before_it_be_answered(
    hostel: Hostel, key: str | None
) -> None:
    before = hostel.counted()
    good, status = hostel.whole("own"), 200
    half = hostel.head("other", CHUNKED) + b"zz"
    assert sent(hostel, good + b"\0\r\n\r\n") == [status]
    assert sent(hostel, good + good + half) == [status, status]
    assert sent(hostel, half) == [400]
    assert hostel.added(before) == {"own": 3}


TARGETS = {
    f"http://a{PATH}": 200,
    f"http://elsewhere:99{PATH}?a=b#c": 200,
    f"//a{PATH}": 404,
    "http://a": 400,
    "*": 404,
    "a:80": 400,
    "/v1/models/tiny/../tiny/predict": 404,
    "/v1/models/%74iny/predict": 200,
    "/v1/models/tiny%2fpredict": 200,
    "/v1/models/t%00ny/predict": 404,
    "/v1/models/%ff/predict": 404,
    "/v1/models/t\xedny/predict": 400,
    "/" + "a" * 60_000: 404,
    "/" + "a" * 70_000: 400,
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:40])
def test_targets(hostel: Hostel, target: str) -> None:
    before, status = hostel.counted(), TARGETS[target]
    assert sent(hostel, hostel.whole("own", CLOSE, target=target)) == [status]
    assert hostel.added(before) == ({"own": 1} if status == 200 else {})


OTHERS = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
)


def test_another_protocol_is_not_spoken(hostel: Hostel) -> None:
    before, asks = hostel.counted(), ("Connection: Upgrade", "Upgrade: h2c")
    lines = "\r\n".join(asks).encode()
    assert sent(hostel, b"GET /livez HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n") == [200]
    assert sent(hostel, hostel.whole("own", *asks) + SMUGGLED) == [400]
    assert [sent(hostel, each) for each in OTHERS] == [[400]] * len(OTHERS)
    assert not hostel.added(before)


# What comes slowly, or in part


@pytest.fixture
def impatient(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostel]:
    """A service that waits for a third of a second instead of a minute."""
    monkeypatch.setattr(bodies, "READ_SECONDS", PATIENCE_S)
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", PATIENCE_S)
    monkeypatch.setattr(connection, "LOOK_SECONDS", PATIENCE_S / 4)
    with hostel_in(folder, tmp_path / "ledger.sqlite3") as made:
        yield made
        made.answers_at_once()


def trickled(hostel: Hostel, begin: bytes, piece: bytes) -> list[int]:
    """The replies to what comes bit by bit without an end, until the connection is closed."""
    found: list[int] = []
    with hostel.connect() as connection:
        connection.sendall(begin)
        reader = threading.Thread(target=lambda: found.extend(replies(connection)))
        reader.start()
        ends = time.monotonic() + LONGEST_S
        with suppress(ConnectionError):
            while reader.is_alive() and time.monotonic() < ends:
                connection.sendall(piece)
                reader.join(PATIENCE_S / 20)
        reader.join(LONGEST_S)
    return found


@pytest.mark.parametrize("key", ["own", None])
@pytest.mark.parametrize("half", ["nothing", "head", "body", "chunks", "trailers"])
def test_what_comes_too_slowly_is_given_up(impatient: Hostel, half: str, key: str | None) -> None:
    refused = [408] if key else [401]
    chunked = impatient.head(key, CHUNKED)
    begin, piece, told = {
        "nothing": (b"\r\n", b"\r\n", []),
        "head": (impatient.head(key)[:-2], b"x: a\r\n", []),
        "body": (impatient.head(key, "Content-Length: 20000"), b" ", refused),
        "chunks": (chunked, b"1\r\n \r\n", refused),
        "trailers": (chunked + b"0\r\n", b"x: a\r\n", refused),
    }[half]
    assert trickled(impatient, begin, piece) == told
    assert not impatient.counted()


def test_who_is_slow_holds_nobody_up(impatient: Hostel) -> None:
    halves = (b"", b"POST ", impatient.head("own")[:-2])
    halves += (impatient.head("own", CHUNKED) + b"5\r\n", impatient.head(None, CHUNKED) + b"5\r\n")
    with ExitStack() as stack:
        waiting = []
        for number in range(200):
            waiting.append(stack.enter_context(impatient.connect()))
            waiting[-1].sendall(halves[number % len(halves)])
        impatient.answers_at_once()
        statuses = [status for each in waiting for status in replies(each)]
    assert Counter(statuses) == {408: 40, 401: 40}
    assert impatient.counted().keys() == {impatient.ids["good"]}


def test_who_takes_no_answer_is_given_up(impatient: Hostel) -> None:
    asks = b"GET /assets/try.js HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", impatient.port))
        connection.sendall(asks * 1000)  # more answers than the system keeps for both of them
        own = connection.getsockname()
        await_that(lambda: own in clients_of_this_process())
        await_that(lambda: own not in clients_of_this_process())


def clients_of_this_process() -> set[Any]:
    """The addresses of clients whose connections the service holds open."""
    return {each.raddr for each in psutil.Process().net_connections("tcp4") if each.raddr}


def await_that(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONGEST_S
    while not holds():
        assert time.monotonic() < ends
        time.sleep(PATIENCE_S / 10)


@pytest.mark.parametrize("key", ["own", None])
def test_what_breaks_off_is_not_counted(hostel: Hostel, key: str | None) -> None:
    before, whole = hostel.counted(), hostel.whole(key)
    head = hostel.head(key, LENGTH)
    parts = (
        whole[:1],
        head[:20],
        head[:-1],
        head,
        whole[:-1],
        hostel.head(key, CHUNKED) + b"5\r\n",
    )
    for part in parts:
        for is_reset in (False, True):
            with hostel.connect() as connection:
                connection.sendall(part)
                if is_reset:
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4)
                    )
    hostel.answers_at_once()
    assert hostel.added(before) == {"good": 1}


def test_who_goes_before_the_answer_is_there_is_not_counted(folder: Path, tmp_path: Path) -> None:
    before_it_runs, may_run = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        before_it_runs.set()
        assert may_run.wait(LONGEST_S)

    runtime = slowed(open_runtime(folder), wait)
    with hostel_in(folder, tmp_path / "ledger.sqlite3", runtime) as hostel:
        for leave in (lambda c: c.close(), lambda c: c.shutdown(socket.SHUT_WR)):
            may_run.clear(), before_it_runs.clear()
            with hostel.connect() as connection:
                own = connection.getsockname()
                connection.sendall(hostel.whole("own"))
                assert before_it_runs.wait(LONGEST_S)
                leave(connection)
                await_that(lambda own=own: own not in clients_of_this_process())
            may_run.set()
            hostel.answers_at_once()
        await_that(lambda: hostel.outcomes() == {"answered": 2, "gone": 2})
        assert hostel.counted() == {hostel.ids["good"]: 2}
