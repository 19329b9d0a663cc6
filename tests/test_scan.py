"""`bega gateway scan` against the simulators as processes: what it writes is accepted by `check` and used by `run`."""

import asyncio
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import tty
from types import SimpleNamespace

import pytest

from bega.clock import mono_ms
from bega.devices import device_names, driver_class, load_driver, wire_of
from bega_gateway import config as configuration
from bega_gateway.scan import attempt, i2c, mbus, radio
from bega_gateway.scan.command import ALL_UNITS, _host_and_port, _rates
from bega_gateway.scan.document import as_json
from bega_gateway.scan.document import configuration as document
from bega_gateway.scan.findings import Findings, name_of_port
from bega_gateway.scan.modbus import scan_rtu, scan_tcp
from bega_gateway.scan.progress import Progress
from bega_gateway.scan.search import Search, holder
from bega_gateway.scan.serial_port import scan_port, ways_on
from bega_protocols.devices.mbus_meter.sim import Sim as HeatMeter
from bega_protocols.devices.modbus_meter.sim import Sim as Meter
from bega_protocols.mbus_search import PrimarySearch
from bega_protocols.reading import SUSPECT, Reading
from bega_simulators.hosts.mbus import MbusSegment
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer
from tests.conftest import IS_NIGHT
from tests.contract import make_sim, set_as_booked, through

BEGA = [sys.executable, "-m", "bega"]


def scan(
    *arguments: object, code: int | None = 0, timeout_s: float = 110, **options
) -> subprocess.CompletedProcess[str]:
    outcome = subprocess.run(
        [*BEGA, "gateway", "scan", *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, **options
    )
    assert code is None or outcome.returncode == code, outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stderr, outcome.stderr
    return outcome


@pytest.fixture
def wires(tmp_path, eventually):
    """Start `bega sim NAME`; give what it says once it is up."""
    started = []

    def start(name: str) -> dict[str, str]:
        ready, log = tmp_path / f"{name}.ready", tmp_path / f"{name}.log"
        with log.open("wb") as file:
            child = subprocess.Popen([*BEGA, "sim", name, "--ready-file", ready], stdout=file, stderr=file)
        started.append(child)
        eventually(lambda: ready.exists() or child.poll() is not None, f"{name} is up", 30)
        assert child.poll() is None, log.read_text()
        return json.loads(ready.read_text())

    yield start
    for child in started:
        child.terminate()
        child.wait(10)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_cellar_is_found_and_what_was_written_runs(wires, tmp_path, embedded, make_gateway, make_reader, eventually):
    """Talkers, asked devices, RS-485, M-Bus and Modbus TCP: nobody told the scan what hangs where."""
    cellar = wires("cellar")
    if not IS_NIGHT:  # its 250 addresses at each rate take 100 s; the others 40, and a smaller search is below
        del cellar["mbus"]
    file = tmp_path / "found.toml"
    ports = [word for name, port in cellar.items() if name != "tcp" for word in ("--port", port)]
    said = scan(*ports, "--modbus-tcp", cellar["tcp"], "--listen", 4, "-o", file, timeout_s=180).stderr
    check = subprocess.run([*BEGA, "gateway", "check", "--config", file], capture_output=True, text=True, timeout=60)
    assert check.returncode == 0, check.stderr
    found = tomllib.loads(file.read_text())
    devices = found["devices"].values()
    kinds = {cellar[name]: name for name in cellar}
    lines = {
        kinds[line.get("port", "") if line["kind"] != "modbus-tcp" else cellar["tcp"]]: name
        for name, line in found["lines"].items()
    }

    def on(wire: str) -> list[tuple[str, object]]:
        return sorted(
            (
                device["driver"],
                device.get("settings", {}).get("profile") or device.get("settings", {}).get("address", ""),
            )
            for device in devices
            if device["line"] == lines[wire]
        )

    assert on("p1") == [("dsmr_p1", "")]
    assert on("dust") == [("pms5003", "")]
    assert on("sml") == [("sml_meter", "")]
    assert on("co2") == [("mhz19", "")]
    assert on("iec") == [("iec62056_meter", "")]
    assert on("rs485") == [("modbus_meter", "em340"), ("modbus_meter", "sdm120"), ("modbus_meter", "sdm630")]
    if IS_NIGHT:
        assert on("mbus") == [("mbus_meter", "11223344.KAM.1B.04"), ("mbus_meter", "55667788.SEN.19.07")]
    assert on("tcp") == [("modbus_meter", "iem3155")]
    of_mbus = ["heat_energy 41400000000 J", "128.470 m3"] if IS_NIGHT else []
    for shown in ("co2 812 [ppm]", "active_energy_import 20417.382 kW.h", *of_mbus):
        assert shown in file.read_text(), "the values that the displays show"
    assert "unit 12 answered" in said
    text = re.sub(r"every_s = [0-9]+", "every_s = 3", file.read_text())
    reader = make_reader(embedded.url)
    running = make_gateway(
        text.replace('["mqtt://127.0.0.1:1883"]', f'["{embedded.url}"]') + '[feed]\nlisten = "127.0.0.1:0"\n'
    )
    running.start()
    wanted = set(found["devices"])
    eventually(lambda: wanted <= {record.device for record in reader.records}, "every device sends records", 60)


def test_json_says_what_was_found_and_the_document_stays_unwritten(wires):
    corner = wires("corner")
    found = json.loads(scan("--modbus-tcp", corner["hall"], "--json").stdout)
    (line,) = found["lines"]
    (device,) = line["devices"]
    assert line["kind"] == "modbus-tcp" and line["table"]["port"] == int(corner["hall"].rpartition(":")[2])
    assert device["settings"] == {"profile": "iem3155", "address": 1}
    assert any(reading["quantity"] == "voltage" for reading in device["readings"])


def test_nothing_found_says_so_with_code_1_and_writes_no_file(tmp_path):
    file = tmp_path / "found.toml"
    master, slave = pty.openpty()
    tty.setraw(slave)
    port = os.ttyname(slave)
    outcome = scan("--port", port, "--for", 3, "-o", file, code=1)
    assert "nothing was found" in outcome.stderr
    outcome = scan("--port", "/dev/ttyBega7", "--modbus-tcp", "127.0.0.1:1", code=1)
    assert "/dev/ttyBega7 is not there" in outcome.stderr and "127.0.0.1:1 refuses" in outcome.stderr
    assert "trying again" not in outcome.stderr, "a scan does not"
    assert not file.exists()
    os.close(master)
    os.close(slave)


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("mine")
    assert "--force" in scan("--port", "/dev/null", "-o", file, code=1).stderr
    assert file.read_text() == "mine"


def test_a_file_that_could_not_be_written_is_refused_before_minutes_of_looking(tmp_path):
    outcome = scan("--port", "/dev/ttyBega7", "-o", tmp_path / "none" / "found.toml", code=1)
    assert "is the folder there" in outcome.stderr and "ttyBega7" not in outcome.stderr


@pytest.mark.parametrize(
    "option", [("--baud", "0"), ("--baud", "fast"), ("--listen", "nan"), ("--listen", "-1"), ("--for", "-1")]
)
def test_number_that_cannot_be_is_refused_in_words(option):
    assert f"{option[0]}: '{option[1]}' is no" in scan("--port", "/dev/ttyBega7", *option, code=2).stderr


def test_an_interrupt_writes_what_was_found_so_far(wires, tmp_path):
    corner = wires("corner")
    file = tmp_path / "found.toml"
    master, slave = pty.openpty()  # a silent port: it takes a minute to be sure that nothing is there
    tty.setraw(slave)
    command = [*BEGA, "gateway", "scan", "--port", corner["pms"], "--port", os.ttyname(slave), "-o", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        while "pms5003 heard" not in child.stderr.readline():
            pass
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        assert time.monotonic() - began < 5
    assert [device["driver"] for device in tomllib.loads(file.read_text())["devices"].values()] == ["pms5003"]
    assert f"# {os.ttyname(slave)}: the scan was broken off" in file.read_text(), "nobody takes it for an empty port"
    os.close(master)
    os.close(slave)


# Parts


class Silent:
    """A terminal that nobody looks at."""

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def search(**changes) -> Search:
    facts = {"listen_s": 0.0, "units": range(1, 9), "modbus_rates": [(9600, "N")], "mbus_bauds": []} | changes
    return Search(Findings(), Progress(Silent()), mono_ms, **facts)


def sdm630(address: int) -> Meter:
    return Meter({"profile": {"part": "sdm630"}, "address": address}, seed=1)


@pytest.mark.slow
def test_only_reads_leave_the_gateway_and_a_bus_has_one_setting():
    seeking = search(modbus_rates=[(38400, "N"), (19200, "E")])
    with Rs485Segment({2: sdm630(2), 5: sdm630(5)}, 38400) as segment:
        assert asyncio.run(scan_rtu(seeking, segment.port, "a bus"))
        assert segment.counts.functions <= {3, 4}
        assert segment.counts.collisions == 0
    (line,) = seeking.findings.found()
    assert line.table["baud"] == 38400
    assert [device.settings["address"] for device in line.devices] == [2, 5]
    assert all(device.settings["profile"] == "sdm630" for device in line.devices)


def test_a_silent_unit_is_not_found_and_a_unit_without_profile_is_written_as_a_comment(tmp_path):
    class Stranger:
        """A slave that has other registers than any meter of ours."""

        def __init__(self) -> None:
            self.faults: set[str] = set()

        def answer(self, request: bytes) -> bytes | None:
            return bytes([request[0] | 0x80, 2])

    seeking = search()
    dead = sdm630(3)
    dead.faults.add("silent")
    with Rs485Segment({3: dead, 4: Stranger()}, 9600) as segment:
        assert asyncio.run(scan_rtu(seeking, segment.port, "a bus"))
    text = document(seeking.findings, "gw", 0)
    assert "# [devices.unit-4]" in text and "no profile that Bega brings" in text
    file = tmp_path / "found.toml"
    file.write_text(text)
    assert configuration.check(file) == (configuration.load(file), [])
    assert not configuration.load(file).devices


def test_meters_behind_a_slow_converter_are_found_and_one_that_answers_for_everybody_is_one_meter():
    class Everybody(dict):
        """A meter with a network port of its own: it does not look at the unit."""

        def __contains__(self, unit: object) -> bool:
            return True

        def __missing__(self, unit: int) -> Meter:
            return self[1]

    async def scenario(server: ModbusTcpServer) -> Search:
        seeking = search(units=range(1, 5))
        port = await server.start()
        assert await scan_tcp(seeking, "127.0.0.1", port)
        await server.stop()
        return seeking

    dead = sdm630(1)
    dead.faults.add("silent")
    slow = ModbusTcpServer({1: dead, 2: dead, 3: dead, 4: sdm630(4)})
    slow.silence_s = 0.7  # it asks nobody else meanwhile
    (line,) = asyncio.run(scenario(slow)).findings.found()
    assert [device.settings["address"] for device in line.devices] == [4], "also behind so many silent ones in a row"
    (line,) = asyncio.run(scenario(ModbusTcpServer(Everybody({1: sdm630(1)})))).findings.found()
    assert [device.settings["address"] for device in line.devices] == [1]


@pytest.mark.slow
def test_meters_that_share_an_address_are_found_by_what_is_printed_on_them(monkeypatch):
    monkeypatch.setattr(mbus, "PrimarySearch", lambda baud: PrimarySearch(baud, 0, 6))
    told = {"manufacturer": "KAM", "version": 0x1B, "medium": 0x04}
    meters = [{"address": 5, "identification": number, **told} for number in ("11223344", "11223399")]
    seeking = search(mbus_bauds=[19200, 9600])
    with MbusSegment([HeatMeter(meter, seed=1) for meter in meters], 19200) as segment:
        assert asyncio.run(mbus.scan_segment(seeking, segment.port, "a segment"))
    (line,) = seeking.findings.found()
    assert (line.kind, line.table["baud"], line.table["parity"]) == ("mbus", 19200, "N"), "a pty knows no parity"
    settings = [device.settings for device in line.devices]
    assert settings == [{"address": f"{meter['identification']}.KAM.1B.04", "baud": 19200} for meter in meters]
    assert all(device.readings for device in line.devices) and seeking.findings.notes == []


@pytest.mark.slow
def test_an_adapter_that_echoes_is_no_meter():
    master, slave = pty.openpty()
    tty.setraw(slave)
    ended = threading.Event()

    def echo() -> None:
        while not ended.is_set():
            if select.select([master], [], [], 0.05)[0]:
                os.write(master, os.read(master, 1000))

    adapter = threading.Thread(target=echo)
    adapter.start()
    seeking = search(units=[1, 2], mbus_bauds=[9600])
    asyncio.run(scan_port(seeking, os.ttyname(slave), ""))
    ended.set()
    adapter.join()
    assert seeking.findings.found() == []
    os.close(master)
    os.close(slave)


def test_sensors_on_an_i2c_bus_are_found_at_their_addresses_and_no_other_is_touched(monkeypatch):
    sims = {name: set_as_booked(name, make_sim(name)) for name in ("sht4x", "scd41")}
    by_address = {0x44: sims["sht4x"], 0x62: sims["scd41"]}
    touched = set()

    class Bus:
        """Takes each transfer to who is at its address."""

        def __init__(self, number, mono_ms) -> None:
            pass

        async def open(self) -> None:
            pass

        def close(self) -> None:
            pass

        async def exchange(self, ask):
            touched.add(ask.line["address"])
            sim = by_address.get(ask.line["address"])
            return through(ask, sim.answer(ask.write) if sim else None, "i2c")

    monkeypatch.setattr(i2c, "I2cWire", Bus)
    monkeypatch.setattr(attempt, "REST_S", 0.01)
    seeking = search()
    asyncio.run(i2c.scan_bus(seeking, 1))
    (line,) = seeking.findings.found()
    assert {(device.driver, device.settings.get("address")) for device in line.devices} >= {("sht4x", 0x44)}
    assert {device.driver for device in line.devices} == {"sht4x", "scd41"}
    assert not touched & set(range(0x50, 0x58)), "memories live there"


def test_somebody_who_is_not_understood_is_not_asked():
    """It may be the answers of a bus that has a master already: a second one would disturb it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    ended = threading.Event()

    def babble() -> None:
        while not ended.wait(0.05):
            os.write(master, b"who is there? ")

    talker = threading.Thread(target=babble)
    talker.start()
    seeking = search(listen_s=0.5)
    asyncio.run(scan_port(seeking, os.ttyname(slave), ""))
    ended.set()
    talker.join()
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 100)
    assert "no driver understands" in seeking.findings.notes[0]
    os.close(master)
    os.close(slave)


def test_a_port_that_another_program_has_is_named_with_it(tmp_path):
    file = tmp_path / "port"
    file.touch()
    program = "import sys; file = open(sys.argv[1]); print('open', flush=True); input()"
    command = [sys.executable, "-c", program, file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline()
        assert f"pid {child.pid}" in holder(str(file))
        child.communicate(b"\n")
    assert holder(str(file)) == ""


def test_every_driver_on_a_serial_wire_is_tried_by_itself():
    """Nobody keeps a list: a new folder is enough."""
    serial = {name for name in device_names() if wire_of(driver_class(name)) == "serial"}
    assert {way.name for way in ways_on("/dev/ttyUSB0")} == serial


@pytest.mark.parametrize("device", device_names())
def test_other_lines_of_a_device_are_such_as_its_driver_takes(device):
    driver = driver_class(device)
    for line, settings in getattr(driver, "also_found", ()):
        assert line.split()[0] == wire_of(driver)
        assert load_driver(device, settings)


def test_pseudo_terminal_is_opened_without_parity():
    assert {way.rate[1] for way in ways_on("/dev/pts/0")} == {"8N1"}
    assert "7E1" in {way.rate[1] for way in ways_on("/dev/ttyUSB0")}


@pytest.mark.parametrize(
    ("port", "name"),
    [
        ("/dev/serial/by-id/usb-FTDI_FT232R_p1-if00-port0", "FTDI_FT232R_p1"),
        ("/dev/ttyUSB0", "ttyUSB0"),
        ("/dev/pts/5", "pts-5"),
        ("port", "port"),
    ],
)
def test_line_is_named_after_its_port(port, name):
    assert name_of_port(port) == name


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("192.168.10.20", ("192.168.10.20", 502)),
        ("meter.local:1502", ("meter.local", 1502)),
        ("[fe80::1]:503", ("fe80::1", 503)),
        ("fe80::1", ("fe80::1", 502)),
    ],
)
def test_host_is_taken_with_and_without_a_port(given, place):
    assert _host_and_port(given) == place


@pytest.mark.parametrize("given", ["", "a b", "host:70000", "host:0", "http://host"])
def test_host_that_cannot_be_is_refused_before_anything_is_asked(given):
    assert "write a name or an address" in scan("--modbus-tcp", given, code=1).stderr


def test_baud_and_parity_replace_what_is_tried():
    assert _rates([], [])[0] == (9600, "N")
    assert _rates([1200], []) == [(1200, "N"), (1200, "E")]
    assert _rates([1200], ["O"]) == [(1200, "O")]
    assert len(ALL_UNITS) == 247


class Screen(Silent):
    """A terminal, and what is on its line."""

    def __init__(self) -> None:
        self.said = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.said += text
        return len(text)


def test_progress_rewrites_one_line_on_a_terminal_and_keeps_what_was_found():
    screen = Screen()
    progress = Progress(screen)
    progress.step("a", "Modbus", 3, 32)
    progress.step("b", "listening")
    progress.say("a: unit 4 answered")
    progress.done("b")
    assert "\n" in screen.said and screen.said.count("\n") == 1
    assert screen.said.rpartition("\x1b[K")[2] == "a: Modbus 3/32"
    assert "a: unit 4 answered\n" in screen.said


def test_names_stay_apart_and_what_a_device_says_cannot_leave_its_comment(tmp_path):
    findings = Findings()
    for number in (1, 2):
        line = findings.line("bus", "modbus-tcp", "a bus\n[lines.evil]", {"host": "h", "port": number})
        findings.add(
            line, "sdm 630", "modbus_meter", {"profile": "sdm630", "address": 1},
            fits_too=[{"profile": "sdm72", "address": 1}],
            readings=[Reading("voltage", 2304, -1, "l1"), Reading("co2", 400, 0, "", SUSPECT)],
            attributes={"maker": 'x"\n[devices.evil]\nline = "bus"\x00\x1b'},
        )  # fmt: skip
    text = document(findings, 'gw-"1"', 0)
    assert sorted(tomllib.loads(text)["devices"]) == ["sdm-630", "sdm-630-2"]
    assert sorted(tomllib.loads(text)["lines"]) == ["bus", "bus-2"]
    assert '# settings = { profile = "sdm72", address = 1 }  # fits as well' in text
    assert "voltage l1 230.4 V, co2 400 [ppm] (doubtful)" in text
    assert tomllib.loads(text)["gateway"]["name"] == 'gw-"1"'
    assert json.loads(as_json(findings))["lines"][0]["devices"][0]["readings"][0]["value"] == "230.4"


@pytest.mark.parametrize(
    ("kind", "driver", "audience"),
    [
        ("serial", "dsmr_p1", "personal"),
        ("mbus", "mbus_meter", "personal"),
        ("ble", "bthome", "personal"),
        ("serial", "pms5003", None),
        ("modbus-rtu", "modbus_meter", None),
    ],
)
def test_what_may_be_a_households_is_told_to_nobody_until_a_person_says_whose_it_is(kind, driver, audience):
    findings = Findings()
    findings.add(findings.line("wire", kind, "", {}), "found", driver, {})
    assert tomllib.loads(document(findings, "gw", 0))["devices"]["found"].get("audience") == audience


# Bluetooth


def advertisement(uuid: str, data: bytes, name: str = "") -> SimpleNamespace:
    return SimpleNamespace(service_data={uuid: data}, manufacturer_data={}, service_uuids=[], local_name=name)


def heard(*said: tuple[str, SimpleNamespace]) -> tuple[Search, str]:
    seeking = search()
    air = radio.Air(radio.drivers_on("ble"))
    for address, advertised in said:
        air.hear(SimpleNamespace(address=address), advertised)
    line = seeking.findings.line("ble-hci0", "ble", "Bluetooth by hci0", {"adapter": "hci0"})
    for address in sorted(air.said):
        radio._add(seeking, line, air, address)
    return seeking, document(seeking.findings, "gw", 0)


BTHOME = "0000fcd2-0000-1000-8000-00805f9b34fb"


def test_sensor_that_is_heard_is_read_and_a_stranger_is_not_kept():
    seeking, text = heard(
        ("F0:CA:FE:00:00:01", advertisement(BTHOME, bytes.fromhex("4002c409"), "balcony")),
        ("AA:AA:AA:AA:AA:AA", advertisement("0000180f-0000-1000-8000-00805f9b34fb", b"\x64", "somebody's phone")),
    )
    (line,) = seeking.findings.found()
    (device,) = line.devices
    assert device.driver == "bthome" and device.settings == {"address": "F0:CA:FE:00:00:01"}
    assert Reading("temperature", 2500, -2) in device.readings
    assert "AA:AA" not in text and "phone" not in text


def test_sensor_that_must_be_connected_to_is_configured_without_its_values():
    named = advertisement("0000181a-0000-1000-8000-00805f9b34fb", b"")
    named.service_data, named.service_uuids = {}, list(named.service_data)
    seeking, text = heard(("F0:CA:FE:00:00:03", named))
    (line,) = seeking.findings.found()
    assert [(device.driver, device.lacks) for device in line.devices] == [("environmental_sensing", "")]
    assert "[devices.environmental_sensing-0003]" in text


def test_encrypted_sensor_is_a_comment_that_says_what_is_missing(tmp_path):
    _, text = heard(
        ("54:48:E6:8F:80:A5", advertisement(BTHOME, bytes.fromhex("41e445f3c962b332211006c7c4519bfa"))),
        ("F0:CA:FE:00:00:01", advertisement(BTHOME, bytes.fromhex("4002c409"))),
    )
    assert "put this sensor's key into its settings" in text
    file = tmp_path / "found.toml"
    file.write_text(text)
    config, problems = configuration.check(file)
    assert config and not problems
    assert [device.settings["address"] for device in config.devices.values()] == ["F0:CA:FE:00:00:01"]
    assert "54:48:E6:8F:80:A5" in text


@pytest.mark.slow
def test_park_is_found_by_its_air(wires, tmp_path):
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is missing: apt-get install dbus")
    air = wires("ble")
    file = tmp_path / "park.toml"
    scan("--ble", "hci0", "-o", file, env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": air["bus"]})
    found = tomllib.loads(file.read_text())["devices"]
    assert "F0:CA:FE:00:00:01" in [device["settings"]["address"] for device in found.values()]
    assert "F0:CA:FE:00:00:02" in file.read_text(), "the encrypted one, as a comment"
    assert "F0:CA:FE:00:00:02" not in str(found)


def test_without_a_bluetooth_the_scan_says_what_to_do(tmp_path):
    outcome = scan("--ble", "hci7", code=1, env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/none"})
    assert "D-Bus is not there" in outcome.stderr
