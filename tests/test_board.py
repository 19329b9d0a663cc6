"""The air node end to end: its own firmware on the real MicroPython, on a virtual board, over a real broker."""

import ast
import asyncio
import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import bega
from bega.broker import accepts_mqtt, free_ports
from bega.clock import wall_ms
from bega_protocols.devices.pms5003.driver import Driver as DustDriver
from bega_protocols.devices.sht4x.sim import Sim as ClimateSensor
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, SUSPECT
from bega_protocols.record import SYNCHRONISED, UNKNOWN, Record
from bega_simulators.board.flash import FLASH_BYTES
from bega_simulators.board.peripherals import AirPeripherals
from bega_simulators.hosts.i2c import I2cBus, NotAcknowledged
from tests.node_park import MICROPYTHON, NODE, GatewayDouble, NodeProcess

ROOT = Path(__file__).parent.parent
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)


@pytest.fixture
def gateway(mosquitto) -> Iterator[GatewayDouble]:
    double = GatewayDouble(mosquitto.url)
    yield double
    double.close()


@pytest.fixture
def make_node(tmp_path, mosquitto) -> Iterator[Callable[..., NodeProcess]]:
    made: list[NodeProcess] = []

    def make(**config: Any) -> NodeProcess:
        made.append(NodeProcess(tmp_path, mosquitto.port, **config))
        return made[-1]

    yield make
    for node in made:
        node.stop()


def values(record: Record) -> dict[str, Decimal]:
    return {reading.quantity: Decimal(reading.value).scaleb(reading.exp10) for reading in record.readings}


def in_order(identities: list[tuple[int, int]]) -> bool:
    """Return whether each boot's records came as 1, 2, 3 ... without a gap, boots rising."""
    boots = sorted({boot for boot, _ in identities})
    counts = {boot: sum(1 for one, _ in identities if one == boot) for boot in boots}
    return identities == [(boot, seq) for boot in boots for seq in range(1, counts[boot] + 1)]


def test_node_measures_and_its_records_arrive(tmp_path, broker, eventually):
    with contextlib.ExitStack() as stack:
        gateway, node = GatewayDouble(broker.url), NodeProcess(tmp_path, broker.port)
        stack.callback(gateway.close)
        stack.callback(node.stop)
        check_that_records_arrive(node, gateway, eventually)


def check_that_records_arrive(node: NodeProcess, gateway: GatewayDouble, eventually: Callable[..., None]) -> None:
    node.start()
    node.order(air={"pm1": 7, "pm2_5": 12, "pm10": 20, "particles_0_3": 21.5, "temperature": 21.34, "humidity": 48.76})
    started_ms = wall_ms()
    eventually(lambda: len(gateway.of("pms")) >= 2 and len(gateway.of("sht")) >= 3, "records of both devices")
    assert in_order(gateway.identities())
    dust, climate = values(gateway.of("pms")[-1]), values(gateway.of("sht")[-1])
    assert (dust["pm1"], dust["pm2_5"], dust["pm10"], dust["particles_0_3"]) == (7, 12, 20, Decimal("21.5"))
    assert climate == {"temperature": Decimal("21.34"), "humidity": Decimal("48.76")}
    assert all(record.time_quality == SYNCHRONISED for record in gateway.records)
    assert all(started_ms - 5000 < record.time_ms <= wall_ms() for record in gateway.records)
    status = gateway.statuses[0]
    assert (status["firmware"], status["reset_cause"], status["dropped"]) == (bega.__version__, 1, [])
    assert node.stop() == 0


def test_node_runs_in_two_thirds_of_the_heap(make_node, gateway, eventually):
    node = make_node()
    node.start("--heap", "80wk")
    eventually(lambda: gateway.of("pms") and gateway.of("sht"), "records of both devices")
    assert gateway.statuses[-1]["heap_free"] > 10_000
    assert "MemoryError" not in node.said()


FIVE = {
    "pms": {"every_s": 2},
    "sht": {"every_s": 1},
    "co2": {"every_s": 5, "settings": {"altitude_m": 90, "self_calibration": False}},
    "bme": {"every_s": 1},
    "gas": {"every_s": 1},
}
FIVE_WIRED = [
    f"--sensor={text}"
    for text in ("pms=pms5003@uart2", "sht=sht4x@i2c0", "co2=scd41@i2c0", "bme=bme280@i2c0", "gas=sgp41@i2c0")
]


@pytest.mark.slow
def test_five_sensors_on_one_board_all_give_records(make_node, gateway, eventually):
    """Four of them share a bus: nine seconds of conditioning and five of CO2 keep nobody waiting."""
    node = make_node(devices=FIVE)
    node.start("--heap", "90wk", *FIVE_WIRED)
    air = {"temperature": 21.34, "humidity": 48.75, "pressure": 1006.53, "co2": 843, "pm2_5": 12}
    node.order(air={**air, "voc_raw": 30512, "nox_raw": 15877})
    eventually(lambda: len(gateway.of("sht")) >= 4, "the one that needs no set-up does not wait")
    assert not gateway.of("gas"), "it is conditioned for nine seconds"
    eventually(lambda: all(len(gateway.of(name)) >= 2 for name in FIVE), "records of all five", timeout_s=40)
    assert in_order(gateway.identities())
    climate = {"temperature": Decimal("21.34"), "humidity": Decimal("48.75")}
    assert values(gateway.of("sht")[-1]) == climate
    assert values(gateway.of("bme")[-1]) == {**climate, "pressure": Decimal("1006.53")}
    assert values(gateway.of("co2")[-1]) == {**climate, "co2": 843}
    assert 30512 <= values(gateway.of("gas")[-1])["voc_raw"] < 30516
    assert {reading.quality for reading in gateway.of("gas")[-1].readings} == {SUSPECT}, "not yet warm"
    assert {reading.quality for reading in gateway.of("co2")[-1].readings} == {GOOD}
    assert "MemoryError" not in node.said()


@pytest.mark.slow
def test_sensors_that_must_be_asked_hang_on_serial_lines_too(make_node, gateway, eventually):
    asked = {"dust": {"driver": "sds011", "bus": "uart1"}, "co2": {"driver": "mhz19", "bus": "uart2"}}
    node = make_node(devices={name: {**device, "every_s": 1} for name, device in asked.items()})
    node.start("--sensor=dust=sds011@uart1", "--sensor=co2=mhz19@uart2")
    node.order(air={"pm2_5": 12, "co2": 843})
    eventually(lambda: all(len(gateway.of(name)) >= 3 for name in asked), "records of both")
    assert values(gateway.of("dust")[-1])["pm2_5"] == 12
    assert values(gateway.of("co2")[-1])["co2"] == 843
    node.order(faults={"dust": ["silent"]})
    eventually(lambda: states(gateway) == {"dust": "silent", "co2": "ok"}, "one silent")


@pytest.mark.slow
def test_sensors_that_are_missing_or_strange_do_not_disturb_the_others(make_node, gateway, eventually):
    drivers = {"sht": "sht4x", "co2": "scd41", "bme": "bme280", "gas": "sgp41"}
    node = make_node(devices={name: {**FIVE[name], "driver": driver} for name, driver in drivers.items()})
    node.start("--sensor=sht=sht4x@i2c0", "--sensor=bme=bme280@i2c0")
    node.order(faults={"bme": ["wrong device"]})
    eventually(lambda: len(gateway.of("sht")) >= 8, "records of the one that is well")
    eventually(
        lambda: (
            gateway.statuses and states(gateway) == {"sht": "ok", "co2": "silent", "bme": "damaged", "gas": "silent"}
        ),
        "two silent, one strange",
        timeout_s=40,
    )
    assert not gateway.of("bme")[1:], "a record of a chip that is no BME280"


def test_records_measured_before_the_time_was_known_get_it_when_it_comes(make_node, gateway, eventually):
    gateway.timeless = True
    started_ms = wall_ms()
    node = make_node()
    node.start()
    eventually(lambda: gateway.statuses, "the node is connected")
    time.sleep(2)
    assert not gateway.records, "an unstamped record went out although its time may still come"
    known_ms = wall_ms()
    gateway.publish("time", json.dumps({"unix_ms": known_ms}).encode())
    eventually(lambda: len(gateway.records) >= 5, "the records that waited")
    assert in_order(gateway.identities())
    before = [record for record in gateway.records if record.time_ms < known_ms]
    assert len(before) >= 3
    assert all(record.time_ms >= started_ms - 200 and record.time_quality == SYNCHRONISED for record in before)


@pytest.mark.slow
def test_waiting_records_survive_a_power_cut_and_go_as_unknown(make_node, gateway, eventually):
    """Their boot is over and nobody told it the time: no later clock can know when they were measured."""
    gateway.timeless = True
    node = make_node()
    node.start()
    eventually(lambda: gateway.statuses, "the node is connected")
    time.sleep(2)
    node.kill()
    gateway.timeless = False
    node.start()
    eventually(lambda: len({boot for boot, _ in gateway.identities()}) == 2, "records of both boots")
    assert in_order(gateway.identities())
    first = gateway.records[0].boot
    for record in gateway.records:
        assert record.time_quality == (UNKNOWN if record.boot == first else SYNCHRONISED)


@pytest.mark.slow
def test_broker_away_costs_nothing_and_order_is_kept(make_node, gateway, mosquitto, eventually):
    node = make_node(broker={"host": "127.0.0.1", "port": 1, "keep_alive_s": 2})
    node.start()
    eventually(lambda: len(gateway.records) >= 3, "records before the outage")
    mosquitto.kill()
    down_ms = wall_ms()
    time.sleep(4)
    up_ms = wall_ms()
    mosquitto.start()
    before = len(gateway.records)
    # What the broker lost with its life is sent again after 15 s.
    eventually(lambda: len(gateway.records) >= before + 15, "what was measured meanwhile, and more", timeout_s=40)
    assert in_order(gateway.identities())
    stamps = [record.time_ms for record in gateway.of("sht")]
    assert stamps == sorted(stamps)
    assert sum(down_ms < stamp < up_ms for stamp in stamps) >= 4, "measured while the broker was away"


@pytest.mark.slow
def test_power_cut_in_mid_work_loses_nothing_unacknowledged(make_node, gateway, eventually):
    gateway.mute = True
    node = make_node()
    node.start()
    eventually(lambda: len(gateway.records) >= 6, "records that nobody acknowledges")
    measured = gateway.identities()
    gateway.records.clear()
    gateway.heads.clear()  # a gateway that lost its power before it committed
    node.kill()
    gateway.mute = False
    node.start()
    eventually(lambda: {boot for boot, _ in gateway.identities()} > {measured[0][0]}, "the next boot's records")
    assert set(measured) <= set(gateway.identities())
    assert in_order(gateway.identities())
    assert gateway.records[-1].boot > measured[0][0]
    eventually(lambda: gateway.statuses[-1]["boot"] > measured[0][0], "a status of the new boot")


@pytest.mark.slow
def test_full_ring_declares_what_it_dropped_and_goes_on(make_node, gateway, eventually):
    gateway.mute = True
    sensor = {"driver": "sht4x", "bus": "i2c0", "every_s": 0.1}
    node = make_node(ring_segments=2, devices={f"sht-{number}": sensor for number in range(6)})
    node.start()
    eventually(lambda: any(status["dropped"] for status in gateway.statuses), "something dropped")
    boot, first, last = gateway.statuses[-1]["dropped"][0]
    assert gateway.statuses[-1]["holds"][0][:2] == [boot, last + 1]
    assert first == 1
    gateway.mute = False
    before = len(gateway.records)
    eventually(lambda: len(gateway.records) > before + 20, "records behind the gap")
    seqs = [record.seq for record in gateway.records]
    assert seqs == sorted(set(seqs))
    eventually(lambda: node.order(faults={"sht": ["silent"]}) and gateway.statuses[-1]["dropped"] == [], "passed")


@pytest.mark.slow
def test_records_that_got_lost_on_the_way_are_sent_again(make_node, gateway, eventually):
    gateway.deaf = gateway.mute = True
    node = make_node(devices={"sht": {"every_s": 1}})
    node.start()
    eventually(lambda: gateway.statuses, "the node is connected")
    time.sleep(4)
    gateway.deaf = gateway.mute = False
    eventually(lambda: len(gateway.records) >= 6, "all records, the first ones again", timeout_s=25)
    assert in_order(gateway.identities())
    assert gateway.refused > 0, "no later record came before the lost ones"


@pytest.mark.slow
def test_failing_sensors_are_reported_and_nothing_is_made_up(make_node, gateway, eventually):
    node = make_node()
    node.start()
    eventually(lambda: gateway.of("pms") and gateway.of("sht"), "records of both devices")
    node.order(faults={"pms": ["silent"], "sht": ["silent"]})
    time.sleep(2)  # what was measured before has been sent
    quiet = len(gateway.records)
    eventually(lambda: states(gateway) == {"pms": "silent", "sht": "silent"}, "both reported silent")
    assert gateway.statuses[-1]["devices"]["sht"]["unanswered"] > 0
    node.order(faults={"pms": ["checksum"], "sht": ["checksum"]})
    eventually(lambda: states(gateway) == {"pms": "damaged", "sht": "damaged"}, "both reported damaged")
    assert gateway.statuses[-1]["devices"]["pms"]["damaged"] > 0
    assert len(gateway.records) == quiet, "a record of a sensor that said nothing"
    node.order(faults={"pms": [], "sht": []})
    eventually(lambda: states(gateway) == {"pms": "ok", "sht": "ok"}, "both well again")
    eventually(lambda: len(gateway.records) > quiet, "records again")
    assert in_order(gateway.identities())


def states(gateway: GatewayDouble) -> dict[str, str]:
    """Return what each device is, or was when it became a fault."""
    return {name: device.get("why", device["state"]) for name, device in gateway.statuses[-1]["devices"].items()}


def test_link_over_mutual_tls(tmp_path, eventually):
    """Certificates of an own authority, checked on both sides."""
    make_certificates(tmp_path, NODE)
    plain, secured = free_ports(2)
    configuration = tmp_path / "tls.conf"
    configuration.write_text(MOSQUITTO_TLS.format(folder=tmp_path, plain=plain, secured=secured))
    tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
    node = NodeProcess(tmp_path, secured, host="localhost", broker={"tls": tls})
    with contextlib.ExitStack() as stack:
        broker = subprocess.Popen([MOSQUITTO, "-c", configuration], stderr=subprocess.DEVNULL)
        stack.callback(broker.wait, 5)
        stack.callback(broker.terminate)
        eventually(lambda: accepts_mqtt("127.0.0.1", plain), "mosquitto accepts connections")
        gateway = GatewayDouble(f"mqtt://127.0.0.1:{plain}")
        stack.callback(gateway.close)
        stack.callback(node.stop)
        put = [f"--put={tmp_path}/{name}=/tls/{name}" for name in ("ca.der", "node.der", "node.key")]
        node.start(*put)
        eventually(lambda: gateway.of("pms") and gateway.of("sht"), "records of both devices")
        assert in_order(gateway.identities())


MOSQUITTO_TLS = """
per_listener_settings true
user root
listener {plain} 127.0.0.1
allow_anonymous true
listener {secured} 127.0.0.1
require_certificate true
use_identity_as_username true
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
"""


def make_certificates(folder: Path, node: str) -> None:
    """Write ca.pem, ca.der, broker.pem, broker.key, and the node's as DER: node.der, node.key."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = certificate("city", authority_key, "city", authority_key, is_authority=True)
    (folder / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / "ca.der").write_bytes(authority.public_bytes(Encoding.DER))
    for file, name, encoding in (("broker", "localhost", Encoding.PEM), ("node", node, Encoding.DER)):
        key = ec.generate_private_key(ec.SECP256R1())
        suffix = "pem" if encoding == Encoding.PEM else "der"
        octets = certificate(name, key, "city", authority_key).public_bytes(encoding)
        (folder / f"{file}.{suffix}").write_bytes(octets)
        private = key.private_bytes(encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (folder / f"{file}.key").write_bytes(private)


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, is_authority=False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.mark.slow
def test_wifi_away_is_waited_for(make_node, gateway, eventually):
    node = make_node()
    node.start()
    eventually(lambda: len(gateway.records) >= 3, "records before the outage")
    node.order(faults={"wifi": ["away"]})
    eventually(lambda: "Wi-Fi is gone" in node.said(), "the loss of Wi-Fi noticed")
    quiet = len(gateway.records)
    time.sleep(1)
    node.order(faults={"wifi": []})
    eventually(lambda: len(gateway.records) >= quiet + 5, "records again")
    assert in_order(gateway.identities())


def test_nonsense_from_the_gateway_is_counted_and_harms_nothing(make_node, gateway, eventually):
    node = make_node()
    node.start()
    eventually(lambda: gateway.records, "the node is connected")
    for kind in ("ack", "time"):
        for payload in (b"", b"{", b"[[1]]", b'[[1, "2"]]', b'{"unix_ms": "now"}', b"[" * 3000, b"x" * 200_000):
            gateway.publish(kind, payload)
    gateway.publish("ack", json.dumps([[gateway.records[0].boot, 2**40]]).encode())
    before = len(gateway.records)
    eventually(lambda: len(gateway.records) >= before + 6, "records as before")
    assert in_order(gateway.identities())
    node.order(reset=True)
    eventually(lambda: node.order()["resets"] == 1, "a reset")
    eventually(lambda: gateway.statuses[-1]["reset_cause"] == 2, "its cause in the status")
    assert "Traceback" not in node.said()


@pytest.mark.slow
def test_watchdog_resets_a_node_that_hangs(make_node, gateway, eventually):
    node = make_node(watchdog_s=5)
    node.start()
    eventually(lambda: gateway.records, "records before")
    os.kill(node.interpreter(), signal.SIGSTOP)
    eventually(lambda: node.order()["resets"] == 1, "the watchdog")
    eventually(lambda: gateway.statuses[-1]["reset_cause"] == 3, "a new boot that knows its cause")
    boot = gateway.statuses[-1]["boot"]
    eventually(lambda: gateway.records[-1].boot == boot, "records of the new boot")
    assert in_order(gateway.identities())


def test_node_whose_flash_fails_begins_anew_instead_of_waiting_for_a_technician(tmp_path, make_node, eventually):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("where the folder of the ring belongs")
    node = make_node()
    node.start("--put", f"{in_the_way}=/state", comes_up=False)
    eventually(lambda: node.said().count("OSError") >= 2, "the node tries again")


def test_watchdog_is_fed_only_while_every_task_moves():
    script = ROOT / "tests/micropython/health_feeds.py"
    outcome = subprocess.run(
        [os.environ.get("BEGA_MICROPYTHON", MICROPYTHON), script],
        env={"MICROPYPATH": f"{ROOT}/firmware/node:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    timeout_ms, fed = outcome.stdout.splitlines()[-1].split(" ", 1)
    assert int(timeout_ms) == 7000, outcome.stdout + outcome.stderr
    assert ast.literal_eval(fed) == [
        (50, [], True),
        (150, [], True),
        (151, ["store"], False),
        (160, [], True),
        (470, ["link"], False),
        (471, [], True),
    ]


def test_flash_is_kept_and_a_strange_file_is_refused(tmp_path, make_node):
    node = make_node()
    node.start()
    assert node.stop() == 0
    assert node.flash.stat().st_size == FLASH_BYTES
    strange = tmp_path / "strange"
    strange.write_bytes(b"no flash")
    outcome = board("--flash", strange)
    assert outcome.returncode == 1
    assert "is no flash of a board" in outcome.stderr


def board(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bega", "sim", "board", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"node": "a b"}, "node must be letters"),
        ({"node": "air-1", "brokers": {}}, "unknown setting brokers"),
        ({"node": "air-1", "devices": {"pms": {"every_s": 0}}}, "devices.pms.every_s"),
        ({"node": "air-1", "devices": {"pms": {"bus": "uart9"}}}, "this board has i2c0, uart1, uart2"),
        ({"node": "air-1", "devices": {"pms": {"bus": "i2c0"}}}, "bus i2c0 is i2c, the driver wants serial"),
        ({"node": "air-1", "devices": {"sht": {}, "x": {"driver": "pms5003", "bus": "i2c0"}}}, "bus i2c0 is i2c"),
        (
            {"node": "air-1", "devices": {"pms": {}, "x": {"driver": "pms5003", "bus": "uart2"}}},
            "bus uart2 has a device already",
        ),
        ({"node": "air-1", "devices": {"pms": {"driver": "sds999"}}}, "there is no device sds999"),
        ({"node": "air-1", "devices": {"sht": {"settings": {"adress": 68}}}}, "unknown setting adress"),
        ({"node": "air-1", "devices": {"sht": {"settings": ["address"]}}}, "devices.sht.settings must be a table"),
        ({"node": "air-1", "wifi": {"ssid": "city", "key": 12345678}}, "wifi.key must be text"),
    ],
)
def test_configuration_that_cannot_be_is_said_and_stops_the_node(tmp_path, config, said):
    file = tmp_path / "node.json"
    file.write_text(json.dumps({"devices": {"sht": {}}, **config}))
    outcome = board("--config", file)
    assert outcome.returncode == 1
    assert said in outcome.stderr


@pytest.mark.parametrize(
    ("sensors", "said"),
    [
        (["pms5003"], "write it as NAME=DEVICE@BUS"),
        (["x=sds999@i2c0"], "there is no device 'sds999'"),
        (["co2=scd41@uart1"], "scd41 is for i2c; here are uart1, uart2, i2c0"),
        (["a=sht4x@i2c0", "b=sht4x@i2c0"], "two sensors on one serial line, or at one address"),
        (["a=pms5003@uart2", "b=sds011@uart2"], "two sensors on one serial line, or at one address"),
    ],
)
def test_sensor_that_cannot_hang_there_is_said(sensors, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        AirPeripherals(1, dict, sensors)


def test_missing_interpreter_is_said_with_how_to_bring_it(tmp_path):
    outcome = board(BEGA_MICROPYTHON=str(tmp_path / "nothing"))
    assert outcome.returncode == 1
    assert "BEGA_MICROPYTHON=PATH" in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_bus_refuses_a_read_while_the_sensor_measures():
    now_us = [0]
    bus = I2cBus({0x44: ClimateSensor({}, seed=1)}, lambda: now_us[0])
    bus.write(0x44, b"\xfd")
    now_us[0] = 8000
    with pytest.raises(NotAcknowledged):
        bus.read(0x44, 6)
    now_us[0] = 10_000
    assert len(bus.read(0x44, 6)) == 6
    with pytest.raises(NotAcknowledged):
        bus.read(0x44, 6)
    with pytest.raises(NotAcknowledged):
        bus.write(0x45, b"\xfd")


@pytest.mark.parametrize(("baud", "heard"), [(9600, True), (115200, False)])
def test_serial_line_is_understood_at_its_own_speed_only(baud, heard):
    async def listen() -> bytes:
        peripherals = AirPeripherals(1, lambda: {("pm2_5", ""): 12})
        peripherals.answer(
            {"op": "uart_init", "uart": 2, "baud": baud, "bits": 8, "parity": None, "stop": 1, "tx": 17, "rx": 16}
        )
        near, far = socket.socketpair()
        near.setblocking(False)
        with near:
            speaking = asyncio.create_task(peripherals.serial("uart2", far))
            octets = b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):
                    while len(octets) < 64:
                        octets += await asyncio.get_running_loop().sock_recv(near, 64)
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        return octets

    driver = DustDriver({})
    groups = driver.feed(asyncio.run(listen()), 0)
    assert bool(groups) == heard
    if heard:
        assert groups[0][1].value == 12
