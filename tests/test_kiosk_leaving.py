"""Whoever goes leaves nothing: a draft ends with the way home, and ten minutes after the last tap."""

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.kiosk_gate import CHROMIUM, FLAGS, Kiosk, opened


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory):
    with Kiosk("24", tmp_path_factory.mktemp("kiosk")) as kiosk:
        yield kiosk


@pytest.fixture
def written(kiosk):
    """Return the address of a screen that shows a citizen's name."""
    with httpx.Client(base_url=kiosk.address, trust_env=False) as writer:
        sent = writer.post("/report/person?lang=ro", data={"text": "Maria Ionescu", "key": "keep"})
    return kiosk.address + sent.headers["location"]


def drafts(kiosk):
    return kiosk.pages.known.drafts._drafts


def test_way_home_throws_the_draft_away_and_another_screen_does_not(browser, kiosk, written):
    with opened(browser, kiosk.panel) as page:
        page.goto(written)
        assert page.input_value("#text") == "Maria Ionescu"
        page.click(".human")
        page.wait_for_url("**/human?*draft=*")
        assert len(drafts(kiosk)) == 1
        page.wait_for_timeout(350)  # a second tap in a moment is none
        page.click(".home")
        page.wait_for_url(kiosk.address + "/?lang=ro")
        page.wait_for_timeout(300)
        assert drafts(kiosk) == {}


def test_number_that_was_begun_is_there_again_after_a_look_at_larger_letters(browser, kiosk):
    """Its keyboard is the first screen of a draft: no address has a token yet."""
    with opened(browser, kiosk.panel) as page:
        page.goto(kiosk.address + "/human/call?lang=ro")
        past = page.evaluate("history.length")
        page.click("button[value='7']")
        page.click(".easier")
        page.wait_for_url(lambda url: "/easier?" in url and "draft=" in url)
        page.wait_for_timeout(350)
        page.click("main a[href*='text=large'], main a[href*='look=dark']")
        page.wait_for_timeout(350)
        if "/human/call" not in page.url:
            page.click(".back")
        page.wait_for_url("**/human/call?*")
        page.wait_for_timeout(350)
        assert page.input_value("#text") == "7"
        page.click(".home")
        page.wait_for_url(kiosk.address + "/?*")
        page.wait_for_timeout(300)
        assert drafts(kiosk) == {}
        assert page.evaluate("history.length") == past, "a page was loaded, and Back leads to what was typed"


def test_screen_that_nobody_touches_for_ten_minutes_goes_home_and_forgets(browser, kiosk, written):
    with opened(browser, kiosk.panel) as page:
        page.clock.install()
        page.goto(written)
        page.clock.run_for("09:30")
        page.keyboard.press("Shift")
        page.clock.run_for("09:30")
        assert len(drafts(kiosk)) == 1, "somebody is there"
        page.clock.run_for("01:00")
        page.wait_for_url(kiosk.address + "/")
        assert drafts(kiosk) == {}
