"""What stands in deploy/ names commands and options that there are."""

import json
import re
import shlex
from pathlib import Path

from modelyard.cli.main import parser

FOLDER = Path(__file__).parent.parent / "deploy"


def test_the_image_starts_what_there_is() -> None:
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    found = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert found
    options = parser().parse_args(json.loads(found[1]))
    assert options.deployed and options.host == "0.0.0.0" and options.log
    assert "[postgresql,image]" in text
    assert f"{options.port}/readyz" in text and f"EXPOSE {options.port}" in text


def test_compose_gives_the_service_its_database() -> None:
    import yaml

    services = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    database, service = services["database"], services["service"]
    url = service["environment"]["MODELYARD_DATABASE"]
    user, name = (database["environment"][f"POSTGRES_{each}"] for each in ("USER", "DB"))
    assert url == f"postgresql://{user}:${{POSTGRES_PASSWORD}}@database/{name}"
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_unit_starts_what_there_is() -> None:
    text = (FOLDER / "modelyard.service").read_text(encoding="utf-8")
    [line] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    command, *words = shlex.split(line)
    assert command.endswith("/modelyard")
    assert parser().parse_args(words).workers == 2
    [stop_s] = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(stop_s) > 60  # what is in flight is finished, for a minute at most
