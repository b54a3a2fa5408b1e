"""One training by transformers.Trainer: batches padded to their longest, else its defaults.

In fp32, or in bf16 with rows of like length together, which is the quicker way it documents.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

BATCH_ROWS = 32
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": True, "train_sampling_strategy": "group_by_length"},
}


class Rows(Dataset):  # type: ignore[type-arg]
    """Tokenised rows of a part."""

    def __init__(self, part: Path, tokenizer, labels: list[str]):  # type: ignore[no-untyped-def]
        table = pq.read_table(part).to_pydict()
        encoded = tokenizer(table["text"], truncation=True, max_length=256)
        self.rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": labels.index(label)}
            for ids, mask, label in zip(
                encoded["input_ids"], encoded["attention_mask"], table["label"], strict=True
            )
        ]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, object]:
        """One row."""
        return self.rows[index]


class Epochs(TrainerCallback):
    """Seconds of each epoch's steps, and what the network answers after it."""

    def __init__(self, asked: Rows, labels: list[str]):
        self.asked = asked
        self.labels = labels
        self.trainer: Any = None
        self.seconds: list[float] = []
        self.answers: list[list[str]] = []
        self.began = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Steps begin."""
        self.began = time.perf_counter()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Steps end; the time of the answers is no epoch's."""
        self.seconds.append(time.perf_counter() - self.began)
        told = np.asarray(self.trainer.predict(self.asked).predictions)
        self.answers.append([self.labels[top] for top in told.argmax(1)])


def main(
    dataset: str, backbone: str, epochs: str, seed: str, way: str, rate: str, part: str
) -> None:
    """Train, and answer the rows of a part after each epoch; print one JSON object."""
    parts = Path(dataset)
    labels = sorted(set(pq.read_table(parts / "train.parquet").to_pydict()["label"]))
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    rows, asked = (Rows(parts / f"{own}.parquet", tokenizer, labels) for own in ("train", part))
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=len(labels))
    told = Epochs(asked, labels)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=float(epochs),
            learning_rate=float(rate),
            per_device_train_batch_size=BATCH_ROWS,
            per_device_eval_batch_size=BATCH_ROWS,
            seed=int(seed),
            report_to=[],
            save_strategy="no",  # the time is that of training, as with this project
            disable_tqdm=True,
            use_cpu=True,
            **WAYS[way],
        )
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(
            model, arguments, data_collator=collator, train_dataset=rows, callbacks=[told]
        )
        told.trainer = trainer
        trainer.train()
    seconds = sum(told.seconds)
    speed = len(rows) * float(epochs) / seconds
    print(
        json.dumps(
            {
                "rows_per_s": speed,
                "seconds": seconds,
                "labels": told.answers[-1],
                "epoch_seconds": told.seconds,
                "epoch_labels": told.answers,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
