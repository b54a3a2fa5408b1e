"""A BERT or RoBERTa classifier with less work: its own weights, the same outputs and gradients.

Three things differ from the plain network:
- query, key and value of a layer are one matrix product;
- where the first token alone is read, only it is computed in the last layer; its keys and values
  are folded into the query and the output, so that no product runs over all tokens;
- a text whose outputs get no gradient costs nothing in the backward pass.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from modelyard.models.dropout import factors
from modelyard.models.fused import towers_of
from modelyard.models.pooled import Pooled

CLASSIFIERS = ("BertForSequenceClassification", "RobertaForSequenceClassification")
TAGGERS = ("BertForTokenClassification", "RobertaForTokenClassification")
BODIES = ("BertModel", "RobertaModel")
"""Of what is pooled."""
PER_LAYER = 16
JOINED, OF_NORMS = 12, (4, 5, 10, 11)
"""A layer's weights once query, key and value are one, and those of its norms among them."""
SAVED = 15
aten = torch.ops.aten
attend = aten._scaled_dot_product_flash_attention_for_cpu
attend_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward


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
    ready: "Ready | None" = None
    """Weights made ready for several calls, between which they do not change."""

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
        bias = None if mask is None else torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        ready = self.ready or Ready()
        after = apply(
            states.to(self.dtype), bias, self.heads, self.epsilon, dropped, ready, *weights
        )
        found: Tensor = after.float()
        return found


class Ready:
    """Layers' weights for products in a type, query, key and value as one; each made once."""

    def __init__(self) -> None:
        self._made: dict[int, list[Tensor]] = {}
        self._lock = threading.Lock()

    def of(self, dtype: torch.dtype, weights: Sequence[Tensor]) -> list[Tensor]:
        """A layer's, JOINED of its PER_LAYER; its norms stay as they are."""
        own = weights[0].data_ptr()
        with self._lock:
            if own not in self._made:
                matrices, biases = weights[0:6:2], weights[1:6:2]
                joined = [torch.cat(list(matrices)), torch.cat(list(biases)), *weights[6:]]
                self._made[own] = [
                    each if n in OF_NORMS else each.to(dtype) for n, each in enumerate(joined)
                ]
            return self._made[own]


@contextmanager
def made_ready(network: nn.Module) -> Iterator[None]:
    """Have the weights of a network made ready once for all calls within; none may change there."""
    own = [tower for tower in towers_of(network).values() if isinstance(tower, FastBert)]
    for tower in own:
        tower.ready = Ready()
    try:
        yield
    finally:
        for tower in own:
            tower.ready = None


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
    """Layers of which every token is read: states (P, T, W) in and out.

    `bias` (P, 1, 1, T) is added to what tokens are read by: -inf where there is none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        bias: Tensor | None,
        heads: int,
        epsilon: float,
        dropout: float,
        ready: Ready,
        *weights: Tensor,
    ) -> Tensor:
        shape = states.shape
        rows = states.reshape(-1, shape[-1])  # (N, W)
        kept: list[Tensor] = []
        for start in range(0, len(weights), PER_LAYER):
            layer = ready.of(rows.dtype, weights[start : start + PER_LAYER])
            rows, saved = _forward(rows, bias, shape, heads, epsilon, dropout, layer)
            kept += [*saved, *layer]
        ctx.save_for_backward(*kept)
        ctx.bias, ctx.shape, ctx.heads = bias, shape, heads
        return rows.view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = gradients
        pieces, length, width = ctx.shape
        active = gradient.flatten(1).any(1).nonzero().squeeze(1)
        layers = _by_layer(ctx.saved_tensors)
        if not len(active):
            return torch.zeros_like(gradient), *[None] * 5, *[None] * (PER_LAYER * len(layers))
        every = len(active) == pieces
        rows = (gradient if every else gradient[active]).reshape(-1, width)
        bias = ctx.bias if ctx.bias is None or every else ctx.bias[active]
        found: list[Tensor | None] = []
        for saved, weights in reversed(layers):
            if not every:
                saved = [_only(tensor, active, pieces) for tensor in saved]
            shape = (len(active), length, width)
            rows, own = _backward(rows, saved, bias, shape, ctx.heads, weights)
            found = [*own, *found]
        whole = rows.view(-1, length, width)
        if not every:
            whole = torch.zeros_like(gradient).index_copy_(0, active, whole)
        return whole, None, None, None, None, None, *found


def _by_layer(tensors: Sequence[Tensor]) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """What was saved and the weights, layer by layer."""
    size = SAVED + JOINED
    starts = range(0, len(tensors), size)
    return [(tensors[n : n + SAVED], tensors[n + SAVED : n + size]) for n in starts]


def _only(tensor: Tensor, active: Tensor, pieces: int) -> Tensor:
    """The rows (N, ...) of the active pieces."""
    if not len(tensor):
        return tensor
    return tensor.view(pieces, -1, tensor.shape[-1])[active].view(-1, tensor.shape[-1])


def _forward(
    rows: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    heads: int,
    epsilon: float,
    dropout: float,
    weights: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """One layer's states (N, W), and what its backward pass needs."""
    wqkv, bqkv, wo, bo, g1, h1, w1, b1, w2, b2, g2, h2 = weights
    width = rows.shape[-1:]
    qkv = torch.addmm(bqkv, rows, wqkv.t())
    mixed, summed = _attention(qkv, bias, shape, heads)
    sum1 = torch.addmm(bo, _rows(mixed).to(rows.dtype), wo.t())
    kept1 = _dropped_out(sum1, dropout)
    sum1.add_(rows)
    norm1, *moments1 = torch.native_layer_norm(sum1, width, g1, h1, epsilon)
    wide = torch.addmm(b1, norm1, w1.t())
    bent = gelu(wide)
    sum2 = torch.addmm(b2, bent, w2.t())
    kept2 = _dropped_out(sum2, dropout)
    sum2.add_(norm1)
    norm2, *moments2 = torch.native_layer_norm(sum2, width, g2, h2, epsilon)
    saved = [
        rows,
        qkv,
        _rows(mixed),
        summed.transpose(1, 2).flatten(0, 1),
        sum1,
        *moments1,
        norm1,
        wide,
        bent,
        sum2,
        *moments2,
    ]
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
    bias: Tensor | None,
    shape: Sequence[int],
    heads: int,
    weights: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The gradient (N, W) of one layer's input from that of its output, and of its weights."""
    wqkv, _, wo, _, g1, h1, w1, _, w2, _, g2, h2 = weights
    rows, qkv, mixed, summed, sum1, mean1, rstd1, norm1, wide, bent, sum2, mean2, rstd2 = saved[:13]
    kept1, kept2 = saved[13:]
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
    dqkv = _attention_backward(branch @ wo, qkv, mixed, summed, bias, shape, heads)
    dwo, dbo = branch.t() @ mixed.to(branch.dtype), branch.sum(0)
    dw, db = dqkv.t() @ rows, dqkv.sum(0)
    up = up.addmm_(dqkv, wqkv)
    joined = [each for pair in zip(dw.chunk(3), db.chunk(3), strict=True) for each in pair]
    return up, [*joined, dwo, dbo, dg1, dh1, dw1, db1, dw2, db2, dg2, dh2]


def _attention(
    qkv: Tensor, bias: Tensor | None, shape: Sequence[int], heads: int
) -> tuple[Tensor, Tensor]:
    """Attention's output (P, heads, T, W / heads), and what its backward pass needs of the softmax.

    In fp32, for which torch has a kernel several times faster.
    """
    query, key, value = _heads(qkv.float(), shape, heads)
    mixed, summed = attend(query, key, value, 0.0, False, attn_mask=bias)
    return mixed, summed


def _attention_backward(
    up: Tensor,
    qkv: Tensor,
    mixed: Tensor,
    summed: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    heads: int,
) -> Tensor:
    """The gradient (N, 3 W) of attention's input from that of its output (N, W)."""
    query, key, value = _heads(qkv.float(), shape, heads)
    above, told = (_by_head(each, shape, heads) for each in (up.float(), mixed))
    sums = summed.view(*shape[:2], heads).transpose(1, 2)
    found = attend_backward(above, query, key, value, told, sums, 0.0, False, attn_mask=bias)
    return torch.cat([_rows(part) for part in found], 1).to(up.dtype)


def _by_head(rows: Tensor, shape: Sequence[int], heads: int) -> Tensor:
    """Rows (N, W) as (P, heads, T, W / heads)."""
    return rows.view(*shape[:2], heads, -1).transpose(1, 2)


def _heads(qkv: Tensor, shape: Sequence[int], heads: int) -> list[Tensor]:
    """Query, key and value (P, heads, T, W / heads) from rows (N, 3 W)."""
    return list(qkv.detach().view(*shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind())


def _rows(by_head: Tensor) -> Tensor:
    """(P, heads, T, W / heads) as rows (N, W)."""
    return by_head.transpose(1, 2).flatten(2).flatten(0, 1)
