"""Train on a Dataset, or predict its training texts: prints seconds and the peak of memory."""

import json
import resource
import sys
import time
from pathlib import Path

from modelyard.core.artefacts import Dataset, Model
from modelyard.core.events import silent
from modelyard.core.project_file import read_project
from modelyard.core.store import Draft


def train(folder: Path) -> None:
    """The train stage, and the graph of what it made."""
    from modelyard.stages.compress import compress
    from modelyard.stages.train import train as stage

    project, dataset = read_project(folder), Dataset(folder / "dataset")
    model = Model(_draft(folder / "trained").out)
    stage.run(project, dataset, _draft(folder / "trained"), silent)
    compress.run(project, dataset, model, _draft(folder / "model"), silent)


def predict(folder: Path) -> None:
    """Every training text through the runtime, batch by batch, as the command reads a file."""
    from modelyard import inputs, targets
    from modelyard.cli.predict import BATCH_ROWS, answer
    from modelyard.data.files import Writer, open_filled
    from modelyard.runtime.runtime import Runtime

    runtime = Runtime.open(folder / "model" / "out", inputs.find, targets.find)
    opened = open_filled(folder / "dataset" / "train.parquet")
    with Writer(folder / "answers.parquet") as writer:
        for records in opened.batches(BATCH_ROWS):
            writer.write(list(answer(runtime, records, opened.counted_in)))


def _draft(folder: Path) -> Draft:
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Draft(folder / "out", folder / "kept", {})


if __name__ == "__main__":
    began = time.perf_counter()
    {"train": train, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes}))
