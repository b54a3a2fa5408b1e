"""Low rank: a product with one matrix as two with thinner ones, where that is less to multiply.

The factors say most of what the matrix said on training rows, not of any vector alike. Chen, P. et
al. (2021), DRONE: data-aware low-rank compression for large NLP models.
"""

import torch
from torch import Tensor, nn

from modelyard.models.batches import Pieces
from modelyard.models.fused import towers_of
from modelyard.models.layers import copied, layers_of
from modelyard.models.moments import second_moments

ROUND = 16
"""Ranks are multiples of it, as kernels take so many numbers at once."""
SHARE = 0.5
"""Of the multiplications of a matrix that its factors need."""


class LowRank(nn.Module):
    """A linear layer (..., K) to (..., N) through R numbers."""

    def __init__(self, first: Tensor, second: Tensor, bias: Tensor | None):
        super().__init__()
        (rank, self.in_features), self.out_features = first.shape, len(second)
        self.first = nn.Linear(self.in_features, rank, bias=False)
        self.second = nn.Linear(rank, self.out_features, bias=bias is not None)
        self.first.weight = nn.Parameter(first)
        self.second.weight = nn.Parameter(second)
        if bias is not None:
            self.second.bias = nn.Parameter(bias)

    def forward(self, states: Tensor) -> Tensor:
        """Outputs (..., N)."""
        outputs: Tensor = self.second(self.first(states))
        return outputs

    @property
    def weight(self) -> Tensor:
        """The matrix (N, K) that both are together, for who multiplies by hand."""
        return self.second.weight @ self.first.weight

    @property
    def bias(self) -> Tensor:
        """What is added (N,)."""
        return self.second.bias


def thinned(network: nn.Module) -> list[str]:
    """The linear layers that have a lower rank to gain from: of transformers, else all."""
    found = []
    for name, module in network.named_modules():
        if type(module) is nn.Linear and _rank(module) and _is_within(network, name):
            found.append(name)
    return found


def _is_within(network: nn.Module, name: str) -> bool:
    """Whether a layer is computed for each token, or nothing in the network is."""
    own = [layers_of(tower) for tower in towers_of(network).values()]
    inside = {id(each) for layers in own if layers is not None for each in layers.modules()}
    return not inside or id(network.get_submodule(name)) in inside


def _rank(layer: nn.Linear) -> int:
    """The rank that halves the multiplications; 0 where that is hardly any.

    >>> _rank(nn.Linear(384, 1536)), _rank(nn.Linear(384, 384)), _rank(nn.Linear(32, 2))
    (144, 96, 0)
    """
    given, told = layer.in_features, layer.out_features
    return int(SHARE * given * told / (given + told)) // ROUND * ROUND


def with_low_rank(network: nn.Module, pieces: Pieces) -> nn.Module:
    """A copy whose large linear layers have half the multiplications."""
    found: nn.Module = copied(network)
    names = thinned(network)
    moments = second_moments(network, names, pieces)
    for name in names:
        parent, _, own = name.rpartition(".")
        layer = found.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(found.get_submodule(parent), own, _factored(layer, moments[name]))
    return found


def _factored(layer: nn.Linear, moment: Tensor) -> LowRank:
    """The factors whose outputs are the nearest to the layer's, over what it is given."""
    rank = _rank(layer)
    root = torch.linalg.cholesky(moment)  # (K, K), root rootᵀ = moment
    left, sizes, right = torch.linalg.svd(layer.weight.detach().double() @ root, False)
    scale = sizes[:rank].sqrt()
    first = torch.linalg.solve_triangular(
        root, scale[:, None] * right[:rank], upper=False, left=False
    )
    second = left[:, :rank] * scale
    bias = None if layer.bias is None else layer.bias.detach().clone()
    return LowRank(first.float().contiguous(), second.float().contiguous(), bias)
