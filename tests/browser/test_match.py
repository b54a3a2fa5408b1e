"""Candidates on the try-it page: ranked, the best in full, each with a bar for its score."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.service_host import process, write_matcher

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = write_matcher(tmp_path_factory.mktemp("matcher"))
    with process(folder) as (_, url):
        yield url


def _ranked(page: Any) -> Any:
    """The bars of the ten candidates of a question."""
    page.get_by_role("textbox").first.fill("the warm film")
    page.get_by_role("button", name="Predict").click()
    bars = page.locator("#bars li")
    expect(bars).to_have_count(10)
    return bars


def test_candidates_are_ranked_as_the_api_ranks_them(url: str, open_page: Any) -> None:
    page = open_page(url)
    bars = _ranked(page)
    command = page.locator("#curl").inner_text()
    ran = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    ranked = json.loads(ran.stdout)["predictions"][0]["candidates"]
    assert bars.locator(".of").all_inner_texts() == [each["text"].strip() for each in ranked]
    assert bars.locator(".percent").all_inner_texts() == [f"{c['score']:.2f}" for c in ranked]
    assert [bar.get_attribute("title") for bar in bars.all()] == [each["id"] for each in ranked]
    expect(page.locator("#label")).to_have_text("the 10 nearest")
    expect(page.locator("#said")).to_contain_text(ranked[0]["text"].strip())
    first, second = (bars.nth(n).locator(".of").bounding_box() for n in (0, 1))
    assert first["height"] > second["height"]  # the best is told in full


def test_what_one_has_already_is_left_out(url: str, open_page: Any) -> None:
    page = open_page(url)
    bars = _ranked(page)
    first, second, third = (bars.nth(n).get_attribute("title") for n in range(3))
    page.get_by_label("had").fill(f"{first}, {third}")
    page.get_by_role("button", name="Predict").click()
    expect(bars.first).to_have_attribute("title", second)
    assert third not in [bar.get_attribute("title") for bar in bars.all()]
    assert f'"had":["{first}","{third}"]' in page.locator("#curl").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(url: str, open_page: Any, scheme: str) -> None:
    page = open_page(
        url, viewport={"width": 390, "height": 844}, color_scheme=scheme, locale="zh-CN"
    )
    page.get_by_role("textbox").first.fill("the warm film")
    page.get_by_role("button", name="预测").click()
    expect(page.locator("#label")).to_have_text("最相近的 10 个")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
