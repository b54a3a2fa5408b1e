"""Image networks: a pre-trained body, and what stands around it to take pixels as they come."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modelyard.core.errors import BackboneUnusable
from modelyard.models import efficientnet
from modelyard.models.altered import altered
from modelyard.models.efficientnet import EfficientNetLite
from modelyard.models.known import EFFICIENTNET_LITE

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
BODY = "body."
USUAL_SIDE = 224
NEW_DEVIATION = 0.01


class ImageNetwork(nn.Module, ABC):
    """From pixels (P, 3, H, W), whole numbers from 0 to 255, to outputs (P, C).

    Normalising is a part of the network, so that four times fewer bytes travel to it. Batch norms
    keep the backbone's own statistics in training too: those of a batch would make a row's loss
    depend on the rows beside it and on how a step is cut into parts, and in parts of a few images
    they are noise. Their scale and shift are learned.
    """

    config: Any
    mean: Tensor
    spread: Tensor
    base_model_prefix = "body"

    def __init__(self, mean: list[float], spread: list[float], augment: str):
        super().__init__()
        self.augment = augment
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(spread).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "ImageNetwork":
        """Training or not; batch norms stay as they are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Outputs (P, C)."""
        maps = (pixels.float() - self.mean) / self.spread
        if not torch.onnx.is_in_onnx_export():  # half as fast again, where PyTorch computes
            maps = maps.contiguous(memory_format=torch.channels_last)
        if self.training and self.augment != "none":
            maps = altered(maps, is_mirrored=self.augment == "mirrored")
        return self.outputs(maps)

    @abstractmethod
    def outputs(self, maps: Tensor) -> Tensor:
        """Outputs (P, C) of normalised images (P, 3, H, W)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write config.json and the weights."""


class Settings(SimpleNamespace):
    """A configuration as transformers has them: named values that can be updated."""

    def update(self, values: Mapping[str, Any]) -> None:
        """Set values by name."""
        vars(self).update(values)


class LiteNetwork(ImageNetwork):
    """An EfficientNet-Lite and a layer over it."""

    def __init__(self, settings: Mapping[str, Any], width: int, dropout: float, augment: str):
        super().__init__([efficientnet.MEAN] * 3, [efficientnet.SPREAD] * 3, augment)
        self.config = Settings(**settings)
        self.body = EfficientNetLite(settings["width_factor"], settings["depth_factor"])
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(efficientnet.HEAD, width)
        nn.init.normal_(self.classifier.weight, std=NEW_DEVIATION)
        nn.init.zeros_(self.classifier.bias)
        own: Any = self  # whose types do not know the memory's format
        own.to(memory_format=torch.channels_last)

    @property
    def base_model(self) -> nn.Module:
        """What began as pre-trained weights."""
        return self.body

    def outputs(self, maps: Tensor) -> Tensor:
        """Outputs (P, C)."""
        outputs: Tensor = self.classifier(self.dropout(self.body(maps)))
        return outputs

    def save(self, folder: Path) -> None:
        """Write config.json and the weights."""
        text = json.dumps(vars(self.config), indent=1, ensure_ascii=False)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS, {"format": "pt"})


class TransformersNetwork(ImageNetwork):
    """An image classifier of transformers."""

    def __init__(self, body: Any, folder: Path, augment: str):
        facts = _json(folder / PREPROCESSOR)
        mean, spread = (facts.get(name, [0.5] * 3) for name in ("image_mean", "image_std"))
        super().__init__([255.0 * m for m in mean], [255.0 * s for s in spread], augment)
        self.body = body
        self.config = body.config
        self.preprocessor = folder / PREPROCESSOR
        self.base_model_prefix = f"body.{body.base_model_prefix}"

    @property
    def base_model(self) -> nn.Module:
        """What began as pre-trained weights."""
        base: nn.Module = self.body.base_model
        return base

    def outputs(self, maps: Tensor) -> Tensor:
        """Outputs (P, C)."""
        outputs: Tensor = self.body(pixel_values=maps).logits
        return outputs

    def save(self, folder: Path) -> None:
        """Write what transformers reads, and how images are normalised."""
        self.body.save_pretrained(folder)
        if self.preprocessor.is_file():
            shutil.copyfile(self.preprocessor, folder / PREPROCESSOR)


def load(backbone: Path, width: int, side: int, dropout: float, augment: str) -> ImageNetwork:
    """The network of a backbone, or of a Model, with `width` outputs; raises BackboneUnusable."""
    settings = _json(backbone / CONFIG)
    if settings.get("model_type") == EFFICIENTNET_LITE:
        return _lite(backbone, settings, width, dropout, augment)
    network = TransformersNetwork(_classifier(backbone, width), backbone, augment)
    _try(network, backbone, side)
    return network


def side_of(backbone: Path) -> int:
    """Pixels of a side of the images that a backbone was trained on."""
    size = _json(backbone / CONFIG).get("image_size")
    size = size or _json(backbone / PREPROCESSOR).get("size") or USUAL_SIDE
    sides = size.values() if isinstance(size, dict) else size if isinstance(size, list) else [size]
    return max(int(side) for side in sides)


def _lite(
    backbone: Path, settings: Mapping[str, Any], width: int, dropout: float, augment: str
) -> LiteNetwork:
    network = LiteNetwork(settings, width, dropout, augment)
    weights = load_file(backbone / WEIGHTS)
    if not any(name.startswith(BODY) for name in weights):  # a backbone, whose classes are others
        weights = {BODY + n: w for n, w in weights.items() if not n.startswith("classifier.")}
    network.load_state_dict(weights, strict=False)
    return network


def _classifier(backbone: Path, width: int) -> Any:
    from transformers import AutoModelForImageClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return AutoModelForImageClassification.from_pretrained(
            backbone, num_labels=width, ignore_mismatched_sizes=True, dtype="float32"
        )
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        raise _unusable(backbone, "as an image classifier", error) from None


def _try(network: ImageNetwork, backbone: Path, side: int) -> None:
    """Refuse a side that the network cannot read."""
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError) as error:
        raise _unusable(backbone, f"for images of size = {side}", error) from None


def _unusable(backbone: Path, what: str, error: Exception) -> BackboneUnusable:
    reason = str(error).strip().splitlines()[0][:200]
    return BackboneUnusable(
        f"transformers cannot use {backbone} {what} ({reason}); choose another backbone or size."
    )


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
