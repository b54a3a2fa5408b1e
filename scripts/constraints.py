"""Write constraints.txt: what pyproject.toml names and all it needs, as installed here."""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
HEAD = """\
# The versions with which `make test` passed and bench/results.md was measured.
# torch stands without the part after "+": its CPU build is taken where pip can see one.
"""


def main() -> None:
    """Write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    named = [Requirement(line) for line in sum(extras, project["dependencies"])]
    direct = {canonicalize_name(each.name) for each in named}
    found: dict[tuple[str, str], str] = {}
    for each in named:
        walk(each, found)
    versions = {name: version for (name, _), version in found.items()}
    parts = (("What pyproject.toml names", direct), ("What these need", versions.keys() - direct))
    text = HEAD
    for title, names in parts:
        text += f"\n# {title}\n" + "".join(f"{name}=={versions[name]}\n" for name in sorted(names))
    (ROOT / "constraints.txt").write_text(text, encoding="utf-8")


def walk(wanted: Requirement, found: dict[tuple[str, str], str]) -> None:
    """Add what is wanted, with its extras, and what it needs on this machine."""
    key = (canonicalize_name(wanted.name), ",".join(sorted(wanted.extras)))
    if key in found:
        return
    installed = distribution(wanted.name)
    found[key] = installed.version.partition("+")[0]
    for line in installed.requires or []:
        inner = Requirement(line)
        given = wanted.extras or {""}
        if not inner.marker or any(inner.marker.evaluate({"extra": each}) for each in given):
            walk(inner, found)


if __name__ == "__main__":
    main()
