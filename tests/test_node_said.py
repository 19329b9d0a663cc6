"""What nodes say of themselves: kept, checked, and told by status, doctor, metrics and the log."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_gateway import config as settings
from bega_gateway import node_status
from bega_gateway.doctor.examine import findings
from bega_gateway.doctor.heard import of_devices
from bega_gateway.doctor.look import Look
from bega_gateway.doctor.nodes import of_node, of_nodes
from bega_gateway.health import Watched
from bega_gateway.lines.node_said import IN_MS, MOST_DEVICES, MOST_LINES, Nodes, Said, read
from bega_gateway.lines.nodes import NodeRecords
from bega_gateway.metrics import _of_nodes, text
from bega_gateway.node_status import OfNode
from bega_gateway.status import OfDevice, OfUplink, Status, asked, troubles
from bega_gateway.status import text as screen
from tests.node_park import MICROPYTHON, NodeProcess
from tests.node_park import NODE as BOARD
from tests.test_metrics import ask, parsed

ROOT = Path(__file__).resolve().parents[1]
DAY_MS = 86_400_000
HOUR_S = 3600
# As docs/firmware.md prints it.
WELL = {
    "holds": [[1795300864, 11, 52]],
    "dropped": [],
    "firmware": "0.1.0",
    "boot": 1795300864,
    "up_s": 80,
    "reset_cause": 1,
    "brown_out": False,
    "time_quality": 0,
    "connects": 1,
    "malformed": 0,
    "heap_free": 119264,
    "configuration": "",
    "last_error": "",
    "devices": {"pms": {"state": "ok", "groups": 80, "damaged": 0, "unanswered": 0, "good_ago_s": 0}},
    "ring": {"held": 42, "segments": 1, "most": 100, "damaged": 0, "errors": 0, "unstored": 0},
}
SAFE = {
    "firmware": "0.1.0",
    "safe": "5 resets in a row by a defect or the watchdog",
    "up_s": 4,
    "reset_cause": 2,
    "configuration": "",
    "last_error": 'Traceback (most recent call last):\n  File "app.py", line 7\nValueError: of the sensor',
}


def having(**more):
    return {**WELL, **more}


def device(state: str, **more):
    return {"pms": {**WELL["devices"]["pms"], "state": state, **more}}


class Clock:
    def __init__(self) -> None:
        self.ms = 10 * DAY_MS

    def __call__(self) -> int:
        return self.ms


def told(*statuses: dict, apart_s: int = 60, lost: int = 0) -> OfNode:
    """Return how a node is doing that said these one after the other, the last one just now."""
    clock = Clock()
    nodes = Nodes(clock)
    for status in statuses:
        clock.ms += 1000 * apart_s
        nodes.take("air-1", status, str)
    if lost:
        nodes.dropped("air-1", lost)
    return node_status.of(nodes, "air-1", clock.ms)


def causes(node: OfNode) -> list[str]:
    return [finding.cause for finding in of_node("air-1", node)]


# ------------------------------------------------------------------ reading

PLAIN = st.sampled_from([None, True, 0, 7, -1, 2**60, 1.5, "", "ok", "silent", "\ud800\x1b[2J", "x" * 999])
ROWS = st.dictionaries(st.sampled_from(["state", "why", "held", "segments", "most", "cut"]), PLAIN, max_size=3)
ANY = PLAIN | ROWS | st.lists(PLAIN, max_size=2) | st.dictionaries(st.sampled_from(["pms", "\n", ""]), ROWS | PLAIN)
KEYS = st.sampled_from([*WELL, "safe"])


@given(status=st.dictionaries(KEYS, ANY))
def test_no_status_breaks_anything_and_what_is_kept_can_be_printed(status):
    node = told(having(**status), status)
    whole = msgspec.json.encode(node)
    assert msgspec.json.decode(whole, type=OfNode) == node
    said = [*node_status.troubles(node), node_status.line(node), *map(": ".join, node_status.facts(node))]
    said += [finding.evidence + finding.what for finding in of_node("air-1", node)]
    assert all(line.isprintable() for line in said)


def test_what_a_node_can_have_kept_is_bounded():
    devices = {f"d{number}": {"state": "ok", "why": "x" * 9999} for number in range(9999)}
    said = read(having(devices=devices, last_error="x" * 60_000, safe="x" * 60_000, firmware="x" * 60_000))
    assert len(said.devices) == MOST_DEVICES and len(msgspec.json.encode(said)) < 8_000


def test_a_node_on_a_battery_is_silent_after_three_of_its_own_periods():
    nodes = Nodes(Clock())
    who = Watched("nodes", "node", "air-1", 600.0, lambda: 0, speaks_every_s=lambda: nodes.speaks_every_s("air-1"))
    assert who.quiet_after_s == 600.0
    nodes.take("air-1", having(battery={"every_s": 600, "send_every_s": 3600}), str)
    assert who.quiet_after_s == 3 * 3600
    nodes.take("air-1", having(battery={"send_every_s": 2**50}), str)
    assert who.quiet_after_s == 3 * 86_400, "nobody says that he will never be missed"
    for mains in (None, {}, {"send_every_s": -1}, 7):
        nodes.take("air-1", having(battery=mains), str)
        assert who.quiet_after_s == 600.0


def test_each_key_may_be_missing_and_the_rest_is_read():
    for key in WELL:
        rest = {other: value for other, value in WELL.items() if other != key}
        assert isinstance(read(rest), Said)
    assert read({}) == Said()
    assert read(WELL).devices["pms"].groups == 80 and read(WELL).ring.held == 42 and read(WELL).start == "power"


# ------------------------------------------------------------------ the log


def lines_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "node" in record.getMessage()]


def test_a_fault_and_its_end_are_one_line_each(caplog):
    caplog.set_level(logging.INFO)
    told(WELL, WELL, having(devices=device("silent")), having(devices=device("silent", damaged=7)), WELL, WELL)
    assert lines_of(caplog) == ["node fault node=air-1 said=pms silent", "node well again node=air-1"]


def test_a_node_of_a_household_is_in_the_log_without_any_name(caplog):
    nodes = Nodes(Clock())
    nodes.take("flat-12", having(devices={"kitchen": {"state": "silent"}}), lambda node: "personal")
    assert lines_of(caplog) == ["node fault node=personal said=silent"]


def test_a_node_that_says_another_thing_each_second_does_not_fill_the_log(caplog):
    caplog.set_level(logging.INFO)
    told(*[having(devices=device(state)) for state in ("silent", "ok") * 200], apart_s=1)
    assert len(lines_of(caplog)) == MOST_LINES
    caplog.clear()
    told(*[having(devices=device(state)) for state in ("silent", "ok") * 3], apart_s=IN_MS // 1000)
    assert len(lines_of(caplog)) == 6


# ------------------------------------------------------------------ starts


def test_a_dip_of_the_supply_is_counted_once_a_boot():
    """A node says its status again and again; one that waited in a broker comes late, and is of the same start."""
    dip = having(reset_cause=1, brown_out=True, boot=1795300900, up_s=5)
    node = told(WELL, dip, {**dip, "up_s": 70}, {**dip, "up_s": 71}, dip)
    assert (node.started, node.dips, node.dips_lately) == (1, 1, 1)
    assert causes(node) == ["supply of a node dips"]
    assert causes(told({**dip, "up_s": 2 * 86_400})) == [], "two days ago it dipped"


def test_safe_mode_says_no_boot_and_is_a_start_all_the_same():
    node = told(WELL, SAFE, {**SAFE, "up_s": 64}, having(boot=1795300905, up_s=9))
    assert (node.started, node.dips) == (2, 0)


def test_a_wake_from_deep_sleep_is_no_start():
    node = told(*[having(reset_cause=4, up_s=600 * number) for number in range(1, 9)], apart_s=600)
    assert (node.started, node.starts_lately) == (0, 0)


def test_what_ended_a_node_is_told_once_it_is_known_to_be_new():
    failed = having(boot=1795300900, up_s=5, reset_cause=2, last_error="ValueError: x")
    assert causes(told(WELL, failed)) == ["node failed"]
    assert causes(told(failed)) == [], "its last error may be a year old"
    assert causes(told(failed, {**failed, "boot": 1795300950})) == [], "it was asked to restart"
    assert causes(told(having(reset_cause=3))) == ["node failed"], "a watchdog is never asked for"


def test_a_node_that_starts_again_and_again_is_told():
    assert causes(told(*[having(boot=number, up_s=5) for number in range(1, 5)])) == []
    assert causes(told(*[having(boot=number, up_s=5) for number in range(1, 7)])) == ["node starts again and again"]


# ------------------------------------------------------------------ in words


@pytest.mark.parametrize(
    ("status", "cause", "words", "remedy"),
    [
        (SAFE, "node in safe mode", "ValueError: of the sensor", "command restart_node air-1"),
        ({**SAFE, "safe": "10 power-ons in a row"}, "node in safe mode", "10 power-ons", "measure it at the node"),
        (having(devices=device("silent", good_ago_s=7200)), "sensor silent", "good 2 h", "5 V"),
        (having(devices=device("damaged", damaged=9)), "sensor damaged", "9 frames damaged", "wires"),
        (having(devices=device("stuck")), "sensor stuck", "stuck", "replace"),
        (having(devices=device("lost")), "sensor lost", "lost", "read the total"),
        (
            having(devices=device("fault", why="silent", anew=2, cut=3)),
            "sensor in fault",
            "in fault (silent)",
            "cut its supply, in vain",
        ),
        (having(configuration="refused: no bus"), "another configuration", "no bus", "command configure_node air-1"),
        (having(ring={"held": 9, "segments": 95, "most": 100}), "store of a node nearly full", "95 %", "spool"),
        (having(ring={"errors": 3}), "flash of a node fails", "3 writes", "replace"),
        (having(connects=30, up_s=HOUR_S), "way of a node breaks", "30 connections", "Wi-Fi"),
    ],
    ids=lambda value: value if isinstance(value, str) and " of " in value else None,
)
def test_each_trouble_is_one_finding_that_says_what_to_do(status, cause, words, remedy):
    [finding] = of_node("air-1", told(status))
    assert finding.cause == cause and finding.where == "nodes.air-1"
    assert words in finding.evidence and remedy in finding.remedy
    assert "air-1" in finding.what
    assert finding.stops_readings == (cause.startswith("sensor") or cause == "node in safe mode")


def test_a_store_of_two_segments_is_not_full_with_one_that_is_written_and_one_that_is_read():
    assert causes(told(having(ring={"held": 9, "segments": 2, "most": 2}))) == []


def test_a_node_that_is_well_is_no_finding():
    starting = having(devices=device("starting"), time_quality=2)
    assert [*of_node("air-1", told(WELL)), *of_node("air-1", told(starting)), *of_node("air-1", told({}))] == []


def test_all_sensors_silent_are_one_finding_with_one_cause():
    silent = {"state": "silent", "good_ago_s": 60}
    node = told(having(devices={"pms": silent, "sht": {**silent, "state": "fault", "why": "silent"}}))
    [finding] = of_node("air-1", node)
    assert finding.cause == "all sensors of a node silent" and "what they share" in finding.remedy
    assert causes(told(having(devices={"pms": silent, "sht": WELL["devices"]["pms"]}))) == ["sensor silent"]


def test_dropped_records_are_told_for_a_day():
    node = told(WELL, lost=9)
    assert causes(node) == ["records of a node lost"]
    assert causes(msgspec.structs.replace(node, lost_ago_s=90_000.0)) == []


NODE = OfDevice(name="air-1", line="nodes", is_node=True, watched_s=999, quiet_after_s=600, since_heard_s=5.0)
NOW = Status(gateway="gw", boot=1, wall_ms=1_900_000_000_000, mono_ms=1_000, up_s=1, uplink=OfUplink(connected_to="b"))


def seen(said: OfNode, **more) -> Status:
    return msgspec.structs.replace(
        NOW, lines=["nodes"], devices=[msgspec.structs.replace(NODE, node=said, **more)]
    )  # fmt: skip


def test_what_a_silent_node_said_stands_beside_its_silence_and_is_no_finding_of_its_own():
    silent = seen(told(having(devices=device("silent"))), since_heard_s=9999.0)
    assert list(of_nodes(silent)) == []
    whole = {
        "gateway": {"name": "gw", "city": "t"},
        "uplink": {"brokers": ["mqtt://b"]},
        "lines": {"nodes": {"kind": "mqtt", "broker": "mqtt://b"}},
        "nodes": {"air-1": {"line": "nodes"}},
    }
    config, _ = settings.examine(Path("/dev/null"), whole)
    [finding] = of_devices(config, silent)
    assert finding.cause == "node silent" and "when it was last heard it said: pms silent" in finding.evidence
    assert list(troubles(silent)) == ["node air-1 on nodes: silent, last heard 2 h ago"]


def test_status_has_a_line_for_a_node_and_says_first_what_is_wrong():
    well = list(screen(seen(told(WELL)), 0.0, Path("gw.toml")))
    assert "nothing wrong" in well[0]
    assert "firmware 0.1.0, 1 of 1 sensors well, up for 80 s, 42 records held" in well[-1]
    wrong = list(screen(seen(told(SAFE)), 0.0, Path("gw.toml")))
    assert wrong[1] == "  ! node air-1 on nodes: safe mode, 5 resets in a row by a defect or the watchdog"
    assert "safe mode" in wrong[-1]
    sensor = list(troubles(seen(told(having(devices=device("fault", why="silent"))))))
    assert sensor == ["node air-1 on nodes: its sensor pms is in fault (silent)"]


# ------------------------------------------------------------------ metrics


def test_nodes_are_measured_and_those_of_households_have_no_name():
    faulty, safe = told(having(devices=device("silent")), lost=4), told(SAFE)
    rows = [
        ("nodes", "air-1", faulty, "operator"),
        ("nodes", "flat-1", safe, "personal"),
        ("nodes", "flat-2", safe, "personal"),
    ]
    said = text(_of_nodes(rows))
    assert "flat" not in said and "pms" not in said
    values = parsed(said)
    air, flats = (("line", "nodes"), ("node", "air-1")), (("line", "nodes"), ("node", "personal"))
    assert values["bega_gateway_node_faulty_sensors", air] == 1
    assert values["bega_gateway_node_dropped_records_total", air] == 4
    assert values["bega_gateway_node_safe_mode", air] == 0
    assert values["bega_gateway_node_safe_mode", flats] == 2
    assert values["bega_gateway_node_held_records", air] == 42
    memory = "bega_gateway_node_free_memory_bytes"
    assert (memory, air) in values and (memory, flats) not in values, "safe mode does not say it, and it is not 0"
    assert ("bega_gateway_node_held_records", flats) not in values, "nor does it look into the store"
    assert "Store" in dict(node_status.facts(faulty)) and "Store" not in dict(node_status.facts(safe))
    assert text(_of_nodes([])) == "\n"


# ------------------------------------------------------------------ on their way


def test_a_node_says_its_status_each_hour_and_when_it_changes():
    """A gateway that was begun anew, beside a broker that was not, would know nothing of its nodes for weeks."""
    environment = {"MICROPYPATH": f"{ROOT}/firmware/node:{ROOT}/protocols:.frozen"}
    command = [os.environ.get("BEGA_MICROPYTHON", MICROPYTHON), ROOT / "tests/micropython/link_status.py"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    assert told.stdout.splitlines() == [
        "[2000, 3602000, 7202000]",
        "[7203000]",
        "[7234000, 7264000]",
    ], told.stderr


def test_what_a_line_takes_is_kept_and_what_was_dropped_is_counted_once():
    nodes = Nodes(Clock())
    records = NodeRecords(lambda *_: asyncio.Future(), lambda head: None, {}, said=nodes)
    status = having(holds=[[5, 21, 30]], dropped=[[5, 11, 20]])
    for _ in range(3):
        records.take_status("air-1", json.dumps(having(holds=[[5, 11, 30]])).encode())
        records.take_status("air-1", json.dumps({**status, "holds": []}).encode())
    assert nodes.of("air-1").said.firmware == "0.1.0"
    assert nodes.lost("air-1")[0] == 10
    records.take_status("air-1", json.dumps(having(holds=[], dropped=[[5, 11, 25]])).encode())
    assert nodes.lost("air-1")[0] == 15, "of what it dropped we had ten already"
    for boot in range(6, 60):
        records.take_status("air-1", json.dumps(having(holds=[], dropped=[[boot, 1, 2**53 - 1]])).encode())
    assert nodes.lost("air-1")[0] == 2**53
    records.take_status("air-1", json.dumps(SAFE).encode())
    assert nodes.of("air-1").said.safe, "a node in safe mode says no holds"
    for nonsense in (b"", b"[]", b"{" * 60_000, b'{"holds":7}', b"\xff"):
        records.take_status("air-1", nonsense)
    assert nodes.of("air-1").said.safe and records.refused == 5


CONFIGURATION = """
[gateway]
name = "gw-nodes"
city = "timisoara"
commit_window_s = 0.05
state_dir = "{state}"
[uplink]
brokers = ["{broker}"]
[metrics]
listen = "127.0.0.1:0"
[lines.nodes]
kind = "mqtt"
broker = "{broker}"
[nodes.air-1]
line = "nodes"
"""


def said_in(state: Path) -> OfNode | None:
    """Return what the node of a gateway says, None while it has not, or its line has not begun."""
    return next((device.node for device in asked(state).devices), None)


def test_a_gateway_tells_what_its_node_said_and_still_does_after_a_reload(make_gateway, embedded, tmp_path, eventually):
    state = tmp_path / "gateway"
    gateway = make_gateway(CONFIGURATION.format(state=state, broker=embedded.url))
    gateway.start()
    host, port = embedded.url.removeprefix("mqtt://").split(":")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="air-1")
    client.connect(host, int(port))
    client.loop_start()

    def is_told() -> bool:
        client.publish("node/air-1/status", json.dumps(having(devices=device("silent"))), qos=1)
        return said_in(state) is not None

    try:
        eventually(is_told, "the gateway has heard its node")
        look = Look(said_by=lambda command: None, root=Path("/nonexistent"))
        found = asyncio.run(findings(settings.load(gateway.config), asked(state), look))
        assert "sensor silent" in [finding.cause for finding in found]
        measured = parsed(ask(json.loads(gateway._ready.read_text())["metrics"])[1])
        assert measured["bega_gateway_node_faulty_sensors", (("line", "nodes"), ("node", "air-1"))] == 1
        gateway.config.write_text(gateway.config.read_text() + '[nodes.air-2]\nline = "nodes"\n')
        gateway._child.send_signal(signal.SIGHUP)
        eventually(lambda: "reload changed place=lines.nodes" in gateway.log.read_text(), "its line is begun anew")
        assert said_in(state).said.devices["pms"].state == "silent"
        assert next(iter(troubles(asked(state)))) == "node air-1 on nodes: its sensor pms is silent"
        assert gateway.log.read_text().count("node fault node=air-1 said=pms silent") == 1
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.slow
@pytest.mark.skipif(not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ, reason="no MicroPython here")
def test_a_real_node_with_a_silent_sensor_is_told_and_starts_anew_when_it_is_asked_to(
    make_gateway, mosquitto, tmp_path, eventually
):
    state = tmp_path / "gateway"
    gateway = make_gateway(
        CONFIGURATION.format(state=state, broker=mosquitto.url).replace("air-1", BOARD) + "[commands]"
    )
    gateway.start()
    board = NodeProcess(tmp_path, mosquitto.port, devices={"sht": {"every_s": 0.5}, "pms": {"every_s": 1}})

    def found() -> list[str]:
        return [finding.cause for finding in of_nodes(asked(state))]

    try:
        board.start()
        eventually(lambda: said_in(state), "it has said how it is")
        well = said_in(state)
        assert set(well.said.devices) == {"pms", "sht"} and well.said.firmware and found() == []
        board.order(faults={"sht": ["silent"]})
        eventually(lambda: found() == ["sensor silent"], "its sensor is told")
        command = [sys.executable, "-m", "bega", "gateway", "command", "--config", gateway.config]
        asks = [*command, "restart_node", BOARD]
        assert subprocess.run(asks, capture_output=True, text=True, timeout=60).stdout == "done\n"
        eventually(lambda: said_in(state).started == 1, "it has started anew")
        anew = said_in(state).said
        assert anew.boot > well.said.boot and anew.start == "reset" and anew.ring.most > 9
        assert "node failed" not in found(), "it was asked to"
    finally:
        board.stop()
