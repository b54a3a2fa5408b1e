"""One byte flipped in each file of a release: verify and serve must refuse it."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

from bench.figures import WORK, Figure, counted, measures
from bench.flow import SETTINGS, _small
from bench.projects import run
from modelyard.core import digest


@measures("tamper")
def tamper() -> list[Figure]:
    """Every file, one byte at a random place."""
    settings = [word for word in SETTINGS if word != "--set"]
    release = Path(run(_small("tamper"), *settings)["release"])
    copy = WORK / "tampered"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(release, copy)
    failures: list[str] = []
    names = digest.files_in(copy)
    for name in names:
        failures += _tried(copy, name)
    whole = subprocess.run(_command("verify", copy), check=False, capture_output=True)
    if whole.returncode:
        failures.append("the whole release is refused")
    tries = 2 * len(names)
    return [counted("changed releases not refused", failures, tries, "verify and serve, each file")]


def _tried(copy: Path, name: str) -> list[str]:
    file = copy / name
    content = bytearray(file.read_bytes())
    place = random.randrange(len(content))
    content[place] ^= 1
    file.write_bytes(content)
    failures = []
    for words in (("verify",), ("serve", "--dev", "--port", "0")):
        command = ["timeout", "60", *_command(words[0], copy, *words[1:])]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 2 or name not in done.stderr:
            failures.append(f"{words[0]} {name} byte {place}: {done.returncode} {done.stderr}")
    content[place] ^= 1
    file.write_bytes(content)
    return failures


def _command(command: str, release: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "modelyard", command, str(release), *more]
