"""Measure a release on this machine: rows a second, waiting at several loads, memory, cost."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_candidates, add_json, add_release

if TYPE_CHECKING:
    from modelyard.runtime.runtime import Runtime
    from modelyard.service.load import Loaded, Speed

CLIENTS = "1,8,32"
MOST_CLIENTS = 1024
MOST_ROWS = 2048
MOST_CALLS = 10_000
SHARES = (50, 95, 99)


def _counts(value: str) -> list[int]:
    found = [int(each) for each in value.split(",")]
    if not all(0 < each <= MOST_CLIENTS for each in found):
        raise ValueError(value)
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    add_release(parser)
    add_candidates(parser)
    parser.add_argument("file", type=Path, help="rows to ask: csv, tsv, jsonl or parquet")
    parser.add_argument(
        "--clients",
        default=CLIENTS,
        metavar="N,N,N",
        help="clients at once, each of which waits for its answer (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="seconds at each load (default: %(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the loads as well")
    add_json(parser, "one JSON object")


def main(options: argparse.Namespace) -> int:
    """Measure in process, then over HTTP, with the service in a process of its own."""
    from modelyard.core.errors import SettingInvalid

    if not 0 < options.seconds <= 3600:
        raise SettingInvalid(f"--seconds takes more than 0, up to 3600; got {options.seconds:g}.")
    try:
        clients = _counts(options.clients)
    except ValueError:
        raise SettingInvalid(
            f"--clients takes numbers from 1 to {MOST_CLIENTS} with commas between, as in "
            f"{CLIENTS}; got {options.clients!r}."
        ) from None
    found = _measured(options, clients)
    if options.plot:
        from modelyard.cli.bench_plot import drawn

        options.plot.write_text(drawn(found), encoding="utf-8")
    print(json.dumps(asdict(found)) if options.json else _table(found))
    return 0


def _measured(options: argparse.Namespace, clients: Sequence[int]) -> "Speed":
    from modelyard.core.measure import cost_of_million
    from modelyard.core.project_file import read_project
    from modelyard.doors import RESOLVED, open_release, release_folder
    from modelyard.service.load import Speed

    folder = release_folder(options.release)
    runtime = open_release(folder, options.public_key, options.candidates)
    rows = _rows(runtime, options.file)
    rate = _engine_rate(runtime, rows, options.seconds)
    cores, name = runtime.graph.threads, runtime.spec.name
    del runtime  # its threads would take the service's time
    loads, peak = _loads(folder, name, rows, clients, options)
    price = read_project(folder / RESOLVED).cost.core_hour
    cost = cost_of_million(rate, cores, price)
    return Speed(str(folder), cores, len(rows), round(rate, 1), loads, peak, cost, price)


def _rows(runtime: "Runtime", file: Path) -> list[dict[str, Any]]:
    """The first rows of a file that the release can answer, its own columns alone."""
    from modelyard.cli.answers import readable
    from modelyard.core.errors import RowsUnreadable
    from modelyard.data.files import open_filled
    from modelyard.runtime.runtime import SEEN

    opened = open_filled(file)
    records = next(iter(opened.batches(MOST_ROWS)), [])
    found = readable(runtime, records, opened.counted_in, file.parent)
    if not found:
        raise RowsUnreadable(
            f"None of the first {len(records):,} rows of {file} can be answered; "
            "`modelyard predict` says why."
        )
    seen = runtime.spec.target.state.get(SEEN)
    names = [*runtime.columns.names, *([seen] if seen else [])]
    return [{name: row[name] for name in names if name in row} for row in found]


def _engine_rate(runtime: "Runtime", rows: Sequence[dict[str, Any]], seconds: float) -> float:
    """Rows a second in process, all rows at once; the median of what fits into the time."""
    from statistics import median

    from modelyard.checks.latency import timed

    timed(runtime.predict, [rows], seconds / 5, 1)
    return len(rows) / median(timed(runtime.predict, [rows], seconds, MOST_CALLS))


def _loads(
    folder: Path,
    name: str,
    rows: Sequence[dict[str, Any]],
    clients: Sequence[int],
    options: argparse.Namespace,
) -> tuple["list[Loaded]", int | None]:
    """Each load in its turn, and the service's peak memory after all of them."""
    from modelyard.runtime.peak import memory_of
    from modelyard.service.load import Request, ask, row_documents, served

    own = [("--public-key", options.public_key), ("--candidates", options.candidates)]
    words = [word for key, value in own if value for word in (key, str(value))]
    documents = row_documents(rows)
    with served(folder, words) as (url, process):
        request = Request.to(url, f"/v1/models/{name}/predict", documents)
        found = [_told(ask(request, each, options.seconds)) for each in clients]
        return found, memory_of(process)


def _told(load: Any) -> "Loaded":
    from modelyard.checks.latency import quantile
    from modelyard.service.load import Loaded

    waited = load.milliseconds
    half, most, nearly_all = (
        round(quantile(waited, share).value, 2) if waited else None for share in SHARES
    )
    rate = round(load.rows_per_s, 1)
    return Loaded(load.clients, rate, half, most, nearly_all, len(waited), load.refused)


def _table(speed: "Speed") -> str:
    head = ("clients", "rows/s", "p50 ms", "p95 ms", "p99 ms", "answers", "refused")
    lines = [
        f"{speed.release} on {speed.cores} cores, {speed.rows:,} rows",
        f"in process, many rows at once: {speed.engine_rows_per_s:,.1f} rows/s",
        f"a million rows so: {speed.cost_of_million:,.4g}, where a core costs "
        f"{speed.core_hour:g} an hour",
        "over HTTP, one row a request, each client waits for its answer:",
        "".join(f"{each:>10}" for each in head),
    ]
    for load in speed.loads:
        values = ("–" if value is None else f"{value:,}" for value in asdict(load).values())
        lines.append("".join(f"{each:>10}" for each in values))
    if speed.peak_memory_bytes is not None:
        lines.append(f"peak memory of the service: {speed.peak_memory_bytes / 1e6:,.0f} MB")
    return "\n".join(lines)
