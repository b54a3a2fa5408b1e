"""First token: in the last layer, only the token that the classifier reads is computed.

A BERT classifier reads the last layer's state of the first token alone. Keys and values are
needed of every token; the query, the attention's output and the feed-forward of the first only.
The result and its gradients are the same, for about one layer's arithmetic less.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ENCODERS = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
}


def read_first_token_only(network: Any) -> bool:
    """Let the last layer compute the first token only; False where the network is not known.

    The network's weights keep their names; its last hidden state becomes (B, 1, W).
    """
    name = ENCODERS.get(type(network).__name__)
    if name is None or network.config.is_decoder:
        return False
    layer = getattr(network, name).encoder.layer[-1]
    layer.forward = partial(_first_token, layer)
    return True


def _first_token(
    layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """The layer's state (B, 1, W) of the first token, from states (B, T, W) of all."""
    first = hidden_states[:, :1]
    attention = layer.attention.self
    mixed = scaled_dot_product_attention(
        _by_head(attention.query(first), attention),
        _by_head(attention.key(hidden_states), attention),
        _by_head(attention.value(hidden_states), attention),
        attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
        dropout_p=attention.dropout.p if layer.training else 0.0,
    )
    mixed = mixed.transpose(1, 2).flatten(2)  # (B, 1, heads × W / heads)
    out: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed, first))
    return out


def _by_head(states: Tensor, attention: nn.Module) -> Tensor:
    """States (B, T, W) as (B, heads, T, W / heads)."""
    heads: Any = attention.attention_head_size
    return states.view(*states.shape[:2], -1, heads).transpose(1, 2)
