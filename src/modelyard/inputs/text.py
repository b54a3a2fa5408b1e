"""Text: a column of sentences or articles, in any language the backbone knows.

A text longer than the window is read as several windows, up to `windows` of them. Their outputs
are averaged; or each token is answered for by one of them, where tokens are what is asked for.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from modelyard.core.errors import BackboneUnusable, SettingInvalid
from modelyard.inputs import Encode, PlainFeatures, State, options_of, shapes, windows
from modelyard.runtime.encoded import Encoded, Ragged

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
CHUNK_ROWS = 4096
TOKENS_PER_CHARACTER = 0.25
MOST_TOKENS = 512
CLASSES = {
    "rows": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "vectors": "AutoModel",
}
WINDOWS = {"rows": 2, "tokens": 1000, "vectors": 2}
"""How many windows of a long text are read: all of it where tokens are answered for."""
NOT_BLANK = r"[^\s\u001c-\u001f\u0085]|\ufeff"
"""What str.strip leaves of a text, as ECMA 262 writes it: the two differ on what is a space."""
CJK = (("\u3400", "\u9fff"), ("\uf900", "\ufaff"), ("\u3040", "\u30ff"), ("\uac00", "\ud7af"))


class Options(BaseModel):
    """What may stand beside `kind` of a text input."""

    model_config = ConfigDict(extra="forbid")
    window_tokens: int = Field(256, ge=8, description="tokens read at once")
    windows: int | None = Field(
        None, ge=1, description="windows of a long text that are read, at most; default: by target"
    )
    layers: int | None = Field(
        None, ge=1, description="the backbone's first layers that are used; default: all of them"
    )


class Text:
    """The text input."""

    kind = "text"
    together = False
    has_tokens = True
    identifies = True
    blank = ""
    datatype = "BYTES"
    is_binary = False
    is_file = False
    extra = ""

    def options(self, given: Mapping[str, Any]) -> Options:
        """What stands beside `kind`, checked; raises SettingInvalid."""
        return options_of(Options, "text", given)

    def learn(
        self, values: Sequence[Any], options: Mapping[str, Any], backbone: Path, reads: str
    ) -> State:
        """The window's size and number; nothing else is learned from the values."""
        chosen = self.options(options)
        _refuse_layers(backbone, chosen.layers)
        tokenizer, config = _tokenizer(backbone), _config(backbone)
        able = reads == "tokens" and config.get("model_type") == "bert"
        return {
            "window_tokens": min(chosen.window_tokens, _most_positions(config)),
            "windows": chosen.windows or WINDOWS[reads],
            "pad_id": _pad_id(tokenizer),
            "reads": reads,
            "width": _width(config),
            "layers": chosen.layers,
            "shapes": able and shapes.are_lost(tokenizer),
        }

    def read(self, value: Any, beside: Path) -> Any:
        """A text is kept as it is."""
        return value

    def words(self, value: Any) -> str:
        """All of it is words."""
        return str(value)

    def key(self, value: Any) -> str:
        """The text itself."""
        return str(value)

    def picture(self, value: Any) -> None:
        """Nothing is to see."""
        return

    def check(self, value: Any) -> str | None:
        """Text is wanted, not empty, and encodable as UTF-8."""
        if not isinstance(value, str):
            return f"text was expected, got {type(value).__name__}"
        if not value.strip():
            return "the text is empty"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "the text holds half a surrogate pair, which is no character"
        return None

    def tokens(self, options: Mapping[str, Any], characters: float) -> float:
        """A token for each four characters, up to two windows."""
        return min(MOST_TOKENS, 2 + characters * TOKENS_PER_CHARACTER)

    def encoder(self, state: State, folder: Path) -> Encode:
        """A function from texts to pieces of `input_ids` and `attention_mask`."""
        tokenizer = _tokenizer(folder)
        tokenizer.no_padding()
        window_tokens, most, pad_id = (state[n] for n in ("window_tokens", "windows", "pad_id"))
        if state.get("reads") == "tokens":
            tokenizer.enable_truncation(window_tokens, stride=windows.overlap(window_tokens))
            return windows.Reader(tokenizer, window_tokens, most, pad_id, state["shapes"])
        tokenizer.enable_truncation(window_tokens, stride=0)
        return partial(_encode, tokenizer, most, pad_id)

    def network(self, states: Sequence[State], backbone: Path, width: int, dropout: float) -> Any:
        """A transformers classifier with `width` outputs and dropout in its layers, or a vector.

        Attention drops nothing: without dropout it runs in one fused kernel.
        """
        _quiet()
        config = _configuration(backbone, width, dropout)
        _cut(config, min(filter(None, (state.get("layers") for state in states)), default=None))
        reads = next((state["reads"] for state in states if "reads" in state), "rows")
        network = _pretrained(CLASSES[reads], backbone, config)
        if any(state.get("shapes") for state in states):
            shapes.read_shapes(network)
        if reads == "vectors":
            from modelyard.models.pooled import Pooled

            return Pooled(network)
        return network

    def save(self, network: Any, states: Sequence[State], backbone: Path, folder: Path) -> None:
        """config.json and model.safetensors as transformers reads them, and the tokenizer."""
        network.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (backbone / name).is_file():
                shutil.copyfile(backbone / name, folder / name)

    def plain_features(self, values: Sequence[Any]) -> tuple[str, PlainFeatures]:
        """TF-IDF of words, or of characters where a fifth of the letters are Chinese or the like.

        Sparck Jones, K. (1972), A statistical interpretation of term specificity.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        if _cjk_share(values[:2000]) > 0.2:
            return "TF-IDF of characters", TfidfVectorizer(
                analyzer="char", ngram_range=(1, 2), sublinear_tf=True
            )
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        if not any(map(words.build_analyzer(), values)):
            return "TF-IDF of characters", words.set_params(analyzer="char")
        return "TF-IDF of words", words

    def example(self) -> Any:
        """A value for the API's documentation."""
        return "A sentence to classify."

    def schema(self) -> dict[str, Any]:
        """A text that is not blank, as JSON Schema."""
        return {"type": "string", "minLength": 1, "pattern": NOT_BLANK}


def _quiet() -> None:
    """Let transformers tell nothing: events do."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _configuration(backbone: Path, width: int, dropout: float) -> Any:
    """What transformers makes a network of: `width` outputs, dropout in layers, none in attention.

    Raises BackboneUnusable.
    """
    from transformers import AutoConfig

    config = _loaded(AutoConfig, backbone, num_labels=width)
    for name in ("attention_probs_dropout_prob", "attention_dropout", "dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    for name in ("hidden_dropout_prob", "classifier_dropout", "seq_classif_dropout"):
        if hasattr(config, name) or name == "classifier_dropout":
            setattr(config, name, dropout)
    return config


def _pretrained(name: str, backbone: Path, config: Any) -> Any:
    """A backbone as a class of transformers, by name; raises BackboneUnusable."""
    import transformers

    return _loaded(getattr(transformers, name), backbone, config=config, dtype="float32")


def _refuse_layers(backbone: Path, layers: int | None) -> None:
    """Raise SettingInvalid where a backbone cannot be cut, before anything else is done."""
    if layers:
        _quiet()
        _cut(_configuration(backbone, 1, 0.0), layers)


def _cut(config: Any, layers: int | None) -> None:
    """Let a network have its first layers only: the last ones are the easiest to do without.

    Sajjad, H. et al. (2020), Poor man's BERT: smaller and faster transformer models.
    """
    if not layers:
        return
    name = next((n for n in ("num_hidden_layers", "n_layers") if hasattr(config, n)), "")
    try:
        setattr(config, name, min(layers, getattr(config, name)))
    except (AttributeError, NotImplementedError):
        raise SettingInvalid(
            f"The option 'layers' of a text of [inputs] is {layers}, and a backbone of type "
            f"{config.model_type!r} cannot be cut to its first layers; take the option out, or "
            "choose another backbone.text."
        ) from None
    if getattr(config, "layer_types", None):  # one for each layer
        config.layer_types = config.layer_types[:layers]


def _loaded(auto: Any, backbone: Path, **given: Any) -> Any:
    """What a class of transformers makes of a folder; raises BackboneUnusable."""
    try:
        return auto.from_pretrained(backbone, **given)
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise BackboneUnusable(
            f"transformers cannot load {backbone} as a classifier ({reason}); choose another "
            "backbone."
        ) from None


def _encode(tokenizer: Tokenizer, windows: int, pad_id: int, values: Sequence[str]) -> Encoded:
    """Texts as windows of tokens; some rows at a time, as tokenizers keep much beside tokens."""
    ids, lengths, row_of = [np.zeros(0, np.int32)], [], []
    for start in range(0, len(values), CHUNK_ROWS):
        some = tokenizer.encode_batch_fast(list(values[start : start + CHUNK_ROWS]))
        pieces: list[list[int]] = []
        for row, encoding in enumerate(some, start):
            for window in [encoding, *encoding.overflowing[: windows - 1]]:
                pieces.append(window.ids or [pad_id])  # a text may have no token
                row_of.append(row)
        lengths += [len(piece) for piece in pieces]
        ids.append(np.array([token for piece in pieces for token in piece], np.int32))
    ends = np.array(lengths, np.int64).cumsum()
    tokens = Ragged(np.concatenate(ids), ends, pad_id, mask="attention_mask")
    return Encoded({"input_ids": tokens}, np.array(row_of, np.int64), np.array(lengths, np.int64))


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _pad_id(tokenizer: Tokenizer) -> int:
    for token in ("[PAD]", "<pad>"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    return 0


def _config(backbone: Path) -> dict[str, Any]:
    """The network's sizes, as transformers keeps them."""
    found: dict[str, Any] = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    return found


def _most_positions(config: Mapping[str, Any]) -> int:
    """How many tokens the network can place; RoBERTa and its kin keep two for themselves."""
    most = int(config.get("max_position_embeddings", 512))
    return most - 2 if most % 2 == 0 and most > 2 and most & (most - 1) else most


def _width(config: Mapping[str, Any]) -> int:
    """How many numbers a token's last state has."""
    return next(int(config[n]) for n in ("hidden_size", "dim", "d_model") if n in config)


def _cjk_share(values: Sequence[str]) -> float:
    letters = [c for value in values for c in value[:200] if c.isalpha()]
    found = sum(any(low <= c <= high for low, high in CJK) for c in letters)
    return found / max(1, len(letters))


INPUT = Text()
