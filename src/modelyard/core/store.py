"""The store: finished artefacts by content, and what each set of causes has led to.

    objects/<stage>-<digest>/      content, never changed once there
    made/<stage>/<key>.json        manifest: these causes gave that content
    drafts/<stage>-<key>/out/      what a stage is writing
    drafts/<stage>-<key>/kept/     what a killed stage may go on from

The manifest is renamed into place last. Until then nothing reads the object, so a killed run
leaves nothing half-made; a lock on the draft makes two racing runs end as one.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core import digest
from modelyard.core.artefacts import Manifest

SHORT = 16


@dataclass(frozen=True)
class Draft:
    """Where a stage writes: `out` becomes the artefact, `kept` survives a kill.

    `record` takes what was measured; it goes into the manifest and is in no digest.
    """

    out: Path
    kept: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The folder in which a project's artefacts are kept."""

    root: Path

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """What these causes have led to, or None where that is not whole."""
        file = self._manifest_file(stage, key)
        try:
            manifest = Manifest.model_validate_json(file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return manifest if self._is_whole(manifest) else None

    def is_sound(self, manifest: Manifest) -> bool:
        """Whether every byte is as it was published; `manifest` looks at names and sizes alone."""
        return digest.of_folder(self.folder(manifest)) == manifest.files

    def use(self, manifest: Manifest) -> None:
        """Let a manifest be the latest of its stage."""
        os.utime(self._manifest_file(manifest.stage, manifest.key))

    def set_aside(self, manifest: Manifest) -> None:
        """Put a damaged artefact out of the way, so that it is made again."""
        folder = self.folder(manifest)
        with _locked(self.root / "drafts" / f"{folder.name}.lock"):
            if folder.exists() and not self.is_sound(manifest):
                folder.rename(folder.with_name(f"{folder.name}.damaged-{time.time_ns()}"))

    def folder(self, manifest: Manifest) -> Path:
        """The artefact's folder."""
        return self.root / "objects" / f"{manifest.stage}-{manifest.digest[:SHORT]}"

    def latest(self, stage: str) -> Manifest | None:
        """The manifest that the last run made or used for a stage."""
        files = (self.root / "made" / stage).glob("*.json")
        for file in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            if manifest := self.manifest(stage, file.stem):
                return manifest
        return None

    def forget(self, draft: Draft) -> None:
        """Remove a draft that nothing will go on from."""
        shutil.rmtree(draft.out.parent, ignore_errors=True)

    @contextmanager
    def draft(self, stage: str, key: str) -> Iterator[Draft]:
        """A draft folder that no other process writes to meanwhile."""
        folder = self.root / "drafts" / f"{stage}-{key[:SHORT]}"
        (folder / "kept").mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "out").mkdir(parents=True)
            (folder / "kept").mkdir(exist_ok=True)
            yield Draft(folder / "out", folder / "kept", {})

    def publish(
        self, draft: Draft, stage: str, version: str, key: str, causes: Mapping[str, Any]
    ) -> Manifest:
        """Make a draft an artefact: content first, manifest last, each by one rename."""
        files = digest.of_folder(draft.out)
        manifest = Manifest(
            stage=stage,
            version=version,
            key=key,
            digest=digest.of_json(files),
            files=files,
            sizes={name: (draft.out / name).stat().st_size for name in files},
            causes=dict(causes),
            record=draft.record,
        )
        self._place(draft.out, self.folder(manifest), manifest)
        _write_whole(self._manifest_file(stage, key), manifest.model_dump_json(indent=1))
        self.forget(draft)
        return manifest

    def _place(self, content: Path, folder: Path, manifest: Manifest) -> None:
        for name in manifest.files:
            _sync(content / name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(content.parent.parent / f"{folder.name}.lock"):  # other causes, same content
            if folder.exists() and digest.of_folder(folder) != manifest.files:
                folder.rename(folder.with_name(f"{folder.name}.damaged-{time.time_ns()}"))
            if not folder.exists():
                content.rename(folder)
        _sync(folder.parent)

    def _is_whole(self, manifest: Manifest) -> bool:
        folder = self.folder(manifest)
        sizes = {name: _size(folder / name) for name in manifest.sizes}
        return bool(sizes == manifest.sizes)

    def _manifest_file(self, stage: str, key: str) -> Path:
        return self.root / "made" / stage / f"{key}.json"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:  # the kernel lets go of it when the process dies
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    _sync(draft)
    draft.rename(path)
    _sync(path.parent)
