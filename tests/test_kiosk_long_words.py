"""What people write may have no space in it: it stays on the panel, and is read in parts."""

import httpx

from bega_kiosk.report import Status
from tests.kiosk_gate import Kiosk, opened, wrongs

WAY = (
    {"answer": "light"}, {"answer": "street"}, {"text": "w" * 200, "key": "next"}, {"answer": "today"},
    {"answer": "no"}, {"answer": "write"}, {"text": "m" * 3000, "key": "next"}, {"answer": "no"},
)  # fmt: skip


def test_word_of_hundreds_of_letters_stays_on_the_panel(browser, tmp_path):
    with (
        Kiosk("10", tmp_path) as kiosk,
        httpx.Client(base_url=kiosk.address, trust_env=False) as writer,
    ):
        outbox = kiosk.pages.known.outbox
        code = outbox.keep("problem", {}, "ro")
        outbox.note(Status(code=code, state="refused", detail="x" * 200, changed_ms=1))
        check = "/report?lang=de"
        for form in WAY:
            check = writer.post(check, data=form).headers["location"]
        state = writer.post("/report/code?lang=de", data={"text": code, "key": "next"}).headers["location"]
        with opened(browser, kiosk.panel) as page:
            for address in (f"{base}&page={part}" for base in (check, state) for part in (1, 2, 3)):
                page.goto(kiosk.address + address)
                assert wrongs(page, kiosk) == [], address
