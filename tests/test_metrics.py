"""The metrics of a gateway, read by Prometheus' own parser."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bega_gateway import metrics
from bega_gateway.lines.ble_counters import BleCounters
from bega_gateway.lines.station import Station
from bega_gateway.metrics import Family, _of_adapters, _of_calculations, _of_commands, _of_devices, response, text
from bega_protocols.devices.pms5003.driver import Driver as Pms5003

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["{broker}"]
[metrics]
listen = "127.0.0.1:0"
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.1
[lines.second]
kind = "serial"
port = "/dev/null/2"
[devices.flat-12]
line = "second"
driver = "pms5003"
audience = "personal"
[totals.flat-12-1h]
input = "flat-12"
quantities = ["laser_time"]
[commands]
"""


def parsed(said: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(said)
        for sample in family.samples
    }


def ask(address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(address + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# ------------------------------------------------------------------ the text

SAMPLES = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(["device", "line", "x"]), st.text(max_size=8)), st.floats(0, 2**60)),
    max_size=5,
    unique_by=lambda sample: tuple(sorted(sample[0].items())),
)


@given(samples=SAMPLES, meaning=st.text(st.characters(blacklist_characters="\r"), max_size=20))
def test_prometheus_reads_back_any_label_and_any_value(samples, meaning):
    said = text([Family("bega_gateway_thing", "gauge", meaning, samples)])
    expected = {("bega_gateway_thing", tuple(sorted(labels.items()))): value for labels, value in samples}
    assert parsed(said) == expected


def test_devices_of_households_are_one_row_a_line_without_a_name():
    async def deliver(groups, wall_ms):
        raise AssertionError

    stations = [Station(name, Pms5003({}, b""), 1.0, deliver) for name in ("flat-12", "flat-13", "hall")]
    for number, station in enumerate(stations, 1):
        station.counters.records = number
        station.heard_mono_ms = 1000 * number
    audiences = ("personal", "personal", "operator")
    devices = [("cellar", station, audience) for station, audience in zip(stations, audiences, strict=True)]
    said = text(_of_devices(devices, 10_000))
    assert "flat" not in said
    values = parsed(said)
    rows = (("device", "personal"), ("line", "cellar")), (("device", "hall"), ("line", "cellar"))
    assert [values["bega_gateway_device_readings_groups_total", row] for row in rows] == [3, 3]
    assert [values["bega_gateway_device_since_heard_seconds", row] for row in rows] == [8, 7]


def test_each_bluetooth_adapter_has_its_counters():
    first = BleCounters("hci0", ours=7, foreign=40, overtaken=1, restarted=2, resets=1)
    second = BleCounters("hci1", connects=5, failed_connects=3)
    values = parsed(text(_of_adapters([("park", first), ("hall", second)])))
    park, hall = (("adapter", "hci0"), ("line", "park")), (("adapter", "hci1"), ("line", "hall"))
    heard = "bega_gateway_ble_advertisements_total"
    assert values[heard, (*park, ("of", "ours"))] == 7 and values[heard, (*park, ("of", "foreign"))] == 40
    assert values["bega_gateway_ble_overtaken_advertisements_total", park] == 1
    assert values["bega_gateway_ble_scan_restarts_total", park] == 2
    assert values["bega_gateway_ble_adapter_resets_total", park] == 1
    assert values["bega_gateway_ble_connects_total", hall] == 5
    assert values["bega_gateway_ble_failed_connects_total", hall] == 3
    assert text(_of_adapters([])) == "\n"


def test_what_came_of_commands_is_counted_with_the_reason_of_refusals():
    said = text(_of_commands({("done", ""): 3, ("refused", "unsigned"): 2, ("refused", "busy"): 1}))
    values = parsed(said)
    assert values["bega_gateway_commands_total", (("outcome", "done"),)] == 3
    assert values["bega_gateway_commands_total", (("outcome", "failed"),)] == 0, "there before the first one fails"
    assert values["bega_gateway_commands_refused_total", (("reason", "unsigned"),)] == 2
    assert values["bega_gateway_commands_refused_total", (("reason", "busy"),)] == 1
    assert text(_of_commands(None)) == "\n"


def test_what_calculations_could_not_use_is_counted_without_the_name_of_a_household():
    rows = [("totals.flat-12", 2, "personal"), ("totals.flat-13", 3, "personal"), ("balances.zone", 4, "operator")]
    said = text(_of_calculations(rows))
    assert "flat" not in said
    left_out = "bega_gateway_calculation_left_out_total"
    assert parsed(said) == {
        (left_out, (("name", "personal"), ("table", "totals"))): 5,
        (left_out, (("name", "zone"), ("table", "balances"))): 4,
    }
    assert text(_of_calculations([])) == "\n"


# ------------------------------------------------------------------ the answer


@given(head=st.binary(max_size=200))
def test_any_request_gets_one_whole_answer(head):
    answer = response(head + b"\r\n\r\n", lambda: "up 1\n")
    status, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (200|400|404|405) ", status)
    assert int(re.search(rb"Content-Length: (\d+)", status)[1]) == len(body)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
    ],
)
def test_only_get_metrics_is_answered_with_metrics(head, status):
    assert response(head, lambda: "up 1\n").split(b" ")[1] == status


# ------------------------------------------------------------------ a gateway


def metrics_of(process) -> str:
    return json.loads(process._ready.read_text())["metrics"]


def test_a_gateway_counts_what_it_does_and_names_no_household(sensor, mosquitto, make_gateway, make_reader, eventually):
    reader = make_reader(mosquitto.url)
    process = make_gateway(CONFIGURATION.format(broker=mosquitto.url, port=sensor.port))
    process.start()
    eventually(lambda: len(reader.records) > 20, "records arrive")
    status, said = ask(metrics_of(process))
    arrived = len(reader.records)
    assert status == 200
    assert "flat-12" not in said and "gw-corner" not in said
    values = parsed(said)
    plain = {name: value for (name, labels), value in values.items() if not labels}
    assert 10 < plain["bega_gateway_spool_committed_messages_total"] <= arrived + 20
    assert (
        plain["bega_gateway_uplink_acknowledged_messages_total"] <= plain["bega_gateway_spool_committed_messages_total"]
    )
    assert plain["bega_gateway_uplink_up"] == 1 and plain["bega_gateway_uplink_connects_total"] == 1
    assert plain["bega_gateway_heard"] == 1 and plain["bega_gateway_watched"] == 2
    assert 10e6 < plain["process_resident_memory_bytes"] < 200e6 and plain["process_open_fds"] > 5
    air = (("device", "roadside-air"), ("line", "pms"))
    assert values["bega_gateway_device_readings_groups_total", air] > 10
    assert values["bega_gateway_device_since_heard_seconds", air] < 5
    assert values["bega_gateway_commands_total", (("outcome", "done"),)] == 0
    assert values["bega_gateway_calculation_left_out_total", (("name", "personal"), ("table", "totals"))] == 0
    later = parsed(ask(metrics_of(process))[1])
    assert all(later[key] >= value for key, value in values.items() if key[0].endswith("_total")), "counters only rise"
    assert process.stop() == 0


def test_strangers_on_the_metrics_port_cost_nothing(sensor, make_gateway, eventually):
    process = make_gateway(CONFIGURATION.format(broker="mqtt://127.0.0.1:1", port=sensor.port))
    process.start()
    address = metrics_of(process)
    host, port = address.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port)), 5) for _ in range(10)]
    endless = socket.create_connection((host, int(port)), 5)
    try:
        while True:
            endless.sendall(b"x" * 65_536)
    except OSError:
        pass
    assert ask(address)[0] == 200
    for stranger in [*silent, endless]:
        stranger.close()
    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("size", [400_000, 40_000])
def test_a_client_that_does_not_read_holds_nothing_after_its_time(size, monkeypatch):
    """The small answer fits below the mark from which a transport says that it holds much."""
    monkeypatch.setattr(metrics, "ASK_WITHIN_S", 2.0)

    async def until_held(port: int, count: int) -> None:
        async with asyncio.timeout(20):
            while held(port) != count:  # noqa: ASYNC110 - a descriptor that goes sets no event
                await asyncio.sleep(0.05)

    def held(port: int) -> int:
        """Connections to `port` that somebody holds a descriptor of; one that was let go has no inode any more."""
        rows = [row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        ours = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] != "0A"]  # 0A: listens
        return sum(row[9] != "0" for row in ours)

    async def served() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            port = listener.getsockname()[1]
            task = asyncio.create_task(metrics.serve(listener, lambda: "x" * size))
            await asyncio.sleep(0)
            clients = [stack.enter_context(socket.socket()) for _ in range(10)]
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                client.connect(listener.getsockname())
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            await until_held(port, 10)
            await until_held(port, 0)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(served())


def test_a_metrics_port_that_is_taken_is_named(tmp_path):
    file = tmp_path / "gateway.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file.write_text(CONFIGURATION.format(broker="mqtt://127.0.0.1:1", port="/dev/null/1"))
        command = [sys.executable, "-m", "bega", "gateway", "run", "--config", file]
        more = ["--set", f"gateway.state_dir={tmp_path}/state", "--set", f"metrics.listen={address}"]
        told = subprocess.run([*map(str, command), *more], capture_output=True, text=True, timeout=20)
    assert told.returncode == 1
    assert f"metrics.listen: {address} cannot be used (Address already in use)" in told.stderr
