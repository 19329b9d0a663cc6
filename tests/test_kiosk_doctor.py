"""`bega kiosk doctor`: what a citizen suffers from is wrong, what people owe is open; each thing is said by itself."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from bega.clock import wall_ms
from bega.look.panels import PANELS
from bega_kiosk import config, doctor
from bega_kiosk.command import main
from bega_kiosk.outbox import FILE, SCHEMA
from bega_kiosk.store import Store
from tests.kiosk_feed import CORNER, FeedServer, reading

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


def test_reports_that_wait_are_counted(tmp_path):
    assert doctor.reports(tmp_path).state == "good"
    with closing(sqlite3.connect(tmp_path / FILE)) as file, file:
        file.executescript(SCHEMA)
        file.executemany("INSERT INTO waiting (code, payload) VALUES (?, '')", [(str(code),) for code in range(3)])
    assert doctor.reports(tmp_path)[1:] == ("open", "3 wait for the desk; they go when the broker is reached")
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    assert doctor.reports(tmp_path).state == "wrong"


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
