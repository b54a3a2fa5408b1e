"""EfficientNet-Lite: a convolutional network for images that runs well on plain processors.

Tan, M. and Le, Q. V. (2019), EfficientNet: rethinking model scaling for convolutional neural
networks. The Lite variants leave out squeeze-and-excitation, bend with ReLU6, and scale neither
the stem nor the head.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import pad, relu6

STEM, HEAD = 32, 1280
EPSILON = 1e-3
MEAN, SPREAD = 127.0, 128.0
"""Pixels from 0 to 255 less the mean, over the spread, are what the weights were trained on."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: the first takes `stride`; `expansion` is how much wider it is inside."""

    expansion: int
    width: int
    blocks: int
    stride: int
    kernel: int


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
"""Table 1 of the paper, which is the smallest of the family."""


class Convolution(nn.Module):
    """A convolution that keeps the size, or halves it with `stride` 2, and its norm.

    Where the padding is odd, the greater part lies below and to the right: so the weights were
    trained.
    """

    def __init__(self, given: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(given, width, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width, EPSILON)
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (P, W, H / stride, W / stride)."""
        (top, bottom), (left, right) = (self._padding(int(size)) for size in maps.shape[2:])
        if top or bottom:
            maps = pad(maps, (left, right, top, bottom))
        normed: Tensor = self.norm(self.conv(maps))
        return normed

    def _padding(self, size: int) -> tuple[int, int]:
        steps = math.ceil(size / self.stride) - 1
        missing = max(0, steps * self.stride + self.kernel - size)
        return missing // 2, missing - missing // 2


class Block(nn.Module):
    """Widen, filter each channel by itself, narrow; added to what came in where that fits.

    Sandler, M. et al. (2018), MobileNetV2: inverted residuals and linear bottlenecks.
    """

    def __init__(self, given: int, width: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inside = given * expansion
        self.widen = Convolution(given, inside) if expansion > 1 else None
        self.filter = Convolution(inside, inside, kernel, stride, groups=inside)
        self.narrow = Convolution(inside, width)
        self.is_added = stride == 1 and given == width

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (P, W, H / stride, W / stride)."""
        inside = maps if self.widen is None else relu6(self.widen(maps))
        found: Tensor = self.narrow(relu6(self.filter(inside)))
        return maps + found if self.is_added else found


class EfficientNetLite(nn.Module):
    """From images, as normalised maps (P, 3, H, W), to features (P, 1280)."""

    def __init__(self, width_factor: float, depth_factor: float):
        super().__init__()
        self.stem = Convolution(3, STEM, kernel=3, stride=2)
        self.blocks = nn.Sequential(*_blocks(width_factor, depth_factor))
        self.head = Convolution(scaled(STAGES[-1].width, width_factor), HEAD)

    def forward(self, maps: Tensor) -> Tensor:
        """Features (P, 1280): the mean of each of the last maps."""
        return relu6(self.head(self.blocks(relu6(self.stem(maps))))).mean((2, 3))


def _blocks(width_factor: float, depth_factor: float) -> Iterator[Block]:
    given = STEM
    for stage, blocks in zip(STAGES, blocks_in(depth_factor), strict=True):
        width = scaled(stage.width, width_factor)
        for number in range(blocks):
            stride = stage.stride if number == 0 else 1
            yield Block(given, width, stage.expansion, stage.kernel, stride)
            given = width


def blocks_in(depth_factor: float) -> list[int]:
    """How many blocks each stage has; the first and the last stage are never scaled.

    >>> blocks_in(1.0), blocks_in(0.5)
    ([1, 2, 2, 3, 3, 4, 1], [1, 1, 1, 2, 2, 2, 1])
    """
    middle = [math.ceil(stage.blocks * depth_factor) for stage in STAGES[1:-1]]
    return [STAGES[0].blocks, *middle, STAGES[-1].blocks]


def scaled(width: int, factor: float, step: int = 8) -> int:
    """A number of channels times a factor, as a multiple of 8, and not over a tenth less.

    >>> scaled(24, 1.0), scaled(24, 1.1), scaled(320, 1.1)
    (24, 24, 352)
    """
    wanted = width * factor
    nearest = max(step, int(wanted + step / 2) // step * step)
    return nearest + step if nearest < 0.9 * wanted else nearest


INSIDE = {
    "_expand_conv": "widen.conv",
    "_bn0": "widen.norm",
    "_depthwise_conv": "filter.conv",
    "_bn1": "filter.norm",
    "_project_conv": "narrow.conv",
    "_bn2": "narrow.norm",
}
OUTSIDE = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classifier",
}


def own_name(name: str) -> str:
    """What a weight of the known packages is called here.

    >>> own_name("_blocks.3._bn1.running_var"), own_name("_bn1.weight")
    ('blocks.3.filter.norm.running_var', 'head.norm.weight')
    """
    *place, module, weight = name.split(".")
    if place:
        return f"blocks.{place[1]}.{INSIDE[module]}.{weight}"
    return f"{OUTSIDE[module]}.{weight}"
