"""Change what a release of kind match picks from, without training: a signed folder beside it."""

import argparse
from pathlib import Path

from modelyard.cli.options import add_candidates, add_release


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `candidates`."""
    add_release(parser)
    add_candidates(parser)
    parser.add_argument("--add", type=Path, metavar="FILE", help="rows with text, and maybe id")
    parser.add_argument("--remove", type=Path, metavar="FILE", help="rows with id")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the folder to be made"
    )


def main(options: argparse.Namespace) -> int:
    """Add and remove candidates; the folder appears whole or not at all."""
    from modelyard.doors import change_candidates

    count = change_candidates(
        options.release,
        options.public_key,
        options.candidates,
        options.add,
        options.remove,
        options.out,
    )
    print(f"{count:,} candidates in {options.out}; use them with --candidates {options.out}")
    return 0
