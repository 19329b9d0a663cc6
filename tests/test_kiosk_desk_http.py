"""What a desk answers over HTTP: how a report is, to who holds its code; nothing to who guesses."""

import asyncio
import json
import os

import httpx
import pytest

from bega_kiosk.desk import app as desk_app
from bega_kiosk.desk import command
from bega_kiosk.desk.store import FILE, DeskStore
from bega_kiosk.outbox import Outbox
from bega_kiosk.report import read_sent

NOW_MS = 1_795_000_000_000
WRITTEN = {"text": "groapă mare", "person": "Ion Popescu", "contact": "Strada Lungă"}


@pytest.fixture
def store(tmp_path):
    store = DeskStore(tmp_path / "desk", lambda: NOW_MS)
    yield store
    store.close()


@pytest.fixture
def code(store, tmp_path):
    """Return the code of a report that the desk has."""
    box = Outbox(tmp_path / "kiosk", "kiosk-1", lambda: NOW_MS, os.urandom)
    code = box.keep("problem", WRITTEN, "ro")
    store.take(read_sent(box.waiting()[0].payload))
    return code


def asked(store, *paths, mono_ms=lambda: 0):
    """Return what one address is told, in turn."""

    async def ask():
        way = httpx.ASGITransport(desk_app.app(store, mono_ms=mono_ms), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=way, base_url="http://desk") as browser:
            return [await browser.get("/public/v1/reports/" + path) for path in paths]

    return asyncio.run(ask())


def test_state_is_told_to_who_has_the_code_and_nothing_of_what_was_written(store, code):
    (answer,) = asked(store, f"{code[:4]}%20{code[4:]}".lower())
    assert (answer.status_code, answer.json()["state"]) == (200, "received")
    assert answer.headers["cache-control"] == "no-store"
    assert not any(word in answer.text for written in WRITTEN.values() for word in written.split())


@pytest.mark.parametrize("path", ["", "%00", "../../etc/passwd", "x" * 10_000, "жжжжжжжж", "34679AC%0A", "'; --"])
def test_lie_in_an_address_is_no_code(store, code, path):
    (answer,) = asked(store, path)
    assert answer.status_code == 404


def test_who_guesses_is_told_nothing_for_a_minute_and_who_looks_often_is(store, code):
    now_ms = [0]

    def clock():
        return now_ms[0]

    async def ask():
        way = httpx.ASGITransport(desk_app.app(store, mono_ms=clock))
        async with httpx.AsyncClient(transport=way, base_url="http://desk/public/v1/reports/") as browser:
            often = [(await browser.get(code)).status_code for _ in range(100)]
            guessed = [(await browser.get("34679ACD")).status_code for _ in range(40)]
            caught = (await browser.get(code)).status_code
            now_ms[0] += 60_000
            return often, guessed, caught, (await browser.get(code)).status_code

    often, guessed, caught, later = asyncio.run(ask())
    assert set(often) == {200}
    assert (guessed.count(200), guessed[-1]) == (30, 429)
    assert (caught, later) == (429, 200), "a guess that is right is not told either"


def test_who_wrote_a_report_is_forgotten_and_the_report_is_not(store, code, tmp_path, capsys):
    data = ["--data", str(tmp_path / "desk")]
    assert command.main(["forget", code, *data]) == 0
    (row,) = store.rows()
    assert row.report.answers == {"text": WRITTEN["text"]}
    assert row.status.state == "received"
    store.close()
    assert (tmp_path / "desk" / FILE).exists()
    assert [path for path in (tmp_path / "desk").iterdir() if b"Popescu" in path.read_bytes()] == []
    capsys.readouterr()
    assert command.main(["forget", "34679ACD", *data]) == 1
    assert "there is no report 3467 9ACD" in capsys.readouterr().err
    assert command.main(["list", *data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["code"] == code


def test_desk_says_that_an_answer_is_owed_to_who_gave_a_name_until_it_is_forgotten(store, code, tmp_path):
    box = Outbox(tmp_path / "nameless", "kiosk-2", lambda: NOW_MS, os.urandom)
    nameless = box.keep("problem", {"text": "groapă", "contact": "0256 1"}, "ro")
    store.take(read_sent(box.waiting()[0].payload))
    assert (store.status(code).is_owed, store.status(nameless).is_owed) == (True, False)
    assert {status.code: status.is_owed for _, status in store.untold()} == {code: True, nameless: False}
    assert store.change(code, "work", "20114", None).is_owed
    box.note(store.status(code))
    assert Outbox(tmp_path / "nameless", "kiosk-2", lambda: NOW_MS, os.urandom).heard(code).status == store.status(code)
    store.forget(code)
    assert not store.status(code).is_owed
    box.note(store.status(code))
    assert box.heard(code).status == store.status(code)
