"""Networks: the network of all input columns together, made, written and read again."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelyard import inputs
from modelyard.core.artefacts import ColumnState
from modelyard.runtime.columns import Group, groups_of

TOWER_WIDTH = 128
BESIDE = 0.1
"""What a tower without words weighs at first in a vector."""


def make(
    sources: Sequence[ColumnState],
    folder_of: Callable[[Group], Path],
    width: int,
    dropout: float,
) -> Any:
    """A network from the columns' arrays to (P, width).

    A column that is alone and has a pre-trained network gets that network with `width` outputs;
    several get a tower each, fused. `folder_of` gives the backbone of a group.
    Where a text is read as a vector, `width` is that of its backbone.
    """
    groups = groups_of(sources, inputs.find)
    if groups[0].name == "":
        return _of_group(groups[0], folder_of, width, dropout)
    from modelyard.models.fused import Fused, Head, Sum

    if any(source.state.get("reads") == "vectors" for source in sources):
        towers = {g.name: _of_group(g, folder_of, width, dropout) for g in groups}
        has_tokens = {g.name: inputs.find(g.kind).has_tokens for g in groups}
        begins = {name: 1.0 if own else BESIDE for name, own in has_tokens.items()}
        return Fused(towers, Sum(width, begins), (), width)
    towers = {g.name: _of_group(g, folder_of, TOWER_WIDTH, dropout) for g in groups}
    may_lack = [group.name for group in groups if not inputs.find(group.kind).together]
    head = Head(len(towers), TOWER_WIDTH, width, dropout)
    return Fused(towers, head, may_lack, TOWER_WIDTH)


def _of_group(group: Group, folder_of: Callable[[Group], Path], width: int, dropout: float) -> Any:
    return inputs.find(group.kind).network(group.states, folder_of(group), width, dropout)


def save(
    network: Any, sources: Sequence[ColumnState], folder_of: Callable[[Group], Path], out: Path
) -> None:
    """Write the network and what its encoders need into the folder of a Model."""
    from modelyard.models import forest
    from modelyard.models.fused import save_head, towers_of

    if isinstance(network, forest.Forest):
        forest.save(network, out)
        return
    towers = towers_of(network)
    for group in groups_of(sources, inputs.find):
        folder = group.folder(out)
        folder.mkdir(exist_ok=True)
        inputs.find(group.kind).save(towers[group.name], group.states, folder_of(group), folder)
    save_head(network, out)


def load(sources: Sequence[ColumnState], folder: Path, width: int) -> Any:
    """The network that `save` wrote into the folder of a Model."""
    from modelyard.models import forest
    from modelyard.models.fused import load_head

    if forest.is_in(folder):
        return forest.load(folder)
    network = make(sources, lambda group: group.folder(folder), width, dropout=0.0)
    load_head(network, folder)
    return network


def multiplies(folder: Path) -> bool:
    """Whether what `save` wrote into the folder has products of matrices; trees have none."""
    from modelyard.models import forest

    return not forest.is_in(folder)
