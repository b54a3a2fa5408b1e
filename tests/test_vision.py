"""Image networks: shapes, names, norms that stand still, and noise that comes again."""

import pytest
import torch

from modelyard.models.altered import altered
from modelyard.models.dropout import noise
from modelyard.models.efficientnet import MEAN, SPREAD, EfficientNetLite, scaled
from modelyard.models.vision import ImageNetwork


def small() -> ImageNetwork:
    torch.manual_seed(0)
    body = EfficientNetLite(0.25, 0.25)
    for weight in body.parameters():
        if weight.ndim == 4:  # else what goes in is lost in so many layers
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    mean, spread = torch.full((3,), MEAN), torch.full((3,), SPREAD)
    return ImageNetwork(body, torch.nn.Linear(1280, 2), mean, spread, "small")


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


def test_a_rows_output_does_not_depend_on_its_company() -> None:
    network = small().train()
    network.augment = "none"
    before = {name: value.clone() for name, value in network.named_buffers()}
    rows = pixels(4)
    together = network(rows)
    alone = torch.cat([network(row[None]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())
    together.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_images_are_altered_while_training_alone_and_the_same_with_the_same_noise() -> None:
    network, rows = small(), pixels(3)
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
