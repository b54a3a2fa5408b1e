"""One training by transformers.Trainer: fp32, its defaults, batches padded to their longest."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

BATCH_ROWS = 32


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


def main(dataset: str, backbone: str, epochs: str, seed: str) -> None:
    """Train, then answer the rows of the test part, in order; print one JSON object."""
    parts = Path(dataset)
    labels = sorted(set(pq.read_table(parts / "train.parquet").to_pydict()["label"]))
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    rows = Rows(parts / "train.parquet", tokenizer, labels)
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=len(labels))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=float(epochs),
            per_device_train_batch_size=BATCH_ROWS,
            per_device_eval_batch_size=BATCH_ROWS,
            seed=int(seed),
            report_to=[],
            save_strategy="no",  # the time is that of training, as with this project
            disable_tqdm=True,
            use_cpu=True,
        )
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, arguments, data_collator=collator, train_dataset=rows)
        seconds = trainer.train().metrics["train_runtime"]
        told = trainer.predict(Rows(parts / "test.parquet", tokenizer, labels))
    answers = [labels[top] for top in np.asarray(told.predictions).argmax(1)]
    rate = len(rows) * float(epochs) / seconds
    print(json.dumps({"rows_per_s": rate, "seconds": seconds, "labels": answers}))


if __name__ == "__main__":
    main(*sys.argv[1:])
