"""Image networks: shapes, names, norms that stand still, and noise that comes again."""

import json
from pathlib import Path

import pytest
import torch

from modelyard.core.errors import BackboneUnusable, UnknownName
from modelyard.models import backbones, checkpoint
from modelyard.models.altered import altered
from modelyard.models.dropout import noise
from modelyard.models.efficientnet import EfficientNetLite, scaled
from modelyard.models.vision import ImageNetwork, load, side_of


@pytest.fixture
def small(tiny_image_backbone: Path) -> ImageNetwork:
    torch.manual_seed(0)
    return load(tiny_image_backbone, width=2, side=32, dropout=0.0, augment="small")


def pixels(count: int, side: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("width", "depth", "millions"), [(1.0, 1.0, 4.7), (1.0, 1.1, 5.4), (1.1, 1.2, 6.1)]
)
def test_the_variants_have_their_published_sizes(
    width: float, depth: float, millions: float
) -> None:
    """Published with a last layer for 1,000 classes."""
    network = EfficientNetLite(width, depth)
    found = sum(weight.numel() for weight in network.parameters()) + 1281 * 1000
    assert round(found / 1e6, 1) == millions


@pytest.mark.parametrize("side", [32, 33, 47, 64])
def test_any_side_gives_features(side: int) -> None:
    network = EfficientNetLite(0.25, 0.25).eval()
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 1280)


def test_channels_are_multiples_of_eight() -> None:
    assert all(scaled(width, 1.1) % 8 == 0 for width in (16, 24, 40, 80, 112, 192, 320))


def test_a_rows_output_does_not_depend_on_its_company(small: ImageNetwork) -> None:
    network = small.train()
    network.augment = "none"
    before = {name: value.clone() for name, value in network.named_buffers()}
    rows = pixels(4)
    together = network(rows)
    alone = torch.cat([network(row[None]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())
    together.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_images_are_altered_while_training_alone_and_the_same_with_the_same_noise(
    small: ImageNetwork,
) -> None:
    network, rows = small, pixels(3)
    network.train()
    with noise(7, 1, 0):
        first = network(rows)
    with noise(7, 1, 0):
        again = network(rows)
    with noise(7, 2, 0):
        other = network(rows)
    assert torch.equal(first, again) and not torch.allclose(first, other)
    network.eval()
    assert torch.equal(network(rows), network(rows))


def test_alterations_are_small_and_mirror_where_asked() -> None:
    left = torch.zeros(200, 3, 32, 32)
    left[:, :, :, :16] = 1.0
    with noise(1):
        plain = altered(left, is_mirrored=False)
    with noise(1):
        mirrored = altered(left, is_mirrored=True)
    sides = plain[:, 0, :, :8].mean((1, 2)) > plain[:, 0, :, -8:].mean((1, 2))
    assert sides.all()
    sides = mirrored[:, 0, :, :8].mean((1, 2)) > mirrored[:, 0, :, -8:].mean((1, 2))
    assert 0.35 < sides.float().mean() < 0.65
    assert plain.abs().max() < 1.5 and len(plain.flatten(1).unique(dim=0)) == 200


def test_a_network_is_saved_and_read_again(small: ImageNetwork, tmp_path: Path) -> None:
    torch.nn.init.normal_(small.classifier.weight)
    small.config.update({"id2label": {0: "no", 1: "yes"}})
    small.save(tmp_path)
    again = load(tmp_path, width=2, side=32, dropout=0.0, augment="none").eval()
    rows = pixels(2)
    assert torch.equal(small.eval()(rows), again(rows))
    assert side_of(tmp_path) == 32 and again.config.id2label == {"0": "no", "1": "yes"}


@pytest.fixture(params=["resnet", "vit"])
def of_transformers(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A random network of transformers for images of 32 pixels, in a folder."""
    import transformers

    torch.manual_seed(0)
    made = {
        "resnet": lambda: transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        ),
        "vit": lambda: transformers.ViTModel(
            transformers.ViTConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=32,
                patch_size=8,
            )
        ),
    }
    made[request.param]().save_pretrained(tmp_path / request.param)
    normal = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"height": 32, "width": 32}}
    (tmp_path / request.param / "preprocessor_config.json").write_text(json.dumps(normal))
    return tmp_path / request.param


def test_a_vision_network_of_transformers_is_a_backbone(
    of_transformers: Path, tmp_path: Path
) -> None:
    found = backbones.resolve(str(of_transformers), kind="image")
    side = side_of(found.folder)
    network = load(found.folder, width=3, side=side, dropout=0.1, augment="small").train()
    assert side == 32 and network.spread.flatten().tolist() == pytest.approx([51.0] * 3)
    assert not any(m.training for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    network(pixels(2, 32)).sum().backward()
    (tmp_path / "saved").mkdir()
    network.save(tmp_path / "saved")
    again = load(tmp_path / "saved", width=3, side=side, dropout=0.0, augment="none").eval()
    rows = pixels(2, 32)
    assert torch.equal(network.eval()(rows), again(rows))
    assert torch.equal(network.mean, again.mean)


def test_what_cannot_read_images_or_their_size_is_refused(
    of_transformers: Path, tiny_backbone: Path
) -> None:
    if of_transformers.name == "vit":
        with pytest.raises(BackboneUnusable, match="size = 40"):
            load(of_transformers, width=2, side=40, dropout=0.0, augment="none")
    with pytest.raises(BackboneUnusable, match="as an image classifier"):
        load(tiny_backbone, width=2, side=32, dropout=0.0, augment="none")


def test_a_known_backbone_reads_one_kind_of_input() -> None:
    with pytest.raises(UnknownName, match="reads image, and backbone"):
        backbones.refuse_unknown("efficientnet-lite0", kind="text")
    with pytest.raises(UnknownName, match=r"known name \(efficientnet-lite0, "):
        backbones.refuse_unknown("efficientnet", kind="image")


def test_convolutions_move_the_same_however_they_lie_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start, slope = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(start.clone(memory_format=layout))
        optimiser = torch.optim.AdamW([weight], lr=0.1, fused=True)
        for _ in range(2):  # the second with moments from a checkpoint
            weight.grad = checkpoint.laid_out(slope, weight)
            optimiser.step()
            checkpoint.save(tmp_path, checkpoint.moments(optimiser), {})
            optimiser = torch.optim.AdamW([weight], lr=0.1, fused=True)
            tensors, _ = checkpoint.load(tmp_path) or ({}, {})
            checkpoint.put_moments(optimiser, tensors)
        moved.append(weight.detach())
    assert torch.allclose(*moved, atol=1e-6)
