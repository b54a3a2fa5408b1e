"""Options that several commands share."""

import argparse
from pathlib import Path

from modelyard.core import PROJECT_FILE


def add_project(parser: argparse.ArgumentParser) -> None:
    """The project file, and --set."""
    parser.add_argument(
        "project",
        nargs="?",
        type=Path,
        default=Path(PROJECT_FILE),
        help=f"project file or its folder (default: {PROJECT_FILE})",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the project file, as in train.minutes=3",
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help=what)


def add_release(parser: argparse.ArgumentParser) -> None:
    """The release, and the key it must be signed with."""
    parser.add_argument(
        "release",
        nargs="?",
        type=Path,
        help="a release's folder, or a project's (default: the project here)",
    )
    add_public_key(parser)


def add_public_key(parser: argparse.ArgumentParser) -> None:
    """The key that a release must be signed with."""
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="PEM file of the key it must be signed with (default: your own)",
    )


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """The candidates to pick from in place of the release's own."""
    parser.add_argument(
        "--candidates",
        type=Path,
        metavar="FOLDER",
        help="what `modelyard candidates` made (default: the release's own candidates)",
    )


def add_database(parser: argparse.ArgumentParser) -> None:
    """The ledger's database."""
    parser.add_argument(
        "--database",
        metavar="URL",
        help="the ledger: sqlite:///FILE or postgresql://… (default: $MODELYARD_DATABASE, or a "
        "file of SQLite beside your keys)",
    )
