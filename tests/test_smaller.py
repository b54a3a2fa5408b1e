"""Smaller networks: every way with every kind of network that it makes sense for."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.tiny import make_image_backbone, pieces_of
from torch.utils.flop_counter import FlopCounterMode

from modelyard.core.events import silent
from modelyard.models import methods, vision
from modelyard.models.evaluation import piece_outputs
from modelyard.models.export import export, network_outputs
from modelyard.models.fused import Fused, Head, Sum
from modelyard.models.pooled import Pooled
from modelyard.models.quantize import quantize
from modelyard.models.smaller import Smaller, Teaching, in_hugging_face_form, ways
from modelyard.models.tabular import Numbers
from modelyard.models.teaching import DISTANCES
from modelyard.models.tokens_kept import KeptTokens
from modelyard.runtime.encoded import Encoded, each_of, side_by_side
from modelyard.runtime.graph import Graph

CLASSES = 3
TOKENS = 60
ROWS = 64
RATE = 1e-3
ROUNDING = 1e-6
OF_LAYERS = ["low-rank-half", "heads-half", "feed-forward-half", "feed-forward-quarter"]
OF_LAYERS += ["layers-2", "layers-1"]
OF_TEXTS = ["vocabulary", *OF_LAYERS, "static"]
WAYS = {
    "class": OF_TEXTS,
    "tokens": OF_TEXTS[:-1],
    "vectors": OF_TEXTS,
    "fused": OF_TEXTS,
    "vectors of several": OF_TEXTS,
    "table": ["low-rank-half"],
    "image": ["blocks-half"],
}
EVERY = [(kind, way) for kind, names in WAYS.items() for way in names]
IN_HUGGING_FACE_FORM = ("feed-forward-", "layers-", "blocks-")


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """Few rows make few steps: these are larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "rate_of", lambda method, network: RATE)
        yield


@dataclass(frozen=True)
class Case:
    """A kind of network, the pieces it reads, and how its outputs are compared."""

    network: Any
    pieces: Encoded
    kind: str
    used: Mapping[str, Any]

    def way(self, name: str) -> Smaller:
        return next(each for each in ways(self.network, self.used) if each.name == name)

    def teaching(self, folder: Path, **changed: Any) -> Teaching:
        outputs = network_outputs(self.network, self.pieces)
        held = self.pieces.take(np.arange(16))
        values: dict[str, Any] = {"pieces": self.pieces, "outputs": outputs, "validation": held}
        values |= {"validation_outputs": outputs[:16], "kind": self.kind, "minutes": 0.0}
        values |= {"seed": 1, "events": silent, "kept": folder}
        return Teaching(**(values | changed))


def _config(**options: Any) -> Any:
    import transformers

    sizes = {"vocab_size": TOKENS, "hidden_size": 64, "intermediate_size": 128}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 16}
    return transformers.BertConfig(
        **sizes,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        **options,
    )


def _bert(name: str, outputs: int = CLASSES) -> Any:
    """A random BERT with large weights, so that outputs differ."""
    import transformers

    return getattr(transformers, name)(_config(num_labels=outputs))


def _texts(rows: int = ROWS) -> Encoded:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 9, rows)
    return pieces_of([[2, *random.integers(5, 40, n).tolist(), 3] for n in lengths])


def _table(rows: int = ROWS) -> Encoded:
    random = np.random.default_rng(1)
    values = random.normal(size=(rows, 4)).astype(np.float32)
    values[:, 1::2] = 0  # nothing is missing
    return Encoded({"values": values}, np.arange(rows), np.ones(rows, dtype=np.int64))


def _numbers(width: int) -> Numbers:
    return Numbers([[-2.0, -1.0, 0.0, 1.0, 2.0]] * 2, width)


def _several(over: Any, text: Any) -> Any:
    return Fused({"0": text, "1": _numbers(16)}, over, (), 16)


def _pooled_and_numbers() -> Any:
    return Fused(
        {"0": Pooled(_bert("BertModel")), "1": _numbers(64)},
        Sum(64, {"0": 1.0, "1": 0.1}), (), 64,
    )  # fmt: skip


def _image() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        backbone = make_image_backbone(Path(folder) / "image")
        network = vision.load(backbone, CLASSES, 32, 0.0, "none")
    network.classifier.weight.data.mul_(20)
    network.config.depth_factor = 0.6
    network.body = type(network.body)(0.25, 0.6)
    for weight in network.body.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return network


def _pictures() -> Encoded:
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (ROWS, 3, 32, 32), dtype=np.uint8)
    return Encoded({"pixels": pixels}, np.arange(ROWS), np.full(ROWS, 32))


def _both() -> Encoded:
    return side_by_side({"0": _texts(), "1": _table()})


MADE: dict[str, tuple[Callable[[], Any], Callable[[], Encoded], str]] = {
    "class": (lambda: _bert("BertForSequenceClassification"), _texts, "classes"),
    "tokens": (lambda: _bert("BertForTokenClassification"), _texts, "tokens"),
    "vectors": (lambda: Pooled(_bert("BertModel")), _texts, "vectors"),
    "fused": (
        lambda: _several(Head(2, 16, 2, 0.0), _bert("BertForSequenceClassification", 16)),
        _both,
        "labels",
    ),
    "vectors of several": (_pooled_and_numbers, _both, "vectors"),
    "table": (lambda: Fused({"0": _numbers(16), "1": _numbers(16)}, Head(2, 16, 1, 0.0), (), 16),
              lambda: side_by_side({"0": _table(), "1": _table()}), "numbers"),
    "image": (_image, _pictures, "classes"),
}  # fmt: skip


@cache
def case(kind: str) -> Case:
    make, pieces, how = MADE[kind]
    torch.manual_seed(3)
    network = make().eval()
    tower = "0" if kind in ("fused", "vectors of several") else ""
    reads = kind not in ("table", "image")
    used = {tower: np.r_[0, 2, 3, 5:40].astype(np.int64)} if reads else {}
    return Case(network, pieces(), how, used)


@cache
def made(kind: str, name: str) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        own = case(kind)
        return own.way(name).make(own.network, own.teaching(Path(folder)))


def state(network: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def operations(network: Any, pieces: Encoded) -> int:
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        piece_outputs(network, pieces, np.arange(8))
    return int(counted.get_total_flops())


@pytest.mark.parametrize("kind", WAYS)
def test_ways_are_those_that_make_sense(kind: str) -> None:
    own = case(kind)
    found = ways(own.network, own.used)
    assert [each.name for each in found] == WAYS[kind]
    assert all(each.about for each in found)


def test_what_all_tokens_are_used_of_or_has_one_layer_is_not_offered_less() -> None:
    network = made("class", "layers-1")
    every = {"": np.arange(TOKENS)}
    assert [w.name for w in ways(network, every)] == [*OF_LAYERS[:-2], "static"]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_it_is_smaller_and_says_about_what_the_teacher_says(kind: str, name: str) -> None:
    own, network = case(kind), made(kind, name)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (network, own.network)]
    work = [operations(each, own.pieces) for each in (network, own.network)]
    assert sizes[0] < sizes[1] or work[0] < work[1]
    wanted = [torch.from_numpy(each) for each in network_outputs(own.network, own.pieces)]
    found = [torch.from_numpy(each) for each in network_outputs(network, own.pieces)]
    mean = torch.cat([each.view(-1, each.shape[-1]) for each in wanted]).mean(0)
    apart = DISTANCES[own.kind]
    theirs, chance = (
        float(
            torch.cat([apart(a[None], b[None]) for a, b in zip(said, wanted, strict=True)]).mean()
        )
        for said in (found, [mean.expand_as(each) for each in wanted])
    )
    most = {"vocabulary": 0.0, "static": 0.9}.get(name, 0.7)  # a token's vector says less
    assert theirs <= most * chance + ROUNDING, (theirs, chance)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_its_graphs_say_what_it_says(kind: str, name: str, tmp_path: Path) -> None:
    own, network = case(kind), made(kind, name)
    wanted = network_outputs(network, own.pieces)
    export(network, own.pieces.collate([0, 1]), own.pieces.ragged, tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    spread = float(np.concatenate(wanted).std())
    for file, tolerance in (("fp32.onnx", 1e-4), ("int8.onnx", 0.25)):
        found = each_of(Graph(tmp_path / file).outputs(own.pieces))
        apart = [np.abs(a - b).mean() for a, b in zip(found, wanted, strict=True)]
        assert np.mean(apart) < tolerance * max(spread, 1e-2), file


def test_low_rank_products_are_thin_in_the_graph_and_in_8_bits(tmp_path: Path) -> None:
    own, network = case("class"), made("class", "low-rank-half")
    export(network, own.pieces.collate([0, 1]), own.pieces.ragged, tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    known = {each.name for each in graph.initializer}
    products = [n for n in graph.node if n.op_type in ("MatMul", "Gemm", "MatMulIntegerToFloat")]
    kinds = Counter(node.op_type for node in products if set(node.input[:2]) & known)
    assert kinds["MatMulIntegerToFloat"] > 10
    assert kinds["MatMul"] + kinds["Gemm"] <= 4  # the last layer's folded ones, and the head


@pytest.mark.parametrize("name", OF_TEXTS)
def test_the_teacher_stays_and_the_same_seed_gives_the_same_network(
    name: str, tmp_path: Path
) -> None:
    own = case("class")
    before = state(own.network)
    torch.manual_seed(int(time.time_ns() % 2**31))  # what came before is no matter
    again = own.way(name).make(own.network, own.teaching(tmp_path))
    after = state(own.network)
    assert all(torch.equal(before[each], after[each]) for each in before)
    first, second = state(made("class", name)), state(again)
    assert all(torch.equal(first[each], second[each]) for each in first)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_transformers_holds_what_is_said_to_be_in_its_form(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    network = made("class", name)
    is_in_form = name.startswith(IN_HUGGING_FACE_FORM)
    assert in_hugging_face_form(network) == is_in_form
    if is_in_form:
        network.save_pretrained(tmp_path)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        own, theirs = (network_outputs(each, case("class").pieces) for each in (network, again))
        assert np.allclose(np.stack(own), np.stack(theirs), atol=1e-5)


def test_an_image_network_of_fewer_blocks_is_saved_and_read_again(tmp_path: Path) -> None:
    network = made("image", "blocks-half")
    assert in_hugging_face_form(network)
    network.save(tmp_path)
    again = vision.load(tmp_path, CLASSES, 32, 0.0, "none")
    own, theirs = (network_outputs(each, case("image").pieces) for each in (network, again))
    assert np.allclose(np.stack(own), np.stack(theirs), atol=1e-5)


def test_ways_follow_each_other(tmp_path: Path) -> None:
    own = case("class")
    network = own.network
    for number, name in enumerate(
        ("vocabulary", "layers-2", "heads-half", "feed-forward-half", "low-rank-half")
    ):
        way = next(each for each in ways(network, own.used) if each.name == name)
        smaller = way.make(network, own.teaching(tmp_path / str(number)))
        assert operations(smaller, own.pieces) < operations(network, own.pieces) or number == 0
        network = smaller
    assert isinstance(network.get_input_embeddings(), KeptTokens)
    export(network, own.pieces.collate([0, 1]), own.pieces.ragged, tmp_path / "fp32.onnx")
    wanted = np.stack(network_outputs(network, own.pieces))
    assert np.allclose(Graph(tmp_path / "fp32.onnx").outputs(own.pieces), wanted, atol=1e-4)


def test_a_token_no_row_has_is_read_as_the_most_similar_one() -> None:
    own = case("class")
    network = own.network
    vectors = network.get_input_embeddings().weight
    kept = vectors[41].clone()
    with torch.no_grad():
        vectors[41] = 1.5 * vectors[7]
    smaller = own.way("vocabulary").make(network, own.teaching(Path()))
    seen, unseen = (pieces_of([[2, 9, token, 3]]) for token in (7, 41))
    said = [network_outputs(smaller, each)[0] for each in (seen, unseen)]
    with torch.no_grad():
        vectors[41] = kept
    assert np.array_equal(*said)


def test_a_budget_ends_the_training(tmp_path: Path) -> None:
    import time

    own = case("class")
    began = time.perf_counter()
    own.way("layers-2").make(own.network, own.teaching(tmp_path, minutes=0.02))
    assert time.perf_counter() - began < 30


def test_no_validation_rows_are_no_obstacle(tmp_path: Path) -> None:
    own = case("class")
    none = own.pieces.take(np.arange(0))
    teaching = own.teaching(tmp_path, validation=none, validation_outputs=[])
    assert network_outputs(own.way("layers-1").make(own.network, teaching), own.pieces)
