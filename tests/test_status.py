"""`bega gateway status`: what is wrong first, of a gateway that runs and of one that does not."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bega_gateway.lines.station import Counters
from bega_gateway.status import (
    COUNTED,
    Counts,
    OfDevice,
    OfSpool,
    OfUplink,
    Qualities,
    Status,
    drain_per_s,
    text,
    troubles,
)
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record

CONFIGURATION = """
[gateway]
name = "gw-status"
city = "timisoara"
commit_window_s = 0.05
state_dir = "{state}"
[uplink]
brokers = ["{broker}"]
[lines.pms]
kind = "serial"
port = "{port}"
[lines.gone]
kind = "serial"
port = "/dev/serial/by-id/usb-none"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.1
[devices.yard-air]
line = "gone"
driver = "pms5003"
"""
FILE = Path("gw.toml")
NOW = Status(gateway="gw", boot=1, wall_ms=1_900_000_000_000, mono_ms=1_000, up_s=1, uplink=OfUplink(connected_to="b"))


def told(file, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bega", "gateway", "status", "--config", file, *more]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=30)


def test_status_of_a_gateway_that_runs(make_gateway, embedded, sensor, tmp_path, eventually):
    text = CONFIGURATION.format(state=tmp_path / "gateway", broker=embedded.url, port=sensor.port)
    gateway = make_gateway(text)
    gateway.start()

    def acknowledged():
        return json.loads(told(gateway.config, "--json").stdout)["uplink"]["acknowledged"]

    eventually(acknowledged, "something is acknowledged")
    whole = json.loads(told(gateway.config, "--json").stdout)
    assert whole["running"] and whole["gateway"] == "gw-status" and whole["boot"] == gateway.boot
    heard, silent = whole["devices"]
    assert heard["name"] == "roadside-air" and heard["since_heard_s"] < 10 and heard["counts"]["records"] > 0
    assert heard["quality"] == 1, "a PMS5003 warms up for its first 30 s"
    assert (silent["name"], silent["since_heard_s"]) == ("yard-air", None)
    assert whole["drain_per_s"] > 0 and whole["uplink"]["connected_to"] == embedded.url
    shown = told(gateway.config)
    assert shown.returncode == 0, "who warms up is not wrong, nor who has had no time to be heard"
    assert "nothing wrong, 1 not heard yet" in shown.stdout and "suspect" in shown.stdout, shown


def test_status_without_a_gateway_says_so_and_what_the_state_tells(make_gateway, sensor, tmp_path, eventually):
    state = tmp_path / "gateway"
    gateway = make_gateway(CONFIGURATION.format(state=state, broker="mqtt://127.0.0.1:1", port=sensor.port))
    never = told(gateway.config)
    assert never.returncode == 1 and "has never run" in never.stdout
    gateway.start()
    eventually(lambda: json.loads(told(gateway.config, "--json").stdout)["spool"]["messages"], "something waits")
    gateway.stop()
    ended = told(gateway.config)
    assert ended.returncode == 1 and ended.stdout.startswith("gw-status does not run")
    assert f"bega gateway doctor --config {gateway.config}" in ended.stdout
    waiting = json.loads(told(gateway.config, "--json").stdout)["state"]["waiting"]
    assert int(waiting.split()[0]) > 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"spool": OfSpool(is_failing=True, uncommitted=7)}, "disk: takes nothing, 7 messages"),
        ({"spool": OfSpool(dropped=3)}, "spool: it was full, 3 messages dropped"),
        ({"spool": OfSpool(dropped=3, used_bytes=95, quota_bytes=100)}, "spool: full, 3 messages dropped"),
        ({"uplink": OfUplink(attempts=4)}, "uplink: down, 4 attempts"),
        ({"wall_ms": 0}, "clock: not set"),
        ({"devices": [OfDevice(name="d", line="l", watched_s=99, quiet_after_s=9)]}, "device d on l: silent, never"),
        (
            {"devices": [OfDevice(name="d", line="l", quality=2, since_heard_s=1, quiet_after_s=9)]},
            "its last record is stale",
        ),
    ],
)
def test_what_is_wrong_is_said_first(changed, said):
    assert list(troubles(NOW)) == []
    now = msgspec.structs.replace(NOW, **changed)
    lines = list(text(now, 0.0, FILE))
    assert "1 wrong" in lines[0] and said in lines[1] and lines[2].endswith("doctor --config gw.toml")


def test_what_stops_readings_now_is_said_before_what_is_over():
    """A spool that was full last week, and a sensor that warms up, came before an uplink that is away."""
    young = OfDevice(name="young", line="l", quality=1, since_heard_s=1, quiet_after_s=9, watched_s=60)
    old = msgspec.structs.replace(young, name="old", watched_s=999)
    gone = OfDevice(name="gone", line="l", watched_s=99, quiet_after_s=9)
    spool = OfSpool(dropped=5, used_bytes=1, quota_bytes=100)
    now = msgspec.structs.replace(NOW, devices=[young, old, gone], spool=spool, uplink=OfUplink(attempts=2))
    assert [line.split(",")[0] for line in troubles(now)] == [
        "device gone on l: silent",
        "uplink: down",
        "device old on l: its last record is suspect",
        "spool: it was full",
    ]


def test_counts_are_said_in_words_and_names_stand_in_a_column():
    long = OfDevice(name="city-hall-second-floor-west-wing", line="l", since_heard_s=1, quiet_after_s=9)
    short = msgspec.structs.replace(long, name="d", counts=Counts(asked=4, silent=3, damaged=1))
    shown = list(text(msgspec.structs.replace(NOW, lines=["l"], devices=[long, short]), 0.0, FILE))[-2:]
    assert shown[0].index("1 s ago") == shown[1].index("1 s ago")
    assert shown[1].endswith("4 questions, 3 unanswered, 1 damaged frames")


def test_a_device_that_has_had_no_time_yet_is_not_called_silent():
    young = OfDevice(name="d", line="l", watched_s=5, quiet_after_s=9)
    assert not young.is_silent and not young.is_heard


def test_drain_is_what_was_acknowledged_between_two_looks():
    later = msgspec.structs.replace(NOW, mono_ms=3_000, uplink=OfUplink(acknowledged=50))
    assert drain_per_s(NOW, later) == 25.0


def test_quality_is_the_worst_of_the_last_record():
    qualities = Qualities()
    for worst in (0, 2):
        readings = [Reading("pm2_5", 1, 0), Reading("pm10", 1, 0, "", worst)]
        qualities.take(Record("gw", 1, 1, "d", 1, SYNCHRONISED, readings), 0, False)
        assert qualities.of("gw", "d") == worst
    assert qualities.of("gw", "") == 2 and qualities.of("gw", "other") is None


def test_counts_are_those_of_a_station():
    assert set(vars(Counters())) == set(Counts.__struct_fields__) == set(COUNTED)
