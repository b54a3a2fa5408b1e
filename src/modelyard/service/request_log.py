"""The log of requests: a JSON object a line, without anything of what was asked or who somebody is.

A key is named by its id, which says nothing by itself; no address, text, answer or header is told.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from modelyard.service.metering import Visit

Log = Callable[[dict[str, Any]], None]


def line_of(
    route: str, method: str, status: int, seconds: float, visit: Visit | None
) -> dict[str, Any]:
    """What is told of a request."""
    told: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "route": route,
        "method": method,
        "status": status,
        "ms": round(1000 * seconds, 3),
    }
    if visit:
        told |= {
            "request": visit.id,
            "key": visit.caller.key_id,
            "release": visit.release,
            "version": visit.version,
            "rows": visit.usage.rows,
            "queue_ms": visit.queue_us / 1000,
        }
    return told


def to_stderr(told: dict[str, Any]) -> None:
    """Write a line."""
    sys.stderr.write(json.dumps(told, separators=(",", ":")) + "\n")
