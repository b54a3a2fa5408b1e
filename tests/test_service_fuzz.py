"""schemathesis on the service's own OpenAPI: nothing undeclared, no failure, no hang.

MODELYARD_FUZZ_CASES sets how many cases are sent, about; the benchmark sends 2,000.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.service_host import info_of, open_runtime, served, write_release

from modelyard.core.project import Serve

CASES = int(os.environ.get("MODELYARD_FUZZ_CASES", "20"))
MOST_SECONDS = "5"
"""A reply that takes longer counts as a hang."""
CONFIG = """
[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 408, 413, 415, 422, 503]

# That a tensor's shape fits its data and the header its body cannot be said in a schema.
[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 413]
"""
SEND = "from schemathesis.cli import schemathesis; schemathesis()"


def fuzz(
    url: str,
    cases: int,
    folder: Path,
    phases: str = "examples,coverage,fuzzing",
    configuration: str = CONFIG,
    more: Sequence[str] = (),
) -> str:
    """Send at least `cases` cases to the service at `url`; the summaries of schemathesis.

    Raises AssertionError with what schemathesis found. `folder` takes its configuration.
    """
    config = folder / "schemathesis.toml"
    config.write_text(configuration)
    sent, summaries = 0, []
    while sent < cases:
        command = [sys.executable, "-c", SEND, "--config-file", str(config), "run"]
        options = ["--phases", phases, "--seed", str(len(summaries) + 1), "--no-color"]
        options += ["--max-examples", str(max(1, cases // 20)), "--warnings", "off"]
        options += ["--max-response-time", MOST_SECONDS, "--generation-database", "none", *more]
        ran = subprocess.run(
            [*command, *options, f"{url}/openapi.json"], capture_output=True, text=True, cwd=folder
        )
        assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
        summaries.append(ran.stdout[ran.stdout.rindex("= SUMMARY =") :])
        found = re.search(r"(\d+) generated", summaries[-1])
        assert found, summaries[-1]
        sent += int(found[1])
    return "\n".join(summaries)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    runtime = open_runtime(write_release(tmp_path / "release"))
    limits = Serve(max_rows=8, max_characters=300, max_body_bytes=50_000)
    phases = "fuzzing" if CASES < 500 else "examples,coverage,fuzzing,stateful"
    with served(runtime, info_of(runtime, tmp_path / "release"), limits) as url:
        fuzz(url, CASES, tmp_path, phases)
