"""Rungs: the forms a model is made small in, by the names that a user writes.

A rung is the ways in which the network is made smaller, if any, and then the form of its graph,
with + between: `int8`, `layers-3+int8`, `layers-3+feed-forward-50+int8`.
"""

import difflib
import re
from dataclasses import dataclass, replace

GRAPHS = ("fp32", "bf16", "int8", "int8-calibrated")
"""Forms of a graph, the plainest first; stages/rungs.py makes them."""
NETWORKS = (
    *("layers-N", "blocks-half", "static", "feed-forward-half", "feed-forward-quarter"),
    *("heads-half", "low-rank-half", "vocabulary"),
)
"""Ways to a smaller network, what saves most first; N stands for a number.

models/smaller.py makes them.
"""
ALONE = ("static",)
"""Ways that leave nothing of what other ways have done."""
SMALLER_ALONE = ("vocabulary",)
"""Ways that save size and no time."""
AUTO = "auto"
DEFAULT_GRAPH = GRAPHS[0]
NUMBER = re.compile(r"\d+$")
DEGREE = re.compile(r"-(\d+|N|half|quarter)$")


@dataclass(frozen=True)
class RungName:
    """A rung's name in its parts."""

    ways: tuple[str, ...] = ()
    graph: str = DEFAULT_GRAPH

    @classmethod
    def read(cls, text: str) -> "RungName":
        """The parts of a name in which `problem` finds nothing wrong.

        >>> RungName.read("layers-3+int8"), RungName.read("static").graph
        (RungName(ways=('layers-3',), graph='int8'), 'fp32')
        """
        parts = text.split("+")
        if parts[-1] in GRAPHS:
            return cls(tuple(parts[:-1]), parts[-1])
        return cls(tuple(parts))

    def __str__(self) -> str:
        """The name as a user writes it; fp32 is said only where nothing else is."""
        plain = bool(self.ways) and self.graph == DEFAULT_GRAPH
        return "+".join(self.ways if plain else (*self.ways, self.graph))

    def with_way(self, way: str) -> "RungName":
        """The rung with one more way, in place of any of its kind.

        >>> str(RungName(("layers-3",), "int8").with_way("layers-2"))
        'layers-2+int8'
        """
        others = [own for own in self.ways if kind_of(own) != kind_of(way)]
        kept = () if way in ALONE else tuple(others)
        return replace(self, ways=(*kept, way))

    def below(self) -> "list[RungName]":
        """The rungs on the way to this one, and it, from the plain network on.

        >>> [str(each) for each in RungName.read("layers-3+int8").below()]
        ['fp32', 'int8', 'layers-3+int8']
        """
        plain = [RungName()] if self.graph != DEFAULT_GRAPH else []
        counts = range(len(self.ways) + 1)
        return plain + [replace(self, ways=self.ways[:count]) for count in counts]


def kind_of(way: str) -> str:
    """A way without how far it goes.

    >>> kind_of("layers-3"), kind_of("feed-forward-half"), kind_of("static")
    ('layers', 'feed-forward', 'static')
    """
    return DEGREE.sub("", way)


def pattern_of(way: str) -> str:
    """A way as NETWORKS has it, with N in place of a number.

    >>> pattern_of("layers-3")
    'layers-N'
    """
    return NUMBER.sub("N", way)


def problem(name: str) -> str | None:
    """What is wrong with a rung's name, and what is near; None where nothing is.

    >>> problem("layer-3+int8")
    "there is no rung 'layer-3'; did you mean 'layers-3'?"
    """
    *ways, last = name.split("+")
    parts = ways if last in GRAPHS else [*ways, last]
    for part in parts:
        if pattern_of(part) not in NETWORKS:
            return f"there is no rung {part!r}; {_nearest(part)}"
    if len(set(map(kind_of, parts))) < len(parts):
        return f"each way can be taken once; {name!r} takes one twice"
    return None


def _nearest(part: str) -> str:
    if part in GRAPHS:
        return "the form of the graph comes last, as in 'layers-3+int8'"
    known = [AUTO, *GRAPHS, *NETWORKS]
    if near := difflib.get_close_matches(pattern_of(part), known, n=1, cutoff=0.5):
        number = NUMBER.search(part)
        return f"did you mean {re.sub('N$', number[0] if number else 'N', near[0])!r}?"
    return f"known are {AUTO}, and {', '.join(NETWORKS)} before {', '.join(GRAPHS)}, with + between"
