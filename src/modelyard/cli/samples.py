"""List the sample rows that `modelyard new --sample NAME` can fetch."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_json

if TYPE_CHECKING:
    from modelyard.data.samples import Sample


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `samples`."""
    add_json(parser, "one JSON object a line")


def main(options: argparse.Namespace) -> int:
    """Print the samples."""
    from modelyard.data import samples

    for sample in samples.known():
        if options.json:
            print(json.dumps(_told(sample), ensure_ascii=False))
        else:
            print(f"{sample.name:<16} {sample.description} ({sample.licence})")
    return 0


def _told(sample: "Sample") -> dict[str, Any]:
    proposal = sample.proposal
    return {
        **{name: getattr(sample, name) for name in ("name", "description", "rows", "licence")},
        "language": sample.language or None,
        "inputs": dict(proposal.inputs),
        "target": proposal.target,
        "kind": proposal.kind,
        "backbone": dict(proposal.backbone),
    }
