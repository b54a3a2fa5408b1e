"""Engines: OpenVINO says what ONNX Runtime says, is taken where quicker, and checked again."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.service_host import COLUMN, open_runtime, serving, signed, write_release
from tests.small_models import TEXTS, made

from modelyard.core.artefacts import Dataset, Model, ModelSpec
from modelyard.core.events import Decided
from modelyard.runtime import engine, engine_check
from modelyard.runtime.engine_check import compared
from modelyard.runtime.graph import Graph
from modelyard.runtime.runtime import Runtime
from modelyard.stages import engines

pytest.importorskip("openvino")  # the environment of `make test` has it
RUN = engine.OpenVino.run
ROWS = [{COLUMN: text} for text in ("good film", "dull", "a b c good bad", "the plot was fine")]


@pytest.fixture(autouse=True)
def every_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(engine.VARIABLE)
    yield


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """OpenVINO does so many times the rows a second, as far as anybody can tell."""

    def set_speed(speed: float) -> None:
        monkeypatch.setattr(engine_check, "_seconds", lambda graphs, pieces: [1.0, speed])

    return set_speed


def with_openvino(folder: Path) -> Path:
    """A release that was made with OpenVINO."""
    file = write_release(folder) / "model.json"
    spec = ModelSpec.model_validate_json(file.read_text(encoding="utf-8"))
    told = spec.model_copy(update={"engine": "openvino"}).model_dump_json()
    file.write_text(told, encoding="utf-8")
    return folder


def scores(runtime: Runtime) -> list[Any]:
    return [answer["scores"]["good"] for answer in runtime.predict(ROWS)]


@pytest.mark.parametrize("target", ["fp32", "int8-calibrated"])
def test_both_engines_say_the_same_whichever_thread_asks(
    target: str, tmp_path: Path, model: Model, dataset: Dataset, timed: Callable[[float], None]
) -> None:
    timed(1.5)
    result = made(tmp_path, model, dataset, target=target, max_loss=0.9)
    runtime = open_runtime(result.folder)
    assert runtime.graph.engine == "openvino"
    pieces = runtime.encode([{"text": text} for text in TEXTS])
    wanted = Graph(result.folder / "graph.onnx").outputs(pieces)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: runtime.graph.outputs(pieces), range(8)):
            assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted).mean()


def test_the_quicker_engine_is_taken_and_told(
    tmp_path: Path, model: Model, dataset: Dataset, timed: Callable[[float], None]
) -> None:
    for speed, wanted in ((1.2, "openvino"), (1.01, "onnxruntime"), (0.5, "onnxruntime")):
        timed(speed)
        result = made(tmp_path / str(speed), model, dataset, target="fp32")
        spec = Model(result.folder).spec
        assert spec.engine == wanted
        decided = next(e for e in result.events if isinstance(e, Decided) and e.what == "engine")
        assert decided.choice == wanted and f"{speed:.2f} ×" in decided.why


FAULTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "says something else": (engine.OpenVino, "run", lambda self, arrays: -RUN(self, arrays)),
    "says nothing": (engine.OpenVino, "run", lambda self, arrays: RUN(self, arrays)[:0]),
    "loses more than a rung may": (engines, "loss_of", lambda own, found: 0.02),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_is_at_fault_is_not_taken(
    fault: str,
    tmp_path: Path,
    model: Model,
    dataset: Dataset,
    timed: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed(2.0)
    monkeypatch.setattr(*FAULTS[fault])
    result = made(tmp_path, model, dataset, target="fp32")
    assert Model(result.folder).spec.engine == "onnxruntime"


def test_it_is_checked_again_at_start_up(
    tmp_path: Path, timed: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_openvino(tmp_path / "release")
    plain = Graph(folder / "model.onnx")

    def started() -> tuple[Runtime, str]:
        runtime = open_runtime(folder)
        return engine_check.as_quick_here(runtime, lambda: plain, lambda: runtime.encode(ROWS))

    timed(1.1)
    runtime, told = started()
    assert (runtime.graph.engine, told) == ("openvino", "")
    assert scores(runtime) == pytest.approx(scores(open_runtime(folder)), abs=1e-4)
    timed(0.5)
    runtime, told = started()
    assert runtime.graph is plain and "it does 0.50 × the rows a second" in told
    monkeypatch.setenv(engine.VARIABLE, "onnxruntime")
    runtime, told = started()
    assert runtime.graph is plain and "it is not installed here" in told


def test_serve_tells_that_another_engine_serves_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engine.VARIABLE, "onnxruntime")
    folder = signed(with_openvino(tmp_path / "release"))
    with serving(folder) as (running, url):
        reply = httpx.post(
            f"{url}/v1/models/tiny/predict", json={"rows": ROWS}, timeout=20, trust_env=False
        )
        running.terminate()
        assert running.stderr is not None
        assert "openvino, and it is not installed here: ONNX Runtime" in running.stderr.read()
    found = [each["scores"]["good"] for each in reply.json()["predictions"]]
    assert found == pytest.approx(scores(open_runtime(folder)), abs=1e-4)


def test_an_engine_that_fails_is_told_in_a_sentence(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release")
    graph, pieces = Graph(folder / "model.onnx"), open_runtime(folder).encode(ROWS)
    found = compared(lambda: Graph(tmp_path / "missing.onnx", engine="openvino"), graph, pieces)
    assert found.speed == 0.0 and "cannot compute this graph" in found.problem
