"""Pruned: transformers with a narrower feed-forward, or with fewer attention heads.

What says least on training rows is left out, and the layer after it makes up for that as far as
what stays can (least squares). Molchanov, P. et al. (2019), Importance estimation for neural
network pruning; Michel, P. et al. (2019), Are sixteen heads really better than one?; He, Y. et
al. (2017), Channel pruning for accelerating very deep neural networks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from modelyard.models.batches import Pieces
from modelyard.models.fused import towers_of
from modelyard.models.layers import copied, layers_of
from modelyard.models.moments import second_moments

ROUND = 16
"""Widths are multiples of it, as kernels take so many numbers at once."""
QUERIES, KEYS, VALUES = (("query", "q_lin", "q_proj"), ("key", "k_lin", "k_proj"),
                         ("value", "v_lin", "v_proj"))  # fmt: skip
WIDTHS = ("intermediate_size", "hidden_dim")
"""What a configuration calls the width of the feed-forward."""
HEAD_SIZES = ("attention_head_size", "head_dim")


@dataclass(frozen=True)
class Inner:
    """What is as wide as a layer likes: linear layers `before` give it, one `after` takes it.

    It goes in `units` of several numbers: 1 in a feed-forward, those of a head in attention.
    """

    before: tuple[str, ...]
    after: str
    units: int
    owner: str = ""
    """The attention, which may count its heads."""


def feed_forwards(network: nn.Module) -> list[Inner]:
    """The feed-forward of each transformer layer: two linear layers, wider between them."""
    found = []
    for prefix, layer in _layers(network):
        linears = _linears(layer)
        for (name, first), (after, second) in pairwise(linears):
            if first.in_features == second.out_features < first.out_features == second.in_features:
                found.append(Inner((prefix + name,), prefix + after, 1))
    return found


def attentions(network: nn.Module) -> list[Inner]:
    """The heads of each transformer layer: queries, keys and values, and what mixes them."""
    found = []
    for prefix, layer in _layers(network):
        modules = dict(layer.named_modules())
        for name, module in modules.items():
            inner = _attention(module, name, _linears(layer), prefix)
            found += [inner] if inner else []
    return found


def _attention(
    module: Any, name: str, linears: list[tuple[str, nn.Linear]], prefix: str
) -> Inner | None:
    own = [next((n for n in kind if hasattr(module, n)), None) for kind in (QUERIES, KEYS, VALUES)]
    size = next((int(getattr(module, n)) for n in HEAD_SIZES if hasattr(module, n)), 0)
    if not size or None in own:
        return None
    before = [f"{name}.{each}".lstrip(".") for each in own]
    if any(each not in dict(linears) for each in before):
        return None
    rest = linears[[n for n, _ in linears].index(before[-1]) + 1 :]
    if not rest or rest[0][1].in_features != dict(linears)[before[-1]].out_features:
        return None
    own_prefix = prefix + name
    return Inner(tuple(prefix + n for n in before), prefix + rest[0][0], size, own_prefix)


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each layer of each transformer, and what the names of its modules begin with."""
    names = {id(module): name for name, module in network.named_modules()}
    for tower in towers_of(network).values():
        for layer in layers_of(tower) or ():
            yield f"{names[id(layer)]}.", layer


def _linears(layer: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The plain linear layers of a layer, in their order."""
    return [(name, each) for name, each in layer.named_modules() if type(each) is nn.Linear]


def with_narrower(network: nn.Module, inner: list[Inner], share: float, pieces: Pieces) -> Any:
    """A copy in which a share of the units of each stays: those that say most on some pieces."""
    found = copied(network)
    moments = second_moments(network, [each.after for each in inner], pieces)
    for each in inner:
        _narrow(found, each, share, moments[each.after])
    feeds = {found.get_submodule(each.after) for each in inner if each.units == 1}
    for tower in towers_of(found).values():
        _configure(tower, feeds)
    return found


def _narrow(network: nn.Module, inner: Inner, share: float, moment: Tensor) -> None:
    after: Any = network.get_submodule(inner.after)
    importance = moment.diagonal() * after.weight.detach().double().square().sum(0)
    units = importance.view(-1, inner.units).sum(1)
    kept = units.topk(_count(len(units), share, inner.units)).indices.sort().values
    places = (kept[:, None] * inner.units + torch.arange(inner.units)).flatten()
    for name in inner.before:
        _keep_outputs(network.get_submodule(name), places)
    _keep_inputs(after, places, moment)
    owner: Any = network.get_submodule(inner.owner) if inner.owner else None
    for name in ("num_attention_heads", "num_heads", "n_heads"):
        if hasattr(owner, name):
            setattr(owner, name, len(kept))
    if hasattr(owner, "all_head_size"):
        owner.all_head_size = len(places)


def _count(units: int, share: float, size: int) -> int:
    """How many units stay.

    >>> _count(1536, 0.5, 1), _count(12, 0.5, 32), _count(3, 0.5, 32), _count(20, 0.5, 1)
    (768, 6, 2, 10)
    """
    wanted = max(1, int(units * share + 0.5))
    return wanted // ROUND * ROUND if size == 1 and wanted >= ROUND else wanted


def _keep_outputs(layer: Any, places: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[places].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[places].clone())
    layer.out_features = len(places)


def _keep_inputs(layer: Any, places: Tensor, moment: Tensor) -> None:
    """Weights on what stays that say, in least squares, what those on all said."""
    weight = layer.weight.detach().double()
    sides = weight @ moment[:, places]
    solved = torch.linalg.solve(moment[places][:, places], sides.T).T
    layer.weight = nn.Parameter(solved.to(layer.weight.dtype).contiguous())
    layer.in_features = len(places)


def lacks_heads(network: nn.Module) -> bool:
    """Whether heads were left out: a configuration cannot tell that."""
    own: list[Any] = [network.get_submodule(each.after) for each in attentions(network)]
    return any(each.in_features < each.out_features for each in own)


def _configure(tower: Any, feeds: "set[Any]") -> None:
    """Let a configuration tell the width of the feed-forward, where all layers have the same.

    `feeds` are the layers that take it; a width found anew might no longer look like one.
    """
    own = {each.in_features for each in tower.modules() if each in feeds}
    config = getattr(tower, "config", None)
    for name in WIDTHS:
        if hasattr(config, name) and len(own) == 1:
            setattr(config, name, next(iter(own)))
