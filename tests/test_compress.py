"""Compress: a graph that says what the network says, int8 that heeds no neighbours, same bytes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import numpy_helper
from tests.small_models import TEXTS, WINDOW, lively, made
from tests.tiny import pieces_of

from modelyard import inputs, targets
from modelyard.core.artefacts import Dataset, Model
from modelyard.core.digest import of_folder
from modelyard.core.events import Decided
from modelyard.core.measure import Measure
from modelyard.models import quantize
from modelyard.models.export import export, network_outputs
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.graph import Graph
from modelyard.runtime.runtime import Runtime
from modelyard.stages.choice import named
from modelyard.stages.rungs import Rung

EXPORT = """
import sys
from pathlib import Path
from modelyard import inputs
from modelyard.models.export import export
from modelyard.models.quantize import quantize
backbone, out = map(Path, sys.argv[1:])
text = inputs.find("text")
example = text.encoder({"window_tokens": 32, "windows": 2, "pad_id": 0}, backbone)(["the film"])
export(text.network([], backbone, 2, 0.0), example.collate([0]), example.ragged, out / "fp32.onnx")
quantize(out / "fp32.onnx", out / "int8.onnx")
"""


def tiny_network(kind: str) -> Any:
    """A random classifier of this architecture, 2 layers × 32."""
    import torch
    import transformers

    sizes = {"vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 66}
    if kind == "DistilBert":
        names = {"num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        names |= {"hidden_size": "dim", "intermediate_size": "hidden_dim"}
        sizes = {names.get(name, name): size for name, size in sizes.items()}
    config = getattr(transformers, f"{kind}Config")(**sizes, num_labels=3)
    torch.manual_seed(1)
    return lively(getattr(transformers, f"{kind}ForSequenceClassification")(config))


def random_pieces(lengths: list[int], pad_id: int) -> Encoded:
    random = np.random.default_rng(0)
    return pieces_of([random.integers(5, 60, n).tolist() for n in lengths], fill=pad_id)


@pytest.fixture(scope="module", params=["Bert", "Roberta", "XLMRoberta", "DistilBert"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Encoded, Any]:
    """A folder with both graphs, pieces, and what the network itself says of them."""
    network = tiny_network(request.param)
    pieces = random_pieces([9, 1, 30, 4, 4, 17, 2, 30], network.config.pad_token_id)
    outputs = np.stack(network_outputs(network, pieces))
    folder = tmp_path_factory.mktemp(request.param)
    export(network, pieces.collate([0, 3]), pieces.ragged, folder / "fp32.onnx")
    quantize.quantize(folder / "fp32.onnx", folder / "int8.onnx")
    return folder, pieces, outputs


def test_the_graph_says_what_the_network_says(exported: tuple[Path, Encoded, Any]) -> None:
    folder, pieces, outputs = exported
    graph = Graph(folder / "fp32.onnx")
    assert np.ptp(outputs, axis=0).max() > 0.1
    np.testing.assert_allclose(graph.outputs(pieces), outputs, atol=1e-5)
    np.testing.assert_allclose(graph.run(pieces), outputs, atol=1e-5)


def test_only_networks_that_are_not_known_compute_padding(
    exported: tuple[Path, Encoded, Any],
) -> None:
    folder = exported[0]
    graph = Graph(folder / "int8.onnx")
    is_known = "DistilBert" not in folder.name
    assert graph.pads is not is_known
    taken = onnx.load(folder / "int8.onnx").graph.input
    ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in taken}
    assert ranks == {"input_ids": 1 if is_known else 2, "attention_mask": 2}


def test_padding_among_the_words_counts_as_the_network_counts_it(tmp_path: Path) -> None:
    network = tiny_network("Roberta")
    pad = network.config.pad_token_id
    pieces = pieces_of([[7, pad, 8, 9], [11, 12], [9, 8, pad, pad, 7, 6]], fill=pad)
    export(network, pieces.collate([0, 1]), pieces.ragged, tmp_path / "fp32.onnx")
    found = Graph(tmp_path / "fp32.onnx").outputs(pieces)
    wanted = np.stack(network_outputs(network, pieces))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_int8_is_near_the_network(exported: tuple[Path, Encoded, Any]) -> None:
    folder, pieces, outputs = exported
    found = Graph(folder / "int8.onnx").outputs(pieces)
    assert np.abs(found - outputs).max() < 0.05 * np.ptp(outputs)
    assert (folder / "int8.onnx").stat().st_size < 0.75 * (folder / "fp32.onnx").stat().st_size


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_a_row_heeds_neither_neighbours_nor_padding(
    exported: tuple[Path, Encoded, Any], name: str
) -> None:
    folder, pieces, _ = exported
    graph = Graph(folder / f"{name}.onnx")
    alone = np.concatenate([graph.run(pieces.take(np.array([index]))) for index in range(8)])
    together = Graph(folder / f"{name}.onnx", threads=1).run(pieces)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_products_never_overflow_16_bits(exported: tuple[Path, Encoded, Any]) -> None:
    graph = onnx.load(exported[0] / "int8.onnx").graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) >= 9
    for node in products:
        assert 2 * 255 * np.abs(arrays[node.input[1]].astype(int)).max() < 2**15


def test_no_large_weight_but_two_stays_in_fp32(exported: tuple[Path, Encoded, Any]) -> None:
    graph = onnx.load(exported[0] / "int8.onnx").graph
    plain = [each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    large = [each for each in plain if len(each.dims) > 1 and min(each.dims) > 3]
    folded = 0 if "DistilBert" in exported[0].name else 2  # keys and values of the last layer
    assert len(large) == folded


def test_a_row_of_zeros_is_no_division_by_zero(tmp_path: Path) -> None:
    network = tiny_network("Bert")
    for weight in network.bert.embeddings.parameters():
        weight.data.zero_()
    pieces = random_pieces([5, 3], 0)
    outputs = np.stack(network_outputs(network, pieces))
    export(network, pieces.collate([0, 1]), pieces.ragged, tmp_path / "fp32.onnx")
    quantize.quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    np.testing.assert_allclose(Graph(tmp_path / "int8.onnx").outputs(pieces), outputs, atol=0.05)


def test_another_process_writes_the_same_bytes(tmp_path: Path, tiny_backbone: Path) -> None:
    network = inputs.find("text").network([], tiny_backbone, 2, 0.0)
    (tmp_path / "model").mkdir()
    inputs.find("text").save(network, [WINDOW], tiny_backbone, tmp_path / "model")
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    example = inputs.find("text").encoder(WINDOW, tmp_path / "model")(TEXTS[:2])
    export(network, example.collate([0, 1]), example.ragged, here / "fp32.onnx")
    quantize.quantize(here / "fp32.onnx", here / "int8.onnx")
    program = [sys.executable, "-W", "ignore", "-c", EXPORT, tmp_path / "model", there]
    subprocess.run(program, check=True, capture_output=True)
    assert of_folder(here) == of_folder(there)
    assert not [
        word
        for word in (b"/tmp", b"/home", b"/usr", str(Path.home()).encode())
        if word in (here / "fp32.onnx").read_bytes()
    ]


def test_int8_is_released_where_it_loses_little(
    tmp_path: Path, model: Model, dataset: Dataset
) -> None:
    result = made(tmp_path, model, dataset, max_loss=0.1)
    told = result.told
    assert (told["target"], told["choice"]) == ("int8", "int8")
    assert [event.choice for event in result.events if isinstance(event, Decided)] == ["int8"]
    plain, small = told["rungs"]
    assert plain["value"] == plain["agreement"] == 1.0
    assert plain["loss"] == 0.0
    assert plain["largest_difference"] < 1e-4 < small["largest_difference"]
    assert small["agreement"] == small["value"] == pytest.approx(1 - small["loss"], abs=1e-6)
    assert small["low"] < small["value"] <= small["high"]
    assert small["rows"] == len(TEXTS)
    assert small["bytes"] == (result.folder / "graph.onnx").stat().st_size < plain["bytes"]
    assert set(result.record["rungs"]) == {"fp32", "int8"}


def test_the_model_predicts_and_still_loads_with_transformers(
    tmp_path: Path, model: Model, dataset: Dataset
) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = made(tmp_path, model, dataset, max_loss=0.1).folder
    runtime = Runtime.open(folder, inputs.find, targets.find)
    rows = pq.read_table(dataset.part("validation")).to_pylist()
    right = [a["label"] == row["label"] for a, row in zip(runtime.predict(rows), rows, strict=True)]
    assert np.mean(right) > 0.8
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.id2label[1] == "good"
    assert (folder / "seen.npy").samefile(model.folder / "seen.npy")
    assert model.spec.graph is None


def test_the_same_model_gives_the_same_bytes(
    tmp_path: Path, model: Model, dataset: Dataset
) -> None:
    first, second = (made(tmp_path / name, model, dataset) for name in ("first", "second"))
    assert of_folder(first.folder) == of_folder(second.folder)


def test_int8_that_loses_too_much_is_not_released(
    tmp_path: Path, model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "MOST_WEIGHT", 1)
    result = made(tmp_path, model, dataset)
    assert result.told["choice"] == "fp32"
    assert "more than compress.max_loss = 0.01 allows" in result.told["why"]
    assert (result.folder / "graph.onnx").stat().st_size == result.told["rungs"][0]["bytes"]
    [decided] = [event for event in result.events if isinstance(event, Decided)]
    assert (decided.choice, decided.why) == ("fp32", result.told["why"])


def test_a_loss_of_just_what_is_allowed_is_allowed() -> None:
    rungs = [
        Rung(name, 1, Measure("accuracy", value, 0.0, 1.0, 100), 0.92 - value, 1.0, 0.0)
        for name, value in (("fp32", 0.92), ("int8", 0.91))
    ]
    assert rungs[1].loss > 0.01
    assert named(rungs, "int8", 0.01).name == "int8"
    assert named(rungs, "int8", 0.0099).name == "fp32"


def test_fp32_is_made_alone_where_it_is_asked_for(
    tmp_path: Path, model: Model, dataset: Dataset
) -> None:
    told = made(tmp_path, model, dataset, target="fp32").told
    assert told["choice"] == "fp32"
    assert [rung["name"] for rung in told["rungs"]] == ["fp32"]


def test_nothing_is_made_small_unchecked(tmp_path: Path, model: Model, dataset: Dataset) -> None:
    empty = Dataset(tmp_path / "empty")
    empty.folder.mkdir()
    rows = pq.read_table(dataset.part("validation")).slice(0, 0)
    pq.write_table(rows, empty.part("validation"))
    told = made(tmp_path / "made", model, empty).told
    assert told["choice"] == "fp32"
    assert "no validation rows" in told["why"]
    assert told["rungs"] == []
