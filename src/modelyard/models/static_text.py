"""Static text: each token has one vector wherever it stands, and a text is the mean of its own.

What a token's vector is at first, the trained network says of the token alone, in as many numbers
as tell most of it. Tulkens, S. and van Dongen, T. (2024), Model2Vec: fast state-of-the-art static
embeddings. How much a token counts at first is by how rare it is: Arora, S. et al. (2017), A simple
but tough-to-beat baseline for sentence embeddings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from modelyard.models.batches import Pieces, groups_by_length
from modelyard.models.fused import Fused, towers_of
from modelyard.models.layers import copied
from modelyard.models.methods import FASTER
from modelyard.models.pooled import Pooled
from modelyard.models.tokens_kept import KeptTokens, embedding_of, places

WIDTH = 256
HIDDEN = 256
RARE = 1e-3
"""The frequency at which a token counts half."""
TELLS = 1e-6
"""Of what the first component tells, what another must."""
READ_AT_ONCE = 1024
LEARNING_RATE = 2e-3
READ = ("input_ids", "attention_mask")


class StaticText(nn.Module):
    """Arrays (P, T) to outputs (P, C), or to vectors (P, C) of length 1 where `is_vector`."""

    def __init__(self, tokens: KeptTokens, outputs: int, is_vector: bool):
        super().__init__()
        width = tokens.embedding_dim
        self.tokens = tokens
        self.first = nn.Linear(width, HIDDEN)
        self.second = nn.Linear(HIDDEN, outputs)
        self.past = nn.Linear(width, outputs, bias=False)
        self.is_vector = is_vector

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Tensor
    ) -> Tensor:
        """Outputs (P, C); no mask means that nothing is padded."""
        vectors = self.tokens(input_ids)  # (P, T, W)
        if attention_mask is None:
            mean = vectors.mean(1)
        else:
            weights = attention_mask[..., None].to(vectors.dtype)
            mean = (vectors * weights).sum(1) / weights.sum(1).clamp_min(1)
        outputs = self.second(gelu(self.first(mean))) + self.past(mean)
        return normalize(outputs, dim=1) if self.is_vector else outputs


def readers(network: nn.Module) -> list[str]:
    """The towers that read a text as a whole, which can be static."""
    return [
        name
        for name, tower in towers_of(network).items()
        if type(embedding_of(tower)) in (nn.Embedding, KeptTokens)
        and "TokenClassification" not in type(tower).__name__
    ]


def rate_of(network: nn.Module) -> float:
    """The learning rate of a network with static towers, which a fused one speeds up itself."""
    return LEARNING_RATE / FASTER if isinstance(network, Fused) else LEARNING_RATE


def with_static(network: nn.Module, pieces: Pieces) -> nn.Module:
    """A copy with static towers for texts, not trained yet, of the tokens that pieces have."""
    found: Any = copied(network).eval()
    made = {name: _static(found, name, pieces) for name in readers(found)}
    own: dict[str, nn.Module] = {name: made.get(name, t) for name, t in towers_of(found).items()}
    if isinstance(found, Fused):
        found.towers = nn.ModuleDict(own)
        return found
    return own[""]


def _static(network: nn.Module, name: str, pieces: Pieces) -> StaticText:
    tower = towers_of(network)[name]
    found = _texts(name, pieces)
    whole = embedding_of(tower)
    assert whole is not None
    used, counts = np.unique(found.tokens, return_counts=True)
    kept = torch.from_numpy(used.astype(np.int64))
    frequency = torch.from_numpy(counts / counts.sum()).float()
    vectors = _principal(_states(tower, kept, found)) * (RARE / (RARE + frequency))[:, None]
    everything = torch.arange(len(getattr(whole, "place", whole.weight)))
    table = KeptTokens(vectors, places(whole(everything).detach(), kept))
    return StaticText(table, _width(tower, found), isinstance(tower, Pooled))


@dataclass(frozen=True)
class _Texts:
    """The tokens (N,) of texts, and those that most texts begin and end with."""

    tokens: NDArray[np.int64]
    first: int
    last: int


def _texts(name: str, pieces: Pieces) -> _Texts:
    """What a tower reads of pieces."""
    prefix = f"{name}." if name else ""
    tokens, firsts, lasts = [], [], []
    for group in groups_by_length(np.arange(len(pieces.lengths)), pieces.lengths):
        arrays = pieces.collate(group)
        ids, mask = (np.asarray(arrays[prefix + n], np.int64) for n in READ)
        tokens.append(ids[mask > 0])
        firsts.append(ids[:, 0])
        lasts.append(np.take_along_axis(ids, mask.sum(1, keepdims=True) - 1, 1)[:, 0])
    first, last = (int(np.bincount(np.concatenate(each)).argmax()) for each in (firsts, lasts))
    return _Texts(np.concatenate(tokens), first, last)


def _width(tower: Any, texts: _Texts) -> int:
    """How many numbers a tower gives for a text."""
    with torch.inference_mode():
        found = tower(input_ids=torch.tensor([[texts.first, texts.last]]))
    return int(getattr(found, "logits", found).shape[-1])


def _states(tower: Any, tokens: Tensor, texts: _Texts) -> Tensor:
    """What a tower says of each token that stands alone (U, W): the mean of its last states."""
    body = tower.base_model
    found = []
    with torch.inference_mode():
        for some in torch.split(tokens, READ_AT_ONCE):
            ends = [torch.full_like(some, edge) for edge in (texts.first, texts.last)]
            ids = torch.stack([ends[0], some, ends[1]], 1)
            found.append(body(input_ids=ids).last_hidden_state.mean(1))
    return torch.cat(found).clone()


def _principal(states: Tensor) -> Tensor:
    """States (U, W) as their principal components (U, D), of length 1 on average.

    Which way a component points, and all of one that tells nothing, is left to chance by the
    decomposition and is fixed here.
    """
    centred = (states - states.mean(0)).double()
    _, told, right = torch.linalg.svd(centred, full_matrices=False)
    right = right[told >= TELLS * told.max()][:WIDTH]
    most = right.abs().argmax(1, keepdim=True)
    found = (centred @ (right * right.gather(1, most).sign()).T).float()
    scaled: Tensor = found / found.norm(dim=1).mean().clamp_min(1e-12)
    return scaled
