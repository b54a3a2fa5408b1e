"""Packed: a BERT or RoBERTa network that computes no padding, for the graph.

Texts of a batch differ in length, and what pads them to one length costs as much as words do. Here
all products of matrices run over the tokens themselves, end to end; only in attention, a small part
of the work, do the tokens of a text stand in a row of their own.

Zhai, Y. et al. (2023), ByteTransformer: a high-performance transformer boosted for variable-length
inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelyard.models.fast_bert import BODIES, CLASSIFIERS, TAGGERS
from modelyard.models.pooled import Pooled

KNOWN = (*CLASSIFIERS, *TAGGERS, *BODIES)


def packed(network: nn.Module) -> nn.Module:
    """The network in its packed form, where there is one."""
    return Packed(network) if is_possible(network) else network


def is_possible(network: Any) -> bool:
    """Whether this is an encoder whose layers are BERT's."""
    own = network.network if isinstance(network, Pooled) else network
    is_body = type(own).__name__.removeprefix("XLM") in BODIES
    known = type(own).__name__.removeprefix("XLM") in KNOWN and is_body == (own is not network)
    return known and not network.config.is_decoder


class Packed(nn.Module):
    """The network's outputs (P, C), vectors (P, W), or (P, T, C) of a tagger, without dropout.

    `input_ids` (N,) are the tokens of P pieces end to end, `token_type_ids` (N,) their types, and
    `attention_mask` (P, T) has a 1 for each.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.network = network
        attention = network.base_model.encoder.layer[0].attention.self
        self.head_width = int(attention.attention_head_size)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Outputs of each piece."""
        network: Any = self.network
        body = network.base_model
        places = _Places(attention_mask)
        states = self._embedded(input_ids, token_type_ids, places)  # (N, W)
        if isinstance(network, Pooled) or _is_tagger(network):
            for layer in body.encoder.layer:
                states = self._layer(layer, states, places)
            own = states[places.of]  # (P, T, W)
            if isinstance(network, Pooled):
                return network.pooled(own, attention_mask)
            tagged: Tensor = network.classifier(own)
            return tagged
        *most, last = body.encoder.layer
        for layer in most:
            states = self._layer(layer, states, places)
        first = self._first_token(last, states, places)[:, None]  # (P, 1, W)
        outputs: Tensor = network.classifier(first if body.pooler is None else body.pooler(first))
        return outputs

    def _embedded(self, ids: Tensor, types: Tensor | None, places: "_Places") -> Tensor:
        embeddings: Any = self.network.base_model.embeddings
        at = places.within
        padding = getattr(embeddings, "padding_idx", None)
        if padding is not None:  # RoBERTa's: positions begin after it, and it has its own
            at = places.counted(ids != padding) + padding
        found: Tensor = embeddings(
            input_ids=ids[None],
            token_type_ids=(torch.zeros_like(ids) if types is None else types)[None],
            position_ids=at[None],
        )
        return found[0]

    def _layer(self, layer: Any, states: Tensor, places: "_Places") -> Tensor:
        """The states (N, W) after a layer."""
        own = layer.attention.self
        query, key, value = (
            self._by_head(part(states), places) for part in (own.query, own.key, own.value)
        )
        scores = query @ key.transpose(2, 3) * self.head_width**-0.5  # (P, heads, T, T)
        mixed = (scores + places.bias_of_rows).softmax(-1) @ value  # (P, heads, T, d)
        rows = mixed.transpose(1, 2).flatten(2).flatten(0, 1)[places.back]  # (N, W)
        out: Tensor = layer.feed_forward_chunk(layer.attention.output(rows, states))
        return out

    def _first_token(self, layer: Any, states: Tensor, places: "_Places") -> Tensor:
        """The last layer's state (P, W) of each piece's first token.

        With q the query of a head and K its key matrix, q (K x + b) = (q K) x + q b, and what is
        the same for all tokens drops out of the softmax; the values fold in the same way. So no
        product runs over all tokens.
        """
        own = layer.attention.self
        read, first = states[places.of], states[places.of[:, 0]]  # (P, T, W), (P, W)
        by_head = (-1, self.head_width, states.shape[-1])
        key, value = (part.weight.view(by_head) for part in (own.key, own.value))
        query = own.query(first).view(-1, len(key), self.head_width).transpose(0, 1)
        folded = (query @ key).transpose(0, 1)  # (P, heads, W)
        scores = folded @ read.transpose(1, 2) * self.head_width**-0.5  # (P, heads, T)
        mixed = (scores + places.bias).softmax(-1) @ read  # (P, heads, W)
        told = (mixed.transpose(0, 1) @ value.transpose(1, 2)).transpose(0, 1)  # (P, heads, d)
        attended = told.flatten(1) + own.value.bias
        out: Tensor = layer.feed_forward_chunk(layer.attention.output(attended, first))
        return out

    def _by_head(self, states: Tensor, places: "_Places") -> Tensor:
        """States (N, W) as (P, heads, T, W / heads)."""
        read = states[places.of]
        return read.view(*read.shape[:2], -1, self.head_width).transpose(1, 2)


def _is_tagger(network: Any) -> bool:
    return type(network).__name__.removeprefix("XLM") in TAGGERS


class _Places:
    """Where N tokens stand in P pieces, from a mask (P, T).

    `of` (P, T) is the token at each place, `back` (N,) the place of each token with all places end
    to end, `within` (N,) where it stands in its piece, `begins` (N,) that piece's first token;
    `bias` (P, 1, T) lets none be read where there is none, and `bias_of_rows` (P, 1, T, T) is it
    for each token that reads, so that all are added to in one go.
    """

    def __init__(self, mask: Tensor):
        flat = mask.flatten()
        self.back = flat.nonzero().squeeze(1)
        self.of = (flat.cumsum(0) - 1).clamp_min(0).view(mask.shape)
        self.within = self.back % mask.shape[1]
        self.begins = self.of[:, 0][self.back // mask.shape[1]]
        least = torch.finfo(torch.float32).min
        self.bias = (1 - mask[:, None].float()) * least
        self.bias_of_rows = self.bias.expand(-1, mask.shape[1], -1)[:, None]

    def counted(self, real: Tensor) -> Tensor:
        """The number of each token that is `real` (N,) among those of its piece, and 0 of others.

        As RoBERTa counts: a text may have its padding among its words.
        """
        own = real.long()
        count = own.cumsum(0)
        counted: Tensor = (count - (count - own)[self.begins]) * own
        return counted
