"""Whoever goes leaves nothing: a draft ends with the way home, and ten minutes after the last tap."""

import httpx
import pytest

from bega_kiosk.pages import screen
from tests.kiosk_gate import Kiosk, opened


@pytest.fixture(scope="module")
def opened_kiosk(tmp_path_factory):
    with Kiosk("24", tmp_path_factory.mktemp("kiosk")) as kiosk:
        yield kiosk


@pytest.fixture
def kiosk(opened_kiosk):
    drafts(opened_kiosk).clear()
    return opened_kiosk


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


@pytest.fixture
def left_alone(browser, kiosk):
    """Give a page whose clock the test turns; every step is what its scripts do in that time."""
    with opened(browser, kiosk.panel) as page:
        page.clock.install()
        yield page


def is_asked(page):
    page.wait_for_selector(".stay")
    return page.evaluate("document.activeElement.matches('.stay')")


def test_screen_that_nobody_touches_asks_goes_home_and_forgets(kiosk, written, left_alone):
    page = left_alone
    page.goto(written)
    page.clock.run_for("08:30")
    page.keyboard.press("Shift")
    page.clock.run_for("08:50")
    assert page.input_value("#text") == "Maria Ionescu"
    page.clock.run_for("00:20")
    assert is_asked(page)
    assert page.inner_text("h1") == page.inner_text("#sentence") == "Mai sunteți aici?"
    assert "Maria" not in page.inner_text("body")
    assert len(drafts(kiosk)) == 1, "nothing is lost by being asked"
    page.clock.run_for("00:45")
    assert page.locator(".stay").is_visible()
    page.clock.run_for("00:25")
    page.wait_for_url(kiosk.address + "/")
    page.wait_for_selector(".tile")
    assert drafts(kiosk) == {}


@pytest.mark.parametrize("answer", ["the key", "anywhere", "a letter", "Enter"])
def test_whoever_is_still_there_finds_the_screen_as_it_was(kiosk, written, left_alone, answer):
    page = left_alone
    page.goto(written.replace("lang=ro", "lang=hu&look=dark&text=large"))
    at, look = page.url, page.evaluate("document.documentElement.className")
    page.fill("#text", "Maria Ionescu, și încă ceva")  # no server knows of it yet
    page.clock.run_for("09:10")
    assert is_asked(page)
    assert page.inner_text(".stay").strip() == "Igen, még időre van szükségem"
    assert page.evaluate("document.documentElement.className") == look
    {
        "the key": lambda: page.click(".stay"),
        "anywhere": lambda: page.mouse.click(300, 300),
        "a letter": lambda: page.keyboard.press("x"),
        "Enter": lambda: page.keyboard.press("Enter"),
    }[answer]()
    page.wait_for_selector("#text")
    assert page.input_value("#text") == "Maria Ionescu, și încă ceva"
    assert page.url == at
    assert page.evaluate("document.activeElement.id") == "text"
    page.clock.run_for("08:50")
    assert page.locator("#text").is_visible(), "nine minutes more"
    page.clock.run_for("00:20")
    assert is_asked(page)


def test_home_in_the_question_leads_home_at_once_and_a_human_is_called_without_a_loss(kiosk, written, left_alone):
    page = left_alone
    page.goto(written)
    page.fill("#text", "Ana")
    page.clock.run_for("09:10")
    assert is_asked(page)
    page.click(".human")
    page.wait_for_url("**/human?*draft=*")
    page.clock.run_for(400)
    page.click(".back")
    page.wait_for_url("**/report/person?*")
    assert page.input_value("#text") == "Ana"
    page.clock.run_for("09:10")
    assert is_asked(page)
    page.click(".home")
    page.wait_for_url(kiosk.address + "/?lang=ro")
    page.wait_for_selector(".tile")
    page.wait_for_timeout(200)
    assert drafts(kiosk) == {}


def test_wishes_of_the_last_citizen_are_gone_and_home_as_it_is_asks_nobody(kiosk, left_alone):
    page = left_alone
    page.goto(kiosk.address + "/?lang=hu")
    page.clock.run_for("09:10")
    assert is_asked(page)
    page.clock.run_for("01:10")
    page.wait_for_url(kiosk.address + "/")
    page.wait_for_selector(".tile")
    page.clock.run_for("30:00")
    assert page.locator(".tile").first.is_visible()


def test_server_that_is_away_leaves_nothing_to_be_read(kiosk, written, left_alone):
    page = left_alone
    page.goto(written)
    page.route("**/still?*", lambda route: route.fulfill(body="none of our pages"))
    page.clock.run_for("09:30")
    assert page.input_value("#text") == "Maria Ionescu"
    page.clock.run_for("00:50")
    page.wait_for_url(kiosk.address + "/")
    page.wait_for_selector(".tile")
    assert drafts(kiosk) == {}


def test_without_a_script_the_page_asks_and_goes_home_by_itself(browser, kiosk, written, monkeypatch):
    monkeypatch.setattr(screen, "ASKS_AFTER_S", 1)
    monkeypatch.setattr(screen, "CLEARS_AFTER_S", 1)
    with opened(browser, kiosk.panel, java_script_enabled=False) as page:
        page.goto(written)
        page.wait_for_url("**/still?*at=%2Freport%2Fperson")
        assert page.locator(".stay").get_attribute("href") == written.removeprefix(kiosk.address)
        page.wait_for_url(kiosk.address + "/")
        page.wait_for_timeout(1500)
        assert page.url == kiosk.address + "/"


@pytest.mark.parametrize("at", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere", "/a?b", "x", ""])
def test_question_leads_nowhere_else(kiosk, at):
    page = httpx.get(kiosk.address + "/still", params={"at": at}, trust_env=False).text
    assert 'class="button on stay" href="/?lang=ro"' in page
