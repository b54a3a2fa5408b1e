"""The try-it page of a release that answers with a number, in a real browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.service_host import process, write_release

pytestmark = pytest.mark.slow
STATE = {"median": 0.0, "offsets": [-1.5, 0.0, 1.5], "margin": 0.0, "rows": 9}


@pytest.fixture(params=[1e-5, 1.0, 1e6])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    file = write_release(tmp_path, labels=3) / "model.json"
    spec = json.loads(file.read_text("utf-8"))
    state = STATE | {"scale": request.param}
    spec["target"] = {"column": "price", "kind": "number", "state": state}
    file.write_text(json.dumps(spec), "utf-8")
    with process(tmp_path) as (_, url):
        yield url


@pytest.mark.parametrize(
    ("locale", "said"), [("en-GB", "the truth should lie between"), ("zh-CN", "真实值应有九成落在")]
)
def test_value_and_interval_are_shown(url: str, open_page: Any, locale: str, said: str) -> None:
    page = open_page(url, locale=locale, viewport={"width": 390, "height": 844})
    page.get_by_role("textbox").fill("the film was good")
    with page.expect_response("**/predict") as asked:
        page.keyboard.press("Control+Enter")
    [answer] = asked.value.json()["predictions"]
    expect(page.locator("#bars")).to_contain_text(said)
    low, high = page.locator(".interval .ends span").all_inner_texts()
    shown = [page.locator("#label").inner_text(), low, high]
    width = answer["high"] - answer["low"]
    for text, name in zip(shown, ("value", "low", "high"), strict=True):
        number = float(text.replace(",", "").replace("\N{MINUS SIGN}", "-"))
        assert abs(number - answer[name]) <= 0.006 * width
    expect(page.locator("#raw")).to_be_hidden()
    line, ends = (page.locator(f".interval {part}").bounding_box() for part in ("i", ".ends"))
    dot = page.locator(".interval b").bounding_box()
    place = (dot["x"] + dot["width"] / 2 - line["x"]) / line["width"]
    assert place == pytest.approx((answer["value"] - answer["low"]) / width, abs=0.01)
    assert ends["x"] >= 0 and page.evaluate("document.documentElement.scrollWidth") <= 390
