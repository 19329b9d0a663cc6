"""The browser that draws and measures our pages: told over a pipe, gone with its profile."""

import base64
import os
import re
import time
from pathlib import Path

import pytest

from bega.browser import chromium, running_browser
from bega_protocols.errors import ConfigError, LineError

PAGE = "data:text/html,<title>T</title><p id=p>ș"


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser):
    page = browser.open(640, 480)
    yield page
    page.close()


def test_page_is_loaded_asked_and_drawn_in_its_size(page):
    page.go(PAGE)
    assert page.run("[document.title, innerWidth, innerHeight]") == ["T", 640, 480]
    png = base64.b64decode(page.picture())
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (640, 480)


def test_what_goes_wrong_in_a_page_is_an_error(page):
    with pytest.raises(LineError, match="ERR_"):
        page.go("http://127.0.0.1:9/")
    page.go(PAGE)
    with pytest.raises(LineError, match="script failed"):
        page.run("nothing.at.all")
    with pytest.raises(LineError, match="refuses"):
        page.order("No.such")


def profile_of(pid):
    """Return the folder of a browser, which writes its own command line anew once it is up."""
    for _ in range(100):
        found = re.search(r"--user-data-dir=([^\0 ]+)", Path(f"/proc/{pid}/cmdline").read_bytes().decode())
        if found:
            return found[1]
        time.sleep(0.1)
    raise AssertionError("a browser without a folder")


def test_browser_that_dies_is_an_error_and_leaves_nothing():
    with running_browser() as browser:
        profile = profile_of(browser.pid)
        os.kill(browser.pid, 9)
        with pytest.raises(LineError, match="ended"):
            browser.open(640, 480)
    assert not Path(profile).exists()


def test_machine_without_a_browser_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="install the package chromium"):
        chromium()
