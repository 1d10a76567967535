import os
import signal
import time
from pathlib import Path

import pytest

from ocistow.testing.chromium import WAIT, Chromium, Tab

from ..conftest import program

pytestmark = pytest.mark.chromium

PAGE = """<!doctype html><title>t</title>
<style>p { color: rgb(1, 2, 3) } @media (prefers-color-scheme: dark) { p { color: rgb(9, 9, 9) } }
@media print { p { display: none } }</style>
<p>some <b>text</b></p><p hidden>none</p><input>
<button onclick="document.title = 'pressed'">it</button>
<script>document.querySelector("input").onkeydown = e => { document.title = e.key }</script>"""
COLOUR = "getComputedStyle(document.querySelector('p')).color"


@pytest.fixture
def page(tab: Tab, tmp_path: Path) -> Tab:
    file = tmp_path / "page.html"
    file.write_text(PAGE)
    tab.goto(file.as_uri())
    return tab


def test_a_page_is_read_clicked_and_typed_into(page: Tab) -> None:
    assert page.texts("p") == ["some text"]
    page.click("button")
    assert page.evaluate("document.title") == "pressed"
    page.click("input")
    page.type("word")
    page.press("Enter")
    assert page.evaluate("document.querySelector('input').value + document.title") == "wordEnter"
    assert page.complaints == []
    assert len(page.requests) == 1


def test_colours_and_printing_are_chosen(page: Tab) -> None:
    page.show("dark")
    assert page.evaluate(COLOUR) == "rgb(9, 9, 9)"
    page.show("light")
    assert page.evaluate(COLOUR) == "rgb(1, 2, 3)"
    page.show("light", media="print")
    assert page.texts("p") == []
    assert page.pdf().startswith(b"%PDF")
    assert page.screenshot().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "script",
    ["console.error('bad')", "setTimeout(() => { throw Error('bad') })", "new Image().src = 'bad'"],
)
def test_complaints_are_heard(page: Tab, script: str) -> None:
    page.evaluate(f"{script}; 1")
    until = time.monotonic() + WAIT
    while not page.complaints and time.monotonic() < until:  # an image fails some time later
        page.evaluate("1")
    assert "bad" in page.complaints[0] or "ERR_FILE_NOT_FOUND" in page.complaints[0]


def test_a_browser_that_died_is_an_error(tmp_path: Path) -> None:
    with Chromium(program("chromium"), tmp_path) as browser:
        browser.call("Browser.getVersion")
        os.killpg(browser.process, signal.SIGKILL)
        with pytest.raises((AssertionError, BrokenPipeError)):
            browser.call("Browser.getVersion")
