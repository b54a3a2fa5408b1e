"""The command `modelyard`: finds the command asked for, and says errors as sentences."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from modelyard import __version__
from modelyard.core.errors import ModelyardError, SettingInvalid

COMMANDS = (
    *(
        "new",
        "plan",
        "run",
        "show",
        "compress",
        "predict",
        "verify",
        "serve",
        "bench",
        "candidates",
    ),
    *("deploy", "customer", "key", "limit", "price", "usage", "ledger"),
    *("samples", "backbones"),
)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; imports no more than each command's options."""
    whole = argparse.ArgumentParser(
        prog="modelyard",
        description="Rows and a pre-trained model in; an audited, signed, served model out.",
        epilog="Exit status: 0 done, 1 a requirement failed, 2 bad input.",
    )
    whole.add_argument("--version", action="version", version=f"modelyard {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"modelyard.cli.{name}")
        summary = (module.__doc__ or "").splitlines()[0]
        one = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_options(one)
        one.set_defaults(main=module.main)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.main(options))
    except ModelyardError as error:
        _tell(error, getattr(options, "json", False))
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the reader has gone
        return 0
    except OSError as error:
        _tell(_refused(error), getattr(options, "json", False))
        return SettingInvalid.exit_status


def _refused(error: OSError) -> SettingInvalid:
    """What the system refused: a full disk, a folder that is a file, one that is not yours."""
    place = f" at {error.filename}" if error.filename else ""
    return SettingInvalid(
        f"The system says: {error.strerror or error}{place}; mend that, or name another place."
    )


def _tell(error: ModelyardError, as_json: bool) -> None:
    if as_json:
        told = {"event": "error", "code": error.code, "message": str(error), "page": error.page}
        print(json.dumps(told, ensure_ascii=False), flush=True)
    else:
        print(f"error: {error}\n  see {error.page}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
