"""The P1 meter beyond the device contract: captured telegrams line by line, a second decoder, and every lie we know."""

import asyncio
import json
import os
import random
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser
from hypothesis import given
from hypothesis import strategies as st

from bega.clock import mono_ms, wall_ms
from bega_gateway.config import SerialLine as SerialSettings
from bega_gateway.lines.serial import SerialLine
from bega_gateway.lines.station import Station
from bega_protocols.checks import crc16_arc
from bega_protocols.devices.dsmr_p1 import sim as sim_module
from bega_protocols.devices.dsmr_p1.codec import LINE_SIZE, unix_s
from bega_protocols.devices.dsmr_p1.driver import Driver
from bega_protocols.devices.dsmr_p1.sim import BELGIAN, OBJECTS, V3_FORMATS, Sim
from bega_protocols.errors import ChecksumError, ConfigError
from bega_protocols.iec62056 import with_even_parity
from bega_protocols.reading import GOOD, QUANTITIES, SUSPECT, Reading
from bega_simulators.hosts.pty import PtyHost

ROOT = Path(__file__).parent.parent
CAPTURED = Path(os.environ.get("BEGA_VECTORS", ROOT.parent / "shared" / "vectors")) / "dsmr_p1"
NOW_MS = 1_790_000_000_000
needs_captured = pytest.mark.skipif(
    not CAPTURED.is_dir(), reason=f"no captured telegrams in {CAPTURED}: set BEGA_VECTORS to the folder that holds them"
)

# What a captured line reads as: (quantity, value, exp10, part). Lines in SILENT give no reading.
LINES = {
    "v2_2": {
        "1-0:1.8.1(00001.001*kWh)": ("active_energy_import", 1001, -3, "t1"),
        "1-0:1.8.2(00001.001*kWh)": ("active_energy_import", 1001, -3, "t2"),
        "1-0:2.8.1(00001.001*kWh)": ("active_energy_export", 1001, -3, "t1"),
        "1-0:2.8.2(00001.001*kWh)": ("active_energy_export", 1001, -3, "t2"),
        "0-0:96.14.0(0001)": ("active_tariff", 1, 0, ""),
        "1-0:1.7.0(0001.01*kW)": ("active_power_import", 101, 1, ""),
        "1-0:2.7.0(0000.00*kW)": ("active_power_export", 0, 1, ""),
        "(00001.001)": ("gas_volume", 1001, -3, ""),
        "0-1:24.3.0(161107190000)(00)(60)(1)(0-1:24.2.1)(m3)": ("measured_at", 1478541600, 0, ""),
    },
    "v4_2": {
        "1-0:1.8.1(001581.123*kWh)": ("active_energy_import", 1581123, -3, "t1"),
        "1-0:1.8.2(001435.706*kWh)": ("active_energy_import", 1435706, -3, "t2"),
        "1-0:2.8.1(000000.000*kWh)": ("active_energy_export", 0, -3, "t1"),
        "1-0:2.8.2(000000.000*kWh)": ("active_energy_export", 0, -3, "t2"),
        "0-0:96.14.0(0002)": ("active_tariff", 2, 0, ""),
        "1-0:1.7.0(02.027*kW)": ("active_power_import", 2027, 0, ""),
        "1-0:2.7.0(00.000*kW)": ("active_power_export", 0, 0, ""),
        "1-0:31.7.0(000*A)": ("current", 0, 0, "l1"),
        "1-0:51.7.0(006*A)": ("current", 6, 0, "l2"),
        "1-0:71.7.0(002*A)": ("current", 2, 0, "l3"),
        "1-0:21.7.0(00.170*kW)": ("active_power_import", 170, 0, "l1"),
        "1-0:22.7.0(00.000*kW)": ("active_power_export", 0, 0, "l1"),
        "1-0:41.7.0(01.247*kW)": ("active_power_import", 1247, 0, "l2"),
        "1-0:42.7.0(00.000*kW)": ("active_power_export", 0, 0, "l2"),
        "1-0:61.7.0(00.209*kW)": ("active_power_import", 209, 0, "l3"),
        "1-0:62.7.0(00.000*kW)": ("active_power_export", 0, 0, "l3"),
        "0-1:24.2.1(161129200000W)(00981.443*m3)": ("gas_volume", 981443, -3, ""),
        "161129200000W": ("measured_at", 1480446000, 0, ""),
    },
    "v5": {
        "1-0:1.8.1(000004.426*kWh)": ("active_energy_import", 4426, -3, "t1"),
        "1-0:1.8.2(000002.399*kWh)": ("active_energy_import", 2399, -3, "t2"),
        "1-0:2.8.1(000002.444*kWh)": ("active_energy_export", 2444, -3, "t1"),
        "1-0:2.8.2(000000.000*kWh)": ("active_energy_export", 0, -3, "t2"),
        "0-0:96.14.0(0002)": ("active_tariff", 2, 0, ""),
        "1-0:1.7.0(00.244*kW)": ("active_power_import", 244, 0, ""),
        "1-0:2.7.0(00.000*kW)": ("active_power_export", 0, 0, ""),
        "1-0:32.7.0(0230.0*V)": ("voltage", 2300, -1, "l1"),
        "1-0:52.7.0(0230.0*V)": ("voltage", 2300, -1, "l2"),
        "1-0:72.7.0(0229.0*V)": ("voltage", 2290, -1, "l3"),
        "1-0:31.7.0(0.48*A)": ("current", 48, -2, "l1"),
        "1-0:51.7.0(0.44*A)": ("current", 44, -2, "l2"),
        "1-0:71.7.0(0.86*A)": ("current", 86, -2, "l3"),
        "1-0:21.7.0(00.070*kW)": ("active_power_import", 70, 0, "l1"),
        "1-0:41.7.0(00.032*kW)": ("active_power_import", 32, 0, "l2"),
        "1-0:61.7.0(00.142*kW)": ("active_power_import", 142, 0, "l3"),
        "1-0:22.7.0(00.000*kW)": ("active_power_export", 0, 0, "l1"),
        "1-0:42.7.0(00.000*kW)": ("active_power_export", 0, 0, "l2"),
        "1-0:62.7.0(00.000*kW)": ("active_power_export", 0, 0, "l3"),
        "0-1:24.2.1(170102161005W)(00000.107*m3)": ("gas_volume", 107, -3, ""),
        "170102161005W": ("measured_at", 1483369805, 0, ""),
    },
    "v5_eon_hu": {
        "0-0:96.14.0(0001)": ("active_tariff", 1, 0, ""),
        "1-0:1.8.0(000173.640*kWh)": ("active_energy_import", 173640, -3, ""),
        "1-0:1.8.1(000047.719*kWh)": ("active_energy_import", 47719, -3, "t1"),
        "1-0:1.8.2(000125.921*kWh)": ("active_energy_import", 125921, -3, "t2"),
        "1-0:1.8.3(000000.000*kWh)": ("active_energy_import", 0, -3, "t3"),
        "1-0:1.8.4(000000.000*kWh)": ("active_energy_import", 0, -3, "t4"),
        "1-0:2.8.0(000627.177*kWh)": ("active_energy_export", 627177, -3, ""),
        "1-0:2.8.1(000401.829*kWh)": ("active_energy_export", 401829, -3, "t1"),
        "1-0:2.8.2(000225.348*kWh)": ("active_energy_export", 225348, -3, "t2"),
        "1-0:2.8.3(000000.000*kWh)": ("active_energy_export", 0, -3, "t3"),
        "1-0:2.8.4(000000.000*kWh)": ("active_energy_export", 0, -3, "t4"),
        "1-0:3.8.0(000000.123*kvarh)": ("reactive_energy_import", 123, -3, ""),
        "1-0:4.8.0(000303.131*kvarh)": ("reactive_energy_export", 303131, -3, ""),
        "1-0:5.8.0(000000.668*kvarh)": ("reactive_energy_import", 668, -3, "q1"),
        "1-0:6.8.0(000000.071*kvarh)": ("reactive_energy_import", 71, -3, "q2"),
        "1-0:7.8.0(000160.487*kvarh)": ("reactive_energy_export", 160487, -3, "q3"),
        "1-0:8.8.0(000143.346*kvarh)": ("reactive_energy_export", 143346, -3, "q4"),
        "1-0:15.8.0(000800.817*kWh)": ("active_energy_total", 800817, -3, ""),
        "1-0:32.7.0(240.4*V)": ("voltage", 2404, -1, "l1"),
        "1-0:52.7.0(239.1*V)": ("voltage", 2391, -1, "l2"),
        "1-0:72.7.0(241.2*V)": ("voltage", 2412, -1, "l3"),
        "1-0:31.7.0(003*A)": ("current", 3, 0, "l1"),
        "1-0:51.7.0(004*A)": ("current", 4, 0, "l2"),
        "1-0:71.7.0(003*A)": ("current", 3, 0, "l3"),
        "1-0:14.7.0(50.00*Hz)": ("frequency", 5000, -2, ""),
        "1-0:1.7.0(00.000*kW)": ("active_power_import", 0, 0, ""),
        "1-0:2.7.0(02.601*kW)": ("active_power_export", 2601, 0, ""),
        "1-0:5.7.0(00.000*kvar)": ("reactive_power_import", 0, 0, "q1"),
        "1-0:6.7.0(00.000*kvar)": ("reactive_power_import", 0, 0, "q2"),
        "1-0:7.7.0(00.504*kvar)": ("reactive_power_export", 504, 0, "q3"),
        "1-0:8.7.0(00.000*kvar)": ("reactive_power_export", 0, 0, "q4"),
    },
}
SILENT = (
    "/", "!", "1-3:0.2.8(", "0-0:1.0.0(", "0-0:42.0.0(", "0-0:96.1.", "0-0:96.3.10(", "0-0:96.13.", "0-0:17.0.0(",
    "0-0:96.7.", "0-0:98.1.0(", "1-0:99.97.0(", "1-0:32.3", "1-0:52.3", "1-0:72.3", "1-0:31.4.0(", "1-0:51.4.0(",
    "1-0:71.4.0(", "0-1:24.1.0(", "0-1:96.1.0(", "0-1:24.4.0(", "0-2:24.1.0(", "0-2:96.1.0()",
    "1-0:13.7.0(4.556)", "1-0:33.7.0(4.591)", "1-0:53.7.0(4.542)", "1-0:73.7.0(4.552)",  # no power factor is above one
)  # fmt: skip

SPECIFICATIONS = {
    "v2_2": telegram_specifications.V2_2,
    "v4_2": telegram_specifications.V4,
    "v5": telegram_specifications.V5,
    "v5_eon_hu": telegram_specifications.EON_HUNGARY,
}
# dsmr-parser's names: ours
ORACLE = {
    "ELECTRICITY_ACTIVE_TARIFF": ("active_tariff", ""),
    "ELECTRICITY_COMBINED": ("active_energy_total", ""),
    "ELECTRICITY_IMPORTED_TOTAL": ("active_energy_import", ""),
    "ELECTRICITY_EXPORTED_TOTAL": ("active_energy_export", ""),
    "ELECTRICITY_REACTIVE_IMPORTED_TOTAL": ("reactive_energy_import", ""),
    "ELECTRICITY_REACTIVE_EXPORTED_TOTAL": ("reactive_energy_export", ""),
    "ELECTRICITY_REACTIVE_TOTAL_Q1": ("reactive_energy_import", "q1"),
    "ELECTRICITY_REACTIVE_TOTAL_Q2": ("reactive_energy_import", "q2"),
    "ELECTRICITY_REACTIVE_TOTAL_Q3": ("reactive_energy_export", "q3"),
    "ELECTRICITY_REACTIVE_TOTAL_Q4": ("reactive_energy_export", "q4"),
    "INSTANTANEOUS_REACTIVE_POWER_Q1": ("reactive_power_import", "q1"),
    "INSTANTANEOUS_REACTIVE_POWER_Q2": ("reactive_power_import", "q2"),
    "INSTANTANEOUS_REACTIVE_POWER_Q3": ("reactive_power_export", "q3"),
    "INSTANTANEOUS_REACTIVE_POWER_Q4": ("reactive_power_export", "q4"),
    "CURRENT_ELECTRICITY_USAGE": ("active_power_import", ""),
    "CURRENT_ELECTRICITY_DELIVERY": ("active_power_export", ""),
    "FREQUENCY": ("frequency", ""),
    "BELGIUM_CURRENT_AVERAGE_DEMAND": ("active_demand_import", ""),
    "BELGIUM_MAXIMUM_DEMAND_MONTH": ("active_demand_import_max", ""),
}
ORACLE |= {f"ELECTRICITY_USED_TARIFF_{n}": ("active_energy_import", f"t{n}") for n in range(1, 5)}
ORACLE |= {f"ELECTRICITY_DELIVERED_TARIFF_{n}": ("active_energy_export", f"t{n}") for n in range(1, 5)}
for phase in (1, 2, 3):
    ORACLE[f"INSTANTANEOUS_VOLTAGE_L{phase}"] = ("voltage", f"l{phase}")
    ORACLE[f"INSTANTANEOUS_CURRENT_L{phase}"] = ("current", f"l{phase}")
    ORACLE[f"INSTANTANEOUS_ACTIVE_POWER_L{phase}_POSITIVE"] = ("active_power_import", f"l{phase}")
    ORACLE[f"INSTANTANEOUS_ACTIVE_POWER_L{phase}_NEGATIVE"] = ("active_power_export", f"l{phase}")
ORACLE_GAS = ("MBUS_METER_READING", "GAS_METER_READING", "HOURLY_GAS_METER_READING")

each_capture = pytest.mark.parametrize("name", LINES)


def captured(name: str) -> bytes:
    return (CAPTURED / f"{name}.txt").read_bytes()


def driver() -> Driver:
    return Driver({})


def hear(listener: Driver, *chunks: bytes) -> list[list[Reading]]:
    return [group for chunk in chunks for group in listener.feed(chunk, NOW_MS)]


def flat(groups: list[list[Reading]]) -> list[Reading]:
    return [reading for group in groups for reading in group]


def telegram(*lines: str, head: str = r"/BGA5\2TEST", check: bool = True) -> bytes:
    """Return a telegram of these lines; its check value comes from a second decoder."""
    body = "\r\n".join([head, "", *lines, "!"])
    return (body + (f"{TelegramParser.crc16(body):04X}" if check else "") + "\r\n").encode("latin-1")


def oracle(text: str, specification: dict[str, object]) -> dict[tuple[str, str], Decimal]:
    """Return what dsmr-parser reads, in our units; the stamp of each meter behind in Unix seconds."""
    found = TelegramParser(specification).parse(text, throw_ex=True)
    values = {}
    for name, thing in found:
        if name in ORACLE and thing.value is not None:
            values[ORACLE[name]] = Decimal(thing.value) * (1000 if thing.unit in ("kW", "kvar") else 1)
    for meter in getattr(found, "MBUS_DEVICES", []):
        for name, thing in meter:
            if name in ORACLE_GAS:
                values["gas_volume", ""] = Decimal(thing.value)
                values["measured_at", ""] = Decimal(int(thing.datetime.timestamp()))
    return values


def exactly(readings: list[Reading]) -> dict[tuple[str, str], Decimal]:
    return {(row.quantity, row.part): Decimal(row.value).scaleb(row.exp10) for row in readings}


# captured telegrams


@needs_captured
@each_capture
def test_captured_telegram_reads_line_by_line(name):
    listener = driver()
    readings = flat(hear(listener, captured(name)))
    assert not listener.damaged
    assert sorted(readings) == sorted(Reading(*row) for row in LINES[name].values())


@needs_captured
@each_capture
def test_every_captured_line_is_in_the_table_or_gives_no_reading(name):
    for line in captured(name).decode().splitlines():
        assert not line or line in LINES[name] or line.startswith(SILENT), line
    for line in LINES[name]:
        assert line in captured(name).decode()


@needs_captured
@each_capture
def test_dsmr_parser_reads_the_same_values(name):
    ours = exactly(flat(hear(driver(), captured(name))))
    assert ours == oracle(captured(name).decode(), SPECIFICATIONS[name])


@needs_captured
@each_capture
def test_gas_is_a_group_of_its_own(name):
    groups = hear(driver(), captured(name))
    stamped = [[row.quantity for row in group] for group in groups[1:]]
    assert stamped == ([] if name == "v5_eon_hu" else [["gas_volume", "measured_at"]])
    assert not {"gas_volume", "measured_at"} & {row.quantity for row in groups[0]}


@needs_captured
@each_capture
def test_captured_telegram_survives_any_chunking(name):
    whole = captured(name)
    expected = hear(driver(), whole)
    for size in (1, 2, 3, 7, 16, 64, 255):
        assert hear(driver(), *[whole[at : at + size] for at in range(0, len(whole), size)]) == expected


@needs_captured
@each_capture
def test_decode_prints_a_captured_telegram(name):
    outcome = subprocess.run(
        [sys.executable, "-m", "bega", "decode", "dsmr_p1", CAPTURED / f"{name}.txt"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    rows = [json.loads(line, parse_float=Decimal) for line in outcome.stdout.splitlines()]
    printed = {(row["quantity"], row.get("part", "")): Decimal(row["value"]) for row in rows}
    assert printed == exactly([Reading(*row) for row in LINES[name].values()])
    assert all(row["unit"] == QUANTITIES[row["quantity"]][0] for row in rows)


@needs_captured
@pytest.mark.parametrize("name", ["v4_2", "v5", "v5_eon_hu"])
@given(data=st.data())
def test_any_damage_to_a_captured_telegram_is_noticed(name, data):
    """Up to four bytes changed, then the same telegram whole: all that is heard is what the meter said."""
    whole = captured(name)
    hurt = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        hurt[data.draw(st.integers(0, len(whole) - 3))] = data.draw(st.integers(0, 255))
    expected = hear(driver(), whole)
    heard = hear(driver(), bytes(hurt), whole)
    assert heard[-len(expected) :] == expected or hurt == whole or heard == expected + expected[:1]
    assert all(group in expected for group in heard)


@needs_captured
@pytest.mark.parametrize("name", ["v4_2", "v5", "v5_eon_hu"])
@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_telegram_that_lost_its_check_value_does_not_pass(name, lost):
    whole = captured(name)
    digits = whole.rindex(b"!") + 1
    listener = driver()
    assert hear(listener, whole[: digits + 4 - lost] + b"\r\n" + whole) == hear(driver(), whole)
    assert len(listener.damaged) == 1


@needs_captured
def test_flipped_high_bit_anywhere_in_a_telegram_without_check_value_is_noticed():
    whole = captured("v2_2")
    for at in range(len(whole) - 1):  # the line feed behind "!" and CR says nothing more
        hurt = bytearray(whole)
        hurt[at] |= 0x80
        assert hear(driver(), bytes(hurt)) == [], at


# telegrams made here


def test_meter_that_once_sent_a_check_value_may_not_leave_it_out():
    lines = ["1-0:1.8.1(000004.426*kWh)"]
    assert hear(driver(), telegram(*lines, check=False)) == [[Reading("active_energy_import", 4426, -3, "t1")]]
    listener = driver()
    assert len(hear(listener, telegram(*lines) + telegram(*lines, check=False))) == 1
    assert len(listener.damaged) == 1


@pytest.mark.parametrize("line", ["1-3:0.2.8(50)", "0-0:1.0.0(170102192002W)", "0-0:96.1.4(50217)"])
def test_telegram_of_a_version_with_check_value_needs_one(line):
    listener = driver()
    assert hear(listener, telegram(line, "1-0:1.8.1(000004.426*kWh)", check=False)) == []
    assert "check value" in listener.damaged[0][1].why


@pytest.mark.parametrize("line", ["1-0:1.8.1(000004.426*kWh", "1-0:1.8.1(0)(", "1-0:1.8.1000004.426*kWh)", "\x07()"])
def test_garbled_line_costs_a_telegram_without_check_value(line):
    listener = driver()
    assert hear(listener, telegram("1-0:1.8.2(000004.426*kWh)", line, check=False)) == []
    assert len(listener.damaged) == 1
    assert len(hear(driver(), telegram("1-0:1.8.2(000004.426*kWh)", line))) == 1  # with one, the line is the meter's


def test_gas_on_the_next_line_whatever_stands_between():
    """V3 as in the standard, section 5: the value follows its 0-n:24.3.0."""
    lines = [
        "1-0:1.8.1(12345.678*kWh)",
        "0-1:96.1.0(3232323241424344313233343536373839)",
        "0-1:24.1.0(03)",
        "0-1:24.3.0(090212160000)(08)(60)(1)(0-1:24.2.1)(m3)",
        "(00001.001)",
        "0-1:24.4.0(1)",
    ]
    gas = [Reading("gas_volume", 1001, -3), Reading("measured_at", 1234450800, 0)]
    assert hear(driver(), telegram(*lines, check=False))[1:] == [gas]
    lines[4:4] = ["0-1:24.4.0(1)"]  # the value is no longer on the line that follows
    assert hear(driver(), telegram(*lines, check=False))[1:] == []


def test_gas_line_of_several_values_is_passed_over():
    line = "0-1:24.3.0(090212160000)(00)(60)(2)(0-1:24.2.1)(m3)"
    assert hear(driver(), telegram("0-1:24.1.0(3)", line, "(00001.001)", check=False)) == []


def gas(stamp: str, value: str = "00981.443*m3") -> bytes:
    return telegram("0-1:24.1.0(003)", f"0-1:24.2.1({stamp})({value})")


def test_gas_comes_once_for_each_stamp():
    listener = driver()
    first, second = gas("260106155000W"), gas("260106155500W", "00981.450*m3")
    volumes = [group[0].value for group in hear(listener, first, first, first, second, second, first)]
    assert volumes == [981443, 981450, 981443]


@pytest.mark.parametrize("stamp", ["700101010000W", "700101010000S", "632525252525W", "26010615500W", "260106155000X"])
def test_stamp_that_is_no_time_is_no_reading(stamp):
    assert hear(driver(), gas(stamp, "00000000")) == []
    assert hear(driver(), gas(stamp)) == []


@pytest.mark.parametrize(
    "value", ["", "00000000", "*m3", "1.2.3*m3", "-1*m3", "1e3*m3", "00001.000*kWh", "0" * 20 + "*m3"]
)
def test_value_that_is_none_is_no_reading(value):
    assert hear(driver(), gas("260106155000W", value)) == []


def test_second_meter_of_a_medium_has_its_channel_in_its_part():
    heard = hear(
        driver(),
        telegram(
            "0-3:24.1.0(007)", "0-3:24.2.1(260106155000W)(00003.000*m3)",
            "0-2:24.1.0(007)", "0-2:24.2.1(260106155000W)(00002.000*m3)",
            "0-1:24.1.0(003)", "0-1:24.2.1(260106155000W)(00001.000*m3)",
        ),
    )  # fmt: skip
    assert [(group[0].quantity, group[0].part, group[0].value) for group in heard] == [
        ("gas_volume", "", 1000),
        ("water_volume", "", 2000),
        ("water_volume", "m3", 3000),
    ]
    assert [group[1].part for group in heard] == ["", "", "m3"]


def test_first_meter_keeps_its_part_while_it_has_no_value():
    """Else the second meter's figures would run on in the first one's series."""
    heard = hear(
        driver(),
        telegram(
            "0-1:24.1.0(007)", "0-1:24.2.1(700101010000W)(00000000)",
            "0-2:24.1.0(007)", "0-2:24.2.1(260106155000W)(00002.000*m3)",
        ),
    )  # fmt: skip
    assert [group[0].part for group in heard] == ["m2"]


def test_electricity_meter_behind_never_mixes_with_the_one_in_front():
    heard = hear(driver(), telegram("1-0:1.8.0(1*kWh)", "0-2:24.1.0(002)", "0-2:24.2.1(260106155000W)(2*kWh)"))
    assert [(group[0].quantity, group[0].part, group[0].value) for group in heard] == [
        ("active_energy_import", "", 1),
        ("active_energy_import", "m2", 2),
    ]


def test_channel_without_a_device_is_no_reading():
    assert hear(driver(), telegram("0-2:24.1.0(003)", "0-2:96.1.0()", "0-2:24.2.1(260106155000W)(2*m3)")) == []


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("1-0:1.8.0*255(00052185.7825309*kWh)", Reading("active_energy_import", 521857825309, -7)),
        ("1-0:1.8.0*01(00052185.7825309*kWh)", None),  # OBIS F: a value of the past
        ("1-0:1.8.11(00005.5*kWh)", Reading("active_energy_import", 55, -1, "t11")),
        ("1-0:1.8.01(00005.5*kWh)", None),
        ("1-0:1.8.(00005.5*kWh)", None),
        ("1-0:1.8.111(00005.5*kWh)", None),
        ("2-0:1.8.1(00005.5*kWh)", None),
        ("1-0:33.7.0(1.001)", None),
        ("1-0:33.7.0(1.000)", Reading("power_factor", 1000, -3, "l1")),
    ],
)
def test_register_reads_as_its_code_says(line, value):
    assert flat(hear(driver(), telegram(line))) == ([] if value is None else [value])


def test_first_of_two_lines_of_one_register_counts():
    lines = ["1-0:1.8.1(1*kWh)", "1-0:1.8.1(2*kWh)", "0-0:96.1.1(4D31)", "0-0:96.1.0(4D32)"]
    listener = driver()
    assert hear(listener, telegram(*lines)) == [[Reading("active_energy_import", 1, 0, "t1")]]
    assert listener.attributes["meter_id"] == "M1"


def test_check_value_may_have_lost_its_leading_zero_and_no_more():
    made = (telegram("1-0:1.8.1(1*kWh)", f"1-0:1.8.2({number}*kWh)") for number in range(1000))
    whole = next(one for one in made if one[-6:-5] == b"0" and one[-5:-4] != b"0")
    shorter = whole[:-6] + whole[-5:]
    assert len(flat(hear(driver(), shorter))) == 2
    for end in (b"/", b" ", b"x\r\n"):
        assert hear(driver(), shorter[:-2] + end) == []
    assert hear(driver(), whole[:-6] + whole[-4:]) == []


def test_ids_are_attributes_and_in_no_error():
    listener, sim = driver(), Sim({}, seed=4711)
    sim.set("gas_volume", "", 5)
    hear(listener, sim.tick(NOW_MS))
    meter, gas_meter = listener.attributes["meter_id"], listener.attributes["m1_id"]
    assert meter.startswith("E0047") and gas_meter.startswith("G0039")
    assert listener.attributes["version"] == "50"
    assert "message" not in listener.attributes
    for fault in ("crc", "cut"):
        sim.faults = {fault}
        hear(listener, sim.tick(NOW_MS + 10_000))
    sim.faults = set()
    hear(listener, sim.tick(NOW_MS + 11_000))
    assert len(listener.damaged) == 10
    said = " ".join(f"{error} {error.raw!r}" for _, error in listener.damaged)
    for secret in (meter, gas_meter, meter.encode().hex(), meter.encode().hex().encode().hex()):
        assert secret.lower() not in said.lower()


def test_attributes_are_those_of_the_last_whole_telegram():
    listener = driver()
    hear(listener, telegram("0-0:96.13.0(4F4B)", "0-0:96.1.1(4D31)"))
    assert listener.attributes == {"identification": r"BGA5\2TEST", "message": "OK", "meter_id": "M1"}
    hear(listener, telegram("0-0:96.13.0(4E4F)")[:-8] + telegram("0-0:96.13.0()", "0-0:96.1.1(4D32)"))
    assert listener.attributes == {"identification": r"BGA5\2TEST", "meter_id": "M2"}


def test_line_ends_that_were_changed_are_named():
    listener = driver()
    hear(listener, telegram("1-0:1.8.1(000004.426*kWh)").replace(b"\r\n", b"\n"))
    assert "CR LF" in listener.damaged[0][1].why


def test_telegram_may_begin_right_behind_a_broken_end():
    whole = telegram("1-0:1.8.1(000004.426*kWh)")
    for broken in (b"!", b"!1", b"!12", b"!123", b"!/", b"/!", b"/BGA5\r\n1-0:1.8.1(0"):
        assert len(hear(driver(), broken + whole)) == 1, broken


def test_offset_of_damage_is_where_its_telegram_began():
    whole = telegram("1-0:1.8.1(000004.426*kWh)")
    hurt = whole.replace(b"4.426", b"4.427")
    for size in (1, 5, 1000):
        listener = driver()
        stream = b"noise" + whole + hurt + whole
        hear(listener, *[stream[at : at + size] for at in range(0, len(stream), size)])
        assert [offset for offset, _ in listener.damaged] == [5 + len(whole)]
        assert isinstance(listener.damaged[0][1], ChecksumError)


@pytest.mark.parametrize("filler", [b"x", b"0-0:96.13.0(30)\r\n", b"(", b"0-1:24.1.0(003)\r\n1-0:1.8.1(1*kWh)\r\n"])
def test_telegram_that_never_ends_is_damage_and_not_growth(filler):
    listener = driver()
    hear(listener, b"/BGA5")
    flood = (filler * 1000)[:1000]
    tracemalloc.start()
    for _ in range(200):
        assert hear(listener, flood) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert len(listener.damaged) == 1
    assert len(hear(listener, telegram("1-0:1.8.1(000004.426*kWh)"))) == 1


def test_chunk_of_any_size_is_looked_at_in_pieces():
    listener = driver()
    hear(listener, b"/BGA5")
    flood = b"x" * 1_000_000
    tracemalloc.start()
    assert hear(listener, flood) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "settings", [{"normal_time_utc_min": "60"}, {"normal_time_utc_min": 9999}, {"parity_in_bit_7": 1}, {"gas": 1}]
)
def test_setting_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError):
        Driver(settings)


def test_stamp_is_read_in_the_meters_own_time():
    listener = Driver({"normal_time_utc_min": 120})
    assert hear(listener, gas("260701120000S"))[0][1].value == datetime(2026, 7, 1, 9, tzinfo=UTC).timestamp()


@given(second=st.integers(0, 2_050_000_000), zone=st.sampled_from([1, 2]))
def test_stamps_agree_with_the_time_zone_tables(second, zone):
    """From 2004, when Lithuania took to summer time for good, to 2068."""
    wall = datetime(2004, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    local = wall.replace(tzinfo=ZoneInfo("Europe/Amsterdam" if zone == 1 else "Europe/Vilnius"))
    back = local.astimezone(UTC).astimezone(local.tzinfo)
    if back.replace(tzinfo=None) == local.replace(tzinfo=None):  # the hour that the spring leaves out has no letter
        letter = "S" if local.dst() else "W"
        assert unix_s(local.strftime("%y%m%d%H%M%S") + letter, zone * 60) == local.timestamp()
    assert unix_s(local.strftime("%y%m%d%H%M%S"), zone * 60) == local.timestamp()


@pytest.mark.parametrize(
    ("stamp", "utc"),
    [
        ("260329015959", datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)),
        ("260329020000", datetime(2026, 3, 29, 1, tzinfo=UTC)),  # an hour that is not
        ("260329030000", datetime(2026, 3, 29, 1, tzinfo=UTC)),
        ("261025020000", datetime(2026, 10, 25, 0, tzinfo=UTC)),  # an hour that comes twice
        ("261025030000", datetime(2026, 10, 25, 2, tzinfo=UTC)),
        ("261025023000S", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("261025023000W", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        ("240229120000W", datetime(2024, 2, 29, 11, tzinfo=UTC)),
        ("000101000000W", datetime(1999, 12, 31, 23, tzinfo=UTC)),
    ],
)
def test_stamp_at_the_edges_of_summer(stamp, utc):
    assert unix_s(stamp) == utc.timestamp()


@pytest.mark.parametrize("stamp", ["250229120000W", "261301000000W", "260100000000W", "260101240000W", "260101006000W"])
def test_day_that_is_not_is_no_time(stamp):
    assert unix_s(stamp) is None


@given(st.text("0123456789SW", max_size=14))
def test_no_stamp_raises(text):
    moment = unix_s(text)
    assert moment is None or 946_000_000 < moment < 4_110_000_000


# lies: any lines at all, under a check value that is right

LIE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="/!"), max_size=40)
TRUTH = st.sampled_from([f"{code}(" for code, *_ in OBJECTS.values()] + ["0-1:24.1.0(003)", "0-1:24.3.0(", "(", "0-5:"])


@given(st.lists(st.tuples(TRUTH, LIE, st.sampled_from([")", "*kWh)", "*m3)", ""])), max_size=12), st.booleans())
def test_no_line_is_more_than_passed_over(parts, check):
    for group in hear(driver(), telegram(*["".join(part) for part in parts], check=check)):
        for row in group:
            assert row.quantity in QUANTITIES
            assert abs(row.value) < 10**16 and -16 <= row.exp10 <= 9


@given(st.lists(st.binary(max_size=80) | st.sampled_from([b"/", b"!", b"\r\n", b"!0000\r\n", b"/ISk5\r\n\r\n"])))
def test_no_bytes_raise_and_the_next_telegram_is_heard(noise):
    listener = driver()
    hear(listener, *noise)
    whole = telegram("1-3:0.2.8(50)", "1-0:1.8.1(000004.426*kWh)")
    assert hear(listener, b"/", whole)[-1:] == [[Reading("active_energy_import", 4426, -3, "t1")]]


# the simulator

TOWN = {key: st.integers(0, 10**digits - 1) for key, (_, digits, _, _) in OBJECTS.items()}


def town_value(key: tuple[str, str], steps: int) -> Decimal:
    """Return the value in the quantity's unit that the meter shows as `steps` of its last digit."""
    _, _, places, unit = OBJECTS[key]
    return Decimal(steps).scaleb(-places) * (1000 if unit == "kW" else 1)


@given(
    steps=st.fixed_dictionaries(TOWN),
    now_s=st.integers(1_600_000_000, 2_000_000_000),
    cuts=st.lists(st.integers(0, 900), max_size=4),
)
def test_any_house_survives_any_chunking(steps, now_s, cuts):
    sim = Sim({}, seed=now_s)
    for key, count in steps.items():
        sim.set(*key, town_value(key, count))
    stream = sim.tick(now_s * 1000)
    edges = [0, *sorted(cuts), len(stream)]
    heard = hear(driver(), *[stream[start:end] for start, end in pairwise(edges)])
    expected = {key: town_value(key, count) for key, count in steps.items()}
    expected["measured_at", ""] = Decimal(now_s // 300 * 300)
    assert exactly(flat(heard)) == expected
    assert oracle(stream.decode(), telegram_specifications.V5) == expected


@given(noise=st.binary(max_size=200), cut=st.integers(0, 900))
def test_truncation_and_noise_cost_at_most_their_own_telegram(noise, cut):
    sim = Sim({}, seed=1)
    sim.set("voltage", "l1", 231)
    first, second = sim.tick(NOW_MS), sim.tick(NOW_MS + 1000)
    heard = hear(driver(), first[:cut] + noise + b"\n" + second)
    assert Reading("voltage", 2310, -1, "l1") in flat(heard)
    assert all(row.value in (0, 2310, 2300, 2) or row.quantity == "measured_at" for row in flat(heard))


def test_simulator_sends_a_telegram_a_second_that_its_line_can_carry():
    sim = Sim({}, seed=1)
    assert sim.tick(NOW_MS).count(b"!") == 1
    assert sim.tick(NOW_MS + 999) == b""
    sim.faults.add("long_line")
    sent = sim.tick(NOW_MS + 10_000)
    assert sent.count(b"!") == 10
    assert len(sent) / 10 * 10 / 115_200 < 0.5


def test_simulator_reads_gas_every_five_minutes_only():
    sim, listener = Sim({}, seed=1), driver()
    start_ms = NOW_MS // 300_000 * 300_000
    volumes, lines = [], set()
    for second in range(0, 900, 30):
        sim.set("gas_volume", "", Decimal(second) / 1000)
        sent = sim.tick(start_ms + second * 1000)
        lines |= {line for line in sent.split(b"\r\n") if line.startswith(b"0-1:24.2.1")}
        volumes += [row.value for row in flat(hear(listener, sent)) if row.quantity == "gas_volume"]
    assert len(lines) == 3
    assert volumes == [0, 300, 600]


def test_simulator_fault_crc_is_damage_and_heals():
    sim, listener = Sim({}, seed=1), driver()
    sim.faults.add("crc")
    assert hear(listener, sim.tick(NOW_MS)) == []
    assert isinstance(listener.damaged[0][1], ChecksumError)
    sim.faults.clear()
    assert len(hear(listener, sim.tick(NOW_MS + 1000))) == 2


def test_simulator_fault_cut_costs_that_telegram():
    sim, listener = Sim({}, seed=1), driver()
    sim.faults.add("cut")
    assert hear(listener, sim.tick(NOW_MS)) == []
    sim.faults.clear()
    assert len(hear(listener, sim.tick(NOW_MS + 1000))) == 2
    assert [error.why for _, error in listener.damaged] == ["P1 telegram breaks off"]


def test_simulator_fault_long_line_is_read_all_the_same():
    sim, listener = Sim({}, seed=1), driver()
    sim.faults.add("long_line")
    stream = sim.tick(NOW_MS)
    assert len(hear(listener, *[stream[at : at + 100] for at in range(0, len(stream), 100)])) == 2
    assert len(listener.attributes["message"]) == 1024


def test_line_longer_than_any_is_checked_and_passed_over():
    lines = ["1-0:1.8.1(000004.426*kWh)", "0-0:98.1.0(" + "0" * 9000 + ")", "1-0:1.8.2(000002.399*kWh)"]
    whole = telegram(*lines)
    for size in (1, 7, 1000, 20_000):
        heard = hear(driver(), *[whole[at : at + size] for at in range(0, len(whole), size)])
        assert [row.part for row in flat(heard)] == ["t1", "t2"]


def test_rest_of_a_line_too_long_is_never_taken_for_a_line():
    head = "0-0:98.1.0("
    lines = [head + "0" * (LINE_SIZE + 1 - len(head)) + "1-0:1.8.1(000009.999*kWh)", "1-0:1.8.2(000002.399*kWh)"]
    whole = telegram("0-0:96.13.0(" + "30" * 1500 + ")", *lines)
    for size in (1, 7, 1000, 20_000):
        listener = driver()
        heard = hear(listener, *[whole[at : at + size] for at in range(0, len(whole), size)])
        assert [row.part for row in flat(heard)] == ["t2"]
        assert "message" not in listener.attributes


def test_simulator_takes_signed_power_and_refuses_what_the_meter_does_not_tell():
    sim = Sim({}, seed=1)
    sim.set("active_power", "l2", -1234.4)
    values = exactly(flat(hear(driver(), sim.tick(NOW_MS))))
    assert (values["active_power_import", "l2"], values["active_power_export", "l2"]) == (0, 1234)
    for quantity, part in (("frequency", ""), ("active_energy_import", ""), ("voltage", "")):
        with pytest.raises(KeyError):
            sim.set(quantity, part, 1)


def test_simulator_stamps_agree_with_dsmr_parser_over_a_year():
    sim = Sim({}, seed=1)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for hour in [*range(0, 8760, 97), *range(2088, 2094), *range(7128, 7134)]:
        moment = begin + timedelta(hours=hour)
        sent = sim._telegram(int(moment.timestamp()) * 1000).decode()
        found = TelegramParser(telegram_specifications.V5).parse(sent)
        assert found.P1_MESSAGE_TIMESTAMP.value == moment


def test_check_value_is_the_published_one():
    assert crc16_arc(b"123456789") == 0xBB3D
    assert crc16_arc(b"6789", crc16_arc(b"12345")) == 0xBB3D


# versions and countries


def version(name: str) -> Sim:
    sim = Sim({}, seed=1)
    sim.version = name
    return sim


SPEAKS = {
    "5": telegram_specifications.V5,
    "3": telegram_specifications.V3,
    "belgium": telegram_specifications.BELGIUM_FLUVIUS,
}
# Of each version; dsmr-parser takes a millisecond or more for one.
TELEGRAMS = 3334 if os.environ.get("BEGA_PROFILE") == "nightly" else 300
OLD = list(OBJECTS)[:7] + list(OBJECTS)[-1:]


def told(name: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Return {what a meter of this version tells: (digits, places, exponent of its unit)}."""
    objects = (
        {**OBJECTS, **BELGIAN}
        if name == "belgium"
        else {key: OBJECTS[key] for key in (OLD if name == "3" else OBJECTS)}
    )
    return {
        key: (*(V3_FORMATS.get(unit, (digits, places)) if name == "3" else (digits, places)), 3 if unit == "kW" else 0)
        for key, (_, digits, places, unit) in objects.items()
    }


@pytest.mark.parametrize("name", SPEAKS)
def test_dsmr_parser_agrees_on_what_any_meter_tells(name, monkeypatch):
    monkeypatch.setattr(sim_module, "_crc16", lambda data: TelegramParser.crc16(data.decode()))
    chance, begin_s = random.Random(name), 1_600_000_000
    for number in range(TELEGRAMS):
        sim = version(name)
        expected = {}
        for key, (digits, places, exponent) in told(name).items():
            # A counter of five digits as often as one of nine.
            value = Decimal(chance.randrange(10 ** chance.randint(1, digits))).scaleb(exponent - places)
            sim.set(*key, value)
            expected[key] = value
        now_s = begin_s + number * 86_413
        sent = sim.tick(now_s * 1000)
        heard = exactly([row for group in hear(driver(), sent) for row in group if row.quantity != "measured_at"])
        assert heard == expected
        theirs = oracle(sent.decode(), SPEAKS[name])
        theirs.pop(("measured_at", ""), None)
        assert theirs == expected


def test_peak_of_the_month_comes_with_its_stamp_and_once():
    sim, listener = version("belgium"), driver()
    sim.set("active_demand_import_max", "", 2589)
    kinds = []
    for second in range(4):
        if second == 2:
            sim.set("active_demand_import_max", "", 3001)
        for group in hear(listener, sim.tick(NOW_MS + 1000 * second)):
            if group[0].quantity == "active_demand_import_max":
                kinds.append((second, group[0].value, group[1].value))
    assert kinds == [(0, 2589, NOW_MS // 1000), (2, 3001, NOW_MS // 1000 + 2)]


@pytest.mark.parametrize(
    "line", ["1-0:1.6.0(632525252525W)(00.000*kW)", "1-0:1.6.0(261025224500W)()", "1-0:1.6.0(1.0*kW)"]
)
def test_peak_without_time_or_value_is_none(line):
    assert hear(driver(), telegram(line)) == []


def test_first_of_two_peaks_counts():
    lines = ["1-0:1.6.0(261025224500W)(1*kW)", "1-0:1.6.0(261026224500W)(2*kW)"]
    assert hear(driver(), telegram(*lines))[0][0] == Reading("active_demand_import_max", 1, 3)


# without a check value


def old(number: str, second: int = 0) -> bytes:
    return telegram(f"1-0:1.8.1({number}*kWh)", "1-0:1.7.0(0001.01*kW)", check=False)


def qualities(numbers: list[str], step_ms: int = 10_000, **settings: bool) -> list[int]:
    listener = Driver(settings)
    groups = [listener.feed(old(number), NOW_MS + step_ms * count) for count, number in enumerate(numbers)]
    return [group[0][0].quality for group in groups]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (["00100.000", "00100.001", "00100.001", "00101.277"], [GOOD] * 4),  # 1.276 kWh in ten seconds: just possible
        (["00100.000", "00102.000"], [GOOD, SUSPECT]),
        (["00100.000", "00500.000", "00100.001"], [GOOD, SUSPECT, GOOD]),
        (["00100.000", "00020.000", "00020.001", "00020.002"], [GOOD, SUSPECT, GOOD, GOOD]),  # another meter
        (["00100.000", "00900.000", "00500.000", "00100.002"], [GOOD, SUSPECT, SUSPECT, GOOD]),
        (["00900.000", "00100.000", "00100.001"], [GOOD, SUSPECT, GOOD]),  # the first one was hit
        (["00100.000", "00100.01", "00100.02"], [GOOD, SUSPECT, GOOD]),
        (["00001.000", "0010.01"], [GOOD, SUSPECT]),  # a point that moved: 1001 follows 1000, and is no neighbour
    ],
)
def test_counter_that_cannot_be_is_suspect_until_the_next_agrees(numbers, expected):
    assert qualities(numbers) == expected


def test_counter_may_have_moved_while_nobody_listened():
    assert qualities(["00100.000", "00300.000"], step_ms=2 * 3_600_000) == [GOOD, GOOD]
    assert qualities(["00100.000", "00302.000"], step_ms=2 * 3_600_000) == [GOOD, SUSPECT]


def test_only_counters_are_held_to_their_pace_and_only_without_a_check_value():
    listener = driver()
    for number in ("00100.000", "00001.000", "99999.000"):
        [[energy, power]] = listener.feed(telegram(f"1-0:1.8.1({number}*kWh)", "1-0:1.7.0(0001.01*kW)"), NOW_MS)
        assert (energy.quality, power.quality) == (GOOD, GOOD)
    listener = driver()
    for power in ("0000.10", "9999.99", "0000.00"):
        [[reading]] = listener.feed(telegram(f"1-0:1.7.0({power}*kW)", check=False), NOW_MS)
        assert reading.quality == GOOD


@pytest.mark.parametrize("lost", ["000098", "0000.9", "0000.980"])
def test_value_that_changes_its_number_of_places_is_suspect_until_the_next_agrees(lost):
    listener = driver()
    qualities = []
    for power in ("0000.98", lost, "0000.98", lost, lost):
        [[reading]] = listener.feed(telegram(f"1-0:1.7.0({power}*kW)", check=False), NOW_MS)
        qualities.append(reading.quality)
    assert qualities == [GOOD, SUSPECT, GOOD, SUSPECT, GOOD]


def test_suspect_gas_comes_again_when_the_next_telegram_agrees():
    sim, listener = version("3"), driver()
    start_ms = NOW_MS // 300_000 * 300_000
    sim.set("gas_volume", "", Decimal("1733.208"))
    first = sim.tick(start_ms)
    sim.set("gas_volume", "", Decimal("1733.508"))
    later = sim.tick(start_ms + 300_000)[-len(first) :]
    groups = [
        group
        for count, sent in enumerate([first, later.replace(b"(01733.508)", b"(09733.508)"), later, later])
        for group in listener.feed(sent, NOW_MS + 10_000 * count)
    ]
    gas = [group[0] for group in groups if group[0].quantity == "gas_volume"]
    assert [(row.value, row.quality) for row in gas] == [(1733208, GOOD), (9733508, SUSPECT), (1733508, GOOD)]


def test_no_flipped_bit_of_a_telegram_with_parity_gives_a_value():
    whole = with_even_parity(old("00100.000"))
    assert len(flat(hear(Driver({"parity_in_bit_7": True}), whole))) == 2
    for at in range(len(whole) - 1):  # the line feed behind "!" and CR says nothing more
        for bit in range(8):
            hurt = bytearray(whole)
            hurt[at] ^= 1 << bit
            assert hear(Driver({"parity_in_bit_7": True}), bytes(hurt)) == [], (at, bit)


@given(cuts=st.lists(st.integers(0, 900), max_size=4), noise=st.binary(max_size=50))
def test_old_meter_survives_any_chunking_and_noise(cuts, noise):
    sim = version("3")
    sim.set("active_energy_import", "t1", Decimal("2841.377"))
    first, second = sim.tick(NOW_MS), sim.tick(NOW_MS + 10_000)
    stream = first + noise + second
    edges = [0, *sorted(cuts), len(stream)]
    heard = flat(hear(driver(), *[stream[start:end] for start, end in pairwise(edges)]))
    assert heard.count(Reading("active_energy_import", 2841377, -3, "t1")) == 2


def test_old_meter_on_its_7e1_wire_is_read_by_a_port_that_is_open_as_8n1():
    """The gateway's serial line, a port at 9600 baud, and the parity as the eighth bit."""
    sim = version("3")
    sim.set("active_energy_import", "t1", Decimal("2841.377"))
    groups: list[list[Reading]] = []

    async def deliver(heard, read_ms):
        groups.extend(heard)

    async def work():
        host = PtyHost(sim, 9600, wall_ms, "7E1")
        listener = Driver({"parity_in_bit_7": True})
        station = Station("old", listener, 10, deliver)
        line = SerialLine("p1", SerialSettings(port=host.port, baud=9600), [station], mono_ms, wall_ms)
        tasks = [asyncio.create_task(each.run()) for each in (line, host)]
        async with asyncio.timeout(20):
            while len(groups) < 2:  # noqa: ASYNC110  # a list that fills
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        host.close()
        assert not listener.damaged

    asyncio.run(work())
    assert Reading("active_energy_import", 2841377, -3, "t1") in groups[0]
    assert groups[1][0].quantity == "gas_volume"
