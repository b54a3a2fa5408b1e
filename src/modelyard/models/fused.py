"""Fused: several networks, one for each group of input columns, and layers over all of them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import gelu

from modelyard.models.dropout import factors
from modelyard.models.towers import TwoTowers

HEAD = "head.safetensors"
HEAD_WIDTH = 256
LEFT_OUT = 0.05
"""Share of the rows for which a part is left out, so that doing without it is learned."""


class Head(nn.Module):
    """What N towers say, each (P, W), to outputs (P, C): two hidden layers, and a line past them.

    Beside what each says they read the product of each two: what two columns say only together is
    found far sooner so. Kim, J.-H. et al. (2017), Hadamard product for low-rank bilinear pooling.
    """

    def __init__(self, towers: int, tower_width: int, outputs: int, dropout: float):
        super().__init__()
        width = (towers + towers * (towers - 1) // 2) * tower_width
        self.first = nn.Linear(width, HEAD_WIDTH)
        self.second = nn.Linear(HEAD_WIDTH, HEAD_WIDTH)
        self.last = nn.Linear(HEAD_WIDTH, outputs)
        self.past = nn.Linear(width, outputs, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, told: Mapping[str, Tensor]) -> Tensor:
        """Outputs (P, C)."""
        own = list(told.values())
        joined = torch.cat([*own, *(one * other for one, other in combinations(own, 2))], 1)
        hidden = self.dropout(gelu(self.first(self.dropout(gelu(joined)))))
        hidden = self.dropout(gelu(self.second(hidden)))
        outputs: Tensor = self.last(hidden) + self.past(joined)
        return outputs


class Sum(nn.Module):
    """What towers say as one vector (P, W): their sum, each part of it weighed.

    So a vector of a text alone is of the same space as one of a text and more, and what a row lacks
    adds nothing. What began with pre-trained weights weighs 1 at first, and anything else little.
    Kula, M. (2015), Metadata embeddings for user and item cold-start recommendations.
    """

    def __init__(self, width: int, begins: Mapping[str, float]):
        super().__init__()
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(torch.full((width,), weight)) for name, weight in begins.items()}
        )

    def forward(self, told: Mapping[str, Tensor]) -> Tensor:
        """Vectors (P, W)."""
        weighed = [self.weights[name] * own for name, own in told.items()]
        return torch.stack(weighed).sum(0)


class Fused(nn.Module):
    """Towers side by side, and a network over them: arrays by `TOWER.NAME` to outputs (P, C).

    Each tower gives (P, W); what is `over` them takes that by name. Some get `TOWER.present` (P, 1)
    beside theirs: where it is 0, a learned vector stands for what they would say if they are among
    those that `learn_absence`, and nothing otherwise. Towers without arrays say nothing.
    """

    def __init__(
        self,
        towers: Mapping[str, nn.Module],
        over: nn.Module,
        learn_absence: Collection[str],
        tower_width: int,
    ):
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(tower_width)) for name in learn_absence}
        )
        self.over = over

    def forward(self, **arrays: Tensor) -> Tensor:
        """Outputs (P, C)."""
        own = {name: _under(name, arrays) for name in self.towers}
        told = {name: self._told(name, found) for name, found in own.items() if found}
        outputs: Tensor = self.over(told)
        return outputs

    def _told(self, name: str, arrays: dict[str, Tensor]) -> Tensor:
        """What a tower says (P, W)."""
        present = arrays.pop("present", None)
        found = self.towers[name](**arrays)
        told: Tensor = getattr(found, "logits", found).float()
        if present is None:
            return told
        if name not in self.absent:
            return told * present
        if self.training and len(self.towers) > 1:
            present = present * factors(present, LEFT_OUT).sign()
        filled: Tensor = told * present + self.absent[name] * (1 - present)
        return filled

    def with_towers(self, change: Callable[[nn.Module], nn.Module]) -> "Fused":
        """The same network, whose weights are these, with other forms of its towers."""
        other = Fused.__new__(Fused)
        nn.Module.__init__(other)
        other.towers = nn.ModuleDict({name: change(tower) for name, tower in self.towers.items()})
        other.absent, other.over = self.absent, self.over
        return other


def _under(name: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of a tower, by their own names."""
    prefix = f"{name}."
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def towers_of(network: Any) -> dict[str, Any]:
    """The towers of a fused network by name, or any other network as "".

    Where a query and its candidates have one network, it is that.

    >>> list(towers_of(nn.Linear(1, 1)))
    ['']
    """
    own = network.tower if isinstance(network, TwoTowers) else network
    return dict(own.towers.items()) if isinstance(own, Fused) else {"": own}


def pretrained(network: nn.Module) -> Iterator[Any]:
    """The towers, or the network itself, that began as pre-trained weights."""
    for tower in towers_of(network).values():
        if hasattr(getattr(tower, "network", tower), "base_model"):
            yield tower


def save_head(network: Any, folder: Path) -> None:
    """Write what is over the towers into a folder, if there is such."""
    if isinstance(network, Fused):
        save_file(_over(network), folder / HEAD, {"format": "pt"})


def load_head(network: Any, folder: Path) -> None:
    """Set what is over the towers to what `save_head` wrote."""
    if isinstance(network, Fused):
        network.load_state_dict(load_file(folder / HEAD), strict=False)


def _over(network: Fused) -> dict[str, Tensor]:
    return {n: t for n, t in network.state_dict().items() if not n.startswith("towers.")}
