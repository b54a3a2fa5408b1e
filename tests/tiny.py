"""Tiny backbones made in the test: BERT with words as its vocabulary, and convolutions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.project import Project
from modelyard.runtime.encoded import Encoded, Ragged

GOOD = ["fine", "lovely", "warm", "bright", "clever", "moving"]
BAD = ["dull", "cold", "flat", "clumsy", "boring", "stale"]
OTHER = [
    "a",
    "the",
    "film",
    "story",
    "was",
    "and",
    "rather",
    "very",
    "with",
    "its",
    "actor",
    "scene",
    "ending",
    "music",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_backbone(folder: Path) -> Path:
    """A random BERT and a WordPiece tokenizer in Hugging Face form."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [*SPECIAL, *GOOD, *BAD, *OTHER]
    tokenizer = Tokenizer(
        models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, SPECIAL, strict=True))
    ).save_pretrained(folder)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    torch.random.set_rng_state(state)
    return folder


def make_image_backbone(folder: Path) -> Path:
    """A random EfficientNet-Lite, a quarter as wide and as deep, for images of 32 pixels."""
    import torch
    from safetensors.torch import save_file

    from modelyard.models.efficientnet import EfficientNetLite

    settings = {"model_type": "efficientnet-lite", "width_factor": 0.25, "depth_factor": 0.25}
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    network = EfficientNetLite(0.25, 0.25)
    for weight in network.parameters():
        if weight.ndim == 4:  # else what goes in is lost in so many layers
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    torch.random.set_rng_state(state)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**settings, "image_size": 32}))
    return folder


def make_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Reviews of 3 to 12 words whose label their adjectives give away."""
    import random

    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label, words = (("good", GOOD), ("bad", BAD))[number % 2]
        text = rng.choices(OTHER, k=rng.randint(1, 10)) + rng.choices(words, k=2)
        rng.shuffle(text)
        rows.append({"text": " ".join(text), "label": label})
    return rows


def make_dataset(folder: Path, train: int = 96, validation: int = 24, test: int = 24) -> Path:
    """A Dataset's three parts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(train + validation + test)
    start = 0
    for name, size in (("train", train), ("validation", validation), ("test", test)):
        part = [{"_row": start + n + 1, **row} for n, row in enumerate(rows[start : start + size])]
        pq.write_table(pa.Table.from_pylist(part), folder / f"{name}.parquet")
        start += size
    return folder


# fp32, so that every machine computes the same and none tries both
TINY_TRAINING = {"epochs": 6, "learning_rate": 3e-3, "batch_rows": 8, "precision": "fp32"}


def project_on(backbone: Path | str, **options: Any) -> Project:
    """A project that trains on a backbone; `options` go into [train]."""
    return Project.model_validate(
        {
            "name": "tiny",
            "data": {"rows": "rows.csv"},
            "inputs": {"text": "text"},
            "target": {"column": "label"},
            "backbone": {"text": str(backbone)},
            "train": {**TINY_TRAINING, **options},
        }
    )


def pieces_of(
    ids: Sequence[Sequence[int]],
    row_of: Sequence[int] | None = None,
    fill: int = 0,
    name: str = "input_ids",
    mask: str = "attention_mask",
) -> Encoded:
    """Pieces of tokens (P,), each a row of its own unless `row_of` says otherwise."""
    lengths = np.array([len(own) for own in ids], dtype=np.int64)
    values = np.array([token for own in ids for token in own], dtype=np.int32)
    rows = np.arange(len(ids)) if row_of is None else np.array(row_of, dtype=np.int64)
    return Encoded({name: Ragged(values, lengths.cumsum(), fill, mask)}, rows, lengths)
