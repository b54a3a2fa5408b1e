"""What is installed is what stands in src/: the built wheel lacks no page, style or template."""

from importlib.metadata import version
from pathlib import Path

import pytest

import modelyard

INSTALLED = Path(modelyard.__file__).parent
SOURCE = Path(__file__).parent.parent / "src" / "modelyard"


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found if path.suffix != ".pyc"}


def test_the_package_has_every_file_of_the_source() -> None:
    assert files(INSTALLED) == files(SOURCE)
    assert "py.typed" in files(INSTALLED)


def test_the_version_is_said_once() -> None:
    try:
        installed = version("modelyard")
    except ModuleNotFoundError:
        # a source tree on the path has no metadata to compare; .ci/run always installs the wheel
        pytest.skip("modelyard is imported from its source, not installed")
    assert installed == modelyard.__version__
