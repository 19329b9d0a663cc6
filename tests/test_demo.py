"""The demo's parts, each by itself: processes that end, the history, what is shown, what is said.

The whole corner, every source to the broker, is in test_corner.py.
"""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import tomllib
from pathlib import Path

import pytest
import serial
from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.exceptions import ModbusException
from rich.console import Console

from bega.devices import load_driver
from bega_protocols import senml
from bega_protocols.errors import ConfigError
from bega_protocols.reading import STALE, Reading
from bega_protocols.record import Record
from bega_simulators.children import Children
from bega_simulators.demo import example_of
from bega_simulators.history import corner_diaries, records, write_history
from bega_simulators.live import Live
from bega_simulators.town import Town

ROOT = Path(__file__).parent.parent
EXAMPLE = tomllib.loads((ROOT / "gateway/examples/corner.toml").read_text(encoding="utf-8"))
NOW_S = 1_795_300_000
NOW_MS = NOW_S * 1000
BEGA = [sys.executable, "-m", "bega"]
CLEAR = b"\x1b[2J"


def of_demo(directory: Path) -> list[int]:
    """Return the processes that some demo in `directory` started, whatever has become of it."""
    mark = f"BEGA_DEMO={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def wait_for(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


# ------------------------------------------------------------------ processes


def start_corner(children: Children, directory: Path):
    return children.start("corner", ["sim", "corner", "--ready-file", str(directory / "corner.ready.json")])


def test_child_says_that_it_is_up_and_ends_in_order(tmp_path):
    async def work():
        children = Children(tmp_path)
        child = start_corner(children, tmp_path)
        facts = await children.until_ready(child, 10)
        assert facts is not None and Path(facts["pms"]).exists()
        assert child.pid in of_demo(tmp_path)
        await children.stop()
        children.close()

    asyncio.run(work())
    assert of_demo(tmp_path) == []


def test_child_that_does_not_heed_sigterm_is_ended_by_force(tmp_path):
    async def work():
        children = Children(tmp_path)
        child = start_corner(children, tmp_path)
        await children.until_ready(child, 10)
        os.kill(child.pid, signal.SIGSTOP)  # stopped, it never hears of SIGTERM
        began = time.monotonic()
        await children.stop(grace_s=0.2)
        children.close()
        return time.monotonic() - began

    assert asyncio.run(work()) > 0.2
    assert of_demo(tmp_path) == []


def test_child_that_cannot_go_on_tells_why(tmp_path):
    async def work():
        children = Children(tmp_path)
        child = children.start("gateway", ["gateway", "run", "--config", str(tmp_path / "nowhere.toml")])
        try:
            assert await children.until_ready(child, 10) is None
            assert await children.until_ended(child, 10) == 1
            return child.last_words()
        finally:
            await children.stop()
            children.close()

    words = asyncio.run(work())
    assert words.startswith("bega gateway run:") and "nowhere.toml" in words


def test_keeper_ends_the_children_of_a_parent_that_was_killed(tmp_path):
    program = f"""
import asyncio, time
from pathlib import Path
from bega_simulators.children import Children
children = Children(Path({str(tmp_path)!r}))
child = children.start("corner", ["sim", "corner", "--ready-file", {str(tmp_path / "corner.ready.json")!r}])
asyncio.run(children.until_ready(child, 10))
print("up", flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
    assert of_demo(tmp_path)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: of_demo(tmp_path) == [], 5)


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize("option", ["--mqtt-port", "--http-port"])
def test_taken_port_is_named_before_anything_starts(tmp_path, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*BEGA, "demo", option, str(port), "--dir", str(tmp_path / "d")], capture_output=True, text=True, timeout=20
        )
    assert ended.returncode == 1
    assert str(port) in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert list((tmp_path / "d").iterdir()) == []


def test_broker_and_kiosk_cannot_share_a_port(tmp_path):
    ended = subprocess.run(
        [*BEGA, "demo", "--mqtt-port", "23456", "--http-port", "23456", "--dir", str(tmp_path)],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "23456" in ended.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--http-port", "99999"),
        ("--mqtt-port", "-1"),
        ("--for", "0"),
        ("--for", "nan"),
        ("--speed", "-5"),
        ("--speed", "inf"),
    ],
)
def test_value_that_makes_no_sense_is_named(tmp_path, option, value):
    ended = subprocess.run(
        [*BEGA, "demo", f"{option}={value}", "--dir", str(tmp_path / "d")], capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"bega demo: error: argument {option}: {value!r} is no ")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("redirection", "exit_code", "said"),
    [("</dev/null >&-", 0, ""), (">/dev/full", 1, "No space left on device")],
    ids=["closed", "full disk"],
)
def test_output_that_nobody_can_have_leaves_no_process_and_no_traceback(tmp_path, redirection, exit_code, said):
    script = f'exec "$@" {redirection}'
    command = ["sh", "-c", script, "sh", *BEGA, "demo", "--for", "1", "--dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == exit_code
    assert said in ended.stderr and "Traceback" not in ended.stderr
    assert of_demo(tmp_path) == []


def test_table_stands_alone_after_the_terminal_has_changed_its_size(tmp_path):
    """Narrower, a terminal wraps what it shows: drawn on top of that, the old table would stay above the new one."""
    fixed = ("COLUMNS", "LINES")  # a size given by these never changes, and test runners give it
    surroundings = {name: value for name, value in os.environ.items() if name not in fixed}
    screen, terminal = pty.openpty()
    resize(terminal, 45, 120)
    demo = subprocess.Popen(
        [*BEGA, "demo", "--for", "20", "--dir", str(tmp_path)],
        stdin=terminal, stdout=terminal, stderr=terminal, env=surroundings | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)

    def seen_until(text: bytes) -> bytes:
        seen = b""
        with contextlib.suppress(OSError):  # the last one closed the terminal
            while text not in seen:
                seen += os.read(screen, 65536)
        return seen

    try:
        before = seen_until(b"Ctrl-C ends it all.")
        resize(screen, 24, 80)
        after = seen_until(CLEAR)
        demo.terminate()
        seen_until(b"never shown: to the end")
        assert demo.wait(5) == 0
    finally:
        demo.kill()
        demo.wait()
        os.close(screen)
    assert b"Ctrl-C" in before and CLEAR not in before and CLEAR in after


# ------------------------------------------------------------------ the wired corner


@pytest.fixture
def corner(tmp_path):
    ready = tmp_path / "corner.json"
    command = [*BEGA, "sim", "corner", "--ready-file", str(ready), "--speed", "60", "--seed", "2"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        wait_for(ready.exists)
        yield json.loads(ready.read_text()) | {"stdin": process.stdin}
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait(5) == 0


@pytest.mark.parametrize(("line", "device", "quantity"), [("pms", "pms5003", "pm2_5"), ("p1", "dsmr_p1", "gas_volume")])
def test_corner_speaks_on_its_serial_lines(corner, line, device, quantity):
    driver = load_driver(device, {})
    baud = int(driver.line.split()[1])
    with serial.Serial(corner[line], baud, timeout=0.2) as wire:
        deadline = time.monotonic() + 10
        seen = {}
        while quantity not in seen and time.monotonic() < deadline:
            for group in driver.feed(wire.read(4096), 0):
                seen |= {reading.quantity: reading.value for reading in group}
    assert seen[quantity] > 0


def test_corner_answers_in_the_cellar_and_in_the_hall(corner):
    """Active power, all phases: SDM630 input register 30053 in W, iEM3155 register 3060 in kW, both float32."""
    host, _, port = corner["hall"].rpartition(":")
    with ModbusTcpClient(host, port=int(port)) as hall:
        assert 4 < float32(hall.read_holding_registers(3059, count=2, device_id=1)) < 70
    with ModbusSerialClient(corner["cellar"], baudrate=9600, timeout=2) as cellar:
        for unit in (1, 2, 3):
            time.sleep(0.02)  # the silence between frames that pymodbus does not keep
            assert 400 < float32(cellar.read_input_registers(0x34, count=2, device_id=unit)) < 20_000


def test_corner_silences_and_restores_a_device_as_it_is_told(corner):
    host, _, port = corner["hall"].rpartition(":")

    def answers(hall):
        hall.connect()  # a time-out closes it
        with contextlib.suppress(ModbusException):
            return not hall.read_holding_registers(3059, count=2, device_id=1).isError()
        return False

    with ModbusTcpClient(host, port=int(port), timeout=0.3, retries=0) as hall:
        assert answers(hall)
        corner["stdin"].write(b"nonsense\nsilence city-hall\n")
        corner["stdin"].flush()
        wait_for(lambda: not answers(hall))
        corner["stdin"].write(b"restore city-hall\n")
        corner["stdin"].flush()
        wait_for(lambda: answers(hall))


def float32(answer):
    return struct.unpack(">f", struct.pack(">2H", *answer.registers))[0]


def test_corner_refuses_a_silence_that_makes_no_sense():
    ended = subprocess.run(
        [*BEGA, "sim", "corner", "--dead-meter", "4:20:20"], capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 2
    assert "3:20:20" in ended.stderr


# ------------------------------------------------------------------ history


def test_history_is_of_the_public_devices_of_the_example():
    public = {name for name, device in EXAMPLE["devices"].items() if device.get("audience") == "public"}
    nodes = {name for name, node in EXAMPLE["nodes"].items() if node.get("audience") == "public"}
    gateway = EXAMPLE["gateway"]["name"]
    told = {(diary.source, diary.device) for diary in corner_diaries(gateway, "air-1")}
    assert {device for source, device in told if source == gateway} == public
    assert {source for source, _ in told if source != gateway} == nodes


def test_history_covers_a_day_and_enough_of_the_last_hour_for_an_index(tmp_path):
    path = tmp_path / "history.jsonl"
    count = write_history(path, Town(1), corner_diaries("gw-corner", "air-1"), NOW_S)
    decoded = [senml.decode(line) for line in path.read_bytes().splitlines()]
    assert len(decoded) == count
    identities = {(record.source, record.boot, record.seq) for record in decoded}
    assert len(identities) == count, "source, boot and seq name one record"
    times_s = sorted({record.time_ms / 1000 for record in decoded if record.device == "roadside-air"})
    assert times_s[0] == NOW_S - 86_400
    assert NOW_S - 120 < times_s[-1] < NOW_S
    assert len([time_s for time_s in times_s if time_s > NOW_S - 3600]) >= 45


def test_history_ends_where_the_live_town_begins():
    *_, last = records(Town(1), corner_diaries("gw-corner", "air-1")[:1], NOW_S)
    values = Town(1).readings("roadside", NOW_S)
    written = next(reading.value for reading in last.readings if reading.quantity == "pm10")
    assert abs(written - values["pm10", ""]) < 5


# ------------------------------------------------------------------ what is shown


def record(device="roadside-air", at_ms=NOW_MS, *readings, source="gw-corner"):
    return Record(source, 1, 1, device, at_ms, 0, list(readings) or [Reading("pm2_5", 23)])


def shown(live: Live, height=40) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(live.table(["The kiosk: http://127.0.0.1:1/"], height, NOW_MS + 2500))
    return console.file.getvalue()


@pytest.fixture
def live():
    return Live("gw-corner", {"roadside-air": "pms", "cellar-1": "cellar", "air-1": "nodes"})


def test_table_shows_device_line_quantity_value_with_unit_and_age(live):
    live.take(record(), NOW_MS)
    row = next(line for line in shown(live).splitlines() if "roadside-air" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["roadside-air", "pms", "pm2_5", "23 µg/m³", "2.5 s"]


def test_table_names_a_node_and_its_device_and_whatever_the_gateway_adds(live):
    live.take(record("sht", NOW_MS, Reading("temperature", -512, -2), source="air-1"), NOW_MS)
    live.take(record("air", NOW_MS, Reading("pm_index", 2)), NOW_MS)
    text = shown(live)
    assert "air-1/sht" in text and "-5.12 °C" in text and "nodes" in text
    assert "gateway" in text


def test_older_record_never_hides_a_newer_value(live):
    live.take(record("roadside-air", NOW_MS, Reading("pm2_5", 23)), NOW_MS)
    live.take(record("roadside-air", NOW_MS - 60_000, Reading("pm2_5", 99)), NOW_MS)
    assert "23 µg/m³" in shown(live) and "99" not in shown(live)


def test_stale_value_is_called_stale_and_a_record_without_time_stands_at_its_arrival(live):
    live.take(record("roadside-air", None, Reading("pm2_5", 0, 0, "", STALE)), NOW_MS)
    assert "stale" in shown(live) and "2.5 s" in shown(live)


def test_low_terminal_shows_first_quantities_of_every_device_and_counts_the_rest(live):
    many = [Reading("voltage", 230, 0, phase) for phase in ("l1", "l2", "l3")] + [Reading("active_power", 900)]
    live.take(record("cellar-1", NOW_MS, *many), NOW_MS)
    live.take(record(), NOW_MS)
    text = shown(live, height=10)
    assert "active_power  (+3)" in text and "pm2_5" in text and "voltage" not in text
    assert len(text.splitlines()) <= 10


def test_what_is_missing_stands_below_the_table_and_a_log_line_counts(live):
    live.missing["park"] = "bega sim ble: dbus-daemon is missing: sudo apt install dbus"
    live.take(record(), NOW_MS)
    assert "sudo apt install dbus" in shown(live)
    line = live.log_line(7, NOW_MS + 400)
    assert line.strip() == "7 s  1 records from 1 devices; roadside-air on pms: pm2_5 23 µg/m³ (0.4 s old)"


# ------------------------------------------------------------------ what it starts


@pytest.mark.parametrize("place", ["corner_pkg/examples", "examples"])
def test_example_is_found_inside_a_wheel_and_beside_a_checkout(tmp_path, monkeypatch, place):
    (tmp_path / "corner_pkg").mkdir()
    (tmp_path / "corner_pkg" / "__init__.py").write_text("raise ImportError('found, never imported')")
    (tmp_path / place).mkdir()
    (tmp_path / place / "corner.toml").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert example_of("corner_pkg", "gateway") == tmp_path / place / "corner.toml"


def test_missing_package_is_named_with_what_brings_it():
    with pytest.raises(ConfigError, match=r"pip install '.*\[kiosk\]'"):
        example_of("bega_no_such_package", "kiosk")
