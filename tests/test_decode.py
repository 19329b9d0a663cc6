"""`bega decode` as a process: what it prints, what it says of damage, and how it refuses."""

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from bega.decode import main
from bega.devices import device_names
from bega_protocols.devices.dsmr_p1.sim import Sim as Meter
from bega_protocols.devices.pms5003.sim import Sim as Dust

ROOT = Path(__file__).parent.parent
DEVICES = ROOT / "protocols/bega_protocols/devices"
CAPTURED = Path(os.environ.get("BEGA_VECTORS", ROOT.parent / "shared" / "vectors")) / "uart_sensors" / "PMSx003.json"
NOW_MS = 1_790_000_000_000
needs_captured = pytest.mark.skipif(
    not CAPTURED.is_file(), reason=f"no captured frames at {CAPTURED}: set BEGA_VECTORS to the folder that holds them"
)

# PyPMS's names: ours. raw01, raw25, raw10 are for factory dust and not read; time is the capture's own.
PYPMS = {
    "pm01": "pm1",
    "pm25": "pm2_5",
    "pm10": "pm10",
    "n0_3": "particles_0_3",
    "n0_5": "particles_0_5",
    "n1_0": "particles_1",
    "n2_5": "particles_2_5",
    "n5_0": "particles_5",
    "n10_0": "particles_10",
}


def bega(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bega", "decode", *arguments], input=stdin, capture_output=True, timeout=60
    )


def rows(outcome: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    return [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in outcome.stdout.splitlines()]


def assert_refused(outcome: subprocess.CompletedProcess[bytes], *words: str, code: int = 1) -> None:
    """One sentence on standard error that says what is wrong, and no trace of Python."""
    said = outcome.stderr.decode()
    assert outcome.returncode == code, said
    assert outcome.stdout == b""
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1, said
    for word in words:
        assert word in said


def dust_frames(count: int = 3) -> list[bytes]:
    sim = Dust({}, seed=1)
    frames = []
    for index in range(count):
        sim.set("pm2_5", "", 10 + index)
        frames.append(sim.tick(NOW_MS + 1000 * index))
    return frames


def pm2_5(outcome: subprocess.CompletedProcess[bytes]) -> list[int]:
    return [row["value"] for row in rows(outcome) if row["quantity"] == "pm2_5"]


@needs_captured
def test_captured_frames_read_what_pypms_read():
    outcome = bega("pms5003", CAPTURED)
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    vectors = json.loads(CAPTURED.read_text(), parse_float=Decimal)["vectors"]
    expected = [
        {"quantity": ours, "value": vector["reads"][theirs], "unit": "ug/m3" if ours.startswith("pm") else "1/cm3"}
        for vector in vectors
        for theirs, ours in PYPMS.items()
    ]
    assert rows(outcome) == expected
    assert set(vectors[0]["reads"]) - set(PYPMS) == {"time", "raw01", "raw25", "raw10"}


@needs_captured
def test_line_is_the_object_that_the_manual_shows():
    assert b'{"quantity": "pm2_5", "value": 8, "unit": "ug/m3"}\n' in bega("pms5003", CAPTURED).stdout


def test_capture_comes_as_raw_bytes_from_a_file_or_standard_input(tmp_path):
    raw = b"".join(dust_frames())
    file = tmp_path / "capture.bin"
    file.write_bytes(raw)
    for outcome in (bega("pms5003", file), bega("pms5003", stdin=raw)):
        assert (outcome.returncode, outcome.stderr, pm2_5(outcome)) == (0, b"", [10, 11, 12])


def test_capture_comes_as_hex_text(tmp_path):
    text = "\r\n".join(frame.hex(" ") for frame in dust_frames()).upper()
    file = tmp_path / "capture.hex"
    file.write_text(text)
    for outcome in (bega("pms5003", "--hex", file), bega("pms5003", "--hex", stdin=text.encode())):
        assert (outcome.returncode, outcome.stderr, pm2_5(outcome)) == (0, b"", [10, 11, 12])


def test_our_own_vectors_are_a_capture(tmp_path):
    """Those that need no settings: one command has one set of them."""
    book = json.loads((ROOT / "protocols/bega_protocols/devices/dsmr_p1/vectors.json").read_text())
    vectors = [vector for vector in book["vectors"] if not vector.get("settings")]
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps({"vectors": vectors}))
    outcome = bega("dsmr_p1", path)
    groups = [group for vector in vectors for group in vector.get("groups", [vector.get("readings")])]
    assert outcome.returncode == 0
    assert [row["quantity"] for row in rows(outcome)] == [row[0] for group in groups for row in group]


def test_readings_are_printed_while_the_port_still_speaks():
    with subprocess.Popen(
        [sys.executable, "-m", "bega", "decode", "pms5003"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin and child.stdout
        for frame in dust_frames():
            child.stdin.write(frame)
            child.stdin.flush()
            assert child.stdout.readline().startswith(b'{"quantity": "pm1"')
            for _ in range(8):
                child.stdout.readline()
        child.stdin.close()
        assert child.wait(timeout=30) == 0


def test_reader_that_has_had_enough_is_no_error(tmp_path):
    file = tmp_path / "long.bin"
    file.write_bytes(b"".join(dust_frames(2000)))
    with subprocess.Popen(
        [sys.executable, "-m", "bega", "decode", "pms5003", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout and child.stderr
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(timeout=30) == 0


def test_damaged_frames_are_named_and_the_good_ones_still_come(tmp_path):
    first, second, third = dust_frames()
    hurt = second[:-1] + bytes([second[-1] ^ 1])
    outcome = bega("pms5003", stdin=b"noise" + first + hurt + third)
    assert outcome.returncode == 0
    assert pm2_5(outcome) == [10, 12]
    said = outcome.stderr.decode().splitlines()
    assert said[0].startswith(f"damaged at byte {5 + 32}: ")
    assert said[-1] == "1 damaged"


def test_damage_alone_decodes_nothing():
    sim = Meter({}, seed=1)
    sim.faults.add("crc")
    outcome = bega("dsmr_p1", stdin=sim.tick(NOW_MS))
    assert (outcome.returncode, outcome.stdout) == (1, b"")
    assert outcome.stderr.decode().splitlines()[-1] == "1 damaged"
    assert re.match(r"damaged at byte 0: P1 check value differs: 21[0-9a-f]{8}", outcome.stderr.decode())


@pytest.mark.parametrize("capture", [b"", b"nothing of the kind"])
def test_capture_without_frames_decodes_nothing(capture):
    assert_refused(bega("pms5003", stdin=capture), "nothing")


def test_setting_reaches_the_driver():
    telegram = (
        b"/BGA5TEST\r\n\r\n0-1:24.1.0(3)\r\n0-1:24.3.0(161107190000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(00001.001)\r\n!\r\n"
    )
    stamps = [
        rows(bega("dsmr_p1", *setting, stdin=telegram))[1]["value"]
        for setting in ([], ["--set", "normal_time_utc_min=120"])
    ]
    assert stamps[0] - stamps[1] == 3600


def test_attributes_are_printed_when_asked_for():
    telegram = Meter({}, seed=1).tick(NOW_MS)
    assert "E0047" not in bega("dsmr_p1", stdin=telegram).stdout.decode()
    asked = rows(bega("dsmr_p1", "--attributes", stdin=telegram))
    assert {"attribute": "version", "text": "50"} in asked


def test_list_names_every_device_with_its_wire_and_what_it_is():
    outcome = bega("--list")
    assert outcome.returncode == 0
    lines = outcome.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == device_names()
    pms5003 = next(line for line in lines if line.startswith("pms5003 "))
    assert re.fullmatch(r"pms5003 +serial 9600 8N1 +Plantower PMS5003.*", pms5003)
    assert all(re.match(r"\S+ +(serial|modbus|mbus|ble|i2c)\b.* {2}\S", line) for line in lines), "each says what it is"


OURS = [
    pytest.param(name, vector, id=f"{name}-{vector['name']}")
    for name in device_names()
    if (DEVICES / name / "vectors.json").is_file()
    for vector in json.loads((DEVICES / name / "vectors.json").read_text())["vectors"]
    if all(isinstance(value, str | int) and "\n" not in str(value) for value in vector.get("settings", {}).values())
]


@pytest.mark.parametrize(("device", "vector"), OURS)
def test_every_device_decodes_its_vectors_by_its_settings(device, vector, capsys, monkeypatch):
    """In this process: the command is the same, and a hundred starts of Python are not."""
    hex_lines = "\n".join(vector.get("chunks", [vector.get("frame", "")])).encode()
    settings = [word for key, value in vector.get("settings", {}).items() for word in ("--set", f"{key}={said(value)}")]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(hex_lines)))
    groups = vector["groups"] if "groups" in vector else [vector["readings"]]
    expected = [row for group in groups for row in group]
    assert main([device, "--hex", *settings]) == (0 if expected else 1)
    printed = [
        json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in capsys.readouterr().out.splitlines()
    ]
    assert [(row["quantity"], row["value"]) for row in printed] == [
        (row[0], Decimal(row[1]).scaleb(row[2] if len(row) > 2 else 0)) for row in expected
    ]


def said(value: object) -> str:
    """Return a setting as one types it: a text of digits in quotes, so that it stays a text."""
    return json.dumps(value) if isinstance(value, bool) or (isinstance(value, str) and value.isdigit()) else str(value)


def test_help_shows_examples():
    outcome = bega("--help")
    assert outcome.returncode == 0
    assert b"bega decode dsmr_p1" in outcome.stdout


def test_no_device_is_refused():
    assert_refused(bega(), "--list", code=2)


@pytest.mark.parametrize("name", ["pms5004", "../pms5003", "PMS5003", "driver", "", "é"])
def test_unknown_device_is_refused(name):
    assert_refused(bega(name), "there is no device", "pms5003")


@pytest.mark.parametrize(
    ("assignment", "word"),
    [("adress=1", "adress"), ("normal_time_utc_min=soon", "normal_time_utc_min"), ("nothing", "key=value")],
)
def test_setting_that_cannot_be_is_refused(assignment, word):
    assert_refused(bega("dsmr_p1", "--set", assignment, stdin=b"/"), word)


def test_missing_file_is_refused(tmp_path):
    assert_refused(bega("pms5003", tmp_path / "missing.bin"), "missing.bin", "No such file")
    assert_refused(bega("pms5003", tmp_path / "missing.json"), "missing.json", "No such file")
    assert_refused(bega("pms5003", tmp_path), "Is a directory")


@pytest.mark.parametrize("text", [b"42 4d 0", b"42 4g", b"\xff\xfe", b"0x42", "４２".encode()])
def test_text_that_is_no_hex_is_refused(text):
    assert_refused(bega("pms5003", "--hex", stdin=b"424d\n" + text), "line 2")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"vectors": 5}', '{"vectors": [{}]}', '{"vectors": [{"frame": "4g"}]}', "[" * 100_000, "\xff"],
)
def test_file_that_holds_no_vectors_is_refused(text, tmp_path):
    file = tmp_path / "vectors.json"
    file.write_bytes(text.encode("latin-1"))
    assert_refused(bega("pms5003", file), "vectors.json")
