"""The runtime: batches by length, rows in order, windows pooled, no torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.service_host import write_release
from tests.tiny import pieces_of

from modelyard import inputs, targets
from modelyard.core.errors import ColumnMissing, RequestInvalid
from modelyard.runtime import runtime as runtime_module
from modelyard.runtime.encoded import Encoded, batches_by_length, pooled
from modelyard.runtime.graph import SHARE_TOKENS, Graph
from modelyard.runtime.runtime import Runtime

TEXTS = ["good", "a bad film", "the plot of the film is not very good", "fine 好", "cold and dull"]
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def write_sum_graph(file: Path) -> Path:
    """A graph whose outputs (P, 2) are the sum of a piece's numbers, and its longest length."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"]),
        helper.make_node("Mul", ["input_ids", "nought"], ["noughts"]),
        helper.make_node("Add", ["noughts", "one"], ["ones"]),
        helper.make_node("ReduceSum", ["ones", "axis"], ["padded"]),
        helper.make_node("Concat", ["sum", "padded"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["outputs"], to=TensorProto.FLOAT),
    ]
    numbers = {"axis": [1], "nought": [0], "one": [1]}
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["pieces", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["pieces", 2])],
        [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file)
    return file


def encoded_of(lengths: list[int], row_of: list[int] | None = None) -> Encoded:
    """Pieces of these lengths; a piece's numbers are its place, counted from 1."""
    return pieces_of([[place] * n for place, n in enumerate(lengths, start=1)], row_of, fill=7)


@pytest.fixture(scope="module", params=[1, 3])
def sums(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return Graph(write_sum_graph(tmp_path_factory.mktemp("sum") / "sum.onnx"), request.param)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    folder = write_release(tmp_path_factory.mktemp("release"))
    return Runtime.open(folder, inputs.find, targets.find)


@given(LENGTHS, st.integers(1, 200), st.integers(1, 9))
def test_batches_hold_each_piece_once_within_the_budget(
    lengths: list[int], budget: int, most: int
) -> None:
    batches = list(batches_by_length(np.array(lengths), budget, most))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        assert len(batch) <= most
        assert len(batch) == 1 or max(sizes) * len(batch) <= budget


@given(LENGTHS)
def test_outputs_come_in_the_order_of_the_pieces(sums: Graph, lengths: list[int]) -> None:
    found = sums.outputs(encoded_of(lengths), budget_tokens=50)
    assert found[:, 0].tolist() == [place * n for place, n in enumerate(lengths, start=1)]


@given(LENGTHS)
def test_one_batch_is_shared_out_and_comes_back_whole(sums: Graph, lengths: list[int]) -> None:
    encoded = encoded_of(lengths)
    found = sums.run(encoded)
    assert found[:, 0].tolist() == [place * n for place, n in enumerate(lengths, start=1)]


def test_little_is_padded(sums: Graph) -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    padded = sums.outputs(encoded_of(lengths.tolist()))[:, 1]
    assert padded.sum() < 1.03 * lengths.sum()


def test_a_piece_longer_than_a_share_is_one_batch(sums: Graph) -> None:
    found = sums.outputs(encoded_of([3, 2 * SHARE_TOKENS, 5]))
    assert found[:, 0].tolist() == [3, 4 * SHARE_TOKENS, 15]


def test_batches_do_not_depend_on_threads_where_shares_are_given(tmp_path: Path) -> None:
    file, encoded = write_sum_graph(tmp_path / "sum.onnx"), encoded_of([1, 9, 2, 8, 3])
    for threads in (1, 4):
        padded = Graph(file, threads, shares=1).outputs(encoded)[:, 1]
        assert padded.tolist() == [3, 9, 3, 9, 3]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=20))
def test_rows_are_the_mean_of_their_pieces(counts: list[int]) -> None:
    row_of = np.repeat(np.arange(len(counts)), counts)
    outputs = np.random.default_rng(0).normal(size=(len(row_of), 3)).astype(np.float32)
    expected = [outputs[row_of == row].mean(axis=0) for row in range(len(counts))]
    np.testing.assert_allclose(pooled(outputs, row_of), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_the_first_rows_keep_all_their_pieces(rows: int) -> None:
    encoded = encoded_of([4, 5, 6, 7], row_of=[0, 0, 1, 2])
    first = encoded.first(rows)
    assert first.rows == min(rows, 3)
    assert len(first.lengths) == int((encoded.row_of < rows).sum())


def test_no_rows_give_no_answers(opened: Runtime) -> None:
    assert opened.predict([]) == []


@settings(max_examples=25)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=40), st.integers(1, 7))
def test_each_row_gets_its_own_answer_whatever_its_neighbours(
    opened: Runtime, texts: list[str], part_rows: int
) -> None:
    alone = {text: opened.predict([{"text": text}])[0] for text in TEXTS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime_module, "PART_ROWS", part_rows)
        answers = opened.predict([{"text": text} for text in texts])
    assert [answer["label"] for answer in answers] == [alone[text]["label"] for text in texts]
    for text, answer in zip(texts, answers, strict=True):
        assert answer["score"] == pytest.approx(alone[text]["score"], abs=1e-6)


def test_a_long_text_is_the_mean_of_its_windows(opened: Runtime) -> None:
    encoded = opened.encode([{"text": "good film " * 60}, {"text": "dull"}])
    assert encoded.row_of.tolist() == [0, 0, 1]
    pieces = opened.graph.outputs(encoded)
    np.testing.assert_allclose(opened.outputs(encoded)[0], pieces[:2].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"body": "a film"}, ColumnMissing),
        ({"text": 3}, RequestInvalid),
        ({"text": " "}, RequestInvalid),
    ],
)
def test_a_bad_row_is_refused_by_number(
    opened: Runtime, row: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="text"):
        opened.predict([{"text": "good"}, row])


def test_the_row_that_lacks_a_column_is_named(opened: Runtime) -> None:
    with pytest.raises(
        ColumnMissing, match=r"^Row 2 lacks the column 'text'; its columns are: 't'"
    ):
        opened.predict([{"text": "good"}, {"t": "bad"}])


@pytest.mark.parametrize("rows", [{"text": "good"}, "good", ["good"], [None]])
def test_what_is_no_list_of_rows_is_said(opened: Runtime, rows: Any) -> None:
    with pytest.raises(RequestInvalid, match="Rows are a list of objects"):
        opened.predict(rows)


def test_predicting_loads_no_torch(tmp_path: Path) -> None:
    write_release(tmp_path)
    program = (
        "import sys; from pathlib import Path\n"
        "from modelyard import inputs, targets\n"
        "from modelyard.runtime.runtime import Runtime\n"
        "runtime = Runtime.open(Path(sys.argv[1]), inputs.find, targets.find)\n"
        "assert runtime.predict([{'text': 'a good film'}])[0]['label'] in ('good', 'bad')\n"
        "print({'torch', 'transformers', 'sklearn', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
