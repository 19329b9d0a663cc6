"""The page while its server changes: what comes late belongs to no other screen, and a new version brings its files."""

import pytest

from bega_kiosk.pages.screen import Screen
from tests.kiosk_gate import Kiosk, opened


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory):
    with Kiosk("24", tmp_path_factory.mktemp("kiosk")) as kiosk:
        yield kiosk


def test_words_of_the_last_screen_never_appear_on_this_one(browser, kiosk):
    with opened(browser, kiosk.panel) as page:
        held = []
        page.route("**/help/112*", lambda route: held.append(route) if held_back(route) else route.continue_())
        page.goto(f"{kiosk.address}/help/112?lang=ro")
        while not held:  # live.js asks once more as soon as it is connected
            page.wait_for_timeout(20)
        page.click(".human")
        page.wait_for_url("**/human?lang=ro")
        said = page.inner_text("#sentence")
        with page.expect_response("**/help/112*"):
            held.pop().continue_()
        page.wait_for_timeout(300)
        assert page.inner_text("#sentence") == said
        assert "112: ambulanță" not in page.inner_text("main")


def held_back(route):
    return route.request.resource_type == "fetch"


def test_new_version_of_the_server_brings_its_own_files(browser, kiosk, monkeypatch):
    """New words in old style sheets are a broken screen, and a kiosk's page is never loaded again by hand."""
    as_it_was = Screen.draw

    def comes(version):
        monkeypatch.setattr(
            Screen, "draw", lambda *row, **more: as_it_was(*row, **more).replace(".js?", f".js?{version}")
        )

    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/help?lang=ro")
        page.evaluate("window.mine = true")
        comes("next-")
        page.click(".human")
        page.wait_for_selector("script[src*='next-']", state="attached")
        assert page.url.endswith("/human?lang=ro")
        assert page.evaluate("window.mine") is None
        page.wait_for_timeout(300)
        comes("last-")
        kiosk.knows()  # something changed: the page looks at itself
        page.wait_for_selector("script[src*='last-']", state="attached")


def test_tap_while_the_server_starts_again_leads_there_a_little_later(browser, kiosk):
    """A browser's own error page has no way back, and none of our languages."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{kiosk.address}/help?lang=ro")
    tries = []
    page.route(
        "**/human?*", lambda route: (tries.append(route), route.abort() if len(tries) < 3 else route.continue_())
    )
    page.click(".human")
    page.wait_for_selector("#lost:visible")
    assert page.locator(".human").is_visible(), "whoever wants to go elsewhere can"
    page.wait_for_url("**/human?lang=ro")
    assert page.locator("#lost").is_hidden()
    assert len(tries) >= 3
    context.close()
