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
    """Towers' outputs (P, N W) to outputs (P, C): two hidden layers, and a line past them."""

    def __init__(self, width: int, outputs: int, dropout: float):
        super().__init__()
        self.first = nn.Linear(width, HEAD_WIDTH)
        self.second = nn.Linear(HEAD_WIDTH, HEAD_WIDTH)
        self.last = nn.Linear(HEAD_WIDTH, outputs)
        self.past = nn.Linear(width, outputs, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, joined: Tensor) -> Tensor:
        """Outputs (P, C)."""
        hidden = self.dropout(gelu(self.first(self.dropout(gelu(joined)))))
        hidden = self.dropout(gelu(self.second(hidden)))
        outputs: Tensor = self.last(hidden) + self.past(joined)
        return outputs


class Fused(nn.Module):
    """Towers side by side: arrays by `TOWER.NAME` to outputs (P, C).

    Each tower gives (P, W), and each pair of towers the product of theirs: what two columns say
    only together is found far sooner so (Kim, J.-H. et al. 2017, Hadamard product for low-rank
    bilinear pooling). Those that `may_lack` also get `TOWER.present` (P, 1): where it is 0, a
    learned vector stands for what they would say.
    """

    def __init__(
        self,
        towers: Mapping[str, nn.Module],
        may_lack: Collection[str],
        tower_width: int,
        width: int,
        dropout: float,
    ):
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(tower_width)) for name in towers if name in may_lack}
        )
        pairs = len(towers) * (len(towers) - 1) // 2
        self.head = Head((len(towers) + pairs) * tower_width, width, dropout)

    def forward(self, **arrays: Tensor) -> Tensor:
        """Outputs (P, C)."""
        told = [self._told(name, tower, arrays) for name, tower in self.towers.items()]
        joint = [one * other for one, other in combinations(told, 2)]
        outputs: Tensor = self.head(torch.cat([*told, *joint], 1))
        return outputs

    def _told(self, name: str, tower: nn.Module, arrays: Mapping[str, Tensor]) -> Tensor:
        """What a tower says (P, W)."""
        prefix = f"{name}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        present = own.pop("present", None)
        found = tower(**own)
        told: Tensor = getattr(found, "logits", found).float()
        if present is None:
            return told
        if self.training and len(self.towers) > 1:
            present = present * factors(present, LEFT_OUT).sign()
        filled: Tensor = told * present + self.absent[name] * (1 - present)
        return filled

    def with_towers(self, change: Callable[[nn.Module], nn.Module]) -> "Fused":
        """The same network, whose weights are these, with other forms of its towers."""
        other = Fused.__new__(Fused)
        nn.Module.__init__(other)
        other.towers = nn.ModuleDict({name: change(tower) for name, tower in self.towers.items()})
        other.absent, other.head = self.absent, self.head
        return other


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
