"""List the pre-trained networks that can be named in [backbone]."""

import argparse
import json

from modelyard.cli.options import add_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `backbones`."""
    add_json(parser, "one JSON object a line")


def main(options: argparse.Namespace) -> int:
    """Print the known backbones; a Hub id or a folder can be named as well."""
    from modelyard.models import backbones

    for each in backbones.known():
        if options.json:
            print(json.dumps(each, ensure_ascii=False))
        else:
            print(f"{each['name']:<18} {each['kind']:<6} {each['about']} ({each['licence']})")
    if not options.json:
        print("or a Hub id such as owner/name, or a folder with config.json and tokenizer.json")
    return 0
