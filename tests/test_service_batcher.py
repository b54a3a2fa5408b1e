"""The batcher through the API: shared batches, order, fairness, bounds, cancelling, stopping."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.service_host import COLUMN, info_of, open_runtime, process, served, slowed, write_release
from tests.tiny import pieces_of

from modelyard.core.errors import ServiceBusy
from modelyard.core.project import Serve
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.runtime import Runtime
from modelyard.service.batcher import Batcher, shared
from modelyard.service.metrics import Metrics

PREDICT = "/v1/models/tiny/predict"
LIMITS = Serve(max_rows=64)


class Gate:
    """Holds the graph until it is opened, and keeps the shapes that have run."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.shapes: list[tuple[int, int]] = []
        self.shortest: list[int] = []

    def __call__(self, encoded: Encoded) -> None:
        self.shapes.append(encoded.whole()["input_ids"].shape)
        self.shortest.append(int(encoded.lengths.min()))
        self.entered.set()
        assert self.opened.wait(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Runtime:
    return open_runtime(folder)


@contextmanager
def gated(folder: Path, limits: Serve = LIMITS) -> Iterator[tuple[str, Gate]]:
    gate = Gate()
    runtime = slowed(open_runtime(folder), gate)
    with served(runtime, info_of(runtime, folder), limits) as url:
        try:
            yield url, gate
        finally:
            gate.opened.set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
def test_the_graph_gives_way_to_what_answers(plain: Runtime) -> None:
    batcher = Batcher(plain.graph, Metrics(), 1000)
    asyncio.run(batcher.outputs(plain.encode([{COLUMN: "good"}])))
    nice = {each.native_id: each.name for each in threading.enumerate()}
    own = [os.getpriority(os.PRIO_PROCESS, n) for n, name in nice.items() if "graph-" in name and n]
    batcher.close()
    assert own and set(own) == {min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)}


def post(url: str, texts: list[str]) -> httpx.Response:
    body = {"rows": [{COLUMN: text} for text in texts]}
    return httpx.post(f"{url}{PREDICT}", json=body, timeout=20, trust_env=False)


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def scores(answers: list[dict[str, Any]]) -> list[float]:
    return [score for answer in answers for score in answer["scores"].values()]


def test_concurrent_requests_share_batches_and_get_their_own_answers(
    folder: Path, plain: Runtime
) -> None:
    asked = [["good film"], ["bad"], ["dull and cold", "fine"], ["the plot"], ["a b c"], ["warm"]]
    with gated(folder) as (url, gate), ThreadPoolExecutor(8) as pool:
        first = pool.submit(post, url, ["good"])
        assert gate.entered.wait(20)
        others = [pool.submit(post, url, texts) for texts in asked]
        until(lambda: metric(url, "modelyard_queue_requests") == len(asked))
        assert metric(url, "modelyard_queue_pieces") == 7
        gate.opened.set()
        replies = [reply.result().json() for reply in others]
        assert first.result().status_code == 200
        assert gate.shapes == [(1, 3), (7, 5)]  # all that waited, in one batch
        assert metric(url, "modelyard_batch_pieces_count") == 2
        assert metric(url, "modelyard_queue_tokens") == 0
        assert metric(url, "modelyard_queue_wait_seconds_count") == 7
        assert metric(url, "modelyard_padding_tokens_total") == 35 - 27
    for texts, reply in zip(asked, replies, strict=True):
        alone = plain.predict([{COLUMN: text} for text in texts])
        assert [a["label"] for a in reply["predictions"]] == [a["label"] for a in alone]
        assert scores(reply["predictions"]) == pytest.approx(scores(alone), abs=1e-6)
        assert reply["usage"]["rows"] == len(texts)


def test_a_lone_request_waits_for_nobody(folder: Path) -> None:
    with gated(folder) as (url, gate):
        gate.opened.set()
        assert post(url, ["good", "a film of the"]).status_code == 200
        assert metric(url, "modelyard_queue_wait_seconds_count") == 1
        assert metric(url, "modelyard_queue_wait_seconds_sum") < 0.1


def test_a_small_request_does_not_wait_behind_a_large_one(folder: Path) -> None:
    limits = Serve(max_rows=1024)
    with gated(folder, limits) as (url, gate), ThreadPoolExecutor(2) as pool:
        large = pool.submit(post, url, ["good " * 30] * 600)
        assert gate.entered.wait(20)
        small = pool.submit(post, url, ["bad"])
        until(lambda: metric(url, "modelyard_queue_requests") == 2)
        gate.opened.set()
        assert (small.result().status_code, large.result().status_code) == (200, 200)
        assert 3 in gate.shortest[1:4]  # after the one at hand, and maybe one more of the large one
        assert len(gate.shortest) > 30


def test_a_bad_row_fails_its_own_request_only(folder: Path) -> None:
    with gated(folder) as (url, gate), ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, url, ["good"])
        assert gate.entered.wait(20)
        good, bad = pool.submit(post, url, ["fine"]), pool.submit(post, url, ["fine", ""])
        assert bad.result().status_code == 422
        gate.opened.set()
        assert (first.result().status_code, good.result().status_code) == (200, 200)


def test_a_full_service_says_when_to_come_again(folder: Path) -> None:
    limits = Serve(max_rows=2)  # 8 requests of the largest size are admitted: 16 rows
    with gated(folder, limits) as (url, gate), ThreadPoolExecutor(8) as pool:
        admitted = [pool.submit(post, url, ["a", "b"]) for _ in range(8)]
        until(lambda: metric(url, "modelyard_admitted_rows") == 16)
        reply = post(url, ["c"])
        assert reply.status_code == 503
        assert reply.json()["code"] == "service-busy"
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        gate.opened.set()
        assert {each.result().status_code for each in admitted} == {200}
        assert post(url, ["c"]).status_code == 200


def test_a_client_that_goes_away_leaves_the_queue(folder: Path) -> None:
    with gated(folder) as (url, gate), ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, url, ["good"])
        assert gate.entered.wait(20)
        with httpx.Client(trust_env=False) as client:
            body = {"rows": [{COLUMN: "the film was very very good"}] * 9}
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{url}{PREDICT}", json=body, timeout=httpx.Timeout(20, read=0.2))
        until(lambda: metric(url, "modelyard_queue_requests") == 0)
        until(lambda: metric(url, "modelyard_admitted_rows") == 1)
        gate.opened.set()
        assert first.result().status_code == 200
        assert gate.shapes == [(1, 3)]
        assert metric(url, "modelyard_rows_total") == 1


class Broken:
    """A graph of one output that adds up its tokens, and breaks on a 13."""

    width = 1
    threads = 1
    pads = True

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def run(self, encoded: Encoded) -> np.ndarray:
        ids = encoded.whole()["ids"]
        if (ids == 13).any():
            raise RuntimeError("13")
        self.batches.append((ids > 0).sum(axis=1).tolist())
        return ids.sum(axis=1, keepdims=True).astype(np.float32)


def encoded(pieces: list[list[int]]) -> Encoded:
    return pieces_of(pieces, name="ids", mask="")


def outcomes(graph: Any, requests: list[list[list[int]]], most: int = 1 << 18) -> list[Any]:
    """What requests sent at once end with: outputs as a list, or the exception."""

    async def all_of_them() -> list[Any]:
        batcher = Batcher(graph, Metrics(), most)
        sent = (batcher.outputs(encoded(pieces)) for pieces in requests)
        async with asyncio.timeout(20):
            ended = await asyncio.gather(*sent, return_exceptions=True)
        batcher.close()
        return [
            each if isinstance(each, Exception) else each.outputs[:, 0].tolist() for each in ended
        ]

    return asyncio.run(all_of_them())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(20, 99), min_size=1, max_size=70), min_size=1, max_size=9),
        min_size=1,
        max_size=12,
    )
)
def test_every_request_gets_its_own_outputs_in_order(requests: list[list[list[int]]]) -> None:
    graph = Broken()
    assert outcomes(graph, requests) == [[float(sum(p)) for p in each] for each in requests]
    for lengths in graph.batches:
        assert max(lengths) * len(lengths) <= max(512, max(lengths))


def waits(length: int) -> Any:
    return SimpleNamespace(length=length)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.data(), st.booleans())
def test_a_batch_has_the_piece_whose_turn_it_is_and_what_the_budget_holds(
    lengths: list[int], data: st.DataObject, pads: bool
) -> None:
    lengths.sort()
    turn = data.draw(st.sampled_from(lengths))
    start, end = shared([waits(each) for each in lengths], turn, 512, pads)
    own = lengths[start:end]
    assert turn in own
    assert len(own) == 1 or (len(own) * own[-1] if pads else sum(own)) <= 512


@pytest.mark.parametrize("pads", [True, False])
def test_those_of_like_length_share_a_batch_and_others_wait(pads: bool) -> None:
    pieces = [waits(each) for each in [9, 10, 10, 11, 94, 95, 96]]
    assert shared(pieces, 10, 512, pads) == (0, 4)
    assert shared(pieces, 95, 512, pads) == (4, 7)


def test_requests_take_turns() -> None:
    graph = Broken()
    outcomes(graph, [[[1] * 170] * 6, [[1] * 75] * 12])
    assert [(max(lengths), len(lengths)) for lengths in graph.batches] == [(170, 3), (75, 6)] * 2


def test_rows_that_break_the_graph_fail_their_own_request_only() -> None:
    ended = outcomes(Broken(), [[[1, 2]], [[3, 13], [4]], [[5, 6, 7]]])
    assert (ended[0], ended[2]) == ([3.0], [18.0])
    assert isinstance(ended[1], RuntimeError)


def test_the_queue_is_bounded_but_takes_any_single_request() -> None:
    ended = outcomes(Broken(), [[[1] * 50], [[1] * 40], [[1] * 20]], most=45)
    assert ended[0] == [50.0]
    assert isinstance(ended[1], ServiceBusy)
    assert isinstance(ended[2], ServiceBusy)


def test_who_joins_after_the_end_is_told_so_and_the_end_comes_once() -> None:
    async def joined_late() -> None:
        metrics = Metrics()
        batcher = Batcher(Broken(), metrics, 1 << 18)
        other = Batcher(Broken(), metrics, 1 << 18)  # its counts in the same gauges stay
        assert [batcher.close(), batcher.close()] == [True, False]
        async with asyncio.timeout(20):
            with pytest.raises(ServiceBusy, match="unloaded"):
                await batcher.outputs(encoded([[1, 2]]))
            assert (await other.outputs(encoded([[1, 2]]))).outputs.tolist() == [[3.0]]
        other.close()

    asyncio.run(joined_late())


def test_who_would_wait_too_long_is_refused_and_a_large_request_keeps_no_small_one_out() -> None:
    """At first a graph is thought to do 10,000 tokens a second, and two seconds may wait."""
    large, small = [[1] * 400] * 100, [[1] * 500]
    ended = outcomes(Broken(), [large, *[small] * 60])
    refused = [isinstance(each, ServiceBusy) for each in ended]
    assert refused == [False] * 39 + [True] * 22  # 512 tokens of the large one, and 38 times 500


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopping_finishes_what_is_in_flight_and_ends_with_0(
    folder: Path, stop: signal.Signals
) -> None:
    with process(folder, "--delay-ms", "1000") as (running, url), ThreadPoolExecutor(3) as pool:
        sent: list[Future[httpx.Response]] = [
            pool.submit(post, url, [" ".join(["good"] * words)]) for words in (1, 20, 30)
        ]
        until(lambda: metric(url, "modelyard_admitted_rows") == 3)
        running.send_signal(stop)
        assert [each.result().status_code for each in sent] == [200, 200, 200]
        assert running.wait(20) == 0
        with pytest.raises(httpx.ConnectError):
            post(url, ["late"])
        assert running.stderr is not None
        assert running.stderr.read() == ""
