"""The try-it page of a release that reads images, in a real browser."""

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from tests.service_host import process, write_image_release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = write_image_release(tmp_path_factory.mktemp("image"))
    with process(folder) as (_, url):
        yield url


def png(level: int, size: tuple[int, int] = (60, 90)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def choose(page: Page, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": content}
    page.get_by_label("photo").last.set_input_files([file])


def test_a_person_chooses_an_image_and_sees_it_and_its_scores(
    url: str, open_page: Any, tmp_path: Path
) -> None:
    page = open_page(url)
    expect(page.get_by_label("photo").last).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("Choose an image for “photo” first")
    choose(page, "it's 100%.png", png(250))
    shown = page.locator(".drop img")
    expect(shown).to_be_visible()
    assert shown.evaluate("each => [each.naturalWidth, each.naturalHeight]") == [90, 60]
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#label")).to_have_text("bright")
    assert " ms · " in page.locator("#facts").inner_text()
    (tmp_path / "it's 100%.png").write_bytes(png(250))
    command = page.locator("#curl").inner_text()
    assert len(command) < 400
    ran = subprocess.run(
        ["bash", "-c", f"{command} -s"], capture_output=True, check=True, cwd=tmp_path
    )
    [answer] = json.loads(ran.stdout)["predictions"]
    assert answer["label"] == "bright"
    choose(page, "b.png", png(3))
    expect(page.locator("#answer")).to_have_class(re.compile("stale"))
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#label")).to_have_text("dark")


def test_the_example_can_be_asked_and_the_command_before_anything_is_chosen(
    url: str, open_page: Any
) -> None:
    page = open_page(url)
    expect(page.locator("#curl")).to_contain_text("curl")
    ran = subprocess.run(
        ["bash", "-c", f"{page.locator('#curl').inner_text()} -s"], capture_output=True, check=True
    )
    assert json.loads(ran.stdout)["predictions"]
    page.locator(".examples button").click()
    expect(page.locator("#bars li").first).to_be_visible()
    expect(page.locator(".drop img")).to_be_visible()


def test_what_is_no_image_is_refused_in_a_sentence(url: str, open_page: Any) -> None:
    page = open_page(url)
    choose(page, "torn.png", png(9)[:-40])
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be decoded")


def test_an_image_is_dropped(url: str, open_page: Any) -> None:
    page = open_page(url)
    page.locator(".drop").wait_for()
    page.evaluate(
        """(bytes) => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
          const event = new DragEvent("drop", { dataTransfer: held, cancelable: true });
          document.querySelector(".drop").dispatchEvent(event);
        }""",
        list(png(240)),
    )
    expect(page.locator(".drop")).to_contain_text("a.png")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#label")).to_have_text("bright")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(url: str, open_page: Any, scheme: str) -> None:
    phone = {"width": 390, "height": 844}
    page = open_page(url, viewport=phone, color_scheme=scheme, locale="zh-CN")
    choose(page, "wide.png", png(100, (300, 2000)))
    page.get_by_role("button", name="预测").click()
    expect(page.locator("#bars li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
