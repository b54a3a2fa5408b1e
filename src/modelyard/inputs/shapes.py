"""Shapes: how a word is written, for networks whose tokens have no capital letters.

The network reads a shape where it would read which of two texts a token is from, so its weights
keep their names and its layers stay as they are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

SHAPES = 8
OTHER, LOWER, DIGITS, SOME_DIGITS, CAPITALS, CAPITAL, CAPITALISED, MIXED = range(SHAPES)


def are_lost(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer makes no difference between large and small letters."""
    normalizer = tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("Aa") == "aa"


def shape_of(word: str) -> int:
    """How a word is written.

    >>> [shape_of(word) for word in ("New", "NEW", "N", "new", "1998", "G7", "iOS", "北", ".")]
    [6, 4, 5, 1, 2, 3, 7, 0, 0]
    """
    if word.isdigit():
        return DIGITS
    if any(character.isdigit() for character in word):
        return SOME_DIGITS
    if word.islower():
        return LOWER
    if word.isupper():
        return CAPITALS if len(word) > 1 else CAPITAL
    if word[:1].isupper() and word[1:].islower():
        return CAPITALISED
    return MIXED if word.lower() != word else OTHER


def shapes_of(text: str, encoding: Encoding) -> NDArray[np.int32]:
    """The shape of the word that each token (T,) is of."""
    spans: dict[int, list[int]] = {}
    for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            spans.setdefault(word, [start, end])[1] = end
    shapes: dict[int | None, int] = {
        word: shape_of(text[start:end]) for word, (start, end) in spans.items()
    }
    return np.array([shapes.get(word, OTHER) for word in encoding.word_ids], np.int32)


def read_shapes(network: Any) -> None:
    """Let a BERT read shapes, all of which say to it what the first text said before."""
    import torch
    from torch import nn

    embeddings = network.base_model.embeddings
    old = embeddings.token_type_embeddings
    if old.num_embeddings == SHAPES:
        return
    new = nn.Embedding(SHAPES, old.embedding_dim)
    with torch.no_grad():
        new.weight.copy_(old.weight[:1].expand(SHAPES, -1))
    embeddings.token_type_embeddings = new
    network.config.type_vocab_size = SHAPES
