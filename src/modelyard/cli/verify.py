"""Check every file of a release against its signature."""

import argparse
import json
from dataclasses import asdict

from modelyard.cli.options import add_json, add_release


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    add_release(parser)
    add_json(parser, "one JSON object")


def main(options: argparse.Namespace) -> int:
    """Verify; the first file that differs is named in the error."""
    from modelyard.doors import release_folder
    from modelyard.runtime import seal

    folder = release_folder(options.release)
    verified = seal.verify(folder, options.public_key)
    if options.json:
        told = {key: str(value) for key, value in asdict(verified).items()}
        print(json.dumps({"release": str(folder), "verified": True, **told}, ensure_ascii=False))
    else:
        print(f"{folder}: whole, as signed")
        for key, value in asdict(verified).items():
            print(f"  {key.replace('_', ' ')}: {value}")
    return 0
