"""Who falls silent is said once, and once when it is back: devices and nodes alike. Time is passed in."""

import asyncio
import logging
import threading
from types import SimpleNamespace

import pytest

from bega_gateway import build
from bega_gateway.config import examine
from bega_gateway.health import NODE_SILENCE_S, Health, Watched, quiet_after_s
from bega_gateway.lines.node_said import Nodes
from bega_gateway.recorder import Recorder


class Air:
    """What one device was heard to say, and a clock."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.heard_ms: int | None = None


@pytest.fixture
def air() -> Air:
    return Air()


def watching(air: Air, kind: str = "device", quiet_s: float = 10.0) -> Health:
    health = Health(lambda: air.now_ms)
    health.watch(Watched("cellar", kind, "hall", quiet_s, heard_mono_ms=lambda: air.heard_ms, damaged=lambda: 3))
    return health


def look(health: Health, air: Air, seconds: int) -> None:
    """Look once a second, as the task does."""
    for _ in range(seconds):
        air.now_ms += 1000
        for who in health.watched:
            health._look(who)


@pytest.mark.parametrize("kind", ["device", "node"])
def test_silence_and_return_are_said_once_each(kind, air, caplog):
    caplog.set_level(logging.INFO)
    health = watching(air, kind)
    air.heard_ms = air.now_ms
    look(health, air, 10)
    assert caplog.text == "" and health.heard() == 1
    look(health, air, 3600)
    assert [record.getMessage() for record in caplog.records] == [
        f"{kind} silent line=cellar {kind}=hall for_s=11 damaged=3"
    ]
    assert health.heard() == 0
    air.heard_ms = air.now_ms
    look(health, air, 5)
    assert caplog.records[-1].getMessage() == f"{kind} back line=cellar {kind}=hall"
    assert len(caplog.records) == 2 and health.heard() == 1


def test_one_that_was_never_heard_has_from_when_it_is_watched(air, caplog):
    health = watching(air)
    look(health, air, 10)
    assert caplog.text == "" and health.heard() == 0, "not silent yet, and not heard either"
    look(health, air, 1)
    assert caplog.text.count("device silent") == 1


def test_a_line_that_ended_is_watched_no_more(air, caplog):
    health = watching(air)
    health.watch(Watched("park", "device", "park-1", 10.0, heard_mono_ms=lambda: air.now_ms))
    health.forget("cellar")
    look(health, air, 3600)
    assert caplog.text == "" and [who.name for who in health.watched] == ["park-1"]


@pytest.mark.parametrize(("every_s", "quiet_s"), [(0.1, 10.0), (1.0, 10.0), (60.0, 180.0), (3600.0, 10_800.0)])
def test_silence_is_three_periods_and_ten_seconds_at_least(every_s, quiet_s):
    assert quiet_after_s(every_s) == quiet_s
    assert NODE_SILENCE_S == 600.0


HOUSE = """
[gateway]
name = "gw"
city = "t"
[uplink]
brokers = ["mqtt://h"]
[lines.hall]
kind = "serial"
port = "/dev/null/1"
[lines.nodes]
kind = "mqtt"
broker = "mqtt://h"
[devices.flat-12-mueller]
line = "hall"
driver = "pms5003"
audience = "{audience}"
[nodes.node-mueller]
line = "nodes"
audience = "{audience}"
"""


def test_a_log_holds_no_household_whatever_a_reload_says_of_it(air, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)

    def configured(text: str):
        (tmp_path / "gateway.toml").write_text(text)
        config, problems = examine(tmp_path / "gateway.toml")
        assert config, problems
        return config

    async def heads() -> dict[tuple[str, int], int]:
        return {}

    personal = configured(HOUSE.format(audience="personal"))
    recorder = Recorder(personal, 1, None, None)
    spool = SimpleNamespace(heads=heads, set_head=None, has_room=None)
    clocks = build.Clocks(lambda: air.now_ms, lambda: air.now_ms)
    ground = SimpleNamespace(
        recorder=recorder,
        health=Health(lambda: air.now_ms),
        clocks=clocks,
        spool=spool,
        nodes=Nodes(lambda: 0),
        updates=None,
        revocations=None,
    )
    parts = [asyncio.run(build.part(ground, personal, place, {})) for place in ("lines.hall", "lines.nodes")]
    assert not any("mueller" in name for part in parts for name, _ in part.works), "tasks are logged by name"
    (station,) = parts[0].stations

    def said(config) -> str:
        recorder.use(config)
        caplog.clear()
        for who in ground.health.watched:
            who.silent = False
        look(ground.health, air, 1)
        parts[1].line.records._complained.clear()
        parts[1].line.records.refuse("node-mueller", "no CBOR")
        here = [record for record in caplog.records if record.thread == threading.get_ident()]  # not of another test
        return "\n".join(record.getMessage() for record in here) + station.said_name

    air.now_ms += 3_600_000
    assert "mueller" not in said(personal) and said(personal).count("=personal") == 3
    assert said(configured(HOUSE.format(audience="operator"))).count("mueller") == 4
    assert "mueller" not in said(configured(HOUSE.partition("[devices")[0])), "taken out, and not ended yet"
