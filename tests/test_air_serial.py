"""Air by serial beyond the device contract: SDS011, SPS30, MH-Z19 and the Plantowers; sleep, warm-up, cleaning, doubt.

An oracle that is not ours (PyPMS) reads ten thousand frames with us, and what we send is compared with the commands
that the makers print.
"""

import asyncio
import contextlib
import itertools
import json
import random
import struct
import threading
import urllib.request
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pms.core import Sensor

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.station import Station
from bega_gateway.lines.wire_serial import SerialWire
from bega_protocols import sensirion, sensirion_i2c
from bega_protocols.ask import Ask
from bega_protocols.devices.mhz19 import codec as mhz19
from bega_protocols.devices.mhz19.driver import Driver as MhZ19
from bega_protocols.devices.mhz19.sim import Sim as MhZ19Sim
from bega_protocols.devices.pms5003 import codec as pms5003
from bega_protocols.devices.pms5003.driver import Driver as Plantower
from bega_protocols.devices.pms5003.sim import Sim as PlantowerSim
from bega_protocols.devices.sds011 import codec as sds011
from bega_protocols.devices.sds011.driver import Driver as Sds011
from bega_protocols.devices.sds011.sim import Sim as Sds011Sim
from bega_protocols.devices.sps30 import codec as shdlc
from bega_protocols.devices.sps30.driver import Driver as Sps30
from bega_protocols.devices.sps30.sim import Sim as Sps30Sim
from bega_protocols.devices.sps30_i2c import codec as sps30_i2c
from bega_protocols.devices.sps30_i2c.driver import Driver as Sps30I2c
from bega_protocols.devices.sps30_i2c.sim import Sim as Sps30I2cSim
from bega_protocols.doubt import NOTHING, STUCK, WARMING
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import GOOD, SUSPECT, Reading
from bega_simulators.hosts.pty import PtyHost
from tests.contract import drive, through

NOW_MS = 1_790_000_000_000
MINUTE_MS = 60_000
HOUR_S = 3600
DAY_MS = 86_400_000


class Wire:
    """Carries each question of a driver to its simulator, and remembers it."""

    def __init__(self, sim, kind: str = "serial") -> None:
        self.sim = sim
        self.kind = kind
        self.asked: list[Ask] = []

    def measure(self, driver, now_ms: int):
        return drive(driver.measure(now_ms), self._carry)

    def act(self, driver, name, value=None):
        return drive(driver.act(name, value), self._carry)

    def written(self) -> list[bytes]:
        written, self.asked = [ask.write for ask in self.asked if ask.write], []
        return written

    def _carry(self, ask: Ask) -> bytes | None:
        self.asked.append(ask)
        return through(ask, self.sim.answer(ask.write), self.kind)


def values(groups) -> dict[str, Decimal]:
    return {row.quantity: Decimal(row.value).scaleb(row.exp10) for group in groups for row in group}


def quality(groups) -> int:
    """Return the one quality that all measured values have."""
    found = {row.quality for group in groups for row in group if row.quantity != "laser_time"}
    assert len(found) == 1, groups
    return found.pop()


def breathe(sim, number: int) -> None:
    """Let the air move: what stands still is another test's."""
    for quantity, value in (("pm1", 5), ("pm2_5", 9), ("pm10", 14), ("co2", 600)):
        with contextlib.suppress(KeyError):
            sim.set(quantity, "", Decimal(value) + number % 7)


# Commands, as the makers print them


@pytest.mark.parametrize(
    ("ours", "printed"),
    [
        (sds011.command(sds011.QUERY), "AAB404000000000000000000000000FFFF02AB"),
        (sds011.command(sds011.REPORT_MODE, sds011.ACTIVE_MODE), "AAB402010000000000000000000000FFFF01AB"),
        (sds011.command(sds011.REPORT_MODE, sds011.QUERY_MODE), "AAB402010100000000000000000000FFFF02AB"),
        (sds011.command(sds011.REPORT_MODE), "AAB402000000000000000000000000FFFF00AB"),
        (sds011.command(sds011.SLEEP_WORK, sds011.SLEEP), "AAB406010000000000000000000000FFFF05AB"),
        (sds011.command(sds011.SLEEP_WORK, sds011.WORK), "AAB406010100000000000000000000FFFF06AB"),
        (sds011.command(sds011.PERIOD, 0), "AAB408010000000000000000000000FFFF07AB"),
        (sds011.command(sds011.PERIOD, 30), "AAB408011E00000000000000000000FFFF25AB"),
        (sds011.command(sds011.FIRMWARE), "AAB407000000000000000000000000FFFF05AB"),
        (mhz19.command(mhz19.READ), "FF0186000000000079"),
        (mhz19.command(mhz19.SET_ABC, mhz19.ABC_ON), "FF0179A000000000E6"),
        (mhz19.command(mhz19.SET_ABC, b"\0"), "FF0179000000000086"),
        (mhz19.command(mhz19.ZERO), "FF0187000000000078"),
        (mhz19.command(mhz19.SPAN, b"\x07\xd0"), "FF018807D0000000A0"),
        (mhz19.set_range(2000), "FF0199000000 07D08F"),
        (mhz19.set_range(5000), "FF01990000001388CB"),
        (mhz19.set_range(10000), "FF01990000002710 2F"),
        (pms5003.command(pms5003.PASSIVE), "424DE100000170"),
        (pms5003.command(pms5003.ACTIVE), "424DE100010171"),
        (pms5003.command(pms5003.READ), "424DE200000171"),
        (pms5003.command(pms5003.SLEEP), "424DE400000173"),
        (pms5003.command(pms5003.WAKE), "424DE400010174"),
        (shdlc.request(shdlc.START, shdlc.AS_FLOATS), "7E0000020103F97E"),
        (shdlc.request(shdlc.STOP), "7E000100FE7E"),
        (shdlc.request(shdlc.READ), "7E000300FC7E"),
        (shdlc.request(shdlc.SLEEP), "7E001000EF7E"),
        (shdlc.request(shdlc.WAKE), "7E007D3100EE7E"),
        (shdlc.request(shdlc.CLEAN), "7E005600A97E"),
        (shdlc.request(0x80, b"\0"), "7E008001007D5E7E"),
        (shdlc.request(shdlc.INFORMATION, shdlc.SERIAL_NUMBER), "7E00D001032B7E"),
        (shdlc.request(shdlc.VERSION), "7E00D1002E7E"),
        (shdlc.request(shdlc.STATUS, shdlc.KEEP), "7E00D201002C7E"),
        (shdlc.request(shdlc.STATUS, shdlc.CLEAR), "7E00D201012B7E"),
        (shdlc.request(shdlc.RESET), "7E00D3002C7E"),
        (sps30_i2c.to(sps30_i2c.START, sps30_i2c.AS_FLOATS), "00100300AC"),
    ],
)
def test_command_is_what_the_maker_prints(ours, printed):
    assert ours == bytes.fromhex(printed)


# An oracle


def reads_of_pypms(sensor: str, frame: bytes) -> dict[str, float]:
    return vars(Sensor[sensor].decode(frame, time=0))


PYPMS = {
    "pm1": "pm01", "pm2_5": "pm25", "pm4": "pm04", "pm10": "pm10", "particles_0_3": "n0_3", "particles_0_5": "n0_5",
    "particles_1": "n1_0", "particles_2_5": "n2_5", "particles_5": "n5_0", "particles_10": "n10_0", "co2": "CO2",
    "temperature": "temp", "humidity": "rhum", "particles_to_0_5": "n0_5", "particles_to_1": "n1_0",
    "particles_to_2_5": "n2_5", "particles_to_4": "n4_0", "particles_to_10": "n10_0", "particle_size": "diam",
}  # fmt: skip


def with_sum(body: bytes) -> bytes:
    return body + struct.pack(">H", sum(body) & 0xFFFF)


def plantower(chance: random.Random, size: int, counts: int, tail: bytes) -> bytes:
    masses = sorted(chance.randrange(1 << chance.randrange(1, 17)) for _ in range(3))
    numbers = sorted((chance.randrange(1, 1 << chance.randrange(1, 17)) for _ in range(counts)), reverse=True)
    body = struct.pack(f">2sH6H{counts}H", b"BM", size - 4, *masses, *masses, *numbers) + tail
    return with_sum(body.ljust(size - 2, b"\0"))


def sds(chance: random.Random) -> bytes:
    fine, coarse = sorted(chance.randrange(10_000) for _ in range(2))
    body = struct.pack("<HHH", fine, coarse, chance.randrange(1 << 16))
    return b"\xaa\xc0" + body + bytes([sum(body) & 0xFF, 0xAB])


def co2(chance: random.Random) -> bytes:
    body = b"\x86" + chance.randrange(10_001).to_bytes(2, "big") + chance.randbytes(4)
    if sum(body) & 0xFF == 0:  # PyPMS takes the check value to be 0x100 then, which no byte is
        return co2(chance)
    return b"\xff" + body + bytes([-sum(body) & 0xFF])


def sps(chance: random.Random) -> bytes:
    masses = sorted(chance.uniform(0, 1000) for _ in range(4))
    numbers = sorted(chance.uniform(0, 3000) for _ in range(5))
    data = struct.pack(">10f", *masses, *numbers, chance.uniform(0.3, 10))
    inner = bytes([0, 3, 0, 40]) + data
    inner += bytes([255 - sum(inner) % 256])
    for plain in b"\x7d\x7e\x11\x13":
        inner = inner.replace(bytes([plain]), bytes([0x7D, plain ^ 0x20]))
    return b"\x7e" + inner + b"\x7e"


def climate(chance: random.Random) -> bytes:
    return struct.pack(">hH", chance.randint(-400, 990), chance.randint(0, 1000))


SPOKEN = {
    "SDS01x": ("sds011", {}, sds),
    "MHZ19B": ("mhz19", {}, co2),
    "SPS30": ("sps30", {}, sps),
    "PMSx003": ("pms5003", {}, lambda chance: plantower(chance, 32, 6, b"\x97\0")),
    "PMS3003": ("pms5003", {"model": "pms3003"}, lambda chance: plantower(chance, 24, 0, b"")),
    "PMS5003T": ("pms5003", {"model": "pms5003t"}, lambda chance: plantower(chance, 32, 4, climate(chance))),
    "PMS5003S": ("pms5003", {"model": "pms5003s"}, lambda chance: plantower(chance, 32, 6, chance.randbytes(2))),
    "PMS5003ST": (
        "pms5003",
        {"model": "pms5003st"},
        lambda chance: plantower(chance, 40, 6, chance.randbytes(2) + climate(chance)),
    ),
}


@pytest.mark.parametrize("sensor", SPOKEN)
def test_ten_thousand_frames_read_what_pypms_reads(sensor):
    """1,250 each of eight sensors."""
    device, settings, speak = SPOKEN[sensor]
    driver, chance = load_driver(device, settings), random.Random(sensor)
    for _ in range(1250):
        frame = speak(chance)
        ours = values(driver.feed(frame, 0))
        theirs = reads_of_pypms(sensor, frame)
        assert ours, frame.hex()
        for quantity, value in ours.items():
            if quantity == "formaldehyde":
                assert float(value) == pytest.approx(1000 * theirs["HCHO"]), frame.hex()
            else:
                assert float(value) == pytest.approx(theirs[PYPMS[quantity]], abs=0.00501), (quantity, frame.hex())
    assert not driver.damaged


# Floats by whole numbers


@given(st.integers(0, (1 << 32) - 1))
def test_float_becomes_hundredths_exactly(bits):
    value = struct.unpack(">f", struct.pack(">I", bits))[0]
    if not 0 <= value < 2**31:
        with pytest.raises(WireError):
            sensirion.hundredths(bits)
        return
    exact = Decimal(value) * 100
    assert sensirion.hundredths(bits) == int(exact.to_integral_value("ROUND_HALF_UP"))


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7, 8])
def test_sps30_outputs_that_fall_with_size_are_damage(at):
    values = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0, 50.0, 0.5]
    assert len(sensirion.readings(struct.pack(">10f", *values))) == 10
    values[at] = values[at - 1] - 0.02
    with pytest.raises(WireError, match="fall with size"):
        sensirion.readings(struct.pack(">10f", *values))


def test_words_tell_which_of_them_is_damaged():
    whole = sensirion_i2c.with_crc(0xBEEF) + sensirion_i2c.with_crc(0x8000)
    assert sensirion_i2c.without_crc(whole) == b"\xbe\xef\x80\x00"
    with pytest.raises(WireError, match="word 1"):
        sensirion_i2c.without_crc(whole[:-1] + b"\0")
    for wrong in (b"", whole[:-1], whole + b"\0"):
        with pytest.raises(WireError):
            sensirion_i2c.without_crc(wrong)


@given(data=st.binary(max_size=200), cut=st.integers(0, 200))
def test_whatever_is_sent_by_shdlc_comes_back_through_any_chunking(data, cut):
    """A reply is a request with a state in it; the simulator's framing is tested by the contract."""
    inner = bytes([0, 0xD0, 0, len(data)]) + data
    inner += bytes([255 - sum(inner) % 256])
    for plain in b"\x7d\x7e\x11\x13":
        inner = inner.replace(bytes([plain]), bytes([0x7D, plain ^ 0x20]))
    stream = b"\x7e" + inner + b"\x7e"
    replies, damaged = shdlc.Replies(), []
    found = replies.feed(stream[:cut], damaged) + replies.feed(stream[cut:], damaged)
    assert (found, damaged) == ([shdlc.Reply(0xD0, 0, False, data)], [])
    assert shdlc.is_reply(stream)
    assert not any(shdlc.is_reply(stream[:size]) for size in range(len(stream)))


@given(st.lists(st.binary(max_size=700), max_size=6))
def test_shdlc_keeps_little_of_what_has_no_end(chunks):
    replies, damaged = shdlc.Replies(), []
    for chunk in chunks:
        replies.feed(chunk.replace(b"\x7e", b"\x7f"), damaged)
        assert len(replies._waiting) <= shdlc.LONGEST


# SDS011


def test_sds011_is_set_up_once_and_only_where_it_must_be():
    """It keeps its mode in memory that wears."""
    driver, wire = Sds011({}), Wire(Sds011Sim({}, seed=1))
    wire.measure(driver, NOW_MS)
    assert wire.sim.query_mode
    assert [frame[2:4] for frame in wire.written()] == [b"\x02\x00", b"\x02\x01", b"\x07\x00", b"\x04\x00"]
    wire.measure(driver, NOW_MS + MINUTE_MS)
    assert [frame[2] for frame in wire.written()] == [4]
    assert driver.attributes["firmware"] == "2018-11-16"
    another = Sds011({})
    wire.measure(another, NOW_MS)
    assert b"\x02\x01" not in [frame[2:4] for frame in wire.written()], "it waits to be asked already"


def test_sds011_rests_between_measurements():
    sim = Sds011Sim({"mode": "query"}, seed=1)
    driver, wire = Sds011({"rest": True}), Wire(sim)
    sim.set("pm2_5", "", "12.3")
    sim.set("pm10", "", "20")
    groups = wire.measure(driver, NOW_MS)
    assert not sim.awake
    assert sum(ask.wait_ms for ask in wire.asked if not ask.write) == 30_000
    assert groups[0][:2] == [Reading("pm2_5", 123, -1), Reading("pm10", 200, -1)], "it has warmed up"
    assert values(groups)["laser_time"] == 30
    for number in range(1, 20):
        breathe(sim, number)
        groups = wire.measure(driver, NOW_MS + number * 5 * MINUTE_MS)
        assert quality(groups) == GOOD
    assert values(groups)["laser_time"] == 600
    assert values(wire.measure(Sds011({"rest": True}, driver.state()), NOW_MS))["laser_time"] == 630, "kept"


@pytest.mark.parametrize(
    ("driver", "sim"),
    [
        (Sds011({"rest": True}), Sds011Sim({"mode": "query"}, seed=1)),
        (Plantower({"rest": True, "mode": "passive"}), PlantowerSim({}, seed=1)),
    ],
    ids=["sds011", "pms5003"],
)
def test_sensor_rests_after_a_damaged_answer_too(driver, sim):
    wire = Wire(sim)
    assert wire.measure(driver, NOW_MS)

    def carried(ask: Ask) -> bytes | None:
        answer = through(ask, sim.answer(ask.write), "serial")
        return bytes(9) if answer and (answer[:2] == b"\xaa\xc0" or len(answer) == 32) else answer

    assert drive(driver.measure(NOW_MS + 5 * MINUTE_MS), carried) == []
    assert driver.damaged
    assert not sim.awake


def test_sds011_that_somebody_put_to_sleep_is_woken_for_the_next_time():
    driver, wire = Sds011({}), Wire(Sds011Sim({"mode": "query"}, seed=1))
    assert wire.measure(driver, NOW_MS)
    wire.act(driver, "sleep", 1)
    assert not wire.sim.awake
    assert wire.measure(driver, NOW_MS + MINUTE_MS) == []
    assert wire.sim.awake
    groups = wire.measure(driver, NOW_MS + 2 * MINUTE_MS)
    assert quality(groups) == SUSPECT
    assert driver.attributes["doubt"] in (WARMING, NOTHING)


def test_sds011_of_another_id_is_refused():
    sim = Sds011Sim({"id": "A160", "mode": "query"}, seed=1)
    driver, wire = Sds011({"id": "A160"}), Wire(sim)
    assert wire.measure(driver, NOW_MS)
    assert driver.attributes["id"] == "A160"
    sim.faults.add("another device")
    assert wire.measure(driver, NOW_MS + MINUTE_MS) == []
    assert "A061 answers, not A160" in driver.damaged[0][1].why
    assert wire.measure(Sds011({"id": "B160"}), NOW_MS) == [], "it does not even hear what is not for it"


def test_sds011_air_that_cannot_be_is_damage():
    driver = Sds011({"mode": "continuous"})
    body = bytes.fromhex("7b047a04a160")
    assert driver.feed(b"\xaa\xc0" + body + bytes([sum(body) & 0xFF, 0xAB]), NOW_MS) == []
    assert driver.damaged[-1][1].why == "more PM2.5 than PM10"


def test_sds011_counts_its_laser_only_while_it_is_heard():
    driver, sim = Sds011({"mode": "continuous"}), Sds011Sim({}, seed=1)
    for second in range(0, 100):
        driver.feed(sim.tick(NOW_MS + 1000 * second), NOW_MS + 1000 * second)
    sim.faults.add("silent")
    assert sim.tick(NOW_MS + 100_000) == b""
    sim.faults.clear()
    for second in range(500, 551):
        groups = driver.feed(sim.tick(NOW_MS + 1000 * second), NOW_MS + 1000 * second)
    assert values(groups)["laser_time"] == 99 + 50


def test_sds011_with_a_working_period_is_warm_when_it_reports():
    sim = Sds011Sim({}, seed=1)
    wire = Wire(sim)
    wire.act(Sds011({"mode": "continuous"}), "period_min", 5)
    assert sim.period_min == 5
    driver, qualities = Sds011({"mode": "continuous", "period_min": 5}), []
    for minute in range(60):
        breathe(sim, minute)
        groups = driver.feed(sim.tick(NOW_MS + minute * MINUTE_MS), NOW_MS + minute * MINUTE_MS)
        qualities += [quality(groups)] if groups else []
    assert qualities == [GOOD] * 12
    assert values(groups or driver.feed(sim.tick(NOW_MS + HOUR_S * 1000), NOW_MS + HOUR_S * 1000))["laser_time"] == 360


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "sometimes"}, {"id": "A1"}, {"id": 41312}, {"rest": 1}, {"mode": "continuous", "rest": True},
        {"period_min": 5}, {"mode": "continuous", "period_min": 31}, {"warm_up_s": -1},
    ],
)  # fmt: skip
def test_sds011_refuses_settings_that_cannot_be(settings):
    with pytest.raises(ConfigError):
        Sds011(settings)


# MH-Z19


def test_mhz19_is_told_of_its_baseline_at_the_start_and_after_each_silence():
    driver, wire = MhZ19({"abc": "off", "range_ppm": 2000}), Wire(MhZ19Sim({}, seed=1))
    wire.measure(driver, NOW_MS)
    assert (wire.sim.abc, wire.sim.range_ppm) == (False, 2000)
    wire.sim.power_cut()
    wire.sim.faults.add("silent")
    wire.measure(driver, NOW_MS + MINUTE_MS)
    wire.sim.faults.clear()
    wire.measure(driver, NOW_MS + 2 * MINUTE_MS)
    assert not wire.sim.abc
    untold = Wire(MhZ19Sim({}, seed=1))
    untold.measure(MhZ19({}), NOW_MS)
    assert untold.written() == [mhz19.command(mhz19.READ)]


def test_mhz19_is_never_calibrated_by_itself():
    driver, wire = MhZ19({"abc": "on", "range_ppm": 5000}), Wire(MhZ19Sim({}, seed=1))
    for minute in range(100):
        wire.sim.faults ^= {"silent"} if minute % 10 == 0 else set()
        wire.measure(driver, NOW_MS + minute * MINUTE_MS)
    assert wire.sim.calibrations == []
    wire.act(driver, "zero", 400)
    wire.act(driver, "span_ppm", 2000)
    assert wire.sim.calibrations == ["zero", "span 2000"]


@pytest.mark.parametrize(("name", "value"), [("zero", None), ("zero", 0), ("span_ppm", 400), ("range_ppm", 3000)])
def test_mhz19_refuses_an_action_that_would_spoil_it(name, value):
    with pytest.raises(ConfigError):
        next(MhZ19({}).act(name, value))


@pytest.mark.parametrize(("model", "minutes"), [("b", 3), ("c", 1)])
def test_mhz19_is_doubted_until_it_is_warm_and_again_after_silence(model, minutes):
    driver, wire = MhZ19({"model": model}), Wire(MhZ19Sim({}, seed=1))

    def an_hour(begin_ms):
        found = []
        for minute in range(10):
            breathe(wire.sim, minute)
            found.append(quality(wire.measure(driver, begin_ms + minute * MINUTE_MS)))
        return found

    assert an_hour(NOW_MS) == [SUSPECT] * minutes + [GOOD] * (10 - minutes)
    wire.sim.faults.add("silent")
    wire.measure(driver, NOW_MS + 10 * MINUTE_MS)
    wire.sim.faults.clear()
    assert an_hour(NOW_MS + 11 * MINUTE_MS) == [SUSPECT] * minutes + [GOOD] * (10 - minutes)


@pytest.mark.parametrize("ppm", [400, 410, 2000, 5000, 10000])
def test_mhz19_that_stands_at_a_start_value_or_a_range_is_doubted(ppm):
    driver, sim = MhZ19({"warm_up_s": 0}), MhZ19Sim({}, seed=1)
    sim.range_ppm = 10000
    sim.set("co2", "", ppm)
    wire = Wire(sim)
    found = [quality(wire.measure(driver, NOW_MS + minute * MINUTE_MS)) for minute in range(8)]
    assert found == ([GOOD] * 5 + [SUSPECT] * 3 if ppm <= 410 else [SUSPECT] * 8)
    sim.set("co2", "", 700)
    assert quality(wire.measure(driver, NOW_MS + 9 * MINUTE_MS)) == GOOD


def test_mhz19_that_falls_onto_a_start_value_began_anew():
    """A brown-out of the sensor alone: it is back before it is asked."""
    driver, wire = MhZ19({}), Wire(MhZ19Sim({}, seed=1))
    for minute in range(5):
        breathe(wire.sim, minute)
        wire.measure(driver, NOW_MS + minute * MINUTE_MS)
    wire.sim.faults.add("warming")
    assert quality(wire.measure(driver, NOW_MS + 5 * MINUTE_MS)) == SUSPECT
    assert driver.attributes["doubt"] == WARMING
    wire.sim.faults.clear()
    wire.sim.set("co2", "", 900)
    found = [quality(wire.measure(driver, NOW_MS + minute * MINUTE_MS)) for minute in range(6, 9)]
    assert found == [SUSPECT, SUSPECT, GOOD]


# SPS30, on both wires

BOTH = pytest.mark.parametrize(
    ("driver_of", "sim_of", "kind"), [(Sps30, Sps30Sim, "serial"), (Sps30I2c, Sps30I2cSim, "i2c")]
)


def warm(driver, wire) -> int:
    """Measure until it is warm; return when that is."""
    for number in range(3):
        breathe(wire.sim, number)
        wire.measure(driver, NOW_MS + number * MINUTE_MS)
    return NOW_MS + 3 * MINUTE_MS


@BOTH
def test_sps30_is_started_read_and_known(driver_of, sim_of, kind):
    driver, wire = driver_of({}), Wire(sim_of({}, seed=1), kind)
    breathe(wire.sim, 0)
    groups = wire.measure(driver, NOW_MS)
    assert wire.sim.measures
    assert (values(groups)["pm2_5"], quality(groups)) == (9, SUSPECT)
    assert driver.attributes == {"serial_number": "7C1F80CB1C9C5A2E", "firmware": "2.2", "doubt": WARMING}
    assert quality(wire.measure(driver, NOW_MS + MINUTE_MS)) == GOOD
    assert not driver.damaged


@BOTH
def test_sps30_that_lost_power_is_started_again_and_warms_up(driver_of, sim_of, kind):
    driver, wire = driver_of({}), Wire(sim_of({}, seed=1), kind)
    now_ms = warm(driver, wire)
    wire.sim.power_cut()
    assert wire.measure(driver, now_ms) == []
    breathe(wire.sim, 5)
    assert quality(wire.measure(driver, now_ms + MINUTE_MS)) == SUSPECT
    assert quality(wire.measure(driver, now_ms + 2 * MINUTE_MS)) == GOOD


@BOTH
def test_sps30_rests_between_measurements(driver_of, sim_of, kind):
    driver, wire = driver_of({"rest": True}), Wire(sim_of({}, seed=1), kind)
    for number in range(5):
        breathe(wire.sim, number)
        assert quality(wire.measure(driver, NOW_MS + number * 5 * MINUTE_MS)) == GOOD
        assert wire.sim.asleep
        assert not wire.sim.measures
    assert not driver.damaged


@BOTH
@pytest.mark.parametrize(("fault", "why"), [("fan", "fan does not turn"), ("laser", "current"), ("speed", "speed")])
def test_sps30_whose_status_complains_is_doubted(driver_of, sim_of, kind, fault, why):
    driver, wire = driver_of({}), Wire(sim_of({}, seed=1), kind)
    now_ms = warm(driver, wire)
    wire.sim.faults.add(fault)
    assert quality(wire.measure(driver, now_ms)) == SUSPECT
    assert why in driver.attributes["doubt"]
    wire.sim.faults.clear()
    assert quality(wire.measure(driver, now_ms + MINUTE_MS)) == GOOD


@BOTH
def test_sps30_is_cleaned_each_week_over_restarts_and_doubted_meanwhile(driver_of, sim_of, kind):
    state, now_ms, cleaned = b"", NOW_MS, []
    sim = sim_of({}, seed=1)
    for _ in range(4):
        driver, wire = driver_of({}, state), Wire(sim, kind)
        for _ in range(5 * 24):  # five days, then the gateway starts anew
            breathe(sim, now_ms // 1000)
            wire.measure(driver, now_ms)
            if len(cleaned) < sim.cleanings:
                cleaned.append(now_ms)
                assert quality(wire.measure(driver, now_ms + 5000)) == SUSPECT
                assert driver.attributes["doubt"] == "cleans its fan"
                assert quality(wire.measure(driver, now_ms + 12_000)) == GOOD
            now_ms += HOUR_S * 1000
        state = driver.state()
    # At the first start nobody knows when it was cleaned. What lies between the last measurement before a restart and
    # the first one behind it is not counted.
    assert [(at_ms - NOW_MS) // 3_600_000 for at_ms in cleaned] == [1, 1 + 7 * 24 + 1, 1 + 14 * 24 + 2]


@BOTH
def test_sps30_is_not_cleaned_where_nobody_wants_it(driver_of, sim_of, kind):
    driver, wire = driver_of({"clean_days": 0}), Wire(sim_of({}, seed=1), kind)
    for day in range(30):
        wire.measure(driver, NOW_MS + day * DAY_MS)
    assert wire.sim.cleanings == 0
    assert wire.act(driver, "clean")
    assert wire.sim.cleanings == 1


@BOTH
def test_sps30_of_old_firmware_is_only_stopped(driver_of, sim_of, kind):
    sim = sim_of({}, seed=1)
    sim.version = (1, 0)
    driver, wire = driver_of({"rest": True} if kind == "serial" else {}), Wire(sim, kind)
    for number in range(3):
        breathe(sim, number)
        groups = wire.measure(driver, NOW_MS + number * MINUTE_MS)
    assert quality(groups) == GOOD
    assert (sim.asleep, sim.measures) == (False, kind == "i2c")
    wire.asked.clear()
    wire.measure(driver, NOW_MS + 4 * MINUTE_MS)
    asked_for_status = [
        frame for frame in wire.written() if frame[:4] == b"\x7e\x00\xd2\x01" or frame[:2] == b"\xd2\x06"
    ]
    assert asked_for_status == [], "it does not know the command"


@BOTH
@pytest.mark.parametrize("fault", ["not a number", "nothing new", "checksum", "silent"])
def test_sps30_that_gives_nothing_gives_no_reading(driver_of, sim_of, kind, fault):
    driver, wire = driver_of({}), Wire(sim_of({}, seed=1), kind)
    now_ms = warm(driver, wire)
    wire.sim.faults.add(fault)
    assert wire.measure(driver, now_ms) == []
    wire.sim.faults.clear()
    assert wire.measure(driver, now_ms + MINUTE_MS)


@BOTH
def test_sps30_that_rests_is_cleaned_before_it_is_read_and_what_it_says_is_of_the_end(driver_of, sim_of, kind):
    wire = Wire(sim_of({}, seed=1), kind)
    driver = driver_of({"rest": True}, (8 * DAY_MS // 1000).to_bytes(4, "big"))
    breathe(wire.sim, 1)
    assert quality(wire.measure(driver, NOW_MS)) == GOOD
    assert [ask.wait_ms for ask in wire.asked if not ask.write] == [10_000, 30_000]
    assert driver.state() == bytes(4)


@BOTH
def test_sps30_that_sees_no_particle_is_doubted_whatever_size_it_names(driver_of, sim_of, kind):
    driver, wire = driver_of({}), Wire(sim_of({}, seed=1), kind)
    now_ms = warm(driver, wire)
    for quantity in sensirion.MASSES + sensirion.NUMBERS:
        wire.sim.set(quantity, "", Decimal(0))
    wire.sim.set("particle_size", "", Decimal("1.63"))
    groups = wire.measure(driver, now_ms)
    assert values(groups)["particle_size"] == Decimal("1.63")
    assert (quality(groups), driver.attributes["doubt"]) == (SUSPECT, NOTHING)


@BOTH
def test_sps30_that_repeats_itself_is_doubted_at_the_third_time(driver_of, sim_of, kind):
    driver, wire = driver_of({}), Wire(sim_of({}, seed=1), kind)
    now_ms = warm(driver, wire)
    wire.sim.faults.add("stuck")
    found = [quality(wire.measure(driver, now_ms + number * MINUTE_MS)) for number in range(4)]
    assert found == [GOOD, GOOD, SUSPECT, SUSPECT]
    assert driver.attributes["doubt"] == STUCK


# Plantower


def test_plantower_is_doubted_for_half_a_minute_after_power_and_after_silence():
    driver, sim = Plantower({}), PlantowerSim({}, seed=1)

    def listen(begin_s, end_s):
        found = []
        for second in range(begin_s, end_s):
            breathe(sim, second)
            groups = driver.feed(sim.tick(NOW_MS + 1000 * second), NOW_MS + 1000 * second)
            found += [quality(groups[-1:])] if groups else []
        return found

    assert listen(0, 60) == [SUSPECT] * 30 + [GOOD] * 30
    sim.faults.add("silent")
    assert listen(60, 80) == []
    sim.faults.clear()
    assert listen(80, 140) == [SUSPECT] * 30 + [GOOD] * 30


def test_plantower_in_passive_mode_rests_and_counts_its_laser():
    driver, wire = Plantower({"mode": "passive", "rest": True}), Wire(PlantowerSim({}, seed=1))
    for number in range(10):
        breathe(wire.sim, number)
        groups = wire.measure(driver, NOW_MS + number * 5 * MINUTE_MS)
        assert (quality(groups), wire.sim.awake) == (GOOD, False)
    assert values(groups)["laser_time"] == 300
    again = Plantower({"mode": "passive", "rest": True}, driver.state())
    assert values(wire.measure(again, NOW_MS))["laser_time"] == 330


def test_plantower_that_was_put_to_sleep_or_lost_power_comes_back():
    driver, wire = Plantower({"mode": "passive"}), Wire(PlantowerSim({}, seed=1))
    breathe(wire.sim, 0)
    assert quality(wire.measure(driver, NOW_MS)) == SUSPECT
    assert quality(wire.measure(driver, NOW_MS + MINUTE_MS)) == GOOD
    assert wire.act(driver, "sleep", 1)
    assert wire.measure(driver, NOW_MS + 2 * MINUTE_MS) == []
    assert wire.sim.awake
    assert quality(wire.measure(driver, NOW_MS + 3 * MINUTE_MS)) == SUSPECT
    wire.sim.power_cut()
    assert wire.measure(driver, NOW_MS + 4 * MINUTE_MS) == [], "active again, it answers no question"
    assert wire.measure(driver, NOW_MS + 5 * MINUTE_MS)
    assert not wire.sim.active


@pytest.mark.parametrize("model", pms5003.MODELS)
def test_plantower_that_sees_nothing_is_doubted_however_its_climate_moves(model):
    driver, sim = Plantower({"model": model}), PlantowerSim({"model": model}, seed=1)
    sim.faults.add("blind")
    for second in range(60):
        if model in ("pms5003t", "pms5003st"):
            sim.set("temperature", "", 20 + second % 7)
        groups = driver.feed(sim.tick(NOW_MS + 1000 * second), NOW_MS + 1000 * second)
        assert {quality([group]) for group in groups} == {SUSPECT}
    assert driver.attributes["doubt"] == NOTHING


def test_plantower_that_listens_can_neither_be_asked_nor_keeps_anything():
    driver = Plantower({})
    assert not hasattr(driver, "measure")
    assert not hasattr(driver, "state")


@pytest.mark.parametrize(
    "settings",
    [{"model": "pms9003"}, {"mode": "query"}, {"rest": True}, {"model": "pms3003", "mode": "passive"}, {"rest": "yes"}],
)
def test_plantower_refuses_settings_that_cannot_be(settings):
    with pytest.raises(ConfigError):
        Plantower(settings)


def test_plantower_air_that_cannot_be_is_damage():
    driver, sim = Plantower({"warm_up_s": 0}), PlantowerSim({}, seed=1)
    sim.faults.add("impossible")
    assert driver.feed(sim.tick(NOW_MS), NOW_MS) == []
    assert "masses fall" in driver.damaged[0][1].why
    rising = struct.pack(">2sH6H6HH", b"BM", 28, 1, 2, 3, 1, 2, 3, 9, 8, 7, 6, 1, 2, 0)
    assert driver.feed(with_sum(rising), NOW_MS) == []
    nothing = struct.pack(">2sH6H6HH", b"BM", 28, 1, 2, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0)
    assert quality(driver.feed(with_sum(nothing), NOW_MS)) == SUSPECT
    assert driver.attributes["doubt"] == "mass without particles"


@pytest.mark.parametrize("model", pms5003.MODELS)
def test_each_plantower_reads_what_its_simulator_was_told(model):
    sim, driver = PlantowerSim({"model": model}, seed=1), Plantower({"model": model, "warm_up_s": 0})
    told = {"pm1": "3", "pm2_5": "7", "pm10": "9"}
    has_counts = pms5003.MODELS[model].counts
    told |= {"particles_0_3": "9.87"} if has_counts else {}
    told |= {"formaldehyde": "31"} if model in ("pms5003s", "pms5003st") else {}
    told |= {"temperature": "-12.3", "humidity": "87.6"} if model in ("pms5003t", "pms5003st") else {}
    for quantity, value in told.items():
        sim.set(quantity, "", Decimal(value))
    groups = driver.feed(sim.tick(NOW_MS), NOW_MS)
    assert quality(groups) == GOOD
    assert {quantity: str(value) for quantity, value in values(groups).items() if quantity in told} == told


@pytest.mark.parametrize(
    ("device", "sim"), [("pms5003", PlantowerSim), ("sds011", Sds011Sim)], ids=["pms5003", "sds011"]
)
def test_each_way_in_which_a_sensor_is_searched_for_hears_such_a_sensor(device, sim):
    driver_of = type(load_driver(device, {}))
    for line, settings in driver_of.also_found:
        assert line == driver_of.line
        talker = sim({key: value for key, value in settings.items() if key != "mode"}, seed=1)
        assert load_driver(device, settings).feed(talker.tick(NOW_MS), NOW_MS), settings


# On a wire


def hung_on(sim, baud, driver, count):
    """Return the first `count` groups that arrive when the driver is asked ten times a second, on a pty."""
    arrived = []

    async def running():
        host = PtyHost(sim, baud, wall_ms)
        enough = asyncio.Event()

        async def deliver(groups, at_ms):
            assert abs(at_ms - wall_ms()) < 10_000
            arrived.extend(groups)
            if len(arrived) >= count:
                enough.set()

        station = Station("air", driver, 0.1, deliver)
        line = AskedLine("air", SerialWire(host.port, baud, "8N1", mono_ms), [station], mono_ms, wall_ms)
        tasks = [asyncio.create_task(host.run()), asyncio.create_task(line.run())]
        try:
            await asyncio.wait_for(enough.wait(), 20)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            host.close()
        assert station.counters.damaged == 0

    asyncio.run(running())
    return arrived


@pytest.mark.parametrize(
    ("driver", "sim", "baud"),
    [
        (Sds011({"rest": True, "warm_up_s": 0}), Sds011Sim({}, seed=1), 9600),
        (Plantower({"mode": "passive", "rest": True, "warm_up_s": 0}), PlantowerSim({}, seed=1), 9600),
        (MhZ19({"abc": "off", "warm_up_s": 0}), MhZ19Sim({}, seed=1), 9600),
        (Sps30({"rest": True, "warm_up_s": 0}), Sps30Sim({}, seed=1), 115200),
    ],
    ids=["sds011", "pms5003", "mhz19", "sps30"],
)
def test_sensor_is_woken_asked_and_put_to_sleep_on_a_port(driver, sim, baud):
    """The SDS011 and the Plantower speak by themselves until they are told: what they say lies between the answers."""
    breathe(sim, 0)

    arrived = hung_on(sim, baud, driver, 3)
    assert all(quality([group]) == GOOD for group in arrived)
    found = values(arrived)
    assert found.get("pm2_5", 9) == 9
    assert found.get("co2", 600) == 600
    assert "pm2_5" in found or "co2" in found


class AtOnce:
    """A wire on which every answer comes at once."""

    began_ms = 0

    def __init__(self, sim) -> None:
        self._sim = sim

    async def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def turn(self):
        return contextlib.nullcontext()

    async def exchange(self, ask: Ask) -> bytes | None:
        await asyncio.sleep(0)
        breathe(self._sim, random.randrange(100))
        return through(ask, self._sim.answer(ask.write), "serial")


def test_clock_that_is_set_while_a_sensor_warms_up_does_not_end_its_warm_up():
    arrived = []
    wall = itertools.count(0, DAY_MS)

    async def running():
        enough = asyncio.Event()

        async def deliver(groups, at_ms):
            arrived.extend(groups)
            if len(arrived) >= 5:
                enough.set()

        station = Station("air", Sds011({}), 0.01, deliver)
        line = AskedLine("air", AtOnce(Sds011Sim({}, seed=1)), [station], mono_ms, lambda: next(wall))
        task = asyncio.create_task(line.run())
        await asyncio.wait_for(enough.wait(), 20)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(running())
    assert {quality([group]) for group in arrived} == {SUSPECT}


CONFIGURATION = """
[gateway]
name = "gw-yard"
city = "timisoara"
[uplink]
brokers = ["mqtt://127.0.0.1:1"]
[feed]
listen = "127.0.0.1:0"
[lines.air]
kind = "serial"
port = "{port}"
[devices.yard]
line = "air"
driver = "sds011"
every_s = 0.5
audience = "public"
[devices.yard.settings]
id = "A160"
rest = true
warm_up_s = 0
"""


@pytest.mark.slow
def test_gateway_as_shipped_asks_an_sds011_and_lets_it_rest(make_gateway, eventually):
    sim = Sds011Sim({"id": "A160"}, seed=1)
    breathe(sim, 0)
    host = PtyHost(sim, 9600, wall_ms)
    loop = asyncio.new_event_loop()
    serving = loop.create_task(host.run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(serving, return_exceptions=True)))
    thread.start()
    try:
        gateway = make_gateway(CONFIGURATION.format(port=host.port))
        gateway.start()

        def shown():
            with urllib.request.urlopen(f"{gateway.feed}/public/v1/latest") as answer:
                return {row["quantity"]: (row["value"], row["quality"]) for row in json.load(answer)["readings"]}

        eventually(lambda: shown().get("pm2_5") == (9, GOOD), "its dust is on the public feed")
        eventually(lambda: not sim.awake, "it rests")
        assert gateway.stop() == 0
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(5)
        loop.close()
        host.close()
