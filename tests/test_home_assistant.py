"""Home Assistant: what it is told, when, of whom; on a real mosquitto, read by a reader that behaves as it does."""

import asyncio
import contextlib
import json
import logging
import random
import shutil
import subprocess
import time
from decimal import Decimal
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega import mqtt
from bega.broker import free_port
from bega_gateway.config import Config, cautions, examine, load
from bega_gateway.doctor.told import of_home_assistant
from bega_gateway.health import Health, Watched
from bega_gateway.home_assistant import discovery, kinds, link, opening, picture
from bega_gateway.home_assistant.discovery import Topics
from bega_gateway.home_assistant.link import Link
from bega_gateway.home_assistant.picture import Message, Picture
from bega_gateway.reload import settled
from bega_gateway.status import OfHomeAssistant, OfUplink, Status, troubles
from bega_protocols import reading as readings_module
from bega_protocols.reading import QUANTITIES, STALE, SUSPECT, Reading, ucum, units
from bega_protocols.record import SYNCHRONISED, UNKNOWN, Record
from tests.home_assistant_park import HomeAssistant, require_description, require_units

NOW_MS = 1_795_300_000_000
BASE = """
[gateway]
name = "gw"
city = "arad"
time_zone = "Europe/Bucharest"
[uplink]
brokers = ["{broker}"]
[home_assistant]
{told}
[lines.a]
kind = "serial"
port = "{port}"
[devices.street-air]
line = "a"
driver = "pms5003"
every_s = 1.0
audience = "public"
label = "Piața Victoriei"
[lines.meters]
kind = "modbus-tcp"
host = "127.0.0.1"
port = 1
[devices.meter]
line = "meters"
driver = "modbus_meter"
stale_after_s = 300
settings = {{ profile = "sdm630", address = 1 }}
[devices.flat-3]
line = "meters"
driver = "modbus_meter"
audience = "personal"
settings = {{ profile = "sdm630", address = 2 }}
"""
MORE = """
[lines.nodes]
kind = "mqtt"
broker = "mqtt://127.0.0.1"
[nodes.air-1]
line = "nodes"
[totals.flow-hourly]
input = "meter"
quantities = ["active_energy_import"]
period = "hour"
[alarms.high-load]
input = "meter"
quantity = "active_power"
above = 5000
[alarms.flat-load]
input = "flat-3"
quantity = "active_power"
above = 5000
"""
WITHOUT_CLASS = set(
    ["particle_size", "formaldehyde", "uv_index", "voc_index", "nox_index", "voc_raw", "nox_raw", "pm_index"]
    + ["loss_percent", "produced_over_delivered", "efficiency_percent", "apparent_energy", "phase_angle"]
    + ["voltage_thd", "current_thd", "active_tariff", "allocator_units", "conductivity", "direction", "rotation"]
    + ["acceleration", "count", "movement_count", "packet_id"]
    + [quantity for quantity in QUANTITIES if quantity.startswith("particles_")]
)
NAMES = st.text("ab_-0Z", min_size=1, max_size=12)


def configured(tmp_path: Any, told: str = "", more: str = MORE, broker: str = "mqtt://127.0.0.1") -> Config:
    path = tmp_path / f"gw-{random.Random(told + more).randrange(1 << 30)}.toml"
    path.write_text(BASE.format(broker=broker, told=told, port="/dev/null") + more)
    return load(path)


class Seen:
    """A picture, and all that it gave out: the newest of each topic."""

    def __init__(self, config: Config) -> None:
        self.messages: dict[str, Message] = {}
        self.count = 0
        self.picture = Picture(config, self._put)
        self.seq = 0

    def _put(self, message: Message) -> None:
        self.messages[message.topic] = message
        self.count += 1

    def take(self, source: str, device: str, *readings: Reading, boot: int = 1, time_ms: int | None = NOW_MS, **more):
        self.seq += 1
        quality = UNKNOWN if time_ms is None else SYNCHRONISED
        record = Record(source, boot, more.get("seq", self.seq), device, time_ms, quality, list(readings))
        now_ms = more.get("now_ms", 1000)
        return self.picture.take(record, more.get("wall_ms", NOW_MS), now_ms, simulated=more.get("simulated", False))

    def look(self, now_ms: int = 1000, silent: Any = (), alarms: Any = None) -> None:
        quiet_s = {"air-1": 600.0}
        self.picture.look(now_ms, lambda device: 0.0 if device in silent else quiet_s.get(device[0], inf), alarms or {})

    def described(self) -> dict[str, dict[str, Any]]:
        return {
            topic: require_description(topic, message.payload)
            for topic, message in self.messages.items()
            if topic.endswith("/config") and message.payload
        }

    def of(self, what: str, rest: str) -> bytes | None:
        message = self.messages.get(f"bega/gw/{what}/{rest}")
        return message.payload if message else None


# ------------------------------------------------------------------ kinds


def test_every_quantity_has_a_name_there_and_a_class_or_on_purpose_none():
    assert set(QUANTITIES) <= kinds.KNOWN, "a new quantity needs a row in home_assistant/kinds.py"
    without = {quantity for quantity in QUANTITIES if kinds.kind_of(quantity).device_class is None}
    assert without == WITHOUT_CLASS & set(QUANTITIES)


@pytest.mark.parametrize("suffix", ["", *readings_module._DERIVED, "_1h_mean", "_1h_loss", "_1d_loss_uncertainty"])
def test_each_class_knows_the_unit_and_the_state_class_that_stand_beside_it(suffix):
    for quantity in QUANTITIES:
        kind = kinds.kind_of(quantity + suffix)
        assert kind.name
        if kind.platform == kinds.SENSOR:
            require_units(quantity + suffix, kind.device_class, kind.unit, kind.state_class)


def test_a_unit_that_is_left_out_counts_or_is_a_ratio():
    assert {ucum(quantity) for quantity in QUANTITIES} <= kinds.UNITS.keys(), "a new unit needs a row in UNITS"
    assert {code for code, unit in kinds.UNITS.items() if unit is None} == {"1", "{tick}", "{count}"}


def test_the_total_of_an_hour_is_no_running_total():
    assert kinds.kind_of("water_volume").state_class == "total_increasing"
    assert kinds.kind_of("water_volume_corrected").state_class == "total_increasing"
    hour = kinds.kind_of("water_volume_1h")
    assert (hour.device_class, hour.state_class) == ("water", None)
    assert kinds.kind_of("pm2_5_1h_mean").state_class == "measurement"


def test_an_uncertainty_has_no_class_that_would_convert_it():
    kind = kinds.kind_of("heat_energy_1d_loss_uncertainty")
    assert (kind.device_class, kind.state_class, kind.unit) == (None, None, "J")


def test_names_are_words():
    assert kinds.words("roadside-air") == "Roadside air"
    assert [kinds.part_words(part) for part in ("l1", "l31", "t2", "s12", "n", "heat_1", "_")] == [
        "L1", "L3 to L1", "tariff 2", "storage 12", "neutral", "heat 1", "_",
    ]  # fmt: skip


# ------------------------------------------------------------------ topics


@given(one=st.tuples(NAMES, NAMES), other=st.tuples(NAMES, NAMES))
def test_two_devices_never_share_a_topic(one, other):
    topics = Topics("homeassistant", "gw")
    assert discovery.names_in(topics.config(*one)) == one
    assert (topics.config(*one) == topics.config(*other)) == (one == other)
    key = ("pm1", "")
    assert (topics.state(*one, key) == topics.state(*other, key)) == (one == other)
    assert topics.config(*one) != topics.config("", "")


@given(topic=st.text(max_size=60))
def test_a_strange_topic_is_none_of_ours(topic):
    names = discovery.names_in(topic)
    assert names is None or Topics("p", "g").config(*names).split("/")[3] == topic.split("/")[-2]


@given(
    payload=st.binary(max_size=60)
    | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
        lambda value: json.dumps({"components": value}).encode()
    )
)
def test_what_lies_on_the_broker_and_is_none_of_ours_names_no_entity(payload):
    for quantity, part in discovery.keys_in(payload):
        assert units(quantity) and "/" not in part


def test_a_description_that_is_nested_a_million_times_names_no_entity():
    assert discovery.keys_in(b'{"components":' + b"[" * 1_000_000) == []
    many = {f"pm1-{number}": {} for number in range(9999)}
    assert len(discovery.keys_in(json.dumps({"components": many}).encode())) == discovery.MOST_COMPONENTS


# ------------------------------------------------------------------ values


@given(value=st.integers(-(10**20), 10**20), exp10=st.integers(-60, 60))
def test_a_value_keeps_every_digit_and_has_no_exponent(value, exp10):
    text = picture.state_text(kinds.kind_of("active_power"), Reading("active_power", value, exp10)).decode()
    assert "e" not in text
    assert Decimal(text) == Decimal(value).scaleb(exp10)


def test_what_cannot_be_said_there_is_not_said():
    power, stamp = kinds.kind_of("active_power"), kinds.kind_of("measured_at")
    assert picture.state_text(power, Reading("active_power", 1, 10**9)) is None
    assert picture.state_text(power, Reading("active_power", 10**300, 0)) is None
    assert picture.state_text(stamp, Reading("measured_at", 1_795_300_000, 0)) == b"2026-11-21T22:26:40+00:00"
    assert picture.state_text(stamp, Reading("measured_at", 17_953_000_005, -1)) == b"2026-11-21T22:26:40+00:00"
    for value, exp10 in ((10**18, 0), (-(10**18), 0), (1, 99), (1, 10**9), (1, -(10**9))):
        assert picture.state_text(stamp, Reading("measured_at", value, exp10)) is None
    assert picture.state_text(kinds.kind_of("door_open"), Reading("door_open", 1)) == b"ON"


# ------------------------------------------------------------------ who is shown


@given(data=st.data())
def test_any_device_with_any_quantities_and_parts_is_described_as_home_assistant_asks(data, tmp_path_factory):
    seen = Seen(configured(tmp_path_factory.getbasetemp()))
    suffixes = st.sampled_from(["", "_1h", "_1h_mean", "_corrected", "_1d_loss_uncertainty"])
    quantities = st.tuples(st.sampled_from(sorted(QUANTITIES)), suffixes).map("".join)
    rows = st.builds(Reading, quantities, st.integers(-9, 9**30), st.integers(-9, 9), st.just("") | NAMES)
    for device in data.draw(st.lists(NAMES, max_size=3)):
        seen.take("air-1", device, *data.draw(st.lists(rows, min_size=1, max_size=4)))
    seen.take("gw", "meter", *data.draw(st.lists(rows, min_size=1, max_size=4)))
    seen.look()
    described = seen.described().values()
    unique = [each["unique_id"] for whole in described for each in whole["components"].values()]
    assert len(unique) == len(set(unique)) == seen.picture.entities


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("", {"street-air", "meter", "air-1/pms"}),
        ('audiences = ["public"]', {"street-air"}),
        ("audiences = []", set()),
        ('audiences = []\ndevices = ["flat-3", "air-1"]', {"flat-3", "air-1/pms"}),
        ('audiences = ["public"]\ndevices = ["air-1/pms"]', {"street-air", "air-1/pms"}),
    ],
)
def test_a_household_is_shown_by_name_alone(tmp_path, told, shown):
    seen = Seen(configured(tmp_path, told))
    everybody = [("gw", "street-air"), ("gw", "meter"), ("gw", "flat-3"), ("air-1", "pms"), ("air-2", "pms")]
    for source, device in [*everybody, ("gw", "unknown")]:
        seen.take(source, device, Reading("pm1", 1))
    seen.look()
    found = {tuple(whole["device"]["identifiers"][0].split("/")[2:]) for whole in seen.described().values()}
    assert found == {("gw", name) if "/" not in name else tuple(name.split("/")) for name in shown}
    assert not any("flat-3" in topic for topic in seen.messages) or "flat-3" in shown


def test_an_alarm_on_a_household_is_as_personal_as_the_household(tmp_path):
    seen = Seen(configured(tmp_path))
    alarm = SimpleNamespace(is_raised=True, is_acknowledged=True)
    seen.look(alarms={"flat-load": alarm, "high-load": alarm})
    assert [topic.split("/")[3] for topic in seen.described()] == ["gw_-high-load"]
    assert seen.of("state", "gw/high-load/alarm") == b"ON"
    assert json.loads(seen.of("attributes", "gw/high-load/alarm")) == {"acknowledged": True}
    alarm.is_raised = False
    seen.look(2000, alarms={"high-load": alarm})
    assert seen.of("state", "gw/high-load/alarm") == b"OFF"
    assert json.loads(seen.of("attributes", "gw/high-load/alarm")) == {"acknowledged": False}


def test_what_raised_an_alarm_is_no_value_of_now(tmp_path):
    seen = Seen(configured(tmp_path))
    assert seen.take("gw", "high-load", Reading("alarm", 1), Reading("active_power", 6000)) is True
    seen.look()
    assert seen.described() == {}


def test_an_alarm_is_unavailable_while_what_it_watches_is_silent(tmp_path):
    seen = Seen(configured(tmp_path))
    alarms = {"high-load": SimpleNamespace(is_raised=False, is_acknowledged=False)}
    seen.look(alarms=alarms)
    assert seen.of("available", "gw/high-load/alarm") == b"online"
    seen.look(2000, {("gw", "meter")}, alarms)
    assert seen.of("available", "gw/high-load/alarm") == b"offline"
    seen.look(3000, (), alarms)
    assert seen.of("available", "gw/high-load/alarm") == b"online"


# ------------------------------------------------------------------ what is old


def test_a_stale_quantity_becomes_unavailable_and_its_value_is_not_repeated(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("gw", "meter", Reading("active_power", 25, -1), Reading("voltage", 230, 0, "l1"))
    seen.look()
    assert seen.of("available", "gw/meter/active_power") == b"online"
    (whole,) = seen.described().values()
    assert whole["components"]["voltage-l1"]["expire_after"] == 300, "stale_after_s"
    assert whole["components"]["voltage-l1"]["name"] == "Voltage, L1"
    seen.messages.clear()
    seen.take("gw", "meter", Reading("active_power", 0, 0, "", STALE))
    assert seen.messages.keys() == {"bega/gw/available/gw/meter/active_power"}
    assert seen.of("available", "gw/meter/active_power") == b"offline"
    seen.messages.clear()
    seen.picture.say_all(1000)
    assert "bega/gw/state/gw/meter/active_power" not in seen.messages
    assert seen.of("state", "gw/meter/voltage/l1") == b"230"
    seen.take("gw", "meter", Reading("active_power", 26, -1))
    assert seen.of("state", "gw/meter/active_power") == b"2.6"
    assert seen.of("available", "gw/meter/active_power") == b"online"


def test_a_suspect_value_is_shown_and_marked(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("gw", "meter", Reading("active_power", 1, 0, "", SUSPECT), time_ms=None, simulated=True)
    said = json.loads(seen.of("attributes", "gw/meter/active_power"))
    assert said == {"quality": "suspect", "time": "unknown", "simulated": True}
    seen.messages.clear()
    seen.take("gw", "meter", Reading("active_power", 2))
    assert json.loads(seen.of("attributes", "gw/meter/active_power")) == {"quality": "good"}
    seen.messages.clear()
    seen.take("gw", "meter", Reading("active_power", 3))
    assert list(seen.messages) == ["bega/gw/state/gw/meter/active_power"], "attributes only when they change"


def test_a_silent_device_is_unavailable_until_it_measures_anew(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("gw", "street-air", Reading("pm1", 1))
    seen.look()
    seen.look(2000, {("gw", "street-air")})
    assert seen.of("available", "gw/street-air/pm1") == b"offline"
    seen.look(3000)
    assert seen.of("available", "gw/street-air/pm1") == b"offline", "a reload has only forgotten that it is silent"
    seen.take("gw", "street-air", Reading("pm1", 2))
    assert seen.of("available", "gw/street-air/pm1") == b"online"


def test_a_silent_node_is_silent_with_all_that_hangs_on_it_and_a_device_alone():
    health = Health(lambda: 0)
    for kind, name, silent in (("node", "air-1", True), ("node", "air-2", False), ("device", "meter", True)):
        who = Watched("a", kind, name, 600.0, heard_mono_ms=lambda: None)
        health.watch(who)
        who.silent = silent
    quiet_s_of = opening._quiet_s_of("gw", health)
    found = [("air-1", "pms"), ("air-2", "pms"), ("gw", "meter"), ("gw", "air-1"), ("air-2", "meter")]
    assert [quiet_s_of(device) for device in found] == [0, 600, 0, inf, 600]


def test_a_dead_sensor_of_a_node_that_is_heard_is_unavailable(tmp_path):
    seen = Seen(configured(tmp_path))
    pm, temperature = "air-1/pms/pm1", "air-1/sht/temperature"
    for minute in range(30):
        if minute < 10:
            seen.take("air-1", "pms", Reading("pm1", 1), now_ms=minute * 60_000)
        seen.take("air-1", "sht", Reading("temperature", 20), now_ms=minute * 60_000)
        seen.look(minute * 60_000)
        states = seen.of("available", pm), seen.of("available", temperature)
        assert states == (b"online" if minute < 20 else b"offline", b"online"), minute
    seen.take("air-1", "pms", Reading("pm1", 1), now_ms=30 * 60_000)
    seen.look(30 * 60_000)
    assert seen.of("available", pm) == b"online"


def test_a_sensor_that_its_node_reads_each_hour_is_not_silent_in_between(tmp_path):
    seen = Seen(configured(tmp_path))
    water, offline = "air-1/meter/water_volume", 0
    for minute in range(7 * 60):
        if minute % 60 == 0 and minute < 4 * 60:
            seen.take("air-1", "meter", Reading("water_volume", 1), now_ms=minute * 60_000)
        seen.look(minute * 60_000)
        if seen.of("available", water) == b"offline":
            assert minute < 120 or minute > 6 * 60, "after three records it is known how often it is read"
            offline += 1
    assert offline == 2 * 49 + 59, "and what stays away for three of its periods is silent"


def test_what_expires_there_expires_here_too(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("gw", "flow-hourly", Reading("active_energy_import_1h", 3), now_ms=0)
    seen.look(3 * 3_600_000)
    (whole,) = seen.described().values()
    assert whole["components"]["active_energy_import_1h"]["expire_after"] == 3 * 3600
    assert seen.of("available", "gw/flow-hourly/active_energy_import_1h") == b"online"
    seen.look(3 * 3_600_000 + 1)
    assert seen.of("available", "gw/flow-hourly/active_energy_import_1h") == b"offline"


def test_what_a_node_brings_late_is_not_shown_as_now(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("air-1", "pms", Reading("pm1", 7), time_ms=NOW_MS - 600_001)
    assert seen.of("state", "air-1/pms/pm1") is None
    seen.take("air-1", "pms", Reading("pm1", 8), time_ms=NOW_MS - 600_000)
    assert seen.of("state", "air-1/pms/pm1") == b"8"
    seen.take("air-1", "pms", Reading("pm1", 9), seq=1)
    assert seen.of("state", "air-1/pms/pm1") == b"8", "an earlier record, sent again"
    seen.take("air-1", "pms", Reading("pm1", 10), time_ms=NOW_MS - 10**9, wall_ms=5000)
    assert seen.of("state", "air-1/pms/pm1") == b"10", "a gateway without a clock judges nobody"
    seen.take("air-1", "pms", Reading("pm1", 11), boot=2, seq=1)
    assert seen.of("state", "air-1/pms/pm1") == b"11"


def test_a_node_that_makes_up_names_fills_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "MOST_ENTITIES", 50)
    seen = Seen(configured(tmp_path))
    for number in range(200):
        seen.take("air-1", f"d{number}", Reading("pm1", 1), Reading("no_such_quantity", 1))
    assert seen.picture.entities == 50
    assert seen.picture.left_out == 150
    seen.picture.use(configured(tmp_path, "audiences = []"))
    assert seen.picture.entities == 0


# ------------------------------------------------------------------ reload, and a new start


def test_who_is_shown_no_more_is_taken_away_with_all_that_was_kept(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("gw", "meter", Reading("active_power", 1))
    seen.take("gw", "street-air", Reading("pm1", 1))
    seen.look()
    kept = {topic for topic, message in seen.messages.items() if message.is_kept and "meter" in topic}
    assert len(kept) == 2, "its description and an availability; no value is ever kept"
    seen.messages.clear()
    seen.picture.use(configured(tmp_path, 'audiences = ["public"]'))
    assert {topic for topic, message in seen.messages.items() if message == (topic, b"", True)} == kept
    seen.messages.clear()
    seen.take("gw", "meter", Reading("active_power", 1))
    seen.look()
    assert not any("meter" in topic for topic in seen.messages)
    seen.picture.use(configured(tmp_path))
    seen.take("gw", "meter", Reading("active_power", 1))
    seen.look()
    assert any("meter" in topic for topic in seen.described())


def test_a_new_start_remembers_what_lies_on_the_broker(tmp_path):
    before = Seen(configured(tmp_path))
    before.take("gw", "street-air", Reading("pm1", 1))
    before.take("gw", "meter", Reading("active_power", 1))
    before.take("gw", "flow-hourly", Reading("active_energy_import_1h", 3))
    before.take("air-1", "pms", Reading("pm1", 3))
    before.look()
    kept = {topic: message.payload for topic, message in before.messages.items() if topic.endswith("/config")}
    kept["homeassistant/device/gw/stranger/config"] = b"{}"
    after = Seen(configured(tmp_path, 'audiences = ["operator"]'))
    after.picture.adopt(kept, 0)
    after.look(1000)
    after.picture.say_all(1000)
    assert after.of("available", "gw/meter/active_power") == b"online", "Home Assistant lets it expire (expire_after)"
    assert after.of("available", "air-1/pms/pm1") == b"offline", "nothing says how old it is"
    assert "active_energy_import_1h" in str(after.described())
    gone = {topic for topic, message in after.messages.items() if not message.payload}
    assert gone == {
        "homeassistant/device/gw/gw_-street-air/config",
        "homeassistant/device/gw/stranger/config",
        "bega/gw/available/gw/street-air/pm1",
    }
    assert not any("/state/" in topic for topic in after.messages), "no value is known"


def test_values_go_once_more_when_home_assistant_has_had_time_to_make_entities(tmp_path):
    seen = Seen(configured(tmp_path))
    seen.take("gw", "meter", Reading("active_power", 1))
    seen.look(1000)
    seen.messages.clear()
    seen.look(5999)
    assert seen.messages == {}
    seen.look(6000)
    assert seen.of("state", "gw/meter/active_power") == b"1"
    seen.messages.clear()
    seen.look(9000)
    assert seen.messages == {}


def test_devices_and_audiences_are_put_to_use_by_a_reload_and_a_broker_is_not(tmp_path):
    before = configured(tmp_path)
    after, waiting = settled(before, configured(tmp_path, 'audiences = []\ndevices = ["meter"]\nprefix = "ha"'))
    assert waiting == ["home_assistant.prefix"]
    assert after.home_assistant == msgspec.structs.replace(before.home_assistant, audiences=[], devices=["meter"])
    gone, waiting = settled(before, msgspec.structs.replace(before, home_assistant=None))
    assert (gone.home_assistant, waiting) == (before.home_assistant, ["home_assistant"])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ('devices = ["metre"]', "home_assistant.devices[0]: there is no device or node 'metre'"),
        ('prefix = "home/+"', "home_assistant.prefix: write a topic as homeassistant, not 'home/+'"),
        ('birth_topic = ""', "home_assistant.birth_topic: write a topic"),
        ('audiences = ["personal"]', "home_assistant.audiences[0]: must be one of"),
        ('broker = "home"', "home_assistant.broker: write mqtt://host:port"),
        ('ca_file = "/x"', "home_assistant.ca_file: goes with home_assistant.broker"),
        ('broker = "mqtt://h"\ncert_file = "/x"', "home_assistant.cert_file: is used with mqtts:// only"),
        ("retain = true", "home_assistant.retain: unknown key"),
        ('broker = "mqtt://me:secret@h"', "home_assistant.broker: write mqtt://host:port; name and password go into"),
        ('broker = "mqtt://h"\nuser = "me"', "home_assistant.password_file: is missing beside the other"),
        ('broker = "mqtt://h"\npassword_file = "/x"', "home_assistant.user: is missing beside the other"),
        ('user = "me"', "home_assistant.user: goes with home_assistant.broker"),
    ],
)
def test_a_table_that_makes_no_sense_is_said_with_its_place(tmp_path, told, said):
    path = tmp_path / "gw.toml"
    path.write_text(BASE.format(broker="mqtt://127.0.0.1", told=told, port="/dev/null") + MORE)
    config, problems = examine(path)
    assert config is None
    assert len(problems) == 1 and said in problems[0], problems


def test_a_broker_elsewhere_without_encryption_is_cautioned(tmp_path):
    assert any("mqtt://ha.local" in said for said in cautions(configured(tmp_path, 'broker = "mqtt://ha.local"')))


# ------------------------------------------------------------------ said by status and doctor


def status_with(told: OfHomeAssistant | None, up_s: float = 60) -> Status:
    return Status(
        gateway="gw",
        boot=1,
        wall_ms=NOW_MS,
        mono_ms=1,
        up_s=up_s,
        uplink=OfUplink(connected_to="b"),
        home_assistant=told,
    )


@pytest.mark.parametrize(
    ("told", "cause", "words"),
    [
        (OfHomeAssistant(connected_to=None), "home assistant not told", "its broker is down"),
        (OfHomeAssistant(connected_to="b", keeps=False), "retained messages not kept", "keeps no retained messages"),
        (OfHomeAssistant(connected_to="b", keeps=True), None, ""),
        (OfHomeAssistant(connected_to="b", keeps=None), None, ""),
        (None, None, ""),
    ],
)
def test_doctor_and_status_say_what_home_assistant_lacks(told, cause, words):
    assert [finding.cause for finding in of_home_assistant(status_with(told))] == ([cause] if cause else [])
    assert [words in line for line in troubles(status_with(told))] == ([True] if cause else [])


def test_a_gateway_that_was_just_begun_may_still_be_connecting():
    assert list(of_home_assistant(status_with(OfHomeAssistant(), up_s=5))) == []


# ------------------------------------------------------------------ the link, on a real mosquitto


@pytest.fixture
def make_home(mosquitto):
    """Make readers that behave as Home Assistant does; it refuses nothing of what they read."""
    made = []

    def make() -> HomeAssistant:
        made.append(HomeAssistant(mosquitto.port))
        return made[-1]

    yield make
    for home in made:
        home.close()
    assert [home.refused for home in made] == [[]] * len(made)


@pytest.fixture
def reader(make_home):
    return make_home()


def gateway_text(told: str, broker: str, port: str, more: str = "") -> str:
    return BASE.format(broker=broker, told=told, port=port) + more


PM = "bega/gw/gw/street-air/pm2_5"


def test_a_gateway_is_seen_from_its_start_to_its_end(mosquitto, make_home, reader, sensor, make_gateway, eventually):
    alarm = '[alarms.dusty]\ninput = "street-air"\nquantity = "pm2_5"\nabove = 1000000\n'
    gateway = make_gateway(gateway_text("", mosquitto.url, sensor.port, alarm))
    gateway.start()
    eventually(lambda: (reader.state(PM) or "").isdigit(), "a value is shown")
    assert reader.devices().keys() == {"Gw", "Piața Victoriei", "Dusty"}
    eventually(lambda: reader.state("bega/gw/gw/dusty/alarm") == "OFF", "an alarm is known before it is raised")
    assert reader.devices()["Piața Victoriei"]["device"]["via_device"] == "bega/gw"
    eventually(lambda: reader.attributes(PM) == {"quality": "suspect"}, "a PMS5003 warms up for half a minute")
    assert reader.state("bega/gw/status") == "online"

    # A Home Assistant that starts anew knows nothing, and its broker only descriptions and who is there.
    fresh = make_home()
    eventually(lambda: fresh.component(PM), "descriptions are kept")
    fresh.say_birth()
    eventually(lambda: "it is told everything" in gateway.log.read_text(), "its birth is heard")
    eventually(lambda: (fresh.state(PM) or "").isdigit(), "and answered")
    kept = {topic.split("/")[2] for topic in fresh.kept if topic.startswith("bega/")}
    assert kept == {"status", "available"}, "whoever subscribes gets no value of the past"

    # Taken out of the file: nothing is left of it, on the broker either.
    gateway.config.write_text(gateway_text('audiences = ["operator"]', mosquitto.url, sensor.port))
    gateway._child.send_signal(1)
    eventually(lambda: reader.component(PM) is None, "the device is gone")
    late = make_home()
    time.sleep(0.3)
    assert not any("street-air" in topic for topic in late.kept)
    gateway.config.write_text(gateway_text("", mosquitto.url, sensor.port))
    gateway._child.send_signal(1)
    eventually(lambda: (reader.state(PM) or "").isdigit(), "and is back")

    # A power cut: the broker says so. A new start, without the device: what the old one left is put away.
    gateway.kill()
    eventually(lambda: reader.state(PM) == "unavailable", "the will", 40)
    assert reader.state("bega/gw/status") == "offline"
    gateway.config.write_text(gateway_text('audiences = ["operator"]', mosquitto.url, sensor.port))
    gateway.start()
    eventually(lambda: reader.component(PM) is None, "what an earlier run left is put away")
    eventually(lambda: reader.state("bega/gw/status") == "online", "it is there")
    gateway.stop()
    eventually(lambda: reader.state("bega/gw/status") == "offline", "a gateway that stops says so itself", 2)


@contextlib.asynccontextmanager
async def linked(config: Config, url: str, connect: Any = None):
    """A link on its own, with clocks of this machine."""
    clock = time.monotonic
    topics = Topics("homeassistant", "gw")
    will = mqtt.Will(topics.status, b"offline")
    made = Link(
        config,
        url,
        connect or (lambda: mqtt.connect(url, "gw-home-assistant", keep=False, will=will)),
        (lambda: NOW_MS, lambda: round(1000 * clock())),
        lambda: lambda device: inf,
        dict,
    )
    running = asyncio.ensure_future(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.wait([running])


async def comes_true(holds: Any, what: str, within_s: float = 45) -> None:
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, what
        await asyncio.sleep(0.05)


def record_of(seq: int, device: str = "meter", value: int = 0) -> Record:
    return Record("gw", 1, seq, device, NOW_MS, SYNCHRONISED, [Reading("active_power", value or seq)])


def test_a_dead_broker_costs_one_message_a_topic_and_the_newest_is_sent_when_it_is_back(
    tmp_path, mosquitto, reader, monkeypatch
):
    monkeypatch.setattr(link, "LONGEST_PAUSE_S", 1.0)

    async def told() -> None:
        async with linked(configured(tmp_path), mosquitto.url) as home:
            home.take(record_of(1), NOW_MS, False)
            power = "bega/gw/gw/meter/active_power"
            await comes_true(lambda: reader.state(power) == "1", "a value is shown")
            mosquitto.kill()
            await comes_true(lambda: home.connected_to is None, "the broker is gone")
            for seq in range(2, 20_002):
                home.take(record_of(seq), NOW_MS, False)
            assert home._waiting is None, "nothing is kept for a broker that is gone"
            mosquitto.start()
            await comes_true(lambda: reader.state(power) == "20001", "the newest value is shown")
            assert home.keeps is True

    asyncio.run(told())


def test_home_assistants_start_is_answered_with_what_was_measured_before_it(tmp_path, mosquitto, make_home):
    async def told() -> None:
        async with linked(configured(tmp_path), mosquitto.url) as home:
            home.take(record_of(1), NOW_MS, False)
            await asyncio.sleep(6.5)  # whatever goes by itself has gone
            sent = home.sent
            fresh = make_home()
            power = "bega/gw/gw/meter/active_power"
            await comes_true(lambda: fresh.state(power) == "unknown", "it knows the entity, and no value")
            assert home.sent == sent
            fresh.say_birth()
            await comes_true(lambda: fresh.state(power) == "1", "it is told", 3)

    asyncio.run(told())


def test_a_broker_that_stalls_is_left_and_what_waits_is_bounded(tmp_path, mosquitto, make_relay, monkeypatch):
    monkeypatch.setattr(link, "ANSWER_S", 1.0)
    relay = make_relay(mosquitto.port)

    async def told() -> None:
        async with linked(configured(tmp_path), relay.url) as home:
            home.take(record_of(1), NOW_MS, False)
            await comes_true(lambda: home.sent > 5, "all is said")
            relay.stall()
            for seq in range(2, 5002):
                home.take(record_of(seq), NOW_MS, False)
                if seq % 100 == 0:
                    await asyncio.sleep(0)
            assert len(home._waiting) <= 6
            await comes_true(lambda: home.connected_to is None, "no PUBACK: the connection is over")
            relay.reset()
            await comes_true(lambda: home.connected_to is not None, "connected again", 30)

    asyncio.run(told())


def with_access_list(mosquitto: Any, text: str) -> None:
    configuration = mosquitto._configuration
    access = configuration.with_name("access")
    access.write_text(text)
    access.chmod(0o600)
    configuration.write_text(configuration.read_text() + f"\nacl_file {access}\n")
    mosquitto.stop()
    mosquitto.start()


def test_a_broker_that_keeps_nothing_is_said_in_a_sentence(tmp_path, mosquitto, caplog):
    with_access_list(mosquitto, "topic readwrite bega/#\ntopic write homeassistant/#\n")

    async def told() -> None:
        async with linked(configured(tmp_path), mosquitto.url) as home:
            await comes_true(lambda: home.connected_to is not None, "connected all the same")
            assert home.keeps is False

    asyncio.run(told())
    said = [record.getMessage() for record in caplog.records if "keeps no retained messages" in record.getMessage()]
    assert len(said) == 1 and "use mosquitto" in said[0] and "access list" in said[0]


def test_a_broker_that_takes_nothing_to_keep_is_said(tmp_path, mosquitto, caplog, monkeypatch):
    monkeypatch.setattr(mqtt, "ANSWER_S", 1.0)
    configuration = mosquitto._configuration
    configuration.write_text(configuration.read_text() + "\nretain_available false\n")
    mosquitto.stop()
    mosquitto.start()

    async def told() -> None:
        async with linked(configured(tmp_path), mosquitto.url) as home:
            await comes_true(lambda: "broker down" in caplog.text, "it is said")
            assert home.connected_to is None

    asyncio.run(told())
    assert "retained" in caplog.text


def with_login(mosquitto: Any, user: str, password: str, rules: str = "") -> str:
    """Have mosquitto listen for whoever has a password, besides; return its address there."""
    configuration = mosquitto._configuration
    port, passwords = free_port(), configuration.with_name("passwords")
    passwords.touch(0o600)
    subprocess.run(["mosquitto_passwd", "-b", passwords, user, password], check=True, stderr=subprocess.DEVNULL)
    more = f"\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
    if rules:
        access = configuration.with_name("access")
        access.write_text(rules)
        access.chmod(0o600)
        more += f"acl_file {access}\n"
    configuration.write_text(f"per_listener_settings true\n{configuration.read_text()}{more}")
    mosquitto.stop()
    mosquitto.start()
    return f"mqtt://127.0.0.1:{port}"


@pytest.mark.skipif(not shutil.which("mosquitto_passwd"), reason="no mosquitto_passwd on this machine")
def test_a_broker_that_wants_a_name_and_a_password_gets_them(tmp_path, mosquitto, monkeypatch, caplog):
    monkeypatch.setattr(link, "FIRST_PAUSE_S", 0.2)
    url = with_login(mosquitto, "bega", "pâine și sare")
    file = tmp_path / "password"
    config = configured(tmp_path, f'broker = "{url}"\nuser = "bega"\npassword_file = "{file}"')
    clocks = SimpleNamespace(wall_ms=lambda: NOW_MS, mono_ms=lambda: round(1000 * time.monotonic()))
    ground = SimpleNamespace(
        clocks=clocks, recorder=SimpleNamespace(listen=lambda _: None), health=SimpleNamespace(watched=[])
    )

    async def told() -> None:
        home = opening.opened(config, config.home_assistant, ground, dict)
        running = asyncio.ensure_future(home.run())
        try:
            await comes_true(lambda: "cannot be used (No such file" in caplog.text, "a missing file is said")
            file.write_text("wrong\n")
            await comes_true(lambda: caplog.text.count("broker down") == 2, "a refusal is said")
            file.write_text("pâine și sare\r\nand a line that nobody reads\n")
            await comes_true(lambda: home.connected_to == url, "the password is taken at the next attempt")
        finally:
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(told())
    assert "wrong" not in caplog.text


@pytest.mark.skipif(not shutil.which("mosquitto_passwd"), reason="no mosquitto_passwd on this machine")
def test_the_access_list_of_the_documents_lets_a_gateway_do_all_of_its_own(tmp_path, mosquitto, reader, caplog):
    caplog.set_level(logging.INFO)
    rules = (Path(__file__).parent.parent / "docs/home-assistant.md").read_text().split("```")[3]
    assert "pattern" in rules
    url = with_login(mosquitto, "gw", "secret", rules)
    will = mqtt.Will(Topics("homeassistant", "gw").status, b"offline")

    def connect() -> Any:
        return mqtt.connect(url, "gw-home-assistant", keep=False, will=will, login=("gw", "secret"))

    async def told() -> None:
        async with linked(configured(tmp_path), url, connect) as home:
            home.take(record_of(1), NOW_MS, False)
            await comes_true(lambda: home.connected_to is not None, "the probe comes back")
            assert home.keeps is True, "its descriptions can be read back"
            await comes_true(lambda: reader.state("bega/gw/gw/meter/active_power") == "1", "its values go out")
            reader.say_birth()
            await comes_true(lambda: "has started" in caplog.text, "Home Assistant's start is heard")
            async with connect() as other:
                await other.publish("homeassistant/device/gw2/x/config", b"{}", retain=True)

    asyncio.run(told())
    assert not any("gw2" in topic for topic in reader.heard()), "and nothing of another's"


def test_a_defect_in_the_picture_ends_our_task_and_not_the_line(tmp_path, mosquitto, monkeypatch):
    async def told() -> None:
        async with linked(configured(tmp_path), mosquitto.url) as home:
            await comes_true(lambda: home.connected_to is not None, "connected")
            monkeypatch.setattr(home._picture, "take", lambda *_, **__: 1 / 0)
            home.take(record_of(1), NOW_MS, False)
            with pytest.raises(ZeroDivisionError):
                raise home._fault

    asyncio.run(told())
