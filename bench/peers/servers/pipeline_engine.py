"""The field's usual way in process: a pipeline of transformers with batch_size=32."""

import timing
from transformers import pipeline


def engine(release: str) -> timing.Predict:
    """The release's fp32 model."""
    classify = pipeline("text-classification", model=release, device="cpu", batch_size=32)
    return lambda texts: [each["label"] for each in classify(list(texts), truncation=True)]


if __name__ == "__main__":
    timing.main(engine)
