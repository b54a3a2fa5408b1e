"""Spans on the try-it page: marked in the text where they stand, and the same over the API."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.service_host import process, write_tagger

pytestmark = pytest.mark.slow
WORDS = "the film was good warm and 😀 the plot was dull 好 "


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = write_tagger(tmp_path_factory.mktemp("tagger"))
    with process(folder) as (_, url):
        yield url


def marked(page: Page) -> list[tuple[str, str | None]]:
    marks = page.locator("#marked mark")
    expect(marks.first).to_be_visible()
    return [(mark.inner_text(), mark.get_attribute("data-label")) for mark in marks.all()]


def test_spans_are_marked_where_they_stand(url: str, open_page: Any) -> None:
    page = open_page(url)
    expect(page.locator("#about")).to_contain_text("spans with 2 labels")
    page.get_by_role("textbox").fill(WORDS * 3)  # more than one window
    page.get_by_role("button", name="Predict").click()
    one = [("good warm", "good"), ("dull", "bad"), ("好", "good")]
    assert marked(page) == one * 3
    text = page.locator("#marked").evaluate("each => each.textContent")
    assert text == WORDS * 3
    expect(page.locator("#label")).to_have_text("9 spans")
    expect(page.locator("#said")).to_contain_text("good: good warm; bad: dull; good: 好")
    command = page.locator("#curl").inner_text()
    ran = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    spans = json.loads(ran.stdout)["predictions"][0]["spans"]
    characters = list(WORDS * 3)
    assert ["".join(characters[s["start"] : s["end"]]) for s in spans] == [s["text"] for s in spans]
    assert [(span["text"], span["label"]) for span in spans] == one * 3


def test_a_text_without_spans_says_so(url: str, open_page: Any) -> None:
    page = open_page(url, locale="zh-CN")
    page.get_by_role("textbox").fill("the film")
    page.get_by_role("button", name="预测").click()
    expect(page.locator("#label")).to_have_text("没有片段")
    expect(page.locator("#marked")).to_have_text("the film")
    assert page.locator("#marked mark").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(url: str, open_page: Any, scheme: str) -> None:
    page = open_page(url, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.get_by_role("textbox").fill("good" + " warm" * 60 + " dull" * 9)
    page.get_by_role("button", name="Predict").click()
    assert len(marked(page)) == 10
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
