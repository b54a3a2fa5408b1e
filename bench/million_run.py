"""Train on a Dataset, predict its training texts, or time the engine alone: prints figures."""

import json
import resource
import sys
import time
from pathlib import Path

from modelyard.core.artefacts import Dataset, Model
from modelyard.core.events import silent
from modelyard.core.project_file import read_project
from modelyard.core.store import Draft

CHUNK_ROWS = 8192


def train(folder: Path) -> None:
    """The train stage, and the graph of what it made."""
    from modelyard.stages.compress import compress
    from modelyard.stages.train import train as stage

    project, dataset = read_project(folder), Dataset(folder / "dataset")
    model = Model(_draft(folder / "trained").out)
    stage.run(project, dataset, _draft(folder / "trained"), silent)
    compress.run(project, dataset, model, _draft(folder / "model"), silent)


def predict(folder: Path) -> None:
    """Every training text through the runtime, batch by batch, in this process."""
    from modelyard import inputs, targets
    from modelyard.cli.answers import answer
    from modelyard.cli.predict import PART_ROWS
    from modelyard.data.files import Writer, open_filled
    from modelyard.runtime.runtime import Runtime

    runtime = Runtime.open(folder / "model" / "out", inputs.find, targets.find)
    opened = open_filled(folder / "dataset" / "train.parquet")
    with Writer(folder / "answers.parquet") as writer:
        for records in opened.batches(PART_ROWS):
            writer.write(list(answer(runtime, records, opened.counted_in)))


def engine(folder: Path) -> None:
    """Every row of a file through a project's release: the seconds that `predict` itself takes."""
    import pyarrow.parquet as pq

    import modelyard

    runtime, seconds = modelyard.load(folder), 0.0
    with pq.ParquetFile(folder / "texts.parquet") as file:
        for number, batch in enumerate(file.iter_batches(CHUNK_ROWS, columns=["text"])):
            rows = batch.to_pylist()
            if number == 0:
                runtime.predict(rows)  # to warm up
            began = time.perf_counter()
            runtime.predict(rows)
            seconds += time.perf_counter() - began
    print(json.dumps({"seconds": seconds}))


def _draft(folder: Path) -> Draft:
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Draft(folder / "out", folder / "kept", {})


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "engine":
        engine(folder)
        raise SystemExit
    began = time.perf_counter()
    {"train": train, "predict": predict}[what](folder)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes}))
