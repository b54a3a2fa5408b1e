"""Modelyard: rows and a pre-trained model in, an audited, signed, served model out.

release = modelyard.run("modelyard.toml")
answers = modelyard.load(release.folder).predict([{"text": "a quiet triumph"}])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.core.artefacts import Release
    from modelyard.core.events import Events
    from modelyard.runtime.runtime import Runtime

__version__ = "0.1.0"
__all__ = ["load", "run"]


def run(
    project: str | Path = "modelyard.toml",
    settings: str | Sequence[str] = (),
    events: Events | None = None,
) -> Release:
    """Run every stage of a project that does not stand yet, and give its Release.

    `settings` override keys of the project file, as in `["train.minutes=3"]`. Raises BadInput
    with a remedy, and RequirementFailed where the audit says no.
    """
    from modelyard.core.events import silent
    from modelyard.doors import build

    chosen = [settings] if isinstance(settings, str) else settings
    return build(Path(project), chosen, events or silent)


def load(
    folder: str | Path,
    public_key: str | Path | None = None,
    candidates: str | Path | None = None,
) -> Runtime:
    """Verify a Release and open it; `.predict(rows)` gives an answer for each row.

    `public_key` is the PEM file of the key it must be signed with; None takes the user's own.
    `candidates` is a folder that `modelyard candidates` made, to pick from in place of its own.
    Raises ReleaseMissing, ReleaseChanged, ReleaseUntrusted.
    """
    from modelyard.doors import open_release

    key, others = (Path(each) if each else None for each in (public_key, candidates))
    return open_release(Path(folder), key, others)
