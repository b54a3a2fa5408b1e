"""The try-it page and the API's documentation, in a real browser."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.service_host import process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("two")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def url_of_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("many"), "--labels", "77") as (_, url):
        yield url


def predicted(page: Page) -> list[tuple[str, str]]:
    bars = page.locator("#bars li")
    expect(bars.first).to_be_visible()
    return [
        (bar.locator(".of").inner_text(), bar.locator(".percent").inner_text())
        for bar in bars.all()
    ]


def called(command: str) -> dict[str, Any]:
    """What the curl command on the page answers."""
    ran = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    answer: dict[str, Any] = json.loads(ran.stdout)["predictions"][0]
    return answer


@pytest.mark.parametrize("text", ["the film was good", 'it\'s "not" $good\n\\ 好 <b>&amp;</b>'])
def test_a_person_types_and_sees_scores(url: str, open_page: Any, text: str) -> None:
    page = open_page(url)
    field = page.get_by_role("textbox", name="text")
    expect(field).to_be_focused()
    field.fill(text)
    page.keyboard.press("Control+Enter")
    shown = predicted(page)
    answer = called(page.locator("#curl").inner_text())
    ranked = sorted(answer["scores"].items(), key=lambda item: -item[1])
    assert shown == [(label, f"{score * 100:.1f}\u202f%") for label, score in ranked]
    expect(page.locator("#label")).to_have_text(answer["label"])
    expect(page.get_by_role("status")).to_contain_text(answer["label"])
    assert " ms · " in page.locator("#facts").inner_text()
    widths = [bar.evaluate("each => each.style.width") for bar in page.locator(".bar i").all()]
    assert [float(w.rstrip("%")) for w in widths] == pytest.approx([s * 100 for _, s in ranked])


def test_the_button_and_the_examples_ask_too(url: str, open_page: Any) -> None:
    page = open_page(url)
    page.get_by_role("button", name="dull and cold").click()
    assert len(predicted(page)) == 2
    expect(page.get_by_role("textbox")).to_have_value("dull and cold")
    page.get_by_role("textbox").fill("warm")
    expect(page.locator("#answer")).to_have_class(re.compile("stale"))
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer:not(.stale)")).to_be_visible()


def test_errors_are_sentences(tmp_path: Path, open_page: Any) -> None:
    with process(tmp_path) as (running, url):
        page = open_page(url)
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("Type something into “text” first.")
        expect(page.get_by_role("textbox")).to_be_focused()
        page.get_by_role("textbox").fill("a" * 100_001)
        expect(page.locator("#fields")).to_contain_text("1 characters too many")
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("at most 100,000 characters")
        page.get_by_role("textbox").fill("a")
        expect(page.get_by_role("alert")).to_be_empty()
        page.route("**/predict", lambda route: route.fulfill(status=503, body="{}"))
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("busy; try again in 1 s")
        page.unroute("**/predict")
        running.kill()
        running.wait()
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")


def test_many_labels_show_the_top_ten_first(url_of_many: str, open_page: Any) -> None:
    page = open_page(url_of_many)
    page.get_by_role("textbox").fill("good")
    page.keyboard.press("Control+Enter")
    top = predicted(page)
    assert len(top) == 10
    page.get_by_role("button", name="Show all 77").click()
    assert len(predicted(page)) == 77
    page.get_by_role("button", name="Show the top 10").click()
    assert predicted(page) == top


@pytest.mark.parametrize("locale", ["zh-CN", "zh-TW"])
def test_a_chinese_browser_gets_chinese_words(url: str, open_page: Any, locale: str) -> None:
    page = open_page(url, locale=locale)
    page.get_by_role("textbox").fill("好 坏")
    page.get_by_role("button", name="预测").click()
    assert len(predicted(page)) == 2
    expect(page.locator("#facts")).to_contain_text("毫秒")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    words = page.locator("[data-word]").all_inner_texts()
    assert words
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in word) for word in words)


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(
    url_of_many: str, open_page: Any, path: str, scheme: str
) -> None:
    phone = {"width": 390, "height": 844}
    page = open_page(url_of_many, viewport=phone, color_scheme=scheme)
    page.goto(url_of_many + path)
    if path == "/":
        page.get_by_role("textbox").fill("good " * 200)
        page.keyboard.press("Control+Enter")
        predicted(page)
    else:
        expect(page.locator("details.operation").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) >= 4.5


CONTRAST = """() => {
  // The least contrast (WCAG 2, 1.4.3) of text with the colours of the page.
  const parse = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (colour) => parse(colour)
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
  };
  const contrast = (each) => {
    const [a, b] = [light(getComputedStyle(each).color), light(behind(each))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const texts = [...document.querySelectorAll("main *")].filter(
    (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return Math.min(...texts.map(contrast));
}"""


def test_the_documentation_draws_every_operation(url: str, open_page: Any) -> None:
    page = open_page(url)
    paths = page.evaluate("fetch('/openapi.json').then((reply) => reply.json())")["paths"]
    page.get_by_role("link", name="API docs").click()
    expect(page.locator("details.operation")).to_have_count(
        sum(len(operations) for operations in paths.values())
    )
    expect(page.locator("details.operation[open]")).to_contain_text('"rows"')
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("link", name="Report").click()
    expect(page.get_by_text("An audit.")).to_be_visible()
