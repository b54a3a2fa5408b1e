"""Pictures from outside: what is read, what is made of it, and what is refused in a sentence."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from modelyard.runtime import pixels
from modelyard.runtime.pixels import PictureInvalid, data_url, encoded, fitted, picture

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
ANY = Image.fromarray(COLOURS)


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def array(image: Image.Image) -> Any:
    return np.asarray(image)


@pytest.mark.parametrize("form", pixels.FORMS)
def test_each_form_is_read(form: str) -> None:
    found = picture(saved(ANY, form))
    assert (found.mode, found.size) == ("RGB", (30, 20))
    if form in ("PNG", "BMP"):
        assert array(found).tolist() == COLOURS.tolist()


@pytest.mark.parametrize("form", ["TIFF", "ICO", "PPM"])
def test_other_forms_are_refused(form: str) -> None:
    with pytest.raises(PictureInvalid, match="no image that is read here"):
        picture(saved(ANY, form))


def test_the_same_picture_in_every_way_to_write_it() -> None:
    content = saved(ANY)
    text = base64.b64encode(content).decode()
    ways = [content, bytearray(content), text, f"data:image/png;base64,{text}", COLOURS]
    ways += [COLOURS.tolist(), COLOURS.astype(np.int64), {"bytes": content, "path": "a.png"}]
    for way in ways:
        assert array(picture(way)).tolist() == COLOURS.tolist()
        assert array(picture(encoded(way))).tolist() == COLOURS.tolist()
    grey = COLOURS[..., 0]
    assert picture(grey.tolist()).mode == "L" == picture(encoded(grey)).mode
    assert array(picture(grey.tolist())).tolist() == grey.tolist()


def test_kinds_of_colour_become_eight_bits_of_grey_or_colour() -> None:
    deep = Image.fromarray(np.array([[0, 257, 65535, 32768]], dtype=np.uint16))
    assert array(picture(saved(deep))).tolist() == [[0, 1, 255, 128]]
    assert picture(saved(ANY.convert("CMYK"), "JPEG")).mode == "RGB"
    few = ANY.quantize(8)
    assert array(picture(saved(few))).tolist() == array(few.convert("RGB")).tolist()
    bits = ANY.convert("1")
    assert array(picture(saved(bits))).tolist() == array(bits.convert("L")).tolist()


def test_what_one_sees_through_is_white() -> None:
    glass = Image.new("RGBA", (4, 2), (200, 0, 0, 0))
    glass.putpixel((0, 0), (10, 20, 30, 255))
    found = array(picture(saved(glass)))
    assert found[0, 0].tolist() == [10, 20, 30] and found[1, 3].tolist() == [255, 255, 255]
    grey = Image.new("LA", (2, 2), (7, 0))
    assert picture(saved(grey)).mode == "L" and array(picture(saved(grey))).min() == 255
    few = Image.new("P", (2, 2), 0)
    few.putpalette([9, 9, 9])
    assert array(picture(saved(few, transparency=0))).min() == 255


def test_a_picture_stands_upright() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    found = picture(saved(ANY, "JPEG", exif=turned, quality=95))
    assert found.size == (20, 30)
    assert picture(saved(ANY, "JPEG", exif=b"Exif\0\0nonsense")).size == (30, 20)


def test_a_large_jpeg_comes_smaller_but_not_too_small() -> None:
    found = picture(saved(ANY.resize((1600, 1000)), "JPEG"), 100)
    assert 100 <= min(found.size) < 300


def test_a_phones_picture_of_two_is_read() -> None:
    both = saved(ANY, "MPO", save_all=True, append_images=[ANY])
    assert picture(both).size == (30, 20)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_moving_pictures_are_refused(form: str) -> None:
    other = Image.fromarray(255 - COLOURS)
    moving = saved(ANY, form, save_all=True, append_images=[other], duration=100)
    with pytest.raises(PictureInvalid, match="the image moves"):
        picture(moving)


@pytest.mark.parametrize("side", [5_001, 9_500, 13_400])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    small = saved(Image.new("1", (side, side)))
    assert len(small) < 100_000
    with pytest.raises(PictureInvalid, match="at most 25,000,000 are read"):
        picture(small)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    slow = saved(ANY, "JPEG", progressive=True)
    start = slow.rindex(pixels.START_OF_SCAN)
    assert picture(slow).size == (30, 20)
    with pytest.raises(PictureInvalid, match="more than 100 scans"):
        picture(slow[:start] + slow[start:-2] * 200 + slow[-2:])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "is empty"),
        ("", "is empty"),
        ("no base64!", "neither the base64"),
        (base64.b64encode(b"hello").decode(), "no image"),
        ("data:image/png;base64,AAAA", "no image"),
        (b"hello", "no image"),
        (7, "got int"),
        (None, "got NoneType"),
        ({"bytes": None}, "got dict"),
        ([], "shape"),
        ([[]], "shape"),
        ([[1, 2], [3]], "not equally long"),
        ([1, 2], "shape"),
        ([[[1, 2]]], "shape"),
        ([[0, 256]], "from 0 to 255"),
        ([[-1, 0]], "from 0 to 255"),
        ([[0.5]], "from 0 to 255"),
        ([[True]], "from 0 to 255"),
        ([["a"]], "from 0 to 255"),
        ([[10**30]], "from 0 to 255"),
        ([[None]], "from 0 to 255"),
    ],
)
def test_what_is_no_picture_is_refused(value: Any, said: str) -> None:
    with pytest.raises(PictureInvalid, match=said):
        picture(value)


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MOST_BYTES", 100)
    with pytest.raises(PictureInvalid, match="at most 100 are read"):
        picture(saved(ANY))


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from(pixels.FORMS), data=st.data())
def test_whatever_was_done_to_a_file_it_is_read_or_refused(form: str, data: Any) -> None:
    content = bytearray(saved(ANY, form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        found = picture(bytes(content), 16)
    except PictureInvalid as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert found.mode in ("L", "RGB")


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(1, 64),
    is_cropped=st.booleans(),
)
@example(width=3000, height=1, side=32, is_cropped=False)
@example(width=1, height=3000, side=32, is_cropped=True)
def test_any_size_is_fitted(width: int, height: int, side: int, is_cropped: bool) -> None:
    for values in (np.full((height, width), 200), np.full((height, width, 3), 200)):
        found = fitted(picture(values), side, is_cropped)
        assert found.shape == (3, side, side) and found.dtype == np.uint8
        shown = set(np.unique(found).tolist())
        assert 200 in shown and shown <= ({200} if is_cropped else {127, 200})


def test_proportions_are_kept() -> None:
    wide = np.zeros((50, 100), dtype=np.uint8)
    found = fitted(picture(wide), 40, is_cropped=False)[0]
    assert (found == 0).sum() == 20 * 40 and (found[:10] == 127).all() and (found[30:] == 127).all()


def test_a_thumbnail_is_a_small_png() -> None:
    url = data_url(picture(np.zeros((100, 400), dtype=np.uint8)), 80)
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).size == (80, 20)
