"""`make bench-peers`: make models and environments, measure all in turn, write what was found."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench.figures import write
from bench.peers import environments
from bench.peers.catalogue import PEERS
from bench.peers.jobs import SOURCES, Prepared, prepared
from bench.peers.report import PAGE, Measured, figures, page
from bench.peers.rounds import one_round

COMMAND = "make bench-peers"
ROUNDS = 3
SECONDS = 5.0
RECORD = "rounds.json"


def main() -> int:
    """Measure; the exit status says whether all bars hold."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server stays behind
    options = _options()
    peers = _chosen(options.peers, PEERS)
    for each in (environments.BASE, *peers):
        environments.build(each)
    jobs = [prepared(name, options.set) for name in _chosen(options.models, list(SOURCES))]
    if options.prepare:
        return 0
    found = [_measured(each, peers, options.rounds, options.seconds) for each in jobs]
    told = [figure for each in found for figure in figures(each)]
    for figure in told:
        mark = "holds" if figure.holds else "MISSED"
        print(f"  {figure.name}: {figure.value:.4g} {figure.unit} "
              f"({figure.op} {figure.bar}) {mark}", flush=True)  # fmt: skip
    if options.write:
        write("peers", told, COMMAND)
        PAGE.write_text(page(found, told, COMMAND), encoding="utf-8")
    return 0 if all(figure.holds for figure in told) else 1


def _measured(each: Prepared, peers: Sequence[str], rounds: int, seconds: float) -> Measured:
    found = []
    for number in range(1, rounds + 1):
        print(f"  {each.job.title}, round {number} of {rounds}", flush=True)
        found.append(one_round(each.job, peers, seconds))
    record = environments.PLACE / f"{each.job.name}.{RECORD}"
    told = [asdict(each) for each in found]
    record.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return Measured(each.job, each.lost, found, seconds)


def _chosen(named: str, known: Sequence[str]) -> list[str]:
    wanted = [name for name in named.split(",") if name] or list(known)
    if strange := set(wanted) - set(known):
        raise SystemExit(f"No {', '.join(sorted(strange))}; there are: {', '.join(known)}.")
    return wanted


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--peers", default="", metavar="NAME,NAME", help=", ".join(PEERS))
    parser.add_argument("--models", default="", metavar="NAME,NAME", help=", ".join(SOURCES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the models' projects"
    )
    parser.add_argument("--prepare", action="store_true", help="measure nothing")
    parser.add_argument("--no-write", dest="write", action="store_false", help="only print")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
