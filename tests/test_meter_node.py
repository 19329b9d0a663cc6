"""The meter node as shipped, on the virtual board: pulses, P1, Modbus, over power cuts, on a real broker."""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import bega_protocols
from bega_protocols.devices.mbus_meter.sim import Sim as MbusSim
from bega_protocols.devices.modbus_meter.sim import Sim as ModbusSim
from bega_protocols.reading import decimal_text
from bega_simulators.hosts.mbus import MbusSegment
from bega_simulators.hosts.rs485 import Rs485Segment
from tests.node_park import MICROPYTHON, NODE, GatewayDouble, NodeProcess

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)

IS_NIGHTLY = os.environ.get("BEGA_PROFILE") == "nightly"
at_night = pytest.mark.skipif(not IS_NIGHTLY, reason="a quarter of a minute of waiting: make nightly PART=firmware")
FLAT = {"every_s": 1, "settings": {"pulses_per_kwh": 1000, "start": "123456.789"}}
START_WH = 123_456_789
PIN, REED = "27", "26"


class Gateway(GatewayDouble):
    """A gateway that hands commands to its node, and keeps what comes back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.results: list[dict[str, Any]] = []
        self._client.message_callback_add(f"node/{NODE}/result", self._take_result)

    def command(self, verb: str, id_: str, **keys: Any) -> None:
        self.publish(f"cmd/{verb}", json.dumps({"id": id_, "expires": int(time.time()) + 60, **keys}).encode())

    def shown(self, device: str = "flat", quantity: str = "active_energy_import") -> list[str]:
        """Return what the device's total was said to be, in the order in which it was measured."""
        rows = [row for record in self.of(device) for row in record.readings if row.quantity == quantity]
        return [decimal_text(row.value, row.exp10) for row in rows]

    def _take_result(self, client: object, userdata: object, message: Any) -> None:
        self.results.append(json.loads(message.payload))


class MeterNode(NodeProcess):
    def start(self, *arguments: str, comes_up: bool = True) -> None:
        super().start("--kind", "meter", *arguments, comes_up=comes_up)

    def pulse(self, times: int, **facts: Any) -> None:
        self.order(pulses={PIN: {"times": times, "low_ms": 30, "high_ms": 30, **facts}})


@pytest.fixture
def gateway(mosquitto, eventually) -> Iterator[Gateway]:
    double = Gateway(mosquitto.url)
    eventually(double._client.is_connected, "the gateway connects")
    double._client.subscribe(f"node/{NODE}/result", 1)
    yield double
    double.close()


@pytest.fixture
def node(tmp_path, mosquitto) -> Iterator[MeterNode]:
    made = MeterNode(tmp_path, mosquitto.port, devices={"flat": FLAT, "water": {"every_s": 1}})
    yield made
    made.stop()


QUIET = ("--sensor", "main=dsmr_p1@uart1")  # and so no contact of the town's


def test_pulses_arrive_to_the_last_digit_bouncing_or_not_and_noise_is_none(node, gateway, eventually):
    node.start(*QUIET)
    eventually(lambda: gateway.shown(), "it says its total")
    assert gateway.shown()[0] == "123456.789"
    node.pulse(17)
    eventually(lambda: gateway.shown()[-1] == "123456.806", "17 Wh more", 30)
    # What a contactor beside the wire does (hum is in test_pulses.py): more at once than the queue of interrupts holds.
    noise = {"times": 1, "low_ms": 0, "bounces": 2000}
    node.order(pulses={PIN: noise, REED: {"times": 4, "low_ms": 400, "high_ms": 300, "bounces": 3}})
    eventually(lambda: gateway.shown("water", "water_volume")[-1] == "0.04", "40 litres", 30)
    assert gateway.shown()[-1] == "123456.806"
    assert gateway.statuses[-1]["devices"]["flat"]["state"] == "ok"
    node.pulse(4, low_ms=400, high_ms=300)
    eventually(lambda: gateway.shown()[-1] == "123456.810", "and it counts on", 30)
    powers = [row for record in gateway.of("flat") for row in record.readings if row.quantity == "active_power"]
    assert any(30_000 < power.value < 70_000 for power in powers), "a pulse each 60 ms are 60 kW"
    assert gateway.statuses[-1]["devices"]["flat"]["state"] == "ok"


@pytest.mark.parametrize("torn", ["clean", "torn"])
def test_power_cut_at_every_flash_operation_leaves_a_total_between_what_was_said_and_what_was_there(torn):
    """Real VfsLfs2 on a flash that dies at its n-th operation, for every n: see the script."""
    script = Path(__file__).parent / "micropython" / "total_powercut.py"
    node = Path(__file__).parent.parent / "firmware" / "node"
    protocols = Path(bega_protocols.__file__).parent.parent
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=8m", script, torn],
        env={"MICROPYPATH": f"{script.parent}:{protocols}:{node}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert int(outcome.stdout.splitlines()[-1].split()[0]) > 30, outcome.stdout


CUTS = 20 if IS_NIGHTLY else 2
CUTS_A_START = 5  # ten power-ons in a row of less than a minute are safe mode


def test_over_power_cuts_no_total_goes_back_none_is_too_much_and_little_is_lost(node, gateway, eventually, tmp_path):
    """A cut costs what came since the last record, a second ago at most, and what came while there was no power."""
    chance = random.Random(6)
    forgiven = tmp_path / "starts"
    forgiven.touch()
    true_wh = START_WH
    boot = 0

    def has_begun():
        records = gateway.of("flat")
        return records and records[-1].boot > boot

    for cut in range(CUTS):
        if cut % CUTS_A_START == 0:
            node.stop()
            node.start(*QUIET, "--put", f"{forgiven}=/state/starts")
        boots = node.said().count("bega: node air-7 runs")
        eventually(has_begun, "it says its total", 30)
        boot = gateway.of("flat")[-1].boot
        begun = int(gateway.shown()[-1].replace(".", ""))
        assert true_wh - 12 <= begun <= true_wh, "a burst is the most that a cut can cost"
        true_wh = begun
        pulses = chance.randint(3, 12)
        node.pulse(pulses)
        time.sleep(pulses * 0.07 + 0.3)
        true_wh += pulses
        time.sleep(chance.random() * 2)
        node.order(power_cut=True if chance.random() < 0.5 else {"after": chance.randint(0, 3), "torn": True})
        eventually(lambda before=boots: node.said().count("bega: node air-7 runs") > before, "it is back", 30)
    eventually(has_begun, "it says its total", 30)
    shown = [int(text.replace(".", "")) for text in gateway.shown()]
    assert shown == sorted(shown), "no total ever went back"
    assert true_wh - 12 <= shown[-1] <= true_wh
    assert "lost its total" not in node.said()


def test_a_total_that_nobody_can_read_is_lost_and_said_until_it_is_set_by_hand(node, gateway, eventually, tmp_path):
    node.start(*QUIET)
    eventually(lambda: gateway.shown(), "it says its total")
    node.pulse(5)
    eventually(lambda: gateway.shown()[-1] == "123456.794", "it counts", 30)
    node.stop()
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"7 1 1000 0 0 5 0 active_energy_import 00000000")
    puts = [word for end in "ab" for word in ("--put", f"{garbage}=/state/total-flat.{end}")]
    said = len(gateway.shown())
    boot = gateway.statuses[-1]["boot"]
    node.start(*QUIET, *puts)
    eventually(lambda: gateway.statuses[-1]["boot"] > boot, "it is back, and is told the time")
    node.pulse(3)
    time.sleep(1)
    flat = gateway.statuses[-1]["devices"]["flat"]
    assert (flat["state"], flat["series"]) == ("lost", 0)
    gateway.command("set_total", "t-1", device="main", total="1")
    gateway.command("set_total", "t-2", device="flat", total="12,5")
    eventually(lambda: len(gateway.results) == 2, "both are answered")
    assert [result["done"] for result in gateway.results] == [False, False]
    assert gateway.results[0]["reason"] == "no device of that name counts pulses"
    assert "a total is digits in quotes" in gateway.results[1]["reason"]
    assert len(gateway.shown()) == said, "no total from nowhere"
    gateway.command("set_total", "t-3", device="flat", total="123457.0")
    eventually(lambda: len(gateway.shown()) > said and gateway.shown()[-1] == "123457.000", "what a person read", 30)
    assert gateway.results[-1] == {"id": "t-3", "done": True}
    eventually(lambda: gateway.statuses[-1]["devices"]["flat"]["state"] == "ok", "and it is well")
    assert gateway.statuses[-1]["devices"]["flat"]["series"] == gateway.statuses[-1]["boot"]
    node.pulse(2)
    eventually(lambda: gateway.shown()[-1] == "123457.002", "it counts on from there", 30)
    assert "123457" not in node.said(), "what a household's meter shows is in no log"


# ------------------------------------------------------------------ meters on wires


def totals(gateway: Gateway, device: str, quantity: str) -> set[str]:
    return set(gateway.shown(device, quantity))


def of_modbus(unit: int, profile: str, every_s: float = 1) -> dict[str, Any]:
    settings = {"profile": profile, "address": unit}
    return {"driver": "modbus_meter", "bus": "meters", "every_s": every_s, "settings": settings}


@pytest.fixture
def bus() -> Iterator[Rs485Segment]:
    profiles = {1: "sdm120", 2: "gmp252", 3: "sdm120"}
    sims: dict[int, Any] = {unit: ModbusSim({"profile": {"part": part}}, seed=unit) for unit, part in profiles.items()}
    with Rs485Segment(sims, baud=9600) as segment:
        yield segment


def test_modbus_meters_share_a_bus_with_one_that_is_late_one_that_refuses_and_one_that_is_silent(
    tmp_path, mosquitto, gateway, bus, eventually
):
    bus.sims[1].set("active_energy_import", "", Decimal("1234.56"))
    bus.sims[3].set("active_energy_import", "", Decimal("77.5"))
    devices = {"one": of_modbus(1, "sdm120"), "two": of_modbus(2, "gmp252"), "three": of_modbus(3, "sdm120", 5)}
    node = MeterNode(tmp_path, mosquitto.port, devices={**devices, "four": of_modbus(4, "sdm120")})
    try:
        node.start("--plug", f"uart2={bus.port}:9600")
        eventually(lambda: totals(gateway, "one", "active_energy_import"), "the first is read", 30)
        eventually(lambda: totals(gateway, "three", "active_energy_import"), "and the third", 30)
        bus.late(3, 1.6)  # its answers come when another has been asked
        bus.sims[2].faults.add("busy")  # it refuses everything
        before = len(gateway.of("one"))
        eventually(lambda: len(gateway.of("one")) > before + 8, "nobody disturbs the first", 60)
        status = gateway.statuses[-1]["devices"]
        assert status["four"]["groups"] == 0
        assert totals(gateway, "one", "active_energy_import") == {"1234.560"}
        assert totals(gateway, "three", "active_energy_import") == {"77.500"}, "late, and never another's"
        assert bus.take_counts().collisions == 0
    finally:
        node.stop()


@at_night
def test_mbus_meters_by_primary_and_by_secondary_address_are_read_in_turn(tmp_path, mosquitto, gateway, eventually):
    settings: list[dict[str, Any]] = [{"address": 5, "identification": "11111111"}, {"address": "12345678"}]
    heat, cold = sims = [MbusSim(each, seed=1) for each in settings]
    heat.set("volume", "", Decimal("17.25"))
    cold.set("volume", "", Decimal("3.5"))
    devices = {
        name: {"driver": "mbus_meter", "bus": "meters", "every_s": 2, "settings": {"address": each["address"]}}
        for name, each in zip(("heat", "cold"), settings, strict=True)
    }
    with MbusSegment(sims, baud=2400) as segment:
        node = MeterNode(tmp_path, mosquitto.port, devices=devices)
        try:
            node.start("--plug", f"uart2={segment.port}:2400")
            eventually(lambda: len(gateway.of("heat")) > 2 and len(gateway.of("cold")) > 2, "both are read", 60)
        finally:
            node.stop()
    assert totals(gateway, "heat", "volume") == {"17.25"}
    assert totals(gateway, "cold", "volume") == {"3.50"}
    assert "12345678" not in node.said(), "a meter's number is in no log"


@at_night
def test_a_household_on_p1_with_the_longest_line_of_the_paper_and_no_word_of_it_on_the_console(
    node, gateway, tmp_path, mosquitto, eventually
):
    node = MeterNode(tmp_path, mosquitto.port, devices={"main": {"every_s": 1}})
    try:
        node.start(*QUIET)
        node.order(faults={"main": ["long_line"]}, air={"active_energy_import": 0})
        eventually(lambda: gateway.of("main"), "the household is heard", 30)
        before = len(gateway.of("main"))
        eventually(lambda: len(gateway.of("main")) > before + 3, "with 1024 characters in a line too", 30)
        report = gateway.statuses[-1]["devices"]["main"]
        assert report["damaged"] <= 1, "the first may have begun in the middle"
        assert "E0047" not in node.said() and "4530303437" not in node.said()
    finally:
        node.stop()
