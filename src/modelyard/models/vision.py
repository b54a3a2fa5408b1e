"""Image networks: a pre-trained body, and what stands around it to take pixels as they come."""

from typing import Any

import torch
from torch import Tensor, nn

from modelyard.models.altered import altered


class ImageNetwork(nn.Module):
    """From pixels (P, 3, H, W), whole numbers from 0 to 255, to outputs (P, C).

    Normalising is a part of the network, so that four times fewer bytes travel to it. Batch norms
    keep the backbone's own statistics in training too: those of a batch would make a row's loss
    depend on the rows beside it and on how a step is cut into parts, and in parts of a few images
    they are noise. Their scale and shift are learned.
    """

    main_input_name = "pixels"

    def __init__(
        self, body: nn.Module, head: nn.Module, mean: Tensor, spread: Tensor, augment: str
    ):
        super().__init__()
        self.body = body
        self.head = head
        self.augment = augment
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", spread.view(1, 3, 1, 1), persistent=False)

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
        if self.training and self.augment != "none":
            maps = altered(maps, is_mirrored=self.augment == "mirrored")
        outputs: Tensor = self.head(self.body(maps))
        return outputs
