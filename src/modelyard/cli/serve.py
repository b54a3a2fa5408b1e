"""Serve a release: a JSON API, Open Inference Protocol v2, metrics and a page to try it."""

import argparse
import sys
from pathlib import Path

from modelyard.cli.options import add_candidates, add_database, add_public_key


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    parser.add_argument(
        "releases",
        nargs="*",
        metavar="RELEASE",
        type=Path,
        help="a release's folder, or a project's (default: the project here)",
    )
    parser.add_argument(
        "--deployed",
        action="store_true",
        help="serve what `modelyard deploy` says, now and as it changes",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="with --deployed: a folder of releases that may be loaded over the API",
    )
    add_public_key(parser)
    add_candidates(parser)
    add_database(parser)
    parser.add_argument(
        "--dev", action="store_true", help="ask for no key and count nothing; this machine only"
    )
    _add_listening(parser)


def _add_listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that share the port (default: 1)"
    )
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM file, for TLS")
    parser.add_argument("--private-key", type=Path, metavar="FILE", help="PEM file, its key")
    parser.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe what this address or network forwards of a client's own; may be given again",
    )
    parser.add_argument(
        "--log", action="store_true", help="a line of JSON on stderr for each request"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="processors for each worker (default: all there are, shared out among them)",
    )


def main(options: argparse.Namespace) -> int:
    """Verify, load, and serve until stopped; requests in flight finish."""
    from modelyard.service.workers import check, end_with_parent, is_worker

    check(options.workers)
    database = _database(options)
    if options.workers > 1 and not is_worker():
        return _together(options)
    if is_worker():
        end_with_parent()
    from modelyard.serving import Serving, serve_releases

    serving = Serving(
        options.releases,
        options.public_key,
        options.candidates,
        _threads(options),
        is_worker(),
        database,
        options.deployed,
        options.repository,
        options.certificate,
        options.private_key,
        tuple(options.proxy),
        options.log,
        _tell,
    )
    serve_releases(serving, options.host, options.port, _ready)
    return 0


def _database(options: argparse.Namespace) -> str | None:
    """The ledger's URL; None with --dev, which is for this machine alone."""
    import ipaddress

    from modelyard.core.errors import SettingInvalid
    from modelyard.serving import ledger_url

    if options.deployed and (options.dev or options.releases or options.candidates):
        raise SettingInvalid(
            "--deployed serves what the ledger says; leave out --dev, --candidates and the "
            "releases, or leave out --deployed."
        )
    if options.repository and not options.deployed:
        raise SettingInvalid("--repository is for --deployed; give both, or none of them.")
    if not options.dev:
        return ledger_url(options.database)
    try:
        is_own = options.host == "localhost" or ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        is_own = False
    if not is_own or options.database:
        raise SettingInvalid(
            "--dev asks nobody for a key and counts nothing, so it serves this machine alone; "
            "leave out --host and --database, or leave out --dev and give out keys."
        )
    return None


def _together(options: argparse.Namespace) -> int:
    from modelyard.doors import release_folder
    from modelyard.service.workers import serve_together

    given: dict[str, object] = {
        "--certificate": options.certificate,
        "--private-key": options.private_key,
        "--repository": options.repository,
        "--public-key": options.public_key,
        "--candidates": options.candidates,
        "--host": options.host,
        "--workers": options.workers,
        "--threads": options.threads,
        "--database": options.database,
    }
    words = [word for name, value in given.items() if value for word in (name, str(value))]
    words += [word for each in options.proxy for word in ("--proxy", each)]
    words += ["--dev"] * options.dev + ["--deployed"] * options.deployed
    words += ["--log"] * options.log
    command = [sys.executable, "-m", "modelyard", "serve", *words]
    if not options.deployed:  # the same for all of them, also for those that are started later
        given_releases = options.releases or [None]
        command += [str(release_folder(each).resolve()) for each in given_releases]
    return serve_together(command, options.workers, options.host, options.port, _ready, _tell)


def _threads(options: argparse.Namespace) -> int | None:
    """Processors for this process; None is all."""
    import os

    from modelyard.core.errors import SettingInvalid

    cores = len(os.sched_getaffinity(0))
    if options.threads is None:
        return max(1, cores // options.workers) if options.workers > 1 else None
    if not 1 <= options.threads <= cores:
        raise SettingInvalid(f"--threads takes 1 to {cores} here; got {options.threads}.")
    return int(options.threads)


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _ready(url: str) -> None:
    print(f"serving  {url}\n  try it    {url}/\n  API docs  {url}/docs", flush=True)
