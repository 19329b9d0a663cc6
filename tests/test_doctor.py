"""`bega gateway doctor`: real configurations, each broken in one way, and the doctor names the cause first.

A gateway runs on real brokers, ports and simulators, in this process, where ten seconds count as silence. What hardware
alone shows is in the runbook.
"""

import argparse
import asyncio
import contextlib
import datetime
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bega.broker import accepts_mqtt, free_port, free_ports
from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway import app, health, status
from bega_gateway.config import load
from bega_gateway.control import NoAnswer, NoGateway, Origin, ask_to_lend
from bega_gateway.doctor import closely, heard, machine, modbus
from bega_gateway.doctor.broker import of_broker
from bega_gateway.doctor.command import doctor as doctor_here
from bega_gateway.doctor.examine import findings
from bega_gateway.doctor.finding import Finding, as_json, in_order, text
from bega_gateway.doctor.look import Look
from bega_gateway.lines.station import Station
from bega_gateway.status import Counts, OfAdapter, OfDevice, OfSpool, OfUplink, Status
from bega_protocols.devices.bthome.sim import Sim as BthomeSensor
from bega_protocols.devices.modbus_meter.sim import Sim as Meter
from bega_protocols.devices.pms5003.sim import Sim as Pms5003
from bega_protocols.devices.sml_meter.sim import Sim as SmlMeter
from bega_protocols.errors import ConfigError
from bega_simulators.hosts.pty import RATES, PtyHost, sampled
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer
from tests.conftest import MOSQUITTO

pytestmark = pytest.mark.slow  # silence takes its time

NAME = "gw-doctor"
HEAD = """
[gateway]
name = "gw-doctor"
city = "timisoara"
state_dir = "{state}"
commit_window_s = 0.05
[uplink]
brokers = ["{broker}"]
{credentials}
"""
TALKER = """
[lines.air]
kind = "serial"
port = "{port}"
[devices.yard]
line = "air"
driver = "pms5003"
every_s = 0.2
"""
BUS = """
[lines.cellar]
kind = "modbus-rtu"
port = "{port}"
baud = {baud}
timeout_s = 0.3
"""
METER = """
[devices.meter-{unit}]
line = "cellar"
driver = "modbus_meter"
every_s = 0.5
settings = {{ profile = "sdm630", address = {unit} }}
"""
TCP = """
[lines.cellar]
kind = "modbus-tcp"
host = "127.0.0.1"
port = {port}
timeout_s = 0.5
"""
NODE = """
[lines.nodes]
kind = "mqtt"
broker = "{broker}"
[nodes.air-1]
line = "nodes"
"""
SILENCE_S = 4.0
QUIET = Look(
    said_by=lambda command: None, root=Path("/nonexistent"), listen_s=3.0
)  # a machine that tells nothing of itself


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Write a configuration; what counts as silence is short."""
    monkeypatch.setattr(health, "SHORTEST_SILENCE_S", SILENCE_S)
    monkeypatch.setattr(health, "NODE_SILENCE_S", SILENCE_S)
    monkeypatch.setattr("bega_gateway.build.NODE_SILENCE_S", SILENCE_S)
    monkeypatch.setattr(closely, "ANOTHER_S", 2.0)  # at each of nine rates

    def write(rest: str, broker: str = "mqtt://127.0.0.1:1", credentials: str = "") -> Path:
        file = tmp_path / "gateway.toml"
        head = HEAD.format(state=tmp_path / "state", broker=broker, credentials=credentials)
        file.write_text(head + rest)
        return file

    return write


def told(state: Path) -> Status | None:
    with contextlib.suppress(NoGateway):
        return status.asked(state)
    return None


@contextlib.asynccontextmanager
async def gateway(file: Path):
    """Run the gateway of `file`; give what asks it how it is."""
    stop = asyncio.Event()
    config = load(file)
    origin = Origin(str(file), [])
    source = app.Source(origin, lambda: (load(file), []))
    running = asyncio.ensure_future(app.run(config, source, app.Clocks(wall_ms, mono_ms), None, stop))
    state = Path(config.gateway.state_dir)
    try:
        while await asyncio.to_thread(told, state) is None:
            assert not running.done(), running.exception()
            await asyncio.sleep(0.05)
        yield lambda: asyncio.to_thread(told, state)
    finally:
        stop.set()
        await asyncio.wait_for(running, 15)


async def until(holds, within_s: float = 45.0):
    """Wait until what `holds` awaits is true; return it."""
    async with asyncio.timeout(within_s):
        while not (found := await holds()):  # noqa: ASYNC110 - who is asked over a socket sets no event
            await asyncio.sleep(0.1)
        return found


async def diagnosed(file: Path, look: Look = QUIET, hosts=(), is_ready=None) -> list[Finding]:
    """Return what the doctor finds once every device that is not heard counts as silent."""
    tasks = [asyncio.ensure_future(host.run()) for host in hosts]
    try:
        async with gateway(file) as asked:

            async def settled():
                now = await asked()
                ready = is_ready(now) if is_ready else all(each.is_heard or each.is_silent for each in now.devices)
                return now if ready else None

            now = await until(settled)
            found = await findings(load(file), now, look, closely=True)
            assert await asked() is not None, "the gateway goes on"
            return found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def first(found: list[Finding]) -> str:
    """Return the cause that is named first, of what is no matter of the broker that no test here has."""
    return next((finding.cause for finding in found if finding.cause != "nothing listens"), "none")


class OffRate(PtyHost):
    """A device that speaks at its own rate, whatever the reader has set; `upside_down`: with A and B swapped."""

    def __init__(self, sim, baud: int, upside_down: bool = False) -> None:
        super().__init__(sim, baud, lambda: 3 * wall_ms())  # it speaks three times a second, and is heard the sooner
        self._upside_down = upside_down

    def _as_reader_hears(self, octets: bytes) -> bytes:
        if self._upside_down:
            return inverted(octets)
        return sampled(octets, self._baud, self._reader_baud())


def inverted(octets: bytes) -> bytes:
    """Return what a UART reads of `octets` at the right rate and the wrong level, where they follow on each other.

    A character whose stop bit is missing arrives as a zero, as Linux hands it on.
    """
    levels = [1 - bit for octet in octets for bit in (0, *(octet >> place & 1 for place in range(8)), 1)]
    heard, now = bytearray(), 0
    while now < len(levels):
        if levels[now]:
            now += 1
            continue
        bits = [levels[now + place] if now + place < len(levels) else 0 for place in range(1, 10)]
        heard.append(sum(bit << place for place, bit in enumerate(bits[:8])) if bits[8] else 0)
        now += 10
        while now < len(levels) and not levels[now]:  # after a break it waits for the line to rise
            now += 1
    return bytes(heard)


class OffRateBus(Rs485Segment):
    """A bus whose slaves have a rate of their own: at another one nobody understands anybody."""

    def __init__(self, sims, baud: int) -> None:
        super().__init__(sims, baud=baud)
        self._rate = baud

    def _hear_master(self, octets: bytes, now_s: float) -> None:
        set_baud = RATES.get(termios.tcgetattr(self._master)[5], self._rate)
        super()._hear_master(sampled(octets, set_baud, self._rate), now_s)


class SwappedBus(Rs485Segment):
    """A bus with A and B swapped: each question comes back as breaks, and no slave understands it."""

    def _hear_master(self, octets: bytes, now_s: float) -> None:
        for octet in inverted(octets):
            self._tell_master(octet)


# ------------------------------------------------------------------ lines


def meters(*units: int) -> dict[int, Meter]:
    return {unit: Meter({"profile": {"part": "sdm630"}, "address": unit}, seed=unit) for unit in units}


def bus_of(port: str, *units: int, baud: int = 9600) -> str:
    return BUS.format(port=port, baud=baud) + "".join(METER.format(unit=unit) for unit in units)


@pytest.mark.parametrize(
    ("sim", "baud", "upside_down", "cause"),
    [
        (Pms5003, 9600, False, "none"),
        (Pms5003, 4800, False, "wrong baud"),
        (Pms5003, 9600, True, "bytes make no sense"),  # the first that is named is the level
        (SmlMeter, 9600, False, "another device"),
        (None, 9600, False, "talker silent"),
    ],
)
def test_a_talker(place, sim, baud, upside_down, cause):
    made = (sim or Pms5003)({}, 1)
    if sim is None:
        made.faults.add("silent")
    host = OffRate(made, baud, upside_down)
    found = asyncio.run(diagnosed(place(TALKER.format(port=host.port)), hosts=[host]))
    assert first(found) == cause, "\n".join(text(found))
    if cause == "wrong baud":
        assert found[0].where == "lines.air.baud" and "baud = 4800" in found[0].remedy


@pytest.mark.parametrize(
    ("make", "asked", "cause"),
    [
        (lambda: Rs485Segment(meters(1, 2)), (1, 2), "none"),
        (lambda: OffRateBus(meters(1), 19200), (1,), "wrong baud"),
        (lambda: SwappedBus(meters(1)), (1,), "A and B swapped"),
        (lambda: Rs485Segment(meters(7)), (1,), "wrong unit"),
        (lambda: Rs485Segment(meters(1)), (1, 2), "device silent"),
        (lambda: Rs485Segment({}), (1,), "line silent"),
    ],
)
def test_a_bus(place, make, asked, cause):
    with make() as segment:
        found = asyncio.run(diagnosed(place(bus_of(segment.port, *asked))))
    assert first(found) == cause, "\n".join(text(found))


def test_an_adapter_that_was_pulled_out(place, tmp_path):
    link = tmp_path / "usb-adapter"
    with Rs485Segment(meters(1), link=link) as segment:
        file = place(bus_of(segment.port, 1))

        async def work():
            async with gateway(file) as asked:

                async def heard():
                    return all(each.is_heard for each in (await asked()).devices)

                await until(heard)
                segment.unplug()

                async def silent():
                    now = await asked()
                    return now if all(each.is_silent for each in now.devices) else None

                return await findings(load(file), await until(silent), QUIET, closely=True)

        found = asyncio.run(work())
    assert first(found) == "port gone" and str(link) in found[0].evidence


def test_a_port_that_another_program_has(place):
    import serial

    host = OffRate(Pms5003({}, 1), 9600)
    with serial.Serial(host.port, exclusive=True):
        found = asyncio.run(diagnosed(place(TALKER.format(port=host.port)), hosts=[host]))
    assert first(found) == "port in use" and "fuser" in "".join(text(found))


def test_a_line_is_lent_only_while_nobody_is_heard_and_reads_again_afterwards(place, tmp_path):
    sim = Pms5003({}, 1)
    sim.faults.add("silent")
    host = OffRate(sim, 9600)
    file = place(TALKER.format(port=host.port))
    state = tmp_path / "state"

    async def work():
        running = asyncio.ensure_future(host.run())
        async with gateway(file) as asked:

            async def heard():
                now = await asked()
                return now.devices and now.devices[0].is_heard

            writer = await ask_to_lend(state, "air")
            assert (await asked()).devices == [], "the gateway has let go of it"
            sim.faults.discard("silent")
            writer.transport.abort()
            await until(heard)
            with pytest.raises(ConfigError, match="yard is heard on air"):
                await ask_to_lend(state, "air")
            with pytest.raises(ConfigError, match="no line 'none'"):
                await ask_to_lend(state, "none")
        running.cancel()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("units", "cause"), [((1,), "none"), ((2,), "silent behind a converter"), (None, "server away")]
)
def test_a_converter(place, units, cause):
    async def work():
        server = ModbusTcpServer(meters(*(units or ())))
        port = await server.start()
        if units is None:
            await server.stop()
        try:
            return await diagnosed(place(TCP.format(port=port) + METER.format(unit=1)))
        finally:
            await server.stop()

    found = asyncio.run(work())
    assert first(found) == cause, "\n".join(text(found))
    if units == (2,):
        assert "0x0B" in found[0].evidence


class Seconds:
    """A clock that goes on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        self.ms += 1000
        return self.ms


@pytest.mark.parametrize("mute", [range(1, 41), range(2, 41)])
def test_a_server_with_many_units_that_says_nothing_is_left_after_a_while(place, monkeypatch, mute):
    """Each look at the clock takes a second: ten questions to configured units, and as many to others."""
    monkeypatch.setattr(modbus, "TCP_MS", 20)
    server = ModbusTcpServer(meters(*range(1, 80)))
    for unit, meter in server.sims.items():
        if unit > 40 or unit in mute:
            meter.faults.add("silent")
    said: list[str] = []

    async def work():
        port = await server.start()
        config = load(place(TCP.format(port=port) + "".join(METER.format(unit=unit) for unit in range(1, 41))))
        look = replace(QUIET, mono_ms=Seconds(), say=said.append)
        try:
            return await modbus.of_bus("cellar", config.lines["cellar"], config.devices, look)
        finally:
            await server.stop()

    found = asyncio.run(work())
    assert server.questions <= 2 * 11 + 11
    assert any("30 of 40 devices are not asked" in line for line in said), said
    assert any("asking unit 3, 3 of 40" in line for line in said)
    if mute[0] == 1:
        assert [finding.cause for finding in found] == ["server mute"]
        assert "0 answers of 10 devices, 30 others were not asked" in found[0].evidence
    else:
        assert {finding.cause for finding in found} == {"device silent"}, "what was not asked is not called silent"
        assert len(found) == 9


def test_a_segment_with_many_meters_that_say_nothing_is_left_after_a_while(place, monkeypatch):
    """Each look at the clock takes a second."""
    asked, said = [], []

    async def nothing(port, rate, device, look):
        asked.append((device.settings["address"], rate))
        return False

    monkeypatch.setattr(closely, "_speaks", nothing)
    line = '[lines.cellar]\nkind = "mbus"\nport = "/dev/null"\n'
    meter = '[devices.m{0}]\nline = "cellar"\ndriver = "mbus_meter"\nsettings = {{ address = {0} }}\n'
    config = load(place(line + "".join(meter.format(unit) for unit in range(1, 101))))
    look = replace(QUIET, mono_ms=Seconds(), say=said.append)
    found = asyncio.run(closely._of_line("cellar", config.lines["cellar"], config.devices, look))
    assert [finding.cause for finding in found] == ["line silent"]
    assert "0 answers of 20 devices" in found[0].evidence and "80 others were not asked" in found[0].evidence
    assert any("80 of 100 devices are not asked" in line for line in said)
    assert len(asked) < 30


def test_a_register_that_the_device_does_not_have(place):
    tags = """
[devices.boiler]
line = "cellar"
driver = "modbus_meter"
every_s = 0.2
settings = { address = 1 }
[[devices.boiler.tags]]
quantity = "voltage"
function = 4
address = 60000
type = "float32"
"""
    with Rs485Segment(meters(1)) as segment:
        file = place(BUS.format(port=segment.port, baud=9600) + tags)
        found = asyncio.run(diagnosed(file, is_ready=lambda now: now.devices[0].lacking))
    assert first(found) == "numbers refused" and "voltage" in found[0].evidence


def test_a_port_that_the_gateways_user_may_not_open(place, tmp_path, monkeypatch):
    host = OffRate(Pms5003({}, 1), 9600)
    Path(host.port).chmod(0o600)
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setattr("bega_gateway.doctor.ports._gateway_user", lambda state: 65534)
    uplink = OfUplink(connected_to="mqtt://localhost")
    now = Status(gateway=NAME, boot=1, wall_ms=wall_ms(), mono_ms=mono_ms(), up_s=60, uplink=uplink)
    found = asyncio.run(findings(load(place(TALKER.format(port=host.port))), now, QUIET))
    assert first(found) == "port closed to us" and "usermod -aG dialout nobody" in found[0].remedy


# ------------------------------------------------------------------ radio and nodes


def heard_of(driver_name: str, settings: dict, advertisements: list[bytes], adapter: OfAdapter, file: Path):
    """Return what the doctor makes of a sensor whose advertisements a real driver was fed."""
    driver = load_driver(driver_name, settings)

    async def deliver(groups, wall_ms):
        pass

    station = Station("park", driver, 10, deliver)
    for at_ms, chunk in enumerate(advertisements):
        groups = driver.feed(chunk, at_ms)
        station.take_damage()
        station.counters.records += len(groups)
    device = OfDevice(
        name="park", line="radio", watched_s=99, quiet_after_s=30,
        counts=status.Counts(**vars(station.counters)), damage=station.damage,
    )  # fmt: skip
    now = Status(
        gateway=NAME, boot=1, wall_ms=wall_ms(), mono_ms=mono_ms(), up_s=9, devices=[device], adapters=[adapter],
        uplink=OfUplink(connected_to="b"),
    )  # fmt: skip
    return asyncio.run(findings(load(file), now, QUIET))


RADIO = """
[lines.radio]
kind = "ble"
[devices.park]
line = "radio"
driver = "bthome"
settings = { address = "A4:C1:38:11:22:33", key = "231d39c1d7cc1ab1aee224cd096db932" }
"""
SENSOR = {"address": "A4:C1:38:11:22:33", "key": "231d39c1d7cc1ab1aee224cd096db932"}
OTHER_KEY = {**SENSOR, "key": "00" * 16}


def advertised(settings: dict, count: int) -> list[bytes]:
    sim = BthomeSensor(settings, 1)
    sim.set("temperature", "", 21)
    said = [sim.tick(20_000 * (number + 1)) for number in range(count)]
    return [each for each in said if each]


@pytest.mark.parametrize(
    ("said", "adapter", "cause"),
    [
        (advertised(OTHER_KEY, 4), OfAdapter(line="radio", adapter="hci0", ours=4, foreign=9), "wrong key"),
        (advertised(SENSOR, 4)[::-1], OfAdapter(line="radio", adapter="hci0", ours=4, foreign=9), "replay"),
        ([], OfAdapter(line="radio", adapter="hci0", foreign=9), "sensor silent"),
        ([], OfAdapter(line="radio", adapter="hci0", resets=2), "adapter deaf"),
    ],
)
def test_a_bluetooth_sensor(place, said, adapter, cause):
    found = heard_of("bthome", SENSOR, said, adapter, place(RADIO))
    assert first(found) == cause, "\n".join(text(found))
    assert ("a beacon keeps nothing" in found[0].remedy) == (cause == "sensor silent")


def test_a_node_that_is_not_heard(place, mosquitto):
    found = asyncio.run(diagnosed(place(NODE.format(broker=mosquitto.url), mosquitto.url)))
    assert first(found) == "node silent" and found[0].where == "nodes.air-1"


UPLINK = """
[lines.shaft]
kind = "uplink"
port = "{port}"
[nodes.air-1]
line = "shaft"
"""


def test_a_node_on_a_wire_that_does_not_answer(place):
    master, slave = os.openpty()
    try:
        found = asyncio.run(diagnosed(place(UPLINK.format(port=os.ttyname(slave)))))
    finally:
        os.close(master)
        os.close(slave)
    assert first(found) == "node silent" and found[0].where == "nodes.air-1"
    assert "A and B" in found[0].remedy and "115200" in found[0].remedy


def test_a_port_of_nodes_that_is_not_there(place, tmp_path):
    found = asyncio.run(diagnosed(place(UPLINK.format(port=tmp_path / "none"))))
    assert first(found) == "port gone" and found[0].where == "lines.shaft.port"


# ------------------------------------------------------------------ brokers and certificates


class Authority:
    """A small CA, and the files that it issues."""

    def __init__(self, folder: Path, name: str = "city") -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(self._signed(name, self._key, -1, 999, True).public_bytes(Encoding.PEM))

    def issue(self, name: str, file: str, since_days: int = -1, until_days: int = 365) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        cert_file, key_file = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        cert_file.write_bytes(self._signed(name, key, since_days, until_days, False).public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert_file, key_file

    def _signed(self, name, key, since_days, until_days, is_authority):
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)])
        builder = x509.CertificateBuilder().subject_name(named).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + since_days * day).not_valid_after(now + until_days * day)
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def secured(tmp_path, eventually):
    """A mosquitto that wants a certificate, and lets each name write and read what is its own."""
    folder = tmp_path / "broker"
    folder.mkdir()
    authority = Authority(folder)
    cert_file, key_file = authority.issue("localhost", "broker")
    port, plain = free_ports(2)
    (folder / "acl").write_text("pattern readwrite city/+/%u/#\n")
    (folder / "mosquitto.conf").write_text(
        f"per_listener_settings true\nuser {getpass.getuser()}\nlistener {plain} 127.0.0.1\nallow_anonymous true\n"
        f"listener {port}\ncafile {authority.ca_file}\ncertfile {cert_file}\nkeyfile {key_file}\n"
        f"require_certificate true\nuse_identity_as_username true\nacl_file {folder}/acl\n"
    )
    child = subprocess.Popen([MOSQUITTO, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    eventually(lambda: accepts_mqtt("127.0.0.1", plain), "mosquitto is up")
    yield SimpleNamespace(
        child=child, authority=authority, url=f"mqtts://localhost:{port}", plain=plain, port=port, folder=folder
    )
    child.terminate()
    child.wait(10)


def credentials(ca_file: Path, cert_file: Path, key_file: Path) -> str:
    return f'ca_file = "{ca_file}"\ncert_file = "{cert_file}"\nkey_file = "{key_file}"\n'


def of_uplink(file: Path, look: Look = QUIET) -> list[Finding]:
    """Return what is found of a gateway that has been away from its broker for a minute."""
    now = Status(gateway=NAME, boot=1, wall_ms=wall_ms(), mono_ms=mono_ms(), up_s=60)
    return asyncio.run(findings(load(file), now, look))


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ("nothing", "uplink down"),  # the doctor comes through: it says just that
        ("expired", "certificate expired"),
        ("not yet", "certificate not valid yet"),
        ("name", "certificate of another"),
        ("key", "key does not fit"),
        ("authority of the broker", "broker not trusted"),
        ("authority of ours", "certificate refused"),
        ("access list", "access list"),
        ("file", "certificate file"),
    ],
)
def test_a_certificate(place, tmp_path, secured, broken, cause):
    authority = secured.authority
    stranger = Authority(tmp_path, "stranger")
    issuer = stranger if broken == "authority of ours" else authority
    days = {"expired": (-30, -1), "not yet": (1, 30)}.get(broken, (-1, 365))
    cert_file, key_file = issuer.issue("gw-other" if broken == "name" else NAME, "own", *days)
    if broken == "key":
        key_file = authority.issue(NAME, "second")[1]
    if broken == "file":
        key_file.write_text("no key")
    if broken == "access list":
        (secured.folder / "acl").write_text("pattern readwrite elsewhere/%u/#\n")
        secured.child.send_signal(signal.SIGHUP)
    ca_file = stranger.ca_file if broken == "authority of the broker" else authority.ca_file
    found = of_uplink(place("", secured.url, credentials(ca_file, cert_file, key_file)))
    assert first(found) == cause, "\n".join(text(found))


def test_a_certificate_that_expires_soon_stops_nothing(place, secured):
    files = secured.authority.issue(NAME, "own", -300, 10)
    found = of_uplink(place("", secured.url, credentials(secured.authority.ca_file, *files)))
    soon = next(finding for finding in found if finding.cause == "certificate expires soon")
    assert not soon.stops_readings and found[-1] == soon


@pytest.mark.parametrize(
    ("broker", "cause"),
    [
        ("mqtt://127.0.0.1:{free}", "nothing listens"),
        ("mqtt://no-such-name.invalid", "name unknown"),
        ("mqtts://localhost:{plain}", "no TLS"),
        ("mqtt://localhost:{secure}", "no broker there"),
    ],
)
def test_a_broker(place, secured, broker, cause):
    url = broker.format(free=free_port(), plain=secured.plain, secure=secured.port)
    found = of_uplink(place("", url))
    assert found[0].cause == cause, "\n".join(text(found))


def test_an_answer_to_connect_that_comes_byte_by_byte():
    async def work():
        async def drip(reader, writer):
            await reader.read(100)
            for octet in b"\x20\x02\x00\x05":
                writer.write(bytes((octet,)))
                await asyncio.sleep(0.1)
            writer.close()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return await of_broker("uplink", url, SimpleNamespace(ca_file=None, cert_file=None, key_file=None), NAME, "")

    found = asyncio.run(work())
    assert found and found.cause == "broker refuses", found


# ------------------------------------------------------------------ the machine


def test_a_gateway_that_runs_and_wants_for_nothing(place, mosquitto, sensor):
    file = place(TALKER.format(port=sensor.port), mosquitto.url)
    found = asyncio.run(diagnosed(file, is_ready=lambda now: now.uplink.connected_to and now.devices[0].is_heard))
    assert found == []


def test_a_gateway_that_does_not_run(place, mosquitto):
    unit = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=watchdog\nNRestarts=7"
    look = Look(said_by=lambda command: unit if command[0] == "systemctl" else None, root=Path("/nonexistent"))
    found = asyncio.run(findings(load(place("", mosquitto.url)), None, look))
    assert [finding.cause for finding in found] == ["not running"]
    assert "watchdog" in found[0].evidence and "journalctl" in found[0].remedy


def test_a_state_that_root_spoilt(place, tmp_path, mosquitto):
    if os.geteuid():
        pytest.skip("only root can give a file to another user")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    (state / "spool.db").touch(0o600)
    found = asyncio.run(findings(load(place("", mosquitto.url)), None, QUIET))
    assert first(found) == "state of another user" and "chown" in found[0].remedy


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root with CAP_SYS_ADMIN can mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def on(disk: Path, file: Path) -> Path:
    """Have the state lie on `disk`."""
    file.write_text(file.read_text().replace(str(file.parent / "state"), str(disk / "state")))
    return file


def test_a_full_disk(place, small_disk, mosquitto, sensor):
    file = on(small_disk, place(TALKER.format(port=sensor.port), mosquitto.url))

    async def work():
        async with gateway(file) as asked:
            with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as filler:
                while True:
                    filler.write(bytes(4096))
            return await findings(load(file), await asked(), QUIET)

    found = asyncio.run(work())
    assert found[0].cause == "disk full" and found[0].stops_readings, "\n".join(text(found))


def test_a_read_only_disk(place, small_disk, mosquitto):
    file = on(small_disk, place("", mosquitto.url))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    found = asyncio.run(findings(load(file), None, QUIET))
    assert [finding.cause for finding in found] == ["disk read-only", "not running"]


def test_a_clock_that_was_never_set(place, secured):
    files = secured.authority.issue(NAME, "own")
    file = place("", secured.url, credentials(secured.authority.ca_file, *files))
    found = of_uplink(file, Look(wall_ms=lambda: 0, said_by=lambda command: None))
    assert first(found) == "clock not set" and "1970-01-01" in found[0].evidence and found[0].stops_readings


def test_a_machine_without_a_time_server_and_with_a_weak_supply(place, mosquitto):
    says = {"timedatectl": "no", "vcgencmd": "throttled=0x50005"}
    now = Status(gateway=NAME, boot=1, wall_ms=0, mono_ms=0, up_s=60, uplink=OfUplink(connected_to=mosquitto.url))
    look = Look(said_by=lambda command: says.get(command[0]), root=Path("/nonexistent"))
    found = asyncio.run(findings(load(place("", mosquitto.url)), now, look))
    assert [finding.cause for finding in found] == ["undervoltage", "clock not synchronised"]
    assert not any(finding.stops_readings for finding in found)


@pytest.mark.parametrize(
    ("lines", "lacks"),
    [
        ("persistence false", 3),
        ("persistence true\nautosave_interval 1\n#max_queued_messages 200000\n", 1),
        ("persistence true\nautosave_interval 1\nmax_queued_messages 200000\n", 0),
        (" persistence 1\nautosave_interval 1\n\n max_queued_messages 0\n", 0),  # 0: without end
    ],
)
def test_a_local_broker_that_forgets(place, mosquitto, tmp_path, lines, lacks):
    folder = tmp_path / "etc/mosquitto"
    folder.mkdir(parents=True)
    (folder / "mosquitto.conf").write_text(lines)
    look = Look(said_by=lambda command: None, root=tmp_path)
    now = Status(gateway=NAME, boot=1, wall_ms=0, mono_ms=0, up_s=60, uplink=OfUplink(connected_to=mosquitto.url))
    found = asyncio.run(findings(load(place("", mosquitto.url)), now, look))
    assert [finding.cause for finding in found] == (["broker forgets"] if lacks else [])
    assert sum(finding.evidence.count(",") + 1 for finding in found) == lacks


# ------------------------------------------------------------------ the command


def doctor(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bega", "gateway", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_command_says_what_is_wrong_and_what_to_do(place):
    file = place(TALKER.format(port="/dev/serial/by-id/usb-none"))
    shown = doctor("--config", file)
    assert shown.returncode == 1
    assert shown.stdout.startswith("1. gateway: the gateway does not run\n   seen: ") and "do:   " in shown.stdout
    assert "\n2. lines.air.port: the adapter is gone\n" in shown.stdout
    causes = [finding["cause"] for finding in json.loads(doctor("--config", file, "--json", "--no-wires").stdout)]
    assert causes[:2] == ["not running", "port gone"]


def test_command_explains_a_configuration_that_cannot_be_used(place):
    file = place(TALKER.format(port="/dev/x").replace("pms5003", "pms"))
    found = json.loads(doctor("--config", file, "--json").stdout)
    assert found[0]["cause"] == "configuration" and "devices.yard.driver" in found[0]["where"]


@contextlib.contextmanager
def one_that_answers(state: Path, answer: bytes):
    """A gateway that answers each question with `answer`; with b"" it hangs."""
    state.mkdir()
    held = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "control.sock"))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    if answer:
                        held[-1].recv(100)
                        held[-1].sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


@pytest.mark.parametrize("answer", [b"", b"\n", b"[]\n", b'{"gateway":"gw-doctor","boot":1,"wall_ms":"x"}\n'])
def test_a_gateway_that_hangs_or_is_of_another_release(place, tmp_path, monkeypatch, capsys, answer):
    monkeypatch.setattr("bega_gateway.control.TELL_WITHIN_S", 1.0)
    file = place(TALKER.format(port="/dev/tty"))
    arguments = argparse.Namespace(config=file, set=[], json=True, no_wires=False)
    with one_that_answers(tmp_path / "state", answer):
        assert doctor_here(arguments) == 1
        with pytest.raises(NoAnswer):
            status.status(arguments)
    found = json.loads(capsys.readouterr().out)
    causes = [finding["cause"] for finding in found]
    assert causes[0] == "gateway does not answer" and "not running" not in causes
    assert "nothing listens" in causes, "the machine and the brokers are looked at all the same"


def test_a_gateway_refuses_what_it_cannot_do_and_forgets_nonsense(place, tmp_path, caplog):
    async def asked_for(question: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "state/control.sock"))
        writer.write(question + b"\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer

    async def work():
        async with gateway(
            place(TALKER.format(port="/dev/serial/by-id/usb-none") + NODE.format(broker="mqtt://[::1]:1"))
        ):
            for question in (b'record {"line": "none", "for_s": 1}', b'lend "none"', b'lend "nodes"'):
                assert "refused" in json.loads(await asked_for(question)), question
            for question in (b"lend " + b"[" * 15_000, b"lend", b"x" * 20_000, b'record {"none": 1}'):
                assert await asked_for(question) == b""

    asyncio.run(work())
    assert not [said for said in caplog.messages if "Unhandled" in said]


def test_a_state_that_is_a_file(place, tmp_path, mosquitto):
    file = place("", mosquitto.url)
    (tmp_path / "state").write_text("no folder")
    found = asyncio.run(findings(load(file), None, QUIET))
    assert [finding.cause for finding in found] == ["state is no folder", "not running"]
    assert "has never run" not in "".join(text(found))


def test_a_file_that_is_missing_is_named_as_the_place(tmp_path):
    file = tmp_path / "none.toml"
    (found,) = json.loads(doctor("--config", file, "--json").stdout)
    assert found["where"] == str(file) and "cannot be read" in found["evidence"]
    assert "is this its path?" in found["remedy"], "there is nothing to correct in it"


def test_a_file_that_was_mended_and_not_reloaded(place):
    with OffRateBus(meters(1), 19200) as segment:
        file = place(bus_of(segment.port, 1))

        async def work():
            async with gateway(file) as asked:

                async def silent():
                    now = await asked()
                    return now if all(each.is_silent for each in now.devices) else None

                now = await until(silent)
                place(bus_of(segment.port, 1, baud=19200))
                return await findings(load(file), now, QUIET, closely=True)

        found = asyncio.run(work())
    assert first(found) == "heard by the doctor" and "reload" in found[0].remedy, "\n".join(text(found))
    assert all(finding.cause != "line silent" for finding in found)


@pytest.mark.parametrize(
    ("how", "causes"),
    [
        ({"quality": 0}, []),
        ({"quality": 1, "watched_s": 60}, []),  # it may be warming up
        ({"quality": 1, "watched_s": 900}, ["readings suspect"]),
        ({"quality": 2, "watched_s": 60}, ["readings stale"]),
        ({"quality": 0, "counts": Counts(records=10, damaged=5000)}, ["more damaged than read"]),
        ({"quality": 0, "counts": Counts(records=5000, damaged=10)}, []),
        ({"since_heard_s": 99, "counts": Counts(records=9, damaged=5)}, ["talker silent"]),
    ],
)
def test_a_device_that_is_heard_and_not_well(place, how, causes):
    yard = {"name": "yard", "line": "air", "driver": "pms5003", "since_heard_s": 1, "quiet_after_s": 9}
    devices = [OfDevice(**yard | {"watched_s": 999} | how)]
    now = Status(gateway=NAME, boot=1, wall_ms=wall_ms(), mono_ms=mono_ms(), up_s=60, devices=devices)
    found = list(heard.of_devices(load(place(TALKER.format(port="/dev/tty"))), now))
    assert [finding.cause for finding in found] == causes
    assert all("5 damaged" in finding.evidence for finding in found if finding.cause == "talker silent")


@pytest.mark.parametrize(
    ("spool", "cause", "stops"),
    [
        (OfSpool(dropped=5, used_bytes=95, quota_bytes=100), "spool full", True),
        (OfSpool(used_bytes=95, quota_bytes=100), "spool full", False),
        (OfSpool(dropped=5, used_bytes=5, quota_bytes=100), "spool was full", False),
    ],
)
def test_a_spool_that_was_full_stops_nothing_now(place, spool, cause, stops):
    now = Status(gateway=NAME, boot=1, wall_ms=wall_ms(), mono_ms=mono_ms(), up_s=60, spool=spool)
    found = machine.of_disk(load(place(TALKER.format(port="/dev/tty"))), now, QUIET)
    assert (cause, stops) in [(each.cause, each.stops_readings) for each in found]


def test_a_certificate_stops_nothing_while_the_gateway_is_connected(place, tmp_path):
    authority = Authority(tmp_path, "city")
    files = authority.issue(NAME, "own", -30, -1)
    uplink = OfUplink(connected_to="mqtts://localhost:1")
    now = Status(gateway=NAME, boot=1, wall_ms=wall_ms(), mono_ms=mono_ms(), up_s=60, uplink=uplink)
    file = place("", "mqtts://localhost:1", credentials(authority.ca_file, *files))
    (found,) = asyncio.run(findings(load(file), now, QUIET))
    assert found.cause == "certificate expired" and not found.stops_readings


def test_what_stops_readings_now_comes_first():
    def finding(cause: str, stops: bool, rank: int) -> Finding:
        return Finding(cause, "", "", "", "", stops, rank)

    found = in_order([finding("c", False, 0), finding("b", True, 9), finding("a", True, 1), finding("b", True, 9)])
    assert [each.cause for each in found] == ["a", "b", "c"]
    assert json.loads(as_json(found))[0]["cause"] == "a"
    assert list(text([])) == ["nothing wrong was found"]
