"""The report of a setup: words first, one file, readable on a phone, by night and on paper, and without a secret."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import sync_playwright

from bega_firmware.label import make_label
from bega_firmware.outcome import Outcome, lines
from bega_firmware.report import BENCH, HIDDEN, HTML, JSON, Report, html, write
from bega_protocols.errors import ConfigError

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
AXE_OPTIONS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag2aaa", "wcag21aa", "wcag22aa", "best-practice"]},
    "rules": {"color-contrast-enhanced": {"enabled": True}, "target-size": {"enabled": True}},
}
SILENT = Outcome(
    "sensor pms", False, "PM sensor silent on UART 2", "Check its 5 V, and that its TX is on GPIO 16.", 3.0
)
GOOD = Outcome("flash", True, "ESP32, 4 MB: 2048 kB written and verified", took_s=11.2)
LEFT = Outcome("record", None, "not tried: a sensor is silent")
REPORT = Report(
    kind="setup",
    at_ms=1_795_344_000_000,
    outcomes=(GOOD, SILENT, LEFT),
    node="air-7",
    site="Timișoara, Piața Unirii",
    proved=BENCH,
    firmware="0.1.0",
    details=(("Console", "Traceback <b>\nkey=hunter22\n" + "x" * 300),),
)


def test_first_sentence_says_whether_the_node_is_ready():
    well = dataclasses.replace(REPORT, outcomes=(GOOD,))
    assert REPORT.verdict == "air-7 is not ready: 1 of 3 steps went wrong."
    assert well.verdict == "air-7 is ready: proved on the bench, not on site."
    left = dataclasses.replace(REPORT, outcomes=(GOOD, LEFT))
    assert left.verdict == "air-7: nothing went wrong, and 1 of 2 steps could not be proved."
    assert dataclasses.replace(well, proved="").verdict == "air-7: nothing was tested."


def test_an_outcome_is_a_line_and_what_to_do_another():
    assert list(lines(SILENT)) == [
        "WRONG  sensor pms: PM sensor silent on UART 2 (3.0 s)",
        "       do: Check its 5 V, and that its TX is on GPIO 16.",
    ]


def test_what_is_wrong_stands_before_what_is_well():
    page = html(REPORT)
    assert page.index("is not ready") < page.index("PM sensor silent") < page.index("written and verified")
    assert "<b>" not in page and "&lt;b&gt;" in page
    told = html(dataclasses.replace(REPORT, notes=("First `bega site new <b>`.",)))
    assert "First <code>bega site new &lt;b&gt;</code>." in told


def test_no_secret_is_in_it_whoever_said_it(tmp_path):
    spoken = dataclasses.replace(REPORT, outcomes=(Outcome("Wi-Fi", False, "key hunter22 refused", "Not hunter22?"),))
    write(spoken, tmp_path, ["hunter22", ""])
    for name in (HTML, JSON):
        text = (tmp_path / name).read_text()
        assert "hunter22" not in text and HIDDEN in text


def test_json_says_the_same(tmp_path):
    write(REPORT, tmp_path)
    told = json.loads((tmp_path / JSON).read_text())
    assert (told["form"], told["is_well"], told["proved"], told["node"]) == (1, False, BENCH, "air-7")
    assert told["steps"][1] == dataclasses.asdict(SILENT)
    assert told["details"]["Console"].startswith("Traceback")


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="name another folder"):
        write(REPORT, tmp_path / "file")


def test_page_is_one_file_clean_by_axe_on_a_phone_by_night_and_one_sheet_of_a4(tmp_path):
    drawn = make_label(tmp_path, "air-7", firmware="0.1.0", site="Timișoara")
    label = Path(drawn["files"][0]).read_bytes()
    write(dataclasses.replace(REPORT, label=label, notes=("A bench site was made.",)), tmp_path)
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
            page.on("request", lambda request: asked.append(request.url[:5]))
            page.goto((tmp_path / HTML).as_uri())
            page.locator("summary").click()
            page.evaluate(AXE_SCRIPT)
            found = page.evaluate("options => axe.run(document, options)", AXE_OPTIONS)
            assert [(each["id"], each["nodes"][0]["html"][:150]) for each in found["violations"]] == []
            assert len(found["passes"]) > 15, "axe looked at nothing"
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.locator("summary").click()
        sheet = page.pdf(prefer_css_page_size=True)
        browser.close()
    assert {*asked} <= {"file:", "data:"}
    assert re.findall(rb"/Count (\d+)", sheet) == [b"1"]
