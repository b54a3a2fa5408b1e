"""The front: each rung's accuracy and what it costs, joined from what a Model says and its record.

A Model's compress.json has what would come out the same again. Speed and memory would not, so they
are in the record of its manifest, which no digest depends on; a price changes neither.
"""

from collections.abc import Mapping
from typing import Any

from modelyard.core.artefacts import Manifest
from modelyard.core.measure import cost_of_million
from modelyard.core.rungs import RungName

AS_TRAINED = "as trained"
"""In compress.json, what network transformers loads, where that is no smaller one."""
SPEEDS = ("rows_per_s", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms")


def front(told: Mapping[str, Any], manifest: Manifest | None, core_hour: float) -> dict[str, Any]:
    """compress.json, where each rung has its speed, memory and price; None where untold."""
    record = manifest.record if manifest else {}
    cores = int(record.get("threads", 1))
    speeds = record.get("rungs", {})
    rungs = [
        _joined(rung, speeds.get(rung["name"]), cores, core_hour) for rung in told.get("rungs", [])
    ]
    machine = record.get("machine")
    own = {"network": AS_TRAINED, **told}
    return {
        **own,
        "graph_alone": is_graph_alone(own),
        "cores": cores,
        "core_hour": core_hour,
        "machine": machine,
        "rungs": rungs,
    }


def is_graph_alone(told: Mapping[str, Any]) -> bool:
    """Whether the graph is of a smaller network than that in the files beside it."""
    chosen = RungName.read(told.get("choice", "fp32"))
    return bool(chosen.ways) and told.get("network") == AS_TRAINED


def _joined(
    rung: Mapping[str, Any], speed: Mapping[str, Any] | None, cores: int, core_hour: float
) -> dict[str, Any]:
    measured = {each["name"]: each for each in speed["measures"]} if speed else {}
    rate = measured.get("rows_per_s")
    return {
        "about": "",
        "difference": None,
        **rung,
        **{name: measured.get(name) for name in SPEEDS},
        "memory_bytes": speed["memory_bytes"] if speed else None,
        "core_hours_of_million": rate and _price(rate, cores, 1.0),
        "cost_of_million": rate and _price(rate, cores, core_hour),
        "broken": list(speed["broken"]) if speed else [],
    }


def _price(rate: Mapping[str, float], cores: int, core_hour: float) -> dict[str, float]:
    """What a million rows cost at the median rate, at the fastest and at the slowest turn."""
    ends = {"value": "value", "low": "high", "high": "low"}
    return {name: cost_of_million(rate[end], cores, core_hour) for name, end in ends.items()}
