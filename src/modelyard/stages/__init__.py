"""The build wing: one file for each stage, in the order rows flow through them."""

from importlib import import_module

from modelyard.core.stages import Stage

ORDER = ("prepare", "train", "compress", "audit", "release")


def build_stages() -> list[Stage]:
    """The stages from rows to a release."""
    return [find(name) for name in ORDER]


def find(name: str) -> Stage:
    """The stage of this name."""
    stage: Stage = getattr(import_module(f"modelyard.stages.{name}"), name)
    return stage
