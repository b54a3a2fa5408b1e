"""One bulk prediction in a process of its own: this project's runtime, or a pipeline."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WARM_UP = 64


def main(which: str, release: str, texts_file: str) -> None:
    """Predict all texts once after a warm-up; print one JSON object."""
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    predict = {"modelyard": ours, "pipeline": pipeline}[which](release)
    predict(texts[:WARM_UP])
    start = time.perf_counter()
    labels = predict(texts)
    seconds = time.perf_counter() - start
    print(json.dumps({"rate": len(texts) / seconds, "labels": list(labels)}))


def ours(release: str) -> Callable[[Sequence[str]], list[str]]:
    """The runtime."""
    import modelyard

    runtime = modelyard.load(release)
    column = runtime.spec.inputs[0].column
    return lambda texts: [a["label"] for a in runtime.predict([{column: t} for t in texts])]


def pipeline(release: str) -> Callable[[Sequence[str]], list[str]]:
    """The field's usual way, on the same release."""
    from transformers import pipeline as make

    pipe = make("text-classification", model=release, batch_size=32, device="cpu")
    return lambda texts: [answer["label"] for answer in pipe(list(texts), truncation=True)]


if __name__ == "__main__":
    main(*sys.argv[1:])
