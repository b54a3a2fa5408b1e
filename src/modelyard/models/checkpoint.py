"""Checkpoints: where a killed training goes on from. One file, whole or absent, no pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

NAME = "checkpoint.safetensors"


def save(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain JSON facts; a kill at any moment leaves the last one whole."""
    draft = folder / f"{NAME}.draft"
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, draft, metadata={"facts": json.dumps(facts)})
    draft.rename(folder / NAME)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The last checkpoint's tensors and facts, or None where there is none that is whole."""
    try:
        with safe_open(folder / NAME, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that training moves, by name."""
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}


def put_weights(network: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the weights that training moves."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])


def moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, by parameter number and name."""
    return {
        f"{number}.{name}": tensor
        for number, state in optimiser.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def put_moments(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set the optimiser's tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    moved = [p for group in optimiser.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        number, _, own = name.partition(".")
        of = moved[int(number)]
        state.setdefault(int(number), {})[own] = laid_out(tensor, of) if tensor.ndim else tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor in the order that a parameter has in memory.

    The fused optimiser goes through both as they lie, whatever their strides are.
    """
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter).copy_(tensor)


def clear(folder: Path) -> None:
    """Forget the checkpoint."""
    (folder / NAME).unlink(missing_ok=True)


def only(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
