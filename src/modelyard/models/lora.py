"""LoRA: low-rank matrices beside the frozen ones, merged into them at the end.

Hu, E. J. et al. (2022), LoRA: low-rank adaptation of large language models.
"""

from typing import Any

from torch import nn

from modelyard.models.first_token import read_first_token_only


def prepare(network: Any, rank: int) -> None:
    """Put low-rank matrices into every linear layer of a network's body; its head moves whole."""
    from peft import LoraConfig, inject_adapter_in_model

    body, inside = network.base_model, "|".join(_linears(network.base_model))
    prefix = network.base_model_prefix
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=rf"{prefix}\.({inside})")
    body.requires_grad_(False)
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        outside = not name.startswith(f"{prefix}.") or ".pooler." in name
        parameter.requires_grad_(outside or "lora_" in name)
    read_first_token_only(network)


def finish(network: nn.Module) -> None:
    """Merge the matrices into the weights and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer.get_base_layer())


def _linears(body: nn.Module) -> list[str]:
    """The names of the linear layers of the body, but for its pooler.

    A convolution of single points is such a layer too.
    """
    return [
        name.replace(".", r"\.")
        for name, module in body.named_modules()
        if _is_linear(module) and "pooler" not in name
    ]


def _is_linear(module: nn.Module) -> bool:
    is_of_points = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    return isinstance(module, nn.Linear) or is_of_points
