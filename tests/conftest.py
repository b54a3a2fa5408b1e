"""What several test files need."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import make_backbone, make_image_backbone

from modelyard.core.artefacts import Dataset, Model

pytest_plugins = ["tests.ledgers", "tests.tenants", "tests.clients"]
collect_ignore = ["kill_training.py"]
"""A program that a test starts; to import it is to run it."""


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers × 32 with a vocabulary of words, in Hugging Face form."""
    return make_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def tiny_image_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small EfficientNet-Lite for images of 32 pixels."""
    return make_image_backbone(tmp_path_factory.mktemp("backbone") / "tiny-image")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Model:
    """An untrained Model."""
    from tests.small_models import untrained

    return untrained(tmp_path_factory.mktemp("model"), tiny_backbone)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Dataset:
    """Rows whose labels are what the network says, so that it makes no mistake."""
    from tests.small_models import right_rows

    return right_rows(tmp_path_factory.mktemp("dataset"), model)


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for keys, so that no test signs with the key of whoever runs it; one engine."""
    folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_CONFIG", str(folder))
        patch.setenv("MODELYARD_ENGINES", "onnxruntime")
        yield folder


@pytest.fixture(scope="session", autouse=True)
def short_measuring() -> Iterator[None]:
    """Speed measured in a blink: no test rests on how fast a rung is."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TURNS", 2), ("CHUNK_S", 0.01), ("SINGLE_S", 0.01)):
            patch.setattr(f"modelyard.stages.speed.{name}", value)
        yield
