"""What several test files need."""

from pathlib import Path

import pytest
from tests.tiny import make_backbone


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers × 32 with a vocabulary of words, in Hugging Face form."""
    return make_backbone(tmp_path_factory.mktemp("backbone") / "tiny")
