"""`bega kiosk doctor`: what a citizen suffers from is wrong, what people owe is open; each thing is said by itself."""

import contextlib
import json
import os
import shutil

import pytest

from bega.clock import wall_ms
from bega.look.panels import PANELS
from bega_kiosk import config, doctor, sheets
from bega_kiosk.command import main
from bega_kiosk.notice_list import write_given
from bega_kiosk.notices import Board, write_notice
from bega_kiosk.outbox import FILE, Outbox
from bega_kiosk.report import Status
from bega_kiosk.signed import read_public_keys
from bega_kiosk.store import Store, Value
from bega_kiosk.words import LANGUAGES
from tests.kiosk_feed import CORNER, FeedServer, reading
from tests.kiosk_notices import DAY_MS, KEY, listed, notice, public_key, samples

NOW_MS = 1_795_000_000_000
EDID_24 = bytes(66) + bytes([531 & 255, 299 & 255, (531 >> 8) << 4 | 299 >> 8]) + bytes(59)


@pytest.fixture
def kiosk(tmp_path):
    return config.load(CORNER, {"kiosk": {"state_dir": str(tmp_path)}, "feed": {"url": "http://127.0.0.1:9"}})


@pytest.fixture
def screen(tmp_path):
    def plug(mode, edid=EDID_24, status="connected"):
        port = tmp_path / "drm" / "card1-HDMI-A-1"
        port.mkdir(parents=True, exist_ok=True)
        (port / "status").write_text(status + "\n")
        (port / "modes").write_text(mode + "\n1024x768\n")
        (port / "edid").write_bytes(edid)
        return tmp_path / "drm"

    return plug


def test_texts_that_no_native_reader_has_read_are_open(kiosk):
    found = [*doctor.texts(kiosk)]
    assert {finding.what for finding in found} == {"texts ro", "texts hu", "texts de", "texts sr", "texts en"}
    assert {finding.state for finding in found} <= {"open", "good"}


def test_clock_that_was_never_set_is_wrong():
    assert doctor.clock(lambda: 0).state == "wrong"
    assert doctor.clock(wall_ms).state == "good"


def test_facts_that_nobody_checked_are_open_and_mistakes_are_wrong(kiosk, tmp_path):
    assert [finding.state for finding in doctor.facts(kiosk, lambda: 0)] == ["open"]
    (tmp_path / "services.toml").write_text("[[service]]\nid = 1\n")
    own = config.load(CORNER, {"kiosk": {"content_dir": str(tmp_path)}})
    first = next(doctor.facts(own, wall_ms))
    assert (first.what, first.state) == ("content", "wrong")


def test_feed_is_there_or_away_or_old_or_of_another_time(kiosk):
    def state(server, now_ms):
        there = config.load(CORNER, {"feed": {"url": server.url}})
        return [(finding.what, finding.state) for finding in doctor.feed(there, lambda: now_ms)]

    assert [finding.state for finding in doctor.feed(kiosk, wall_ms)] == ["wrong"]
    with FeedServer() as server:
        assert state(server, wall_ms()) == [("feed", "open")]
        server.readings = [reading("pm2_5", 9.5, wall_ms())]
        assert state(server, wall_ms()) == [("feed", "good")]
        assert state(server, wall_ms() + 7_200_000) == [("feed", "wrong"), ("clock", "wrong")]
        server.bodies["/public/v1/latest"] = b'{"readings": 7}'
        assert state(server, wall_ms()) == [("feed", "wrong")]


def test_store_is_whole_or_damaged_or_not_yet_there(tmp_path):
    assert doctor.store(tmp_path / "none").state == "open"
    assert doctor.store(tmp_path).state == "open"
    Store(tmp_path / "kiosk.sqlite", wall_ms).close()
    assert doctor.store(tmp_path).state == "good"
    (tmp_path / "kiosk.sqlite").write_bytes(b"no database" * 1000)
    assert doctor.store(tmp_path).state == "wrong"


def test_folder_that_cannot_be_written_is_wrong(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
    found = doctor.store(tmp_path)
    assert found.state == "wrong"
    assert "No space left" in found.says


def test_disk_with_little_room_is_wrong(tmp_path, monkeypatch):
    assert doctor.disk(tmp_path / "not" / "yet").state == "good"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 5 << 20))
    assert "5 MB are free" in doctor.disk(tmp_path).says
    assert doctor.disk(tmp_path).state == "wrong"


def said(findings):
    return [(finding.what, finding.state, finding.says) for finding in findings]


def test_reports_that_wait_are_counted_with_the_age_of_the_oldest_and_the_last_answer(kiosk, tmp_path):
    def looked(later_ms=0):
        ((what, state, says),) = said(doctor.reports(kiosk, lambda: NOW_MS + later_ms))
        assert what == "reports"
        return state, says

    assert looked() == ("good", "none waits for the desk")
    box = Outbox(tmp_path, "kiosk-corner", lambda: NOW_MS, os.urandom)
    first, _ = box.keep("problem", {}, "ro"), box.keep("problem", {}, "ro")
    state, says = looked(7 * 60_000)
    assert (state, says.partition(";")[0]) == ("open", "2 wait for the desk, the oldest was written 7 minutes ago")
    assert "the desk has answered none yet" in says
    state, says = looked(25 * 3_600_000)
    assert (state, "25 hours ago" in says, "is the broker reached" in says) == ("wrong", True, True)
    box.note(Status(code=first, state="received", changed_ms=NOW_MS))
    state, says = looked(3 * 3_600_000)
    assert "1 wait for the desk" in says
    assert "the desk answered last 3 hours ago" in says
    assert "at a time that no clock knew" in looked(-NOW_MS)[1]


def test_damaged_file_of_reports_is_told_of_until_it_is_deleted(kiosk, tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    ((_, state, says),) = said(doctor.reports(kiosk, wall_ms))
    assert (state, "what can be read goes on" in says) == ("wrong", True)
    Outbox(tmp_path, "kiosk-corner", wall_ms, os.urandom).keep("problem", {}, "ro")
    aside, waiting = said(doctor.reports(kiosk, wall_ms))
    assert aside[1] == waiting[1] == "open"
    assert f"{FILE}.damaged-1" in aside[2]
    assert "look at it or delete it, it may hold names" in aside[2]


def test_air_is_held_against_the_age_at_which_the_page_shows_it_no_more(kiosk, tmp_path):
    def looked(later_min):
        return [(what, state) for what, state, _ in said(doctor.air(kiosk, lambda: NOW_MS + later_min * 60_000))]

    assert looked(0) == []
    store = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
    same = {"source": "gw", "device": "air", "label": "", "part": "", "time_quality": 0, "quality": 0}
    values = [
        Value(**same, quantity=quantity, value=2.0, time_ms=NOW_MS, is_simulated=False)
        for quantity in ("pm_index", "pm2_5")
    ]
    store.take_values(values)
    store.close()
    assert looked(0) == [("air index", "good"), ("air dust", "good")]
    assert looked(11) == [("air index", "good"), ("air dust", "wrong")]
    assert looked(121) == [("air index", "wrong"), ("air dust", "wrong")]
    assert looked(-60) == [("air index", "wrong"), ("air dust", "wrong")], "a clock is wrong"
    (finding, _) = doctor.air(kiosk, lambda: NOW_MS + 121 * 60_000)
    assert "from 2 hours ago, the limit is 120 minutes" in finding.says


def test_notices_have_an_age_and_their_desk_answers_or_not(tmp_path):
    key = tmp_path / "city.pub"
    key.write_bytes(public_key())

    def looked(url, now_ms):
        own = config.load(CORNER, {"kiosk": {"state_dir": str(tmp_path)}, "notices": {"url": url, "keys": [str(key)]}})
        return [(what, state) for what, state, _ in said(doctor.notices(own, lambda: now_ms))]

    bare = config.load(CORNER, {"notices": {"keys": []}})
    assert [finding.state for finding in doctor.notices(bare, wall_ms)] == ["open"]
    assert looked("http://127.0.0.1:9", NOW_MS) == [("desk", "wrong"), ("notices", "wrong")]
    own = config.load(CORNER, {"kiosk": {"state_dir": str(tmp_path)}})
    before, here = listed([], NOW_MS), listed(samples(NOW_MS), NOW_MS)
    Board(tmp_path / "notices", read_public_keys([key]), own.kiosk.city, lambda: NOW_MS).take_all(*here)
    with FeedServer() as server:
        server.bodies["/public/v1/notices"] = write_given(*here)
        assert looked(server.url, NOW_MS + 59 * 60_000) == [("desk", "good"), ("notices", "good"), ("list", "good")]
        assert looked(server.url, NOW_MS + 61 * 60_000) == [("desk", "good"), ("notices", "wrong"), ("list", "good")]
        assert looked(server.url, NOW_MS + 5 * DAY_MS)[2] == ("list", "open"), "a person has to confirm it within days"
        with_another = listed([write_notice(KEY, notice(NOW_MS, id="another"))], NOW_MS)[1]
        for refused in (before, ([], with_another), ([], b"")):
            server.bodies["/public/v1/notices"] = write_given(*refused)
            assert looked(server.url, NOW_MS) == [("desk", "wrong"), ("notices", "good"), ("list", "good")]
        server.bodies["/public/v1/notices"] = b'{"notices": []}'
        late = NOW_MS + 8 * 24 * 3_600_000
        assert looked(server.url, late) == [("desk", "wrong"), ("notices", "wrong"), ("list", "wrong")]
        server.bodies["/public/v1/notices"] = b"[" * 2000
        assert looked(server.url, NOW_MS) == [("desk", "wrong"), ("notices", "good"), ("list", "good")]


@pytest.mark.parametrize(
    ("panel", "mode", "state"),
    [
        ("24", "1920x1080", "good"),
        ("24p", "1920x1080", "good"),
        ("24", "1280x800", "wrong"),
        ("10", "1280x800", "wrong"),
    ],
)
def test_screen_is_held_against_the_panel(screen, panel, mode, state):
    assert doctor.screen(PANELS[panel], screen(mode)).state == state  # it is 531 mm long, which no 10 inches are


def test_screen_that_says_nothing_of_itself_is_open(screen, tmp_path):
    assert doctor.screen(PANELS["24"], tmp_path).state == "open"
    assert doctor.screen(PANELS["24"], screen("1920x1080", status="disconnected")).state == "open"
    assert doctor.screen(PANELS["24"], screen("1920x1080", edid=b"")).state == "good"


def test_command_ends_with_1_when_something_is_wrong(tmp_path, capsys):
    words = ["doctor", "--data", str(tmp_path), "--json"]
    assert main([*words, "--feed", "http://127.0.0.1:9"]) == 1
    found = {finding["what"]: finding["state"] for finding in json.loads(capsys.readouterr().out)}
    assert found["feed"] == "wrong"
    with FeedServer() as server:
        server.readings = [reading("pm2_5", 9.5, wall_ms())]
        assert main([*words, "--feed", server.url]) == 0


def test_sheets_that_are_missing_or_no_longer_so_are_open_where_there_is_a_printer(kiosk, tmp_path, monkeypatch):
    assert [*doctor.sheets(kiosk, wall_ms)] == [], "a kiosk without a printer lacks none"
    content = tmp_path / "content"
    shutil.copytree(kiosk.content_folder, content)
    printing = {"printer": {"queue": "forms"}}
    named = config.load(CORNER, {"kiosk": {"state_dir": str(tmp_path), "content_dir": str(content)}, **printing})
    ((what, state, says),) = said(doctor.sheets(named, wall_ms))
    assert (what, state) == ("sheets", "open")
    assert says.startswith("24 of 24 are not there")
    monkeypatch.setattr(sheets, "running_browser", contextlib.nullcontext)
    monkeypatch.setattr(sheets, "printed", lambda *_: b"%PDF-1.4\n%%EOF\n")
    sheets.make(named, sheets.PAPERS["a4"], [*LANGUAGES], wall_ms(), lambda *_: None)
    assert said(doctor.sheets(named, wall_ms)) == [("sheets", "good", "all 24 are there, of 4 forms without a file")]
    records = content / "forms.toml"
    records.write_text(records.read_text(encoding="utf-8").replace("https://", "https://new.", 1), encoding="utf-8")
    ((what, state, says),) = said(doctor.sheets(named, wall_ms))
    assert (what, state) == ("sheets", "open")
    assert says.startswith("6 of 24 are not there"), "one form, in six ways to read it"


@pytest.mark.parametrize(
    ("program", "state", "says"),
    [
        ("echo forms accepting requests since Wed", "good", "forms takes forms"),
        ("echo forms not accepting requests since Wed; echo rejecting", "wrong", "not accepting requests"),
        ("echo 'lpstat: Invalid destination name.' >&2; exit 1", "wrong", "Invalid destination name"),
        (None, "wrong", "CUPS cannot be asked"),
    ],
    ids=["takes forms", "takes none", "no queue", "no CUPS"],
)
def test_printer_is_looked_at_where_one_is_named(kiosk, tmp_path, monkeypatch, program, state, says):
    assert [*doctor.printer(kiosk)] == [], "a kiosk without a printer lacks nothing"
    named = config.load(CORNER, {"kiosk": {"state_dir": str(tmp_path)}, "printer": {"queue": "forms"}})
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    if program:
        (folder / "lpstat").write_text(f"#!/bin/sh\n{program}\n")
        (folder / "lpstat").chmod(0o755)
    (found,) = doctor.printer(named)
    assert (found.what, found.state) == ("printer", state)
    assert says in found.says
