"""Precision: bf16 only where the processor computes in it and it was seen to be no worse."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from modelyard.models.fast_bert import FastBert, fast
from modelyard.models.fused import towers_of
from modelyard.models.vision import LiteNetwork

TRIAL_STEPS = 20
TOLERANCE = 0.01


@dataclass(frozen=True)
class Decision:
    """The precision chosen, and why; `losses` are those of the trial, by precision."""

    precision: str
    why: str
    losses: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The decision as a JSON object."""
        return asdict(self)


def decide(wanted: str, trial: Callable[[str], float] | None, against: str | None) -> Decision:
    """Choose fp32 or bf16; `against` says what stands against bf16 without a trial, if anything.

    `trial` gives the validation loss after TRIAL_STEPS steps from the same start in a precision;
    it is asked only where nothing stands against bf16 nor was forced; None where there are no
    validation rows to see it on. No timing decides, so the same machine always decides the same.
    """
    if wanted != "auto":
        return Decision(wanted, "the project file says so", {})
    if against:
        return Decision("fp32", against, {})
    if trial is None:
        return Decision("fp32", "there are no validation rows to check bf16 on", {})
    losses = {precision: trial(precision) for precision in ("fp32", "bf16")}
    good = losses["bf16"] <= losses["fp32"] * (1 + TOLERANCE)
    why = f"after {TRIAL_STEPS} steps the validation loss is {losses['bf16']:.4f} in bf16"
    return Decision("bf16" if good else "fp32", f"{why}, {losses['fp32']:.4f} in fp32", losses)


def what_is_against_bf16(network: nn.Module) -> str | None:
    """Why a network trains in fp32 whatever a trial would say, or None."""
    if not processor_has_bf16():
        return "the processor does not compute in bf16"
    towers = towers_of(network).values()
    has_convolutions = any(isinstance(tower, LiteNetwork) for tower in towers)
    if has_convolutions and not any(isinstance(tower, FastBert) for tower in towers):
        # EfficientNet-Lite0 at 96 pixels, with its gradients: 43 images a second, in fp32 75
        return "the gradients of convolutions take longer in bf16"
    return None


def processor_has_bf16() -> bool:
    """Whether the processor has instructions for bf16; emulation would be slower than fp32."""
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def use(network: nn.Module, precision: str) -> nn.Module:
    """Let a network compute in a precision; its weights stay fp32."""
    if precision != "bf16":
        return network
    own = [tower for tower in towers_of(network).values() if isinstance(tower, FastBert)]
    for tower in own:
        tower.dtype = torch.bfloat16
    if not own:
        network.forward = torch.autocast("cpu", torch.bfloat16)(network.forward)
    return network


def quick(network: nn.Module) -> nn.Module:
    """A network that is only read, in the form and the precision that are the fastest here."""
    return use(fast(network).eval(), "bf16" if processor_has_bf16() else "fp32")
