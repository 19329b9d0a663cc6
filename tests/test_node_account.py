"""What `bega node test` keeps: a report as page and JSON, and a line in the bench book."""

import json
from pathlib import Path

import pytest

from bega_firmware import book
from bega_firmware.outcome import Outcome, worst
from bega_firmware.proof import account
from bega_firmware.proof.found import Chip, Found
from bega_protocols.errors import ConfigError

KEY = "a very secret key"
CONFIG = {
    "node": "air-7",
    "wifi": {"ssid": "city", "key": KEY},
    "broker": {"host": "gw", "tls": {"key": "/tls/node.key"}},
}
CHIP = Chip(
    cause=5,
    heap_free=1,
    heap_bytes=2,
    flash_free_kb=1,
    flash_kb=2,
    year=2026,
    release="1.29.0",
    mac="240ac4000004",
    slot="/a",
)
BOARD = {"NAME": "ESP32-DevKitC", "CHIP": "esp32"}
NODE = Found(BOARD, CHIP, {"version": "1.2.3", "hardware": "esp32_devkitc"}, {}, config=CONFIG)
WELL = Outcome("sensor pms", True, "answers")
OPEN = Outcome("sensor co2", None, "sleeps", "wait")
WRONG = Outcome("Wi-Fi", False, f"{KEY} is refused", "ask for the password")
NOW_MS = 1_795_345_645_000


def kept(
    folder: Path, *outcomes: Outcome, where: str | None = "on-site", found: Found | None = NODE, out: Path | None = None
):
    made = account.report_of(found, outcomes, where, "/dev/ttyUSB0", "park", NOW_MS, 12.5)
    page, complaint = account.keep(made, folder, out, found)
    assert complaint == ""
    (event,) = book.read(folder)[0]
    return page, json.loads(page.with_name("report.json").read_text()), event


def test_a_test_on_site_is_a_report_and_a_line_in_the_book(tmp_path):
    page, facts, event = kept(tmp_path, WELL)
    assert page == tmp_path / "reports/air-7/test/report.html"
    assert "air-7 is ready: proved on site." in page.read_text()
    assert (facts["kind"], facts["node"], facts["mac"], facts["firmware"]) == (
        "test",
        "air-7",
        "24:0a:c4:00:00:04",
        "1.2.3",
    )
    assert (event.what, event.passed, event.words) == ("tested", True, "proved on site")
    assert (event.node, event.site, event.board, event.port) == ("air-7", "park", "esp32_devkitc", "ttyUSB0")


def test_what_is_wrong_comes_before_what_is_not_proved(tmp_path):
    _, facts, event = kept(tmp_path, WELL, OPEN, Outcome("Wi-Fi", False, "the password is refused"))
    assert facts["verdict"] == "air-7 is not ready: 1 of 3 steps went wrong."
    assert (event.passed, event.words) == (False, "Wi-Fi: the password is refused")
    assert worst([WELL, OPEN]) is OPEN
    assert worst([WELL]) is worst([]) is None


def test_sensors_alone_prove_no_way_out(tmp_path):
    _, facts, event = kept(tmp_path, WELL, Outcome("record seen", None, "the way out was not tried"), where=None)
    assert facts["verdict"] == "air-7: nothing went wrong, and 1 of 2 steps could not be proved."
    assert (event.passed, event.words) == (None, "record seen: the way out was not tried")


def test_no_key_of_the_node_is_in_the_report(tmp_path):
    page, _, _ = kept(tmp_path, WRONG)
    for file in page.parent.iterdir():
        assert KEY not in file.read_text(), file
    assert "(a secret, left out)" in page.read_text()


def test_board_that_was_never_read_is_named_by_its_port(tmp_path):
    page, facts, _ = kept(tmp_path, Outcome("configuration", False, "no answer"), found=None)
    assert page.parent.parent.name == "at-ttyUSB0"
    assert facts["node"] == ""


def test_report_goes_where_it_is_wanted_or_says_why_not(tmp_path):
    page, _, _ = kept(tmp_path, WELL, out=tmp_path / "mine")
    assert page == tmp_path / "mine/report.html"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="name another folder"):
        kept(tmp_path, WELL, out=tmp_path / "file")
