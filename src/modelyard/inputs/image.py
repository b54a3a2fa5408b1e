"""Image: a column of pictures, grey or coloured, of any size.

In rows a picture is the path of a file, bytes, base64 text, or rows of pixels; a Dataset keeps
its bytes, so it is whole without the files. The network sees a square of `size` pixels.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from modelyard.data.files import is_file
from modelyard.inputs import Encode, PlainFeatures, State, options_of
from modelyard.runtime import pixels
from modelyard.runtime.encoded import Deferred, Encoded, Kept

PATCH = 14
"""A square of so many pixels costs as much as a token: so an image of 224 costs 256."""
USUAL_SIZE = 224
FEW = 32
"""Images that are decoded at once; of more, each is when a batch wants it."""
PLAIN_SIDE = 32
THUMBNAIL = 96
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4"
    "AAAADklEQVR4nGNgCGVY9R8AA60B/2f7ygkAAAAASUVORK5CYII="
)
"""Four pixels in four greys, as a PNG in base64."""


class Options(BaseModel):
    """What may stand beside `kind` of an image input."""

    model_config = ConfigDict(extra="forbid")
    size: int | None = Field(
        None, ge=16, le=1024, description="pixels of a side that the network sees; the backbone's"
    )
    fit: Literal["pad", "crop"] = Field(
        "pad", description="what is done to make it square: grey bars, or its middle"
    )
    augment: Literal["none", "small", "mirrored"] = Field(
        "small", description="how images differ each time they are trained on"
    )


class Image:
    """The image input."""

    kind = "image"
    together = False
    identifies = True
    has_tokens = False
    blank = ((127,),)
    datatype = "BYTES"
    is_binary = True
    is_file = True
    extra = "image"

    def options(self, given: Mapping[str, Any]) -> Options:
        """What stands beside `kind`, checked; raises SettingInvalid."""
        return options_of(Options, self.kind, given)

    def learn(
        self, values: Sequence[Any], options: Mapping[str, Any], backbone: Path, reads: str
    ) -> State:
        """What the network sees of an image; nothing is learned from the values."""
        from modelyard.models.vision import side_of

        chosen = self.options(options)
        return {**chosen.model_dump(), "size": chosen.size or side_of(backbone)}

    def read(self, value: Any, beside: Path) -> Any:
        """The picture's bytes: those of the file where the value is its path."""
        if isinstance(value, dict) and value.get("bytes") is None:
            value = value.get("path", value)
        found = beside / value if isinstance(value, str) and is_file(beside, value) else value
        try:
            return pixels.encoded(found)
        except pixels.PictureInvalid:
            return found

    def check(self, value: Any) -> str | None:
        """One still picture is wanted, which can be decoded to the end."""
        pixels.require_pillow()
        try:
            pixels.picture(value, PLAIN_SIDE)
        except pixels.PictureInvalid as error:
            return str(error)
        return None

    def words(self, value: Any) -> str:
        """No words are in an image."""
        return ""

    def key(self, value: Any) -> str:
        """The digest of its bytes."""
        return hashlib.sha256(pixels.encoded(value)).hexdigest()

    def picture(self, value: Any) -> str | None:
        """A small copy as a data: URL."""
        return pixels.data_url(pixels.picture(value, THUMBNAIL), THUMBNAIL)

    def tokens(self, options: Mapping[str, Any], characters: float) -> float:
        """One for each square of 14 pixels; 224 pixels are taken for a size that is not given."""
        return _tokens(self.options(options).size or USUAL_SIZE)

    def encoder(self, state: State, folder: Path) -> Encode:
        """A function from pictures to `pixels` (B, 3, size, size), from 0 to 255."""
        pixels.require_pillow()
        made = partial(_fitted, int(state["size"]), state["fit"] == "crop")
        return partial(_encode, made, _tokens(int(state["size"])))

    def network(self, states: Sequence[State], backbone: Path, width: int, dropout: float) -> Any:
        """The backbone and a layer over it: pixels (P, 3, size, size) to (P, width)."""
        from modelyard.models.vision import load

        [state] = states
        return load(backbone, width, int(state["size"]), dropout, str(state["augment"]))

    def save(self, network: Any, states: Sequence[State], backbone: Path, folder: Path) -> None:
        """The network's configuration and weights."""
        network.save(folder)

    def plain_features(self, values: Sequence[Any]) -> tuple[str, PlainFeatures]:
        """The pixels of a small grey copy."""
        return "pixels", _Plain()

    def example(self) -> Any:
        """A value for the API's documentation."""
        return EXAMPLE

    def schema(self) -> dict[str, Any]:
        """Base64 of a file, or rows of pixels: (H, W) greys or (H, W, 3) colours."""
        level = {"type": "integer", "minimum": 0, "maximum": 255}
        colour = {"type": "array", "items": level, "minItems": 3, "maxItems": 3}
        row = {"type": "array", "items": {"anyOf": [level, colour]}, "minItems": 1}
        file = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}
        return {"anyOf": [file, {"type": "array", "items": row, "minItems": 1}]}


class _Plain:
    """Pixels of a grey copy of 32 × 32, from 0 to 1: (B, 1024)."""

    def fit_transform(self, values: Sequence[Any]) -> Any:
        """The features; there is nothing to learn."""
        return self.transform(values)

    def transform(self, values: Sequence[Any]) -> Any:
        """The features of values."""
        grey = [_fitted(PLAIN_SIDE, False, value).mean(axis=0).ravel() for value in values]
        return np.stack(grey).astype(np.float32) / 255


def _fitted(size: int, is_cropped: bool, value: Any) -> NDArray[np.uint8]:
    return pixels.fitted(pixels.picture(value, size), size, is_cropped)


def _tokens(size: int) -> int:
    return math.ceil(size / PATCH) ** 2


def _encode(made: Any, tokens: int, values: Sequence[Any]) -> Encoded:
    rows = len(values)
    deferred = Deferred(values, made)
    kept: Kept = deferred.whole() if 0 < rows <= FEW else deferred
    return Encoded({"pixels": kept}, np.arange(rows), np.full(rows, tokens, dtype=np.int64))


INPUT = Image()
