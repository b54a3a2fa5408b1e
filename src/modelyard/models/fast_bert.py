"""A BERT or RoBERTa classifier with less work: its own weights, the same outputs and gradients.

Three things differ from the plain network:
- query, key and value of a layer are one matrix product;
- where the first token alone is read, only it is computed in the last layer; its keys and values
  are folded into the query and the output, so that no product runs over all tokens;
- a text whose outputs get no gradient costs nothing in the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from modelyard.models.dropout import factors
from modelyard.models.pooled import Pooled

CLASSIFIERS = ("BertForSequenceClassification", "RobertaForSequenceClassification")
TAGGERS = ("BertForTokenClassification", "RobertaForTokenClassification")
BODIES = ("BertModel", "RobertaModel")
"""Of what is pooled."""
PER_LAYER = 16
NORMS = (8, 9, 14, 15)  # of a layer's weights, those of its norms
SAVED = 13
aten = torch.ops.aten


def is_possible(network: Any) -> bool:
    """Whether this network is known, computes GELU, and drops nothing within its attention."""
    own = network.network if isinstance(network, Pooled) else network
    if type(own).__name__ not in (BODIES if own is not network else (*CLASSIFIERS, *TAGGERS)):
        return False
    config = network.config
    dropped = getattr(config, "attention_probs_dropout_prob", 0)
    return not config.is_decoder and config.hidden_act == "gelu" and dropped == 0


def fast(network: nn.Module) -> nn.Module:
    """The network in its fast form, where there is one."""
    return FastBert(network) if is_possible(network) else network


class FastBert(nn.Module):
    """The network's outputs (P, C), vectors (P, W), or (P, T, C) of a tagger, from arrays (P, T).

    All layers whose every token is read compute in `dtype`; weights and their gradients are fp32.
    """

    dtype = torch.float32

    def __init__(self, network: Any):
        super().__init__()
        self.network = network
        config = network.config
        attention = network.base_model.encoder.layer[0].attention.self
        self.heads = int(attention.query.out_features // attention.attention_head_size)
        self.epsilon = float(config.layer_norm_eps)
        self.dropout = float(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Outputs; no mask means that nothing is padded."""
        network: Any = self.network
        body = network.base_model
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        states = body.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)  # (P, T, W)
        if isinstance(network, Pooled):
            return network.pooled(self._whole(body.encoder.layer, states, mask), attention_mask)
        if type(network).__name__ in TAGGERS:
            tagged: Tensor = network.classifier(
                network.dropout(self._whole(body.encoder.layer, states, mask))
            )
            return tagged
        *most, last = body.encoder.layer
        first = _first_token(last, self._whole(most, states, mask), mask, self.heads)  # (P, 1, W)
        if body.pooler is None:
            outputs: Tensor = network.classifier(first)
        else:
            outputs = network.classifier(network.dropout(body.pooler(first)))
        return outputs

    def _whole(self, layers: Sequence[Any], states: Tensor, mask: Tensor | None) -> Tensor:
        """The states (P, T, W) of all tokens after some layers."""
        if not len(layers):
            return states
        apply: Any = _Layers.apply
        weights = [weight for layer in layers for weight in _weights(layer)]
        dropped = self.dropout if self.training else 0.0
        after = apply(states.to(self.dtype), mask, self.heads, self.epsilon, dropped, *weights)
        found: Tensor = after.float()
        return found


def _weights(layer: Any) -> list[Tensor]:
    """A layer's weights in the order that `_Layers` takes them."""
    attention = layer.attention.self
    modules = (
        attention.query,
        attention.key,
        attention.value,
        layer.attention.output.dense,
        layer.attention.output.LayerNorm,
        layer.intermediate.dense,
        layer.output.dense,
        layer.output.LayerNorm,
    )
    return [weight for module in modules for weight in (module.weight, module.bias)]


def _first_token(layer: Any, states: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """The last layer's state (P, 1, W) of the first token.

    With q the query of a head and K its key matrix, q (K x + b) = (q K) x + q b, and what is the
    same for all tokens drops out of the softmax; the values fold in the same way.
    """
    attention = layer.attention.self
    first = states[:, :1]
    by_head = (heads, -1, states.shape[-1])
    query = attention.query(first).view(len(states), heads, -1)
    folded = torch.einsum("phd,hdw->phw", query, attention.key.weight.view(by_head))
    scores = folded @ states.transpose(1, 2) * query.shape[-1] ** -0.5  # (P, heads, T)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, 0], -torch.inf)
    mixed = scores.softmax(-1) @ states  # (P, heads, W)
    values = torch.einsum("phw,hdw->phd", mixed, attention.value.weight.view(by_head))
    attended = values.flatten(1)[:, None] + attention.value.bias
    out: Tensor = layer.feed_forward_chunk(layer.attention.output(attended, first))
    return out


class _Layers(torch.autograd.Function):
    """Layers of which every token is read: states (P, T, W) in and out."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        mask: Tensor | None,
        heads: int,
        epsilon: float,
        dropout: float,
        *weights: Tensor,
    ) -> Tensor:
        shape = states.shape
        rows = states.reshape(-1, shape[-1])  # (N, W)
        kept: list[Tensor] = []
        for start in range(0, len(weights), PER_LAYER):
            layer = _as(rows.dtype, weights[start : start + PER_LAYER])
            rows, saved = _forward(rows, mask, shape, heads, epsilon, dropout, layer)
            kept += [*saved, *layer]
        ctx.save_for_backward(*kept)
        ctx.mask, ctx.shape, ctx.heads = mask, shape, heads
        return rows.view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = gradients
        pieces, length, width = ctx.shape
        active = gradient.flatten(1).any(1).nonzero().squeeze(1)
        layers = _by_layer(ctx.saved_tensors)
        if not len(active):
            return torch.zeros_like(gradient), *[None] * 4, *[None] * (PER_LAYER * len(layers))
        every = len(active) == pieces
        rows = (gradient if every else gradient[active]).reshape(-1, width)
        mask = ctx.mask if ctx.mask is None or every else ctx.mask[active]
        found: list[Tensor | None] = []
        for saved, weights in reversed(layers):
            if not every:
                saved = [_only(tensor, active, pieces) for tensor in saved]
            shape = (len(active), length, width)
            rows, own = _backward(rows, saved, mask, shape, ctx.heads, weights)
            found = [*own, *found]
        whole = rows.view(-1, length, width)
        if not every:
            whole = torch.zeros_like(gradient).index_copy_(0, active, whole)
        return whole, None, None, None, None, *found


def _as(dtype: torch.dtype, weights: Sequence[Tensor]) -> list[Tensor]:
    """A layer's weights for products in `dtype`; its norms stay as they are."""
    return [w if n in NORMS else w.to(dtype) for n, w in enumerate(weights)]


def _by_layer(tensors: Sequence[Tensor]) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """What was saved and the weights, layer by layer."""
    size = SAVED + PER_LAYER
    starts = range(0, len(tensors), size)
    return [(tensors[n : n + SAVED], tensors[n + SAVED : n + size]) for n in starts]


def _only(tensor: Tensor, active: Tensor, pieces: int) -> Tensor:
    """The rows (N, ...) of the active pieces."""
    if not len(tensor):
        return tensor
    return tensor.view(pieces, -1, tensor.shape[-1])[active].view(-1, tensor.shape[-1])


def _forward(
    rows: Tensor,
    mask: Tensor | None,
    shape: Sequence[int],
    heads: int,
    epsilon: float,
    dropout: float,
    weights: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """One layer's states (N, W), and what its backward pass needs."""
    wq, bq, wk, bk, wv, bv, wo, bo, g1, h1, w1, b1, w2, b2, g2, h2 = weights
    width = rows.shape[-1:]
    qkv = torch.addmm(torch.cat([bq, bk, bv]), rows, torch.cat([wq, wk, wv]).t())
    query, key, value = _heads(qkv, shape, heads)
    mixed = _rows(scaled_dot_product_attention(query, key, value, attn_mask=mask))
    sum1 = torch.addmm(bo, mixed, wo.t())
    kept1 = _dropped_out(sum1, dropout)
    sum1.add_(rows)
    norm1, *moments1 = torch.native_layer_norm(sum1, width, g1, h1, epsilon)
    wide = torch.addmm(b1, norm1, w1.t())
    bent = gelu(wide)
    sum2 = torch.addmm(b2, bent, w2.t())
    kept2 = _dropped_out(sum2, dropout)
    sum2.add_(norm1)
    norm2, *moments2 = torch.native_layer_norm(sum2, width, g2, h2, epsilon)
    saved = [rows, qkv, sum1, *moments1, norm1, wide, bent, sum2, *moments2]
    return norm2, [*saved, kept1, kept2]


def _dropped_out(states: Tensor, share: float) -> Tensor:
    """Drop a share of states (N, W) in place; give what they were multiplied with."""
    if not share:
        return states.new_empty(0)
    kept = factors(states, share)
    states.mul_(kept)
    return kept


def _through(up: Tensor, kept: Tensor) -> Tensor:
    """A gradient (N, W) from after a dropout to before it."""
    return up * kept if len(kept) else up


def _backward(
    up: Tensor,
    saved: Sequence[Tensor],
    mask: Tensor | None,
    shape: Sequence[int],
    heads: int,
    weights: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The gradient (N, W) of one layer's input from that of its output, and of its weights."""
    wq, _, wk, _, wv, _, wo, _, g1, h1, w1, _, w2, _, g2, h2 = weights
    rows, qkv, sum1, mean1, rstd1, norm1, wide, bent, sum2, mean2, rstd2, kept1, kept2 = saved
    width = rows.shape[-1:]
    every = (True, True, True)
    up, dg2, dh2 = aten.native_layer_norm_backward(up, sum2, width, mean2, rstd2, g2, h2, every)
    branch = _through(up, kept2)
    dw2, db2 = branch.t() @ bent, branch.sum(0)
    dwide = aten.gelu_backward(branch @ w2, wide)
    dw1, db1 = dwide.t() @ norm1, dwide.sum(0)
    up = up.addmm_(dwide, w1)
    up, dg1, dh1 = aten.native_layer_norm_backward(up, sum1, width, mean1, rstd1, g1, h1, every)
    branch = _through(up, kept1)
    mixed, dqkv = _attention_backward(branch @ wo, qkv, mask, shape, heads)
    dwo, dbo = branch.t() @ mixed, branch.sum(0)
    dw, db = dqkv.t() @ rows, dqkv.sum(0)
    up = up.addmm_(dqkv, torch.cat([wq, wk, wv]))
    joined = [each for pair in zip(dw.chunk(3), db.chunk(3), strict=True) for each in pair]
    return up, [*joined, dwo, dbo, dg1, dh1, dw1, db1, dw2, db2, dg2, dh2]


def _attention_backward(
    up: Tensor, qkv: Tensor, mask: Tensor | None, shape: Sequence[int], heads: int
) -> tuple[Tensor, Tensor]:
    """Attention's output (N, W), computed anew, and the gradient (N, 3 W) of its input.

    In fp32, for which torch has a kernel several times faster.
    """
    with torch.enable_grad():
        query, key, value = (part.requires_grad_() for part in _heads(qkv.float(), shape, heads))
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    found = torch.autograd.grad(
        mixed, (query, key, value), up.float().view(*shape[:2], heads, -1).transpose(1, 2)
    )
    slope = torch.cat([_rows(part) for part in found], 1)
    return _rows(mixed.detach()).to(up.dtype), slope.to(up.dtype)


def _heads(qkv: Tensor, shape: Sequence[int], heads: int) -> list[Tensor]:
    """Query, key and value (P, heads, T, W / heads) from rows (N, 3 W)."""
    return list(qkv.detach().view(*shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind())


def _rows(by_head: Tensor) -> Tensor:
    """(P, heads, T, W / heads) as rows (N, W)."""
    return by_head.transpose(1, 2).flatten(2).flatten(0, 1)
