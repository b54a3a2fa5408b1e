"""Time an engine in process, whichever it is: print one JSON object.

What stands in this folder runs in the peers' own environments and needs nothing of this project.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WARM_UP = 64
Predict = Callable[[Sequence[str]], list[str]]
"""Labels of texts, in their order."""


def main(open_engine: Callable[[str], Predict]) -> None:
    """RELEASE TEXTS.json SECONDS: all texts at once, then one at a time, each for so long.

    All texts go through at least once; without SECONDS they do just that, untimed.
    """
    release, texts_file, seconds = sys.argv[1:]
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    predict = open_engine(release)
    told: dict[str, object] = {}
    if budget_s := float(seconds):
        predict(texts[:WARM_UP])
        passes = _timed(predict, [texts], budget_s)
        ones = _timed(predict, [[text] for text in texts], budget_s)
        told["rows_per_s"] = len(texts) / statistics.median(passes)
        told["one_row_ms"] = 1000 * statistics.median(ones)
    else:
        told["labels"] = predict(texts)
    print(json.dumps(told))


def _timed(predict: Predict, batches: Sequence[Sequence[str]], budget_s: float) -> list[float]:
    """Seconds of each call, until the time is used up."""
    seconds: list[float] = []
    started = time.perf_counter()
    while not seconds or time.perf_counter() - started < budget_s:
        before = time.perf_counter()
        predict(batches[len(seconds) % len(batches)])
        seconds.append(time.perf_counter() - before)
    return seconds
