"""The try-it page of a service that needs keys, in a real browser."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect
from sqlalchemy import Engine
from tests.service_host import info_of, open_runtime, served, write_release

from modelyard.core.project import Serve
from modelyard.ledger import customers
from modelyard.ledger.database import opened
from modelyard.ledger.revisions import ready
from modelyard.serving import metered

pytestmark = pytest.mark.slow
PREDICT = "/v1/models/tiny/predict"
STORED = "[document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)]"


@dataclass
class Keyed:
    """A service that needs keys, and its ledger."""

    url: str
    engine: Engine

    def key(self, **more: Any) -> str:
        return customers.add_key(self.engine, "shop", **{"project": "web", **more})[1].text


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    runtime = open_runtime(write_release(folder / "release"))
    database = f"sqlite:///{folder / 'ledger.sqlite3'}"
    engine = ready(opened(database))
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    info = info_of(runtime, folder / "release")
    limits = Serve.model_validate({})
    with metered(database) as meter, served(runtime, info, limits, meter) as url:
        yield Keyed(url, engine)
    engine.dispose()


def ask(page: Page, key: str) -> None:
    page.get_by_label("Key").fill(key)
    page.get_by_role("textbox", name="text").fill("good")
    page.get_by_role("button", name="Predict").click()


def test_a_person_gives_a_key_which_is_sent_and_kept_nowhere(keyed: Keyed, open_page: Any) -> None:
    page, key = open_page(keyed.url), keyed.key()
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    field = page.get_by_label("Key")
    expect(field).to_be_focused()
    assert field.get_attribute("type") == "password"
    ask(page, key)
    expect(page.locator("#bars li").first).to_be_visible()
    told = {each.url: each.headers.get("authorization") for each in sent}
    assert {url for url, brought in told.items() if brought} == {f"{keyed.url}{PREDICT}"}
    assert told[f"{keyed.url}{PREDICT}"] == f"Bearer {key}"
    assert key not in "".join([page.url, *(each.url for each in sent), page.content()])
    assert key not in "".join(page.evaluate(STORED))
    expect(page.get_by_role("link", name="Report")).to_be_hidden()
    page.reload()
    expect(field).to_have_value("")


def test_the_command_takes_the_key_from_the_environment(keyed: Keyed, open_page: Any) -> None:
    page, key = open_page(keyed.url), keyed.key()
    ask(page, key)
    expect(page.locator("#bars li").first).to_be_visible()
    command = page.locator("#curl").inner_text()
    own = os.environ | {"MODELYARD_KEY": key}
    ran = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True, env=own)
    assert key not in command
    assert json.loads(ran.stdout)["usage"]["rows"] == 1


def test_without_a_key_or_with_a_wrong_one_it_says_so(keyed: Keyed, open_page: Any) -> None:
    page = open_page(keyed.url)
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    for key in ("", "ключ"):
        ask(page, key)
        expect(page.get_by_role("alert")).to_contain_text("give yours first")
    assert [each.url for each in sent if each.url.endswith(PREDICT)] == []
    ask(page, f"my_{'0' * 12}_{'0' * 48}")
    expect(page.get_by_role("alert")).to_contain_text("The key was refused.")
    expect(page.get_by_role("alert")).to_contain_text("ask whoever runs the service for one")
    expect(page.get_by_label("Key")).to_be_focused()
    expect(page.get_by_label("Key")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Key").fill("my_other")
    expect(page.get_by_role("alert")).to_be_empty()


def test_what_a_key_may_not_do_and_what_it_has_used_up_is_told(
    keyed: Keyed, open_page: Any
) -> None:
    page = open_page(keyed.url)
    ask(page, keyed.key(releases=["huge"]))
    expect(page.get_by_role("alert")).to_contain_text("The key may not do this.")
    expect(page.get_by_role("alert")).to_contain_text("it may ask huge.")
    customers.add_project(keyed.engine, "acme", "used up")
    customers.set_limit(keyed.engine, "project", "used up", "rows", 1, "hour")
    key = keyed.key(project="used up")
    ask(page, key)
    expect(page.locator("#answer:not(.stale) #bars li").first).to_be_visible()
    ask(page, key)
    expect(page.get_by_role("alert")).to_contain_text("A limit of the key is reached")
    expect(page.get_by_role("alert")).to_contain_text("rows")


def test_it_is_said_in_chinese_too_and_fits_a_phone(keyed: Keyed, open_page: Any) -> None:
    phone = {"width": 390, "height": 844}
    page = open_page(keyed.url, locale="zh-CN", viewport=phone)
    page.get_by_label("密钥").fill("my_wrong")
    page.get_by_role("textbox", name="text").fill("好")
    page.get_by_role("button", name="预测").click()
    expect(page.get_by_role("alert")).to_contain_text("密钥未被接受。")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_service_that_needs_none_asks_for_none(tmp_path: Path, open_page: Any) -> None:
    runtime = open_runtime(write_release(tmp_path))
    with served(runtime, info_of(runtime, tmp_path), Serve.model_validate({})) as url:
        page = open_page(url)
        expect(page.get_by_role("textbox", name="text")).to_be_focused()
        expect(page.locator("#key")).to_be_hidden()
        assert "Authorization" not in page.locator("#curl").inner_text()
