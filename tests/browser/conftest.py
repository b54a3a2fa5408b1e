"""A browser, and pages in it that ask nothing of elsewhere."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")


# of a module: while it stands the loop of this thread runs, and other tests want their own
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # scripts/test installs it; who may not install packages can still run all other tests
    if CHROMIUM is None:
        pytest.skip("there is no chromium; install the package `chromium`")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    """Opens pages; in the end nothing may have come from elsewhere or gone wrong in one."""
    contexts, asked, wrong = [], [], []

    def opened(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append((url, request.url)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [found for url, found in asked if not found.startswith(url)] == []
    assert [text for text in wrong if not text.startswith("Failed to load resource")] == []
