"""Pixels: a picture from outside, as bytes, base64 or numbers, opened with care.

Nothing that a file says of itself is trusted: its form is one of a few, its size is looked at
before a pixel is decoded, and what cannot be decoded to the end is refused.
"""

import base64
import binascii
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import ExtraMissing

if TYPE_CHECKING:
    from PIL.Image import Image

FORMS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is read; each form more is a decoder more that a stranger's bytes reach."""
MOVING = ("PNG", "WEBP", "GIF")
MOST_PIXELS = 25_000_000
"""Of a picture as it is stored; decoded, one takes 100 MB, and twice that where it is copied."""
MOST_BYTES = 50_000_000
MOST_SCANS = 100
"""Of a progressive JPEG, which has about ten: each scan goes over all pixels again."""
START_OF_SCAN = b"\xff\xda"
DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,")
SEE_THROUGH = (255, 255, 255)
GREY = (127, 127, 127)
GREYS = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")


class PictureInvalid(ValueError):
    """A picture that cannot be used; the message says why, within a sentence."""


def require_pillow() -> None:
    """Raise ExtraMissing where what reads pictures is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ExtraMissing(
            "Images need Pillow, which is not installed; run `pip install 'modelyard[image]'`."
        ) from None


def picture(value: Any, side: int | None = None) -> "Image":
    """A picture in grey (L) or colour (RGB) from bytes, base64 text, numbers or a file's Path.

    Turned as its EXIF says; what one can see through is white; 16 bits become 8. A JPEG may come
    smaller, but not under `side` pixels. Raises PictureInvalid.
    """
    if isinstance(value, list | tuple | np.ndarray):
        return _of_numbers(value)
    opened = _opened(_bytes(value))
    try:
        if side is not None:
            opened.draft(None, (side, side))
        opened.load()
        return _plain(_upright(opened))
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they stumble on
        raise PictureInvalid(f"the image cannot be decoded ({_reason(error)})") from None


def encoded(value: Any) -> bytes:
    """A picture's bytes as they came, or of numbers a PNG; raises PictureInvalid.

    The picture itself is looked at by `picture` alone.
    """
    if not isinstance(value, list | tuple | np.ndarray):
        return _bytes(value)
    file = io.BytesIO()
    _of_numbers(value).save(file, "PNG")
    return file.getvalue()


def fitted(image: "Image", side: int, is_cropped: bool) -> NDArray[np.uint8]:
    """A picture as colours (3, side, side), its proportions kept.

    Cropped to its middle square, or with grey bars beside it.
    """
    from PIL import Image, ImageOps

    resampling = Image.Resampling.BICUBIC
    if is_cropped:
        square = ImageOps.fit(image, (side, side), resampling)
    else:
        longest = max(image.size)
        width, height = (max(1, round(side * each / longest)) for each in image.size)
        square = Image.new(image.mode, (side, side), GREY[: len(image.getbands())])
        inside = image.resize((width, height), resampling)
        square.paste(inside, ((side - width) // 2, (side - height) // 2))
    return np.ascontiguousarray(np.asarray(square.convert("RGB")).transpose(2, 0, 1))


def data_url(image: "Image", most_side: int) -> str:
    """A small copy of a picture as a data: URL of a PNG."""
    small = image.copy()
    small.thumbnail((most_side, most_side))
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _bytes(value: Any) -> bytes:
    """The bytes of a picture; of the mapping that data sets of pictures have, its `bytes`."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if isinstance(value, str):
        value = _of_base64(value)
    if isinstance(value, Path):
        value = _of_file(value)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise PictureInvalid(
            f"an image was expected (bytes, base64 text or rows of pixels), got "
            f"{type(value).__name__}"
        )
    if not len(value):
        raise PictureInvalid("the image is empty")
    _refuse_large(len(value))
    return bytes(value)


def _of_file(path: Path) -> bytes:
    try:
        _refuse_large(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise PictureInvalid(f"the file cannot be read ({error.strerror})") from None


def _refuse_large(size: int) -> None:
    if size > MOST_BYTES:
        raise PictureInvalid(f"the image has {size:,} bytes, and at most {MOST_BYTES:,} are read")


def _of_base64(text: str) -> bytes:
    if found := DATA_URL.match(text):
        text = text[found.end() :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PictureInvalid(
            "the text is neither the base64 of an image nor, in a file of rows, the path of one"
        ) from None


def _opened(content: bytes) -> "Image":
    """The picture, of which no pixel is decoded yet."""
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(content), formats=FORMS)
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they stumble on
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            raise _too_large("too many") from None
        raise PictureInvalid(
            f"the bytes are no image that is read here ({', '.join(FORMS)})"
        ) from None
    _refuse_costly(opened, content)
    return opened


def _refuse_costly(opened: "Image", content: bytes) -> None:
    """Refuse what would take much to decode, or is more than one picture."""
    pixels = opened.width * opened.height
    if pixels > MOST_PIXELS:
        raise _too_large(f"{opened.width:,} × {opened.height:,}")
    if not pixels:
        raise PictureInvalid("the image has no pixels")
    if opened.format in MOVING and getattr(opened, "is_animated", False):
        raise PictureInvalid("the image moves; give one picture of it")
    if opened.format in ("JPEG", "MPO") and content.count(START_OF_SCAN) > MOST_SCANS:
        raise PictureInvalid(f"the JPEG has more than {MOST_SCANS} scans")


def _too_large(pixels: str) -> PictureInvalid:
    return PictureInvalid(f"the image has {pixels} pixels, and at most {MOST_PIXELS:,} are read")


def _of_numbers(value: Sequence[Any] | NDArray[Any]) -> "Image":
    """A picture of rows of pixels: (H, W) greys or (H, W, 3) colours from 0 to 255."""
    from PIL import Image

    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise PictureInvalid("the rows of pixels are not equally long") from None
    if array.ndim not in (2, 3) or not array.size or array.shape[2:] not in ((), (3,)):
        raise PictureInvalid(f"pixels have the shape (H, W) or (H, W, 3), these have {array.shape}")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise PictureInvalid("pixels are whole numbers from 0 to 255, and some of these are not")
    if array.shape[0] * array.shape[1] > MOST_PIXELS:
        raise _too_large(f"{array.shape[1]:,} × {array.shape[0]:,}")
    return Image.fromarray(array.astype(np.uint8))


def _upright(image: "Image") -> "Image":
    """The picture turned as its EXIF says, where that can be read."""
    from PIL import ImageOps

    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - the picture itself is whole
        return image
    return turned or image


def _plain(image: "Image") -> "Image":
    """A picture as 8 bits of grey or colour, with nothing to see through."""
    from PIL import Image

    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        under = Image.new("RGB", seen.size, SEE_THROUGH)
        under.paste(seen, mask=seen.getchannel("A"))
        return under.convert("L") if image.mode in GREYS else under
    mode = "L" if image.mode in GREYS else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
