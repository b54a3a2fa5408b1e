"""The main job on real input: `make demo` runs this, with nothing hidden.

Every step is a command that anyone could type; it is printed before it runs.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

QUESTIONS = (
    "A quiet, generous film that earns every one of its tears.",
    "Two hours of noise in search of a single idea.",
)


def main() -> int:
    """Build the sample's release, serve it, ask it two questions."""
    options = _options()
    start = time.monotonic()
    folder: Path = options.folder
    if not (folder / "modelyard.toml").exists():
        _say(["modelyard", "new", str(folder), "--sample", options.sample])
    _say(["modelyard", "plan", str(folder)])
    _say(["modelyard", "run", str(folder)])
    _say(["modelyard", "show", str(folder)])
    _say(["modelyard", "verify", str(folder)])
    found = json.loads(_output(["modelyard", "show", str(folder), "--json"]))
    server, url = _serve(found["release"], options.port)
    try:
        for question in QUESTIONS:
            _ask(f"{url}/v1/models/{found['name']}/predict", options.column, question)
        seconds = time.monotonic() - start
        print(f"\nthe report       {found['report']}")
        print(f"the try-it page  {url}/")
        print(f"the API's pages  {url}/docs")
        print(f"all this took    {seconds:.0f} s")
        if sys.stdin.isatty() and sys.stdout.isatty():
            print("serving until Ctrl-C", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/reviews"))
    parser.add_argument("--sample", default="reviews")
    parser.add_argument("--column", default="text", help="the input column of the sample")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    return parser.parse_args()


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", *words]


def _say(words: list[str]) -> None:
    print(f"\n$ {shlex.join(words)}", flush=True)
    status = subprocess.run(_command(words), check=False).returncode
    if status:
        raise SystemExit(status)


def _output(words: list[str]) -> str:
    return subprocess.run(_command(words), check=True, capture_output=True, text=True).stdout


def _serve(release: str, port: int) -> tuple[subprocess.Popen[str], str]:
    words = ["modelyard", "serve", "--dev", release, "--port", str(port)]
    print(f"\n$ {shlex.join(words)} &", flush=True)
    server = subprocess.Popen(_command(words), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line.startswith("serving"):
        raise SystemExit(server.wait(timeout=30) or 1)
    print(line, end="")
    return server, line.split()[1]


def _ask(address: str, column: str, question: str) -> None:
    body = json.dumps({"rows": [{column: question}]})
    print(f"\n$ curl -s {address} -H 'content-type: application/json' -d {shlex.quote(body)}")
    request = urllib.request.Request(
        address, data=body.encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        print(reply.read().decode())


if __name__ == "__main__":
    raise SystemExit(main())
