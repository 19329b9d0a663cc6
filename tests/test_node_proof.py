"""`bega node test` and `bega node doctor`: what a table of faults is called, and whole boards by their cable."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bega.broker import LOOPBACK
from bega_firmware.cable import Cable
from bega_firmware.command import main
from bega_firmware.outcome import Outcome
from bega_firmware.proof import bench as own_bench
from bega_firmware.proof import command, doctor, lent
from bega_firmware.proof.found import Chip, Device, Found, devices, read_config, read_node, segments
from bega_firmware.proof.judge import judged
from bega_firmware.proof.sensors import Heard
from bega_firmware.proof.way import Told, hello, of_broker, of_wifi, prove_network, record_within_s
from bega_firmware.site import Broker, Site, Uplink, Wifi
from bega_protocols.checks import crc32
from bega_protocols.doubt import WARMING
from bega_protocols.errors import ConfigError
from bega_protocols.reading import Reading
from tests.conftest import eventually
from tests.node_park import MICROPYTHON, NODE, NodeProcess

needs_micropython = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ, reason="no MicroPython for this machine"
)
by_night = pytest.mark.skipif(
    os.environ.get("BEGA_PROFILE") != "nightly", reason="each fault on a board takes seconds: make nightly"
)
UART, I2C = {"kind": "uart", "id": 2, "tx": 17, "rx": 16}, {"kind": "i2c", "id": 0, "scl": 22, "sda": 21}
AIR = [Reading("pm1", 4), Reading("pm2_5", 11), Reading("pm10", 15)]
CLIMATE = [Reading("temperature", 2150, -2), Reading("humidity", 4410, -2)]
CHIP = Chip(2, 200_000, 240_000, 1500, 2048, 2026, "1.29.0", "240ac4000004", "/a")
SECRET = "not for any screen"
RUNS = f"bega: node {NODE} runs, boot 1795300000, firmware 0.1.0"


def dust(**heard: Any) -> Heard:
    return Heard(Device("pms", "pms5003", "uart2", UART, {}, ""), "serial", **heard)


def climate(**heard: Any) -> Heard:
    device = Device("sht", "sht4x", "i2c0", I2C, {}, "")
    return Heard(device, "i2c", **{"address": 0x44, "addresses": [0x44], **heard})


def pressure(**heard: Any) -> Heard:
    device = Device("bme", "bme280", "i2c0", I2C, {}, "")
    return Heard(device, "i2c", **{"address": 0x76, "addresses": [0x44], **heard})


def contact(**heard: Any) -> Heard:
    return Heard(Device("flat", "pulses", "s0", {"kind": "pulses", "id": 0, "pin": 27}, {}, ""), "pulses", **heard)


def meter(name: str, driver: str, address: int | str, **heard: Any) -> Heard:
    return Heard(Device(name, driver, "meters", UART, {"address": address}, ""), driver.partition("_")[0], **heard)


JUDGED = [
    (dust(groups=[AIR]), True, "on UART 2 is right: pm2_5 11", ""),
    (dust(groups=[AIR], doubt=WARMING), True, "warm-up is not over, so far pm2_5 11", ""),
    (dust(groups=[[Reading("pm2_5", 0)]], doubt=WARMING), None, "sees nothing so far", "test it again in a minute"),
    (dust(), False, "silent on UART 2", "check its 5 V and that its TX is on GPIO 16"),
    (dust(octets=90, damaged=["impossible length"]), False, "90 bytes came that make no sense", "its ground"),
    (dust(octets=90, speaks_at="9600 8N1"), False, "speaks at 9600 8N1", 'buses.uart2 = "9600 8N1"'),
    (dust(octets=90, is_another="other"), False, "is not what hangs on UART 2: that is other", "are exchanged"),
    (dust(groups=[[Reading("pm2_5", 4000)]]), False, "measures what cannot be: pm2_5 4000", "is it the sensor"),
    (dust(groups=[AIR], damaged=["check word"] * 2), False, "more of it is damaged", "screen and ground"),
    (dust(refused="stuck_s must be a number"), False, "cannot be tried: stuck_s", "settings"),
    (dust(period_s=300), None, "sleeps up to 300 s", "wait for its next one"),
    (climate(groups=[CLIMATE]), True, "at 0x44 on i2c0 is right: temperature 21.50, humidity 44.10", ""),
    (climate(groups=[CLIMATE], repeats=True), False, "repeats itself, byte for byte", "cut its supply"),
    (climate(addresses=[]), False, "silent at 0x44 on i2c0, as is all of its bus", "SCL is on GPIO 22"),
    (climate(addresses=[0x62]), False, "there answers 0x62 (as Sensirion SCD40", "the bus works: check its plug"),
    (
        climate(octets=6, damaged=["check value differs"]),
        False,
        "not as itself: check value differs",
        "is it the sensor",
    ),
    (climate(asked=2), False, "acknowledges at 0x44 on i2c0, and does not measure", "cut its supply"),
    (climate(scl_sda=(True, False)), False, "SDA of i2c0 is low", "unplug the sensors one by one"),
    (climate(scl_sda=(False, False)), False, "SCL and SDA of i2c0 are low", "are its pull-ups there"),
    (pressure(addresses=[0x44, 0x77]), False, "one like it answers at 0x77", "set settings.address of bme"),
    (contact(level=1, closings=7), True, "GPIO 27 closed 7 times", ""),
    (contact(level=1, closings=0), False, "stayed open while it was to be closed", "check its two wires"),
    (contact(level=0), None, "is closed; nobody closed it", "--taps 10"),
]


@pytest.mark.parametrize(("heard", "passed", "words", "what_to_do"), JUDGED, ids=[row[2] for row in JUDGED])
def test_what_came_of_a_device_is_judged_in_words(heard, passed, words, what_to_do):
    outcome = judged(heard, [heard])
    assert (outcome.passed, words in outcome.words, what_to_do in outcome.what_to_do) == (passed, True, True), outcome
    assert bool(outcome.what_to_do) or outcome.passed, "who hears of a fault is told what to do"


@pytest.mark.parametrize("driver", ["modbus_meter", "mbus_meter"])
def test_meter_that_is_silent_on_a_bus_that_works_is_looked_for_at_the_meter(driver):
    silent, well = meter("attic", driver, 11, asked=1), meter("cellar", driver, 5, groups=[[Reading("volume", 1)]])
    outcome = judged(silent, [silent, well])
    assert "cellar on the same bus does" in outcome.words and "its address (11)" in outcome.what_to_do, outcome
    assert "GPIO" not in outcome.what_to_do, "the node's own wires are right"
    outcome = judged(silent, [silent])
    assert "does not answer" in outcome.words and "its address (11)" in outcome.what_to_do, outcome
    numbered = meter("attic", driver, "12345678", asked=1)
    assert "12345678" not in str(judged(numbered, [numbered]))


def test_meter_that_is_read_tells_nothing_of_its_household():
    device = Device("main", "dsmr_p1", "p1", UART, {}, "")
    heard = Heard(device, "serial", groups=[[Reading("active_energy_import", 123_456_789, -3)]])
    outcome = judged(heard, [heard])
    assert outcome.passed and "123" not in outcome.words


def test_supply_that_a_pin_switches_is_named_with_its_pin():
    device = Device("pms", "pms5003", "uart2", UART, {}, "", power_pin=26)
    assert "its 5 V (switched by GPIO 26)" in judged(Heard(device, "serial"), []).what_to_do


@pytest.mark.parametrize(
    ("answer", "passed", "words"),
    [
        ({"up": True, "status": 1010, "rssi": -60}, True, "good signal (-60 dBm)"),
        ({"up": True, "status": 1010, "rssi": -78}, True, "fair signal"),
        ({"up": True, "status": 1010, "rssi": -84}, None, "weak signal"),
        ({"up": False, "status": 201, "rssi": None}, False, "no network of that name"),
        ({"up": False, "status": 202, "rssi": None}, False, "the password is refused"),
        ({"up": False, "status": 1001, "rssi": None}, False, "not given an address"),
        ({"up": False, "status": "Wifi Internal Error", "rssi": None}, False, "Wifi Internal Error"),
    ],
)
def test_wifi_is_joined_or_it_is_said_why_not(answer, passed, words):
    outcome = of_wifi("city", answer, 1.0)
    assert (outcome.passed, words in outcome.words) == (passed, True), outcome


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"failed": "name", "said": "-2"}, "nobody knows the name gw.lan"),
        ({"failed": "connect", "name": "ECONNREFUSED"}, "no broker answers on port 8883"),
        ({"failed": "connect", "name": "EHOSTUNREACH"}, "not reached (EHOSTUNREACH)"),
        ({"failed": "files", "name": "ENOENT"}, "certificates are missing"),
        (
            {"failed": "tls", "said": "The certificate validity starts in the future"},
            "not valid yet by the node's clock",
        ),
        ({"failed": "tls", "said": "The certificate is not correctly signed by the trusted CA"}, "another authority"),
        ({"failed": "tls", "said": "The certificate Common Name (CN) does not match"}, "for another host"),
        ({"failed": "mqtt", "said": "MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE"}, "does not take the node's certificate"),
        ({"failed": "mqtt", "name": "ECONNRESET", "said": ""}, "breaks the connection (ECONNRESET)"),
        ({"failed": "tls", "said": "32"}, "most often since it does not take the certificate"),
        ({"code": 5}, "does not let the node in"),
        ({"code": None}, "hangs up"),
    ],
)
def test_broker_that_is_not_reached_is_said_with_its_step(answer, words):
    outcome = of_broker("gw.lan:8883", True, answer, 1.0)
    assert not outcome.passed and words in outcome.words and outcome.what_to_do, outcome


def test_words_of_a_chip_stay_in_one_line():
    said = "\nThe certificate is not correctly signed\nby the trusted CA\n"
    outcome = of_broker("gw.lan:8883", True, {"failed": "tls", "said": said}, 1.0)
    assert "signed by the trusted CA)" in outcome.words and outcome.words.isprintable()


@pytest.mark.parametrize("taps", ["nan", "-1", "1e9"])
def test_time_for_taps_that_cannot_be_is_a_sentence(taps, capsys):
    assert main(["test", "--port", "/nowhere", "--taps", taps]) == 1
    assert "--taps is from 0 to 600" in capsys.readouterr().err


def test_broker_without_tls_proves_no_certificate():
    assert "no certificate was tried" in of_broker("gw.lan:1883", False, {"code": 0}, 1.0).words


@pytest.mark.parametrize(
    ("lines", "passed", "words"),
    [
        ([RUNS, "bega: link up", "bega: acknowledged [[1795300000, 3]]"], True, "record 1795300000/3"),
        ([RUNS, "bega: acknowledged [(1795300000, 3)]"], True, "record 1795300000/3"),
        ([RUNS, "bega: acknowledged [[1795200000, 9]]"], None, "of an earlier start, 1795200000/9"),
        ([RUNS, "bega: link down: OSError no Wi-Fi, no answer"], False, "its way breaks: OSError no Wi-Fi"),
        ([RUNS], False, "no gateway has acknowledged"),
        (["bega: configuration: devices.x.bus is 'uart9'"], False, "does not work: configuration: devices.x.bus"),
        (["bega: safe mode: 5 resets in a row"], False, "safe mode"),
        ([f"bega: node {NODE} runs, beacon AA:BB:CC:DD:EE:FF, firmware 1.2.3"], None, "AA:BB:CC:DD:EE:FF"),
        ([], False, "does not start"),
    ],
)
def test_console_of_a_starting_node_proves_a_record_or_what_is_in_its_way(lines, passed, words):
    told = Told()
    for line in lines:
        told.take(line)
    outcome = told.outcome("proved on the bench, not on site", 2.0)
    assert (outcome.passed, words in outcome.words) == (passed, True), outcome


def test_connect_names_the_node_and_keeps_its_session():
    packet = hello("air-7")
    assert packet[0] == 0x10 and packet[1] == len(packet) - 2
    assert packet[2:9] == b"\0\4MQTT\4" and packet[9] == 0 and packet[12:] == struct.pack(">H", 5) + b"air-7"


def test_seldom_measuring_node_is_waited_for_longer_and_not_for_ever():
    assert record_within_s({"devices": {"pms": {"every_s": 10}, "co2": {"every_s": 60}}}) == 80
    assert record_within_s({"devices": {"pms": {"every_s": 86400}}}) == 240


def test_devices_of_a_configuration_have_what_the_board_file_says_of_them():
    board = {"BUSES": {"uart2": UART}, "DEVICES": {"pms": {"driver": "pms5003", "bus": "uart2", "power_pin": 26}}}
    (device,) = devices(board, {"devices": {"pms": {"every_s": 5}}, "buses": {"uart2": "19200 8N1"}})
    assert (device.driver, device.power_pin, device.line) == ("pms5003", 26, "19200 8N1")
    with pytest.raises(ConfigError, match=r"devices\.x"):
        devices(board, {"devices": {"x": {"driver": "pms5003", "bus": "uart9"}}})


@pytest.mark.parametrize("text", [None, b"", b"{", b"[]", b'{"devices": 1}', b"\xff\xfe"])
def test_configuration_that_cannot_be_has_a_reason(text):
    config, problem = read_config(text)
    assert config is None and "/config.json" in problem


def test_ring_is_told_by_its_segments_alone():
    assert segments([["00000002.seg", 9], ["x.seg", 1], ["00000001.seg", 4096], ["tmp", 3]]) == [(1, 4096), (2, 9)]


def found(**more: Any) -> Found:
    texts = {"/config.json": b"{}", **more.pop("texts", {})}
    config = more.pop("config", {"node": NODE, "devices": {}})
    return Found(**{"board": {"NAME": "x"}, "chip": CHIP, "facts": {}, "texts": texts, "config": config, **more})


def counts(text: bytes) -> bytes:
    return b"%s %08x" % (text, crc32(text))


def told(*lines: str) -> Told:
    heard = Told()
    for line in lines:
        heard.take(line)
    return heard


@pytest.mark.parametrize(
    ("node", "lines", "cause"),
    [
        (found(board=None), [], "no firmware"),
        (
            found(config=None, problem="/config.json is no JSON"),
            ["bega: configuration: no JSON"],
            "configuration refused",
        ),
        (found(texts={"/state/starts": counts(b"5,0")}), [RUNS], "fails"),
        (found(texts={"/state/starts": counts(b"0,10")}), [RUNS], "supply"),
        (found(texts={"/state/error": b"Traceback\nMemoryError: memory allocation failed"}), [RUNS], "failed"),
        (found(texts={"/bench/lent": b"{}"}), [RUNS], "lent"),
        (found(chip=replace(CHIP, flash_free_kb=256), ring=[(1, 4096)]), [RUNS], "flash full"),
        (found(config={"node": NODE, "ring_segments": 2, "devices": {}}, ring=[(1, 9), (2, 9)]), [RUNS], "flash full"),
        (found(), ["bega: safe mode: 5 resets in a row"], "safe mode"),
        (found(), [RUNS, "bega: link down: OSError no Wi-Fi, no answer"], "way closed"),
        (found(), ["MemoryError: x"], "does not start"),
    ],
)
def test_doctor_finds_the_cause(node, lines, cause):
    causes = [finding.cause for finding in doctor.findings(node, 1, told(*lines), lines)]
    assert cause in causes
    assert "configuration" not in causes, "the program's own words are enough"


def test_doctor_sends_nobody_to_flash_a_node_that_has_too_many_devices():
    (finding,) = doctor.findings(found(), 1, told(), ["MemoryError: memory allocation failed, allocating 72 bytes"])
    assert finding.cause == "does not start" and "fewer devices" in finding.remedy and "flash" not in finding.remedy


def test_doctor_finds_nothing_on_a_node_that_works():
    assert doctor.findings(found(), 1, told(RUNS), [RUNS]) == []
    assert list(doctor.text([])) == ["nothing wrong was found"]


def test_starts_that_are_damaged_count_for_nothing():
    assert doctor.starts(counts(b"5,2")) == (5, 2)
    assert doctor.starts(b"5,2 00000000") == doctor.starts(b"nonsense") == doctor.starts(None) == (0, 0)


def test_update_on_trial_is_not_tested_since_a_bench_would_decide_it():
    assert found(texts={"/state/slot": b"b 2 1.2.3 - 01234567"}).is_on_trial
    assert not found(texts={"/state/slot": b"b - - 1.2.2 01234567"}).is_on_trial
    (outcome,) = command.unfit(found(texts={"/state/slot": b"b 2 1.2.3 - 01234567"}))
    assert outcome.passed is False and "on trial" in outcome.words


def test_node_that_is_not_as_its_site_says_is_not_called_provisioned_for_it(tmp_path):
    brokers = (Broker(host="gw.lan"), Broker(host="old.lan", port=1883, tls=False))
    site = Site("park", tmp_path / "park.toml", "tim", "gw", brokers, Wifi(ssid="city"), Uplink(bus="uart1"), None)
    site.keys_path.mkdir()
    (site.keys_path / f"{NODE}.key").write_text("ab" * 32 + "\n")
    wifi, line = {"ssid": "city", "key": SECRET}, {"bus": "uart1", "baud": 115200, "key": "ab" * 32}

    def said(config: dict[str, Any]) -> str:
        (outcome,) = command._compared(found(config={"node": NODE, **config}), site)
        assert SECRET not in str(outcome) and "cdcd" not in str(outcome)
        return outcome.words if outcome.passed is False else ""

    assert said({"wifi": wifi, "broker": {"host": "gw.lan", "port": 8883, "tls": {}}}) == ""
    assert said({"wifi": wifi, "broker": {"host": "old.lan"}}) == ""
    assert said({"uplink": line}) == said({"uplink": {"bus": "uart1", "key": "ab" * 32}}) == ""
    assert "which is no broker" in said({"wifi": wifi, "broker": {"host": "elsewhere.lan", "tls": {}}})
    assert "without TLS" in said({"wifi": wifi, "broker": {"host": "gw.lan", "port": 8883}})
    assert "another network" in said({"wifi": {"ssid": "x"}, "broker": {"host": "gw.lan", "tls": {}}})
    assert "has no such" in said({"beacon": {"key": "00"}})
    assert "at 9600 baud" in said({"uplink": {**line, "baud": 9600}})
    assert "would not understand" in said({"uplink": {**line, "key": "cd" * 32}})


def test_bench_leaves_a_nodes_devices_as_they_are_but_for_their_haste():
    own = {"node": NODE, "wifi": {"ssid": "city", "key": "secret"}, "broker": {"host": "gw", "tls": {}}, "made_s": 1}
    own["devices"] = {"pms": {"every_s": 600, "bus": "uart2"}, "sht": {"every_s": 1}, "co2": {}}
    lent_to = lent.for_bench(own, ("192.0.2.1", 1234), True, None, 1_795_300_000)
    assert lent_to["devices"] == {"pms": {"every_s": 5, "bus": "uart2"}, "sht": {"every_s": 1}, "co2": {"every_s": 5}}
    assert lent_to["broker"]["host"] == "192.0.2.1" and lent_to["wifi"] == own["wifi"]
    assert all(path.startswith("/bench/") for path in lent_to["broker"]["tls"].values())
    assert own["broker"]["host"] == "gw" and own["devices"]["pms"]["every_s"] == 600, "its own is not touched"


def test_gateway_of_a_bench_on_a_serial_line_is_taken_by_the_gateways_own_check(tmp_path):
    from bega_gateway import config as settings

    found = own_bench.Bench(("127.0.0.1", 1883), False, "x")
    uplink = {"port": str(tmp_path), "baud": 115200, "key": "ab" * 32}
    (tmp_path / "gateway.toml").write_text(own_bench.gateway_text(tmp_path, NODE, found, uplink))
    _, problems = settings.examine(tmp_path / "gateway.toml", {})
    assert problems == []


class Board(NodeProcess):
    """A virtual board, its own broker away; and what a test of it says."""

    def __init__(self, directory: Path, **config: Any) -> None:
        super().__init__(directory, 1, **config)
        self._place = directory

    @property
    def port(self) -> str:
        return str(json.loads((self._place / "node.ready").read_text())["serial"])

    def test(self, where: str | None, table: command.Table | None = None) -> dict[str, Outcome]:
        outcomes: list[Outcome] = []
        command.test(self.port, None, where, outcomes.append, table)
        return {outcome.step: outcome for outcome in outcomes}


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Iterator[Board]:
    board = Board(tmp_path_factory.mktemp("board"), wifi={"ssid": "city", "key": SECRET})
    board.start()
    yield board
    board.stop()


@needs_micropython
@pytest.mark.slow
def test_bench_proves_a_node_and_gives_it_back_as_it_was(board):
    with Cable(board.port) as cable:
        before = cable.get("/config.json")
    said = board.test("bench")
    assert [(step, outcome.passed) for step, outcome in said.items()] == [
        ("sensor pms", True),
        ("sensor sht", True),
        ("Wi-Fi", True),
        ("broker", True),
        ("record seen", True),
    ], said
    assert "proved on the bench, not on site" in said["record seen"].words
    assert SECRET.encode() in before and SECRET not in str(said)
    with Cable(board.port) as cable:
        assert cable.get("/config.json") == before
        assert not [
            path for path in cable.listing() if path.startswith(("/bench", "/config.g", "/config.n", "/config.t"))
        ]


@needs_micropython
@pytest.mark.slow
def test_bench_that_was_cut_off_is_put_right_by_the_next_test(board):
    """Records that wait for the site's gateway are there again too: a bench must not take them."""
    with Cable(board.port) as cable:
        cable.put("/state/ring/00000077.seg", b"the site's own")
        before = cable.get("/config.json")
        cable.put("/config.trial", b"{}")
        lent.lend(cable, {"node": NODE, "devices": {}}, {"ca.der": b"x"})
        assert read_node(cable).texts["/bench/lent"] is not None
        cable.put("/config.json", b"the bench's")  # confirmed by its gateway; then the plug was pulled
        cable.put("/config.good", b"the bench's")
        assert lent.give_back(cable)
        node = read_node(cable)
        assert node.texts["/config.json"] == before and node.texts["/config.good"] is None
        assert (77, 14) in node.ring
        assert cable.get("/config.new") == b"{}", "what its gateway would have it try is tried again"
        cable.remove("/config.new")
        assert not lent.give_back(cable)
        cable.remove("/state/ring/00000077.seg")


FAULTS: list[tuple[dict[str, Any], str, bool | None, str]] = [
    ({"faults": {"pms": ["silent"]}}, "sensor pms", False, "silent on UART 2"),
    ({"faults": {"uart2": ["noise"]}}, "sensor pms", False, "make no sense"),
    ({"faults": {"pms": ["saturated"]}}, "sensor pms", False, "what cannot be"),
    ({"faults": {"pms": ["blind"]}}, "sensor pms", None, "sees nothing so far"),
    ({"faults": {"sht": ["silent"]}}, "sensor sht", False, "as is all of its bus"),
    ({"faults": {"sht": ["stuck"]}}, "sensor sht", False, "repeats itself"),
    ({"faults": {"sht": ["checksum"]}}, "sensor sht", False, "not as itself"),
    ({"faults": {"i2c0": ["nak"]}}, "sensor sht", False, "as is all of its bus"),
    ({"faults": {"i2c0": ["held"]}}, "sensor sht", False, "SDA of i2c0 is low"),
    ({"faults": {"i2c0": ["no pull-ups"]}}, "sensor sht", False, "SCL and SDA"),
]
WELL: dict[str, Any] = {"faults": {"pms": [], "sht": [], "uart2": [], "i2c0": [], "wifi": []}}


@needs_micropython
@pytest.mark.slow
@by_night
@pytest.mark.parametrize(("order", "step", "passed", "words"), FAULTS, ids=[str(row[0]["faults"]) for row in FAULTS])
def test_fault_on_a_board_is_called_by_its_name(board, order, step, passed, words):
    board.order(**WELL)
    board.order(**order)
    outcome = board.test(None)[step]
    board.order(**WELL)
    assert (outcome.passed, words in outcome.words) == (passed, True), outcome


@needs_micropython
@pytest.mark.slow
@by_night
def test_way_that_is_closed_is_said_with_its_step(board):
    board.order(**WELL)
    board.order(faults={"wifi": ["away"]})
    said = board.test("on-site")
    assert "no network of that name" in said["Wi-Fi"].words and said["record seen"].passed is None
    board.order(**WELL)
    board.order(wifi={"password": "another"})
    assert "password is refused" in board.test("on-site")["Wi-Fi"].words
    board.order(wifi={"password": SECRET, "rssi": -84})
    said = board.test("on-site")
    assert said["Wi-Fi"].passed is None and "no broker answers on port 1" in said["broker"].words
    board.order(wifi={"rssi": -60})


@needs_micropython
@pytest.mark.slow
@by_night
def test_line_that_is_set_wrongly_is_found_and_so_is_a_broken_configuration(tmp_path):
    board = Board(tmp_path, buses={"uart2": "19200 8N1"})
    board.start()
    try:
        assert "speaks at 9600 8N1" in board.test(None)["sensor pms"].words
        with Cable(board.port) as cable:
            cable.put("/config.json", b"{")
            cable.remove("/config.good")
        eventually(lambda: "/config.json is no JSON" in board.said(), "its program has ended")
        time.sleep(1)  # a board that somebody has typed at stays at its prompt, however long nobody types
        facts, findings = doctor.examine(board.port)
        assert [finding.cause for finding in findings] == ["configuration refused"], findings
        assert facts["now"].startswith("configuration") and facts["mac"].startswith("240ac4")
        assert board.test(None)["configuration"].passed is False
        time.sleep(0.1)
    finally:
        board.stop()


needs_mosquitto = pytest.mark.skipif(not own_bench.find_mosquitto(), reason="no mosquitto on this machine")


@needs_micropython
@needs_mosquitto
@pytest.mark.slow
@by_night
def test_certificates_of_two_authorities_do_not_meet_and_it_is_said_who_refuses(board):
    board.order(**WELL)
    with own_bench.bench(NODE, LOOPBACK) as right, own_bench.bench(NODE, LOOPBACK) as other, Cable(board.port) as cable:
        for name in right.files:
            cable.put(f"/right/{name}", right.files[name])
            cable.put(f"/other/{name}", other.files[name])

        def said(ca: str, own: str, host: str = LOOPBACK) -> Outcome:
            tls = {"ca": f"/{ca}/ca.der", "certificate": f"/{own}/node.der", "key": f"/{own}/node.key"}
            broker = {"host": host, "port": right.broker[1], "tls": tls}
            wifi = {"ssid": "city", "key": SECRET}
            config = {"node": NODE, "wifi": wifi, "made_s": int(time.time()), "broker": broker}
            return list(prove_network(cable, config))[-1]

        assert said("right", "right").passed
        assert "another authority" in said("other", "right").words
        refused = said("right", "other")
        assert refused.passed is False and "certificate" in refused.words, refused
        assert "for another host" in said("right", "right", "localhost").words
        assert "certificates are missing" in said("nowhere", "right").words
        cable.run(
            "import os\nfor f in '/right', '/other':\n for n in os.listdir(f):\n  os.remove(f + '/' + n)\n os.rmdir(f)"
        )


@needs_micropython
@pytest.mark.slow
@by_night
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "a closed terminal"])
def test_test_that_is_ended_gives_the_node_back_and_ends_its_bench(board, number, tmp_path):
    board.order(**WELL)
    order = [sys.executable, "-m", "bega", "node", "test", "--port", board.port, "--bench"]
    told = subprocess.Popen(order, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert told.stdout is not None
    with told.stdout as lines:
        assert any(line.startswith(b"ok     broker") for line in lines)
        told.send_signal(number)
        assert told.wait(60) == 130
    assert not list(tmp_path.iterdir()), "the folder of the bench goes with its broker and its gateway"
    with Cable(board.port) as cable:
        assert not lent.give_back(cable)


@needs_micropython
@pytest.mark.slow
@by_night
def test_without_mosquitto_the_bench_speaks_without_tls_and_says_so(board, monkeypatch):
    monkeypatch.setattr(own_bench, "find_mosquitto", lambda: "")
    board.order(**WELL)
    said = board.test("bench")
    assert said["record seen"].passed and "mosquitto is not installed" in said["record seen"].words
    assert "no certificate was tried" in said["broker"].words


@needs_micropython
@pytest.mark.slow
@by_night
def test_node_on_a_serial_line_is_proved_by_the_port_that_is_named(tmp_path):
    line = tmp_path / "line"
    (tmp_path / "node.json").write_text(
        json.dumps({"node": NODE, "devices": {"pms": {}}, "uplink": {"bus": "uart1", "key": "ab" * 32}})
    )
    command_line = [
        "--config",
        tmp_path / "node.json",
        "--ready-file",
        tmp_path / "node.ready",
        "--cable",
        f"uart1={line}",
    ]
    board = subprocess.Popen([sys.executable, "-m", "bega", "sim", "board", *command_line], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "node.ready").exists():
            assert board.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        port = json.loads((tmp_path / "node.ready").read_text())["serial"]
        outcomes: list[Outcome] = []
        assert command.test(port, None, "bench", outcomes.append, command.Table(uplink_port=str(line))) == outcomes
        assert [outcome.passed for outcome in outcomes] == [True, True], outcomes
        (open_,) = [each for each in command.test(port, None, "bench", outcomes.append) if each.step == "record seen"]
        assert open_.passed is None and "--uplink-port" in open_.what_to_do
    finally:
        board.terminate()
        board.wait(10)


def test_bench_does_without_a_site_and_says_so_and_a_pole_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    site, (note,) = command._site("nowhere", "bench")
    assert site is None and note.passed is None and "bega site new nowhere" in note.what_to_do
    with pytest.raises(ConfigError, match="nowhere"):
        command._site("nowhere", "on-site")
    assert command._site(None, "on-site") == (None, [])
