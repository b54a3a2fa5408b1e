"""Networks that answer for tokens: the fast form, the graph, int8, windows, shapes, losses."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.tiny import make_backbone, pieces_of

from modelyard import inputs
from modelyard.core.errors import SettingInvalid
from modelyard.inputs.shapes import SHAPES
from modelyard.models import quantize
from modelyard.models.batches import Batches
from modelyard.models.export import export, network_outputs
from modelyard.runtime.encoded import Encoded, Ragged, each_of
from modelyard.runtime.graph import Graph

TEXT = inputs.find("text")
TEXTS = ["the film was fine", "A dull Story and its music", "warm", "THE very CLEVER actor " * 9]


@pytest.fixture(scope="module")
def cased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone whose tokens keep their capital letters."""
    folder = make_backbone(tmp_path_factory.mktemp("cased") / "tiny")
    file = folder / "tokenizer.json"
    text = file.read_text(encoding="utf-8").replace('"lowercase":true', '"lowercase":false')
    file.write_text(text.replace('"lowercase": true', '"lowercase": false'), encoding="utf-8")
    return folder


def made(folder: Path, width: int = 5, dropout: float = 0.0) -> tuple[Any, Encoded]:
    """A tagger whose weights are larger than at the start, and the texts as it reads them."""
    import torch

    state = TEXT.learn([], {"window_tokens": 24}, folder, "tokens")
    torch.manual_seed(0)
    network = TEXT.network([state], folder, width, dropout)
    for weight in network.parameters():
        weight.data.mul_(4 if weight.ndim == 2 else 1)
    return network, TEXT.encoder(state, folder)(TEXTS)


def tensors(encoded: Encoded) -> dict[str, Any]:
    import torch

    arrays = encoded.collate(np.arange(len(encoded.lengths)))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_the_fast_form_gives_the_same_outputs_and_gradients(tiny_backbone: Path) -> None:
    import torch

    from modelyard.models.fast_bert import FastBert, is_possible

    network, encoded = made(tiny_backbone)
    assert is_possible(network)
    plain, fast, given = copy.deepcopy(network), FastBert(network), tensors(encoded)
    here = given["attention_mask"].bool()
    wanted, found = plain(**given).logits[here], fast(**given)[here]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    up = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    found.backward(up)
    wanted.backward(up)
    theirs = dict(plain.named_parameters())
    moved = [(n, p.grad) for n, p in network.named_parameters() if p.grad is not None]
    assert {n for n, _ in moved} >= {"classifier.weight", "bert.embeddings.word_embeddings.weight"}
    for name, gradient in moved:
        torch.testing.assert_close(gradient, theirs[name].grad, atol=1e-4, rtol=1e-3, msg=name)


def test_the_fast_form_is_silent_where_no_gradient_comes(tiny_backbone: Path) -> None:
    import torch

    from modelyard.models.fast_bert import FastBert

    network, encoded = made(tiny_backbone)
    outputs = FastBert(network)(**tensors(encoded))
    up = torch.zeros_like(outputs)
    up[0] = 1
    outputs.backward(up)
    used = set(encoded.take(np.array([0])).whole()["input_ids"].ravel().tolist())
    moved = network.bert.embeddings.word_embeddings.weight.grad.abs().sum(1).nonzero()
    assert set(moved.ravel().tolist()) <= used


@pytest.mark.parametrize("which", ["lower", "cased"])
def test_shapes_are_read_where_capital_letters_are_lost(
    tiny_backbone: Path, cased: Path, which: str
) -> None:
    network, encoded = made(tiny_backbone if which == "lower" else cased)
    assert ("token_type_ids" in encoded.arrays) == (which == "lower")
    table = network.bert.embeddings.token_type_embeddings.weight
    assert table.shape[0] == network.config.type_vocab_size == (SHAPES if which == "lower" else 2)
    if which == "lower":
        assert (table == table[0]).all()  # at first no shape says more than another
        shapes = encoded.arrays["token_type_ids"]
        assert isinstance(shapes, Ragged)
        start, end = shapes.ends[0], shapes.ends[1]
        assert shapes.values[start:end].tolist() == [0, 5, 1, 6, 1, 1, 1, 0]


def test_a_saved_tagger_is_read_again_with_its_shapes(tiny_backbone: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForTokenClassification

    network, encoded = made(tiny_backbone)
    with torch.no_grad():
        network.bert.embeddings.token_type_embeddings.weight.normal_()
    state = TEXT.learn([], {"window_tokens": 24}, tiny_backbone, "tokens")
    TEXT.save(network, [state], tiny_backbone, tmp_path)
    again = TEXT.network([state], tmp_path, 5, 0.0)
    theirs = AutoModelForTokenClassification.from_pretrained(tmp_path)
    given = tensors(encoded)
    wanted = network.eval()(**given).logits
    for other in (again, theirs):
        torch.testing.assert_close(other.eval()(**given).logits, wanted)


@pytest.fixture(scope="module")
def graphs(
    tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Encoded, list[Any]]:
    network, encoded = made(tiny_backbone)
    folder = tmp_path_factory.mktemp("graphs")
    outputs = list(network_outputs(network, encoded))
    export(network, encoded.collate([0, 1]), encoded.ragged, folder / "fp32.onnx")
    quantize.quantize(folder / "fp32.onnx", folder / "int8.onnx")
    return folder, encoded, outputs


@pytest.mark.parametrize(("name", "far"), [("fp32", 1e-5), ("int8", 0.3)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_graph_says_of_each_token_what_the_network_says(
    graphs: tuple[Path, Encoded, list[Any]], name: str, far: float, threads: int
) -> None:
    folder, encoded, outputs = graphs
    graph = Graph(folder / f"{name}.onnx", threads)
    for found in (graph.outputs(encoded), graph.outputs(encoded, 30), graph.run(encoded)):
        own = each_of(found)
        assert [len(each) for each in own] == encoded.lengths.tolist()
        for mine, theirs in zip(own, outputs, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=far)


def test_int8_leaves_what_gives_the_outputs_in_fp32(
    graphs: tuple[Path, Encoded, list[Any]],
) -> None:
    graph = onnx.load(graphs[0] / "int8.onnx").graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    plain = [a for a in arrays.values() if a.dtype == np.float32 and a.ndim == 2 and a.shape[1] > 1]
    assert [array.shape for array in plain] == [(32, 5)]


def test_a_rows_windows_stand_end_to_end_in_training(tiny_backbone: Path) -> None:
    import torch

    from modelyard.models.evaluation import row_outputs

    network, encoded = made(tiny_backbone)
    outputs = each_of(
        Ragged(np.concatenate(list(network_outputs(network, encoded))), encoded.lengths.cumsum())
    )
    assert np.bincount(encoded.row_of).tolist()[-1] > 1
    for batch in Batches(encoded, 4, seed=0, parts=2).epoch(0):
        for part in batch.parts:
            with torch.no_grad():
                found = row_outputs(network, encoded, part).numpy()
            for row, own in zip(part.rows, found, strict=True):
                wanted = np.concatenate([outputs[n] for n in np.flatnonzero(encoded.row_of == row)])
                np.testing.assert_allclose(own[: len(wanted)], wanted, atol=1e-5)
                assert not own[len(wanted) :].any()


def test_no_piece_heeds_what_it_is_run_with(graphs: tuple[Path, Encoded, list[Any]]) -> None:
    folder, encoded, _ = graphs
    graph = Graph(folder / "int8.onnx", 1)
    together = each_of(graph.run(encoded))
    for piece, wanted in enumerate(together):
        [alone] = each_of(graph.run(encoded.take(np.array([piece]))))
        np.testing.assert_allclose(alone, wanted, atol=1e-5)


def test_no_pieces_have_no_outputs(graphs: tuple[Path, Encoded, list[Any]]) -> None:
    folder, encoded, _ = graphs
    assert len(each_of(Graph(folder / "fp32.onnx", 1).outputs(encoded.first(0)))) == 0
    assert len(pieces_of([[1]]).lengths) == 1


def test_a_backbone_is_cut_to_its_first_layers(tiny_backbone: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, ModernBertConfig, ModernBertModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6}
    config = ModernBertConfig(vocab_size=60, num_attention_heads=4, pad_token_id=0, **sizes)
    folder = shutil.copytree(tiny_backbone, tmp_path / "modern")
    ModernBertModel(config).save_pretrained(folder)
    state = TEXT.learn([], {"layers": 2}, folder, "vectors")
    network = TEXT.network([state], folder, 32, 0.0)
    whole = TEXT.network([state | {"layers": None}], folder, 32, 0.0)
    assert 0 < count(network) < count(whole)
    TEXT.save(network.network, [state], folder, tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.num_hidden_layers == len(again.config.layer_types) == 2
    assert count(again) == count(network)


def count(network: Any) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_a_backbone_that_cannot_be_cut_is_refused_before_it_is_read(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    from transformers import FunnelConfig

    folder = shutil.copytree(tiny_backbone, tmp_path / "funnel")
    FunnelConfig(block_sizes=[1, 1]).save_pretrained(folder)
    with pytest.raises(SettingInvalid, match=r"'layers' .* is 1, and a backbone of type 'funnel'"):
        TEXT.learn([], {"layers": 1}, folder, "rows")
    assert TEXT.learn([], {}, folder, "rows")["layers"] is None
