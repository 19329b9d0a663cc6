"""A tap: the screen is asked for while the finger still rests on the key, once, and nothing of it is kept."""

import pytest

from tests.kiosk_gate import Kiosk, opened

GUARD_MS = 350  # go.js takes no second tap sooner


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory):
    with Kiosk("24", tmp_path_factory.mktemp("kiosk")) as kiosk:
        yield kiosk


@pytest.fixture
def page(browser, kiosk):
    """Give home; `page.asked` has what its scripts ask the server for from now on."""
    with opened(browser, kiosk.panel) as page:
        page.goto(kiosk.address + "/?lang=ro")
        page.wait_for_timeout(GUARD_MS)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url.removeprefix(kiosk.address)))
        yield page


def press(page, selector):
    """Put a finger on a key, and leave it there."""
    box = page.locator(selector).first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()


def test_screen_is_asked_for_while_the_finger_rests_and_only_once(page):
    press(page, "a[href^='/services']")
    page.wait_for_timeout(200)
    assert page.asked == ["/services?lang=ro"]
    assert "/services" not in page.url, "the finger may still slide away"
    page.mouse.up()
    page.wait_for_url("**/services?lang=ro")
    page.wait_for_timeout(100)
    assert page.asked == ["/services?lang=ro"], "not a second time, and nothing besides: no icon"


def test_finger_that_slides_away_goes_nowhere_and_the_next_key_is_asked_for_anew(page):
    press(page, "a[href^='/services']")
    page.mouse.move(2, 2)
    page.mouse.up()
    page.wait_for_timeout(GUARD_MS)
    assert page.url.endswith("/?lang=ro")
    page.click("a[href^='/air']")
    page.wait_for_url("**/air?lang=ro")
    assert page.asked == ["/services?lang=ro", "/air?lang=ro"]


def test_finger_that_rests_for_long_gets_what_is_true_when_it_leaves(page):
    press(page, "a[href^='/services']")
    page.wait_for_timeout(2100)
    page.mouse.up()
    page.wait_for_url("**/services?lang=ro")
    assert page.asked.count("/services?lang=ro") == 2


def test_from_a_keyboard_nothing_is_asked_for_before_its_text_is_safe(page, kiosk):
    page.goto(kiosk.address + "/human/call?lang=ro")
    page.wait_for_timeout(GUARD_MS)
    page.asked.clear()
    press(page, ".easier")
    page.wait_for_timeout(200)
    assert page.asked == []
    page.mouse.up()
    page.wait_for_url("**/easier?*")


def test_answer_to_a_kept_text_comes_to_its_end(page, kiosk):
    # Its page is not wanted. What is never read stays in the browser with all that fetched it: 75 kB a text, 6 MB for
    # 1,000 screens.
    begun, ended = [], []
    page.goto(kiosk.address + "/human/call?lang=ro")
    page.wait_for_timeout(GUARD_MS)
    page.on("request", lambda request: begun.append(request))
    for end in ("requestfinished", "requestfailed"):
        page.on(end, lambda request: ended.append(request))
    page.click(".easier")
    page.wait_for_url("**/easier?*")
    page.wait_for_timeout(GUARD_MS)
    assert "POST" in [request.method for request in begun]
    assert set(begun) == set(ended)
