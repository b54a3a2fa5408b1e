"""List the sample rows that `modelyard new --sample NAME` can fetch."""

import argparse
import json
from dataclasses import asdict

from modelyard.cli.options import add_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `samples`."""
    add_json(parser, "one JSON object a line")


def main(options: argparse.Namespace) -> int:
    """Print the samples."""
    from modelyard.data import samples

    for sample in samples.known():
        if options.json:
            print(json.dumps(asdict(sample), ensure_ascii=False, default=str))
        else:
            print(f"{sample.name:<12} {sample.description} ({sample.licence})")
    return 0
