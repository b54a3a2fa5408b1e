"""Serve a release: a JSON API, Open Inference Protocol v2, metrics and a page to try it."""

import argparse

from modelyard.cli.options import add_candidates, add_release


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    add_release(parser)
    add_candidates(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")


def main(options: argparse.Namespace) -> int:
    """Verify, load, and serve until stopped; requests in flight finish."""
    from modelyard.doors import serve_release

    def ready(url: str) -> None:
        print(f"serving  {url}\n  try it    {url}/\n  API docs  {url}/docs", flush=True)

    serve_release(
        options.release,
        options.public_key,
        options.host,
        options.port,
        ready,
        candidates=options.candidates,
    )
    return 0
