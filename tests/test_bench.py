"""The bench itself: it must see a loss, a lie and a delay where there is one, or its zeros mean nothing."""

import contextlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.devices import load_driver
from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import Record
from bega_simulators.bench import command, numbered, outages
from bega_simulators.bench.account import absent, fate, left_out, stale
from bega_simulators.bench.figures import Findings, Goal, Row, spread
from bega_simulators.bench.numbered import FUNCTION, QUANTITIES, NumberedMeter, content, derived, names, read_at_s
from bega_simulators.bench.plots import Series, plot
from bega_simulators.bench.relay import Relay
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.subscriber import Ledger, Session
from bega_simulators.bench.usage import Meter, cpu_s, percentile
from tests.conftest import IS_NIGHT

FLOATS = 8
QUESTION = struct.pack(">BHH", FUNCTION, 0, 2 * FLOATS)


def pack(meter: int, read: int, at_s: float, boot: int = 7, seq: int = 1, device: str = "") -> bytes:
    """Return the message that a gateway makes of an answer."""
    numbers = content(meter, read, at_s, FLOATS)
    rows = [Reading(quantity, value, 0, part) for (quantity, part, _), value in zip(QUANTITIES, numbers, strict=False)]
    return senml.encode(Record("gw-bench", boot, seq, device or f"m{meter}", 1_800_000_000_000, 0, rows))


def publish(payload: bytes, packet: int) -> bytes:
    """Return a PUBLISH at QoS 1, by the paper: section 3.3, remaining length as in 2.2.3."""
    body = b"\0\1t" + struct.pack(">H", packet) + payload
    length, octets = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        octets += bytes([digit | (128 if length else 0)])
        if not length:
            return b"\x32" + octets + body


# The meters.


@given(meter=st.integers(0, 246), read=st.integers(1, 1 << 24), at_s=st.floats(0, 1e9))
def test_every_number_of_an_answer_survives_a_float32(meter, read, at_s):
    numbers = content(meter, read, at_s, FLOATS)
    assert list(struct.unpack(f">{FLOATS}f", struct.pack(f">{FLOATS}f", *numbers))) == numbers


@given(at_s=st.floats(0, 1e8), later_s=st.floats(0, 1e6))
def test_an_answer_says_when_it_was_given(at_s, later_s):
    _, second, microsecond, _ = content(1, 1, at_s, FLOATS)[:4]
    assert abs(read_at_s(second, microsecond, at_s + later_s) - at_s) < 2e-6 * max(1.0, at_s / 1e6)


@given(
    meters=st.tuples(st.integers(0, 99), st.integers(0, 99)), reads=st.tuples(st.integers(1, 999), st.integers(1, 999))
)
def test_no_answer_passes_for_that_of_a_neighbour_or_of_another_read(meters, reads):
    if (meters[0], reads[0]) != (meters[1], reads[1]):
        assert content(meters[0], reads[0], 5.0, FLOATS) != content(meters[1], reads[1], 5.0, FLOATS)


def test_meter_numbers_its_answers_and_refuses_other_questions():
    meter = NumberedMeter(3, FLOATS, keeps_times=True)
    for read in (1, 2):
        answer = meter.answer(QUESTION)
        assert struct.unpack(f">{FLOATS}f", answer[2:])[0] == read
    assert meter.answer(struct.pack(">BHH", FUNCTION, 2, 4)) == bytes([FUNCTION | 0x80, 2])
    assert meter.answer(struct.pack(">BHH", 3, 0, 2 * FLOATS)) == bytes([0x83, 1])
    assert (meter.reads, len(meter.times_s)) == (2, 2)
    meter.faults.add("silent")
    assert meter.answer(QUESTION) is None


@pytest.mark.parametrize("count", [5, 8, 30])
def test_gateway_reads_the_numbers_with_the_map_that_the_bench_writes(count):
    driver = load_driver("modbus_meter", {"profile": tomllib.loads(numbered.register_map(count)), "address": 1})
    measurement = driver.measure(0)
    ask = next(measurement)
    answer = NumberedMeter(9, count).answer(ask.write)
    with pytest.raises(StopIteration) as stop:
        measurement.send(answer)
    (readings,) = stop.value.value
    assert [f"{r.quantity}:{r.part}" if r.part else r.quantity for r in readings] == names(count)
    values = [reading.value * 10**reading.exp10 for reading in readings]
    assert values[0] == 1 and values[3] == 9
    assert values[4:] == pytest.approx(derived(9, 1, count - 4))


# The reader.


def test_reader_counts_what_came_and_how_late():
    ledger = Ledger(FLOATS)
    ledger.take(pack(1, 1, 100.0, seq=1), 100.25)
    ledger.take(pack(1, 2, 101.0, seq=2), 101.5)
    (heard,) = ledger.report()["boots"].values()
    assert heard["delay_ms"] == pytest.approx([250, 500], abs=0.01)
    assert (ledger.wrong, ledger.doubled, ledger.doubled_reads) == (0, 0, 0)


def test_reader_sees_a_hole():
    ledger = Ledger(FLOATS)
    for read in (1, 2, 5):
        ledger.take(pack(1, read, 100.0, seq=read), 100.0)
    assert ledger.totals()["missing"] == {"1": [3, 4]}


def test_reader_tells_what_came_twice_from_what_was_numbered_twice():
    ledger = Ledger(FLOATS)
    ledger.take(pack(1, 1, 100.0, seq=1), 100.0)
    ledger.take(pack(1, 1, 100.0, seq=1), 100.0)
    assert (ledger.doubled, ledger.doubled_reads) == (1, 0)
    ledger.take(pack(1, 1, 100.0, seq=2), 100.0)
    assert (ledger.doubled, ledger.doubled_reads) == (1, 1)


@pytest.mark.parametrize(
    "payload",
    [
        pack(1, 1, 100.0, device="m2"),  # in the name of a neighbour
        pack(1, 1, 100.0).replace(b'"current:l1"', b'"current:l2"'),
        pack(1, 1, 100.0).replace(str(derived(1, 1, 1)[0]).encode(), b"7"),
        pack(1, 1, 100.0)[:-2],
        b"{}",
        b"",
    ],
    ids=["neighbour", "name", "value", "cut", "no list", "empty"],
)
def test_reader_sees_a_lie(payload):
    ledger = Ledger(FLOATS)
    ledger.take(payload, 100.0)
    assert ledger.wrong == 1 and not ledger.report()["boots"]


@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_reader_takes_every_message_however_the_stream_is_cut(cuts):
    stream = b"\x20\2\0\0\x90\3\0\1\1" + b"".join(publish(pack(1, read, 100.0, seq=read), read) for read in range(1, 4))
    ledger = Ledger(FLOATS)
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(10)
        session = Session(0, ledger)
        session.socket = near
        edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
        for start, end in pairwise(edges):
            far.sendall(stream[start:end])
            session.read()
        assert far.recv(100) == b"".join(b"\x40\2" + struct.pack(">H", read) for read in range(1, 4))
    assert (ledger.messages, ledger.wrong) == (3, 0)


# The account.


def test_what_was_read_just_before_a_kill_was_never_promised():
    times_s = [[1.0, 2.0, 3.0, 9.0]]
    assert fate(times_s, [[3]], [3.1], 0.05, 1.0, 10.0) == (4, 0, 1, 5)
    assert fate(times_s, [[2]], [3.1], 0.05, 1.0, 10.0) == (4, 1, 0, 5)
    assert fate(times_s, [[3]], [2.9], 0.05, 1.0, 10.0) == (4, 1, 0, 5), "read after the kill it must arrive"
    assert fate(times_s, [[4]], [], 0.05, 1.0, 8.0) == (3, 0, 0, 0), "what is later than the account is left out"


@given(reads=st.integers(1, 50), gone=st.sets(st.integers(1, 50)))
def test_account_finds_exactly_what_did_not_arrive(reads, gone):
    ledger = Ledger(FLOATS)
    for read in range(1, reads + 1):
        if read not in gone:
            ledger.take(pack(0, read, 100.0, seq=read), 100.0)
    times_s = [[float(read) for read in range(reads)]]
    totals = json.loads(json.dumps(ledger.totals()))
    assert absent(times_s, totals) == [sorted(number for number in gone if number <= reads)]


def test_polls_left_out_are_whole_periods_without_one():
    assert left_out([0.0, 1.1, 1.9, 5.0, 6.0], 1.0) == 2
    assert left_out([], 1.0) == 0


def test_answer_that_was_taken_for_the_next_one_is_stale():
    times_s = [10.0, 12.0, 14.0]
    wall_minus_mono_s = 1_800_000_000.0
    assert stale([(1, wall_minus_mono_s + 10.1), (3, wall_minus_mono_s + 14.2)], times_s, wall_minus_mono_s) == 0
    assert stale([(1, wall_minus_mono_s + 12.1)], times_s, wall_minus_mono_s) == 1


# Figures.


def test_goal_is_held_neared_or_missed():
    at_most, at_least = Goal("", 100, tolerance=0.1), Goal("", 100, tolerance=0.1, at_least=True)
    values = (89.0, 91.0, 100.0, 109.0, 111.0)
    verdicts = [[Row("", "", goal, value).verdict for value in values] for goal in (at_most, at_least)]
    assert verdicts == [[*["holds"] * 3, "near", "misses"], ["misses", "near", *["holds"] * 3]]
    assert Row("", "", at_most, None).verdict == "not measured"
    assert Row("", "", at_most, float("nan")).verdict == "misses"
    assert Row("", "").verdict == ""


def test_spread_names_the_middle_and_both_ends():
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert spread([2.0]) == "2"
    assert percentile([1, 2, 3, 4], 50) == 3 and percentile([5], 99) == 5


def test_usage_counts_the_cpu_of_a_child_and_not_its_sleep():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        time.sleep(0.3)
        meter = Meter({"busy": busy.pid, "idle": idle.pid})
        deadline = time.monotonic() + 20
        while cpu_s(busy.pid) < 0.5 and time.monotonic() < deadline:
            time.sleep(0.05)
        used = meter.read().cpu_s
        assert used["busy"] > 0.1 > used["idle"]
    finally:
        busy.kill()
        idle.kill()
        busy.wait()
        idle.wait()


def test_plot_is_well_formed_and_holds_every_curve():
    words = "p99 <of all>"
    root = ElementTree.fromstring(
        plot("Latency & load", [Series(words, [(0, 1), (10, 5)]), Series("none", [])], "x", "y")
    )
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2
    assert words in [element.text for element in root.iter()]


def test_name_of_a_curve_stands_where_the_curve_is_not():
    def name_y(*points):
        root = ElementTree.fromstring(plot("Memory", [Series("browser", points)], "x", "y"))
        return next(float(element.get("y")) for element in root.iter() if element.text == "browser")

    high, low = [(at, 9.5) for at in range(10)], [*((at, 0.5) for at in range(9)), (9, 9.5)]
    assert name_y(*high) > 250 > 100 > name_y(*low)


# The relay.


def test_black_hole_passes_nothing_keeps_the_socket_and_ends_with_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        relay = Relay(server.getsockname()[1])
        address = ("127.0.0.1", relay.port)
        with socket.create_connection(address) as connection, socket.create_connection(address) as idle:
            connection.settimeout(10)
            idle.settimeout(10)
            connection.sendall(b"a")
            assert connection.recv(1) == b"a"
            idle.sendall(b"i")
            assert idle.recv(1) == b"i"
            relay.stall()
            time.sleep(0.2)
            connection.sendall(b"b")
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            relay.reset()
            connection.settimeout(10)
            for either in (connection, idle):
                with pytest.raises(ConnectionResetError):
                    either.recv(1)
        relay.close()


def _echo(server: socket.socket) -> None:
    for _ in range(2):
        near, _ = server.accept()
        threading.Thread(target=_give_back, args=(near,), daemon=True).start()


def _give_back(near: socket.socket) -> None:
    with near, contextlib.suppress(ConnectionError):
        while octets := near.recv(100):
            near.sendall(octets)


def test_what_a_gateway_computes_is_told_apart_from_what_its_meters_said():
    ledger = Ledger(FLOATS, computes=True)
    computed = [*json.loads(pack(3, 1, 50.0)), {"n": "frequency_corrected", "v": 1.5}]
    ledger.take(json.dumps(computed).encode(), 51.0)
    ledger.take(pack(3, 1, 50.0, seq=2, device="m3-totals"), 51.0)
    assert (ledger.messages, ledger.wrong, ledger.doubled_reads) == (2, 0, 0)
    assert len(ledger.report()["boots"]["7"]["arrived_s"]) == 1
    computed[5]["v"] += 1
    ledger.take(json.dumps(computed).encode(), 51.0)
    assert ledger.wrong == 1


# The command.


def with_scenario(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Let the bench know one scenario, which measures `value` where at most 1 must hold."""
    findings = Findings([Row("made", "up", Goal("at most 1", 1.0), value)], {"value": value}, {"made-up": "<svg/>"})
    monkeypatch.setattr(command, "SCENARIOS", {"made-up": command.Scenario("", "", "nothing")})
    monkeypatch.setattr(command, "_function", lambda scenario: lambda bench: findings)


def test_missed_goal_is_said_and_fails_only_when_asked_to(monkeypatch, capsys):
    with_scenario(monkeypatch, 2.0)
    assert command.main([]) == 0
    assert "misses" in capsys.readouterr().out
    assert command.main(["--strict"]) == 1
    with_scenario(monkeypatch, 1.05)
    assert command.main(["--strict"]) == 0, "within the tolerance"


def test_figures_and_curves_are_written_where_asked(monkeypatch, tmp_path):
    with_scenario(monkeypatch, 0.5)
    assert command.main(["--json", str(tmp_path / "found.json"), "--plots", str(tmp_path / "plots")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["scenarios"]["made-up"]["rows"][0]["verdict"] == "holds"
    assert (tmp_path / "plots" / "made-up.svg").read_text() == "<svg/>"


def test_every_scenario_is_listed_and_there(capsys):
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name, scenario in command.SCENARIOS.items():
        assert name in listed
        assert callable(command._function(scenario))


def test_unknown_scenario_is_answered_with_those_that_are(capsys):
    assert command.main(["lode"]) == 2
    assert "there is no 'lode'" in capsys.readouterr().err


# All of it, with short windows. What the longer scenarios show of the gateway, tests of its own show by day.

at_night = pytest.mark.skipif(not IS_NIGHT, reason="a quarter of a minute of waiting: make nightly PART=engine")
LONG = ("outages", "dead-unit", "rs485", "ble")


@pytest.mark.slow
def test_bench_runs_the_gateway_as_shipped_and_every_value_is_right(tmp_path):
    found = tmp_path / "found.json"
    bench = [sys.executable, "-m", "bega", "bench", "load", "drain", "million", "--quick", "--json", found]
    told = subprocess.run(bench, capture_output=True, text=True, timeout=110)
    assert told.returncode == 0, told.stderr
    scenarios = json.loads(found.read_text())["scenarios"]
    assert scenarios["load"]["figures"]["clean"]["wrong"] == 0
    assert scenarios["load"]["figures"]["clean"]["messages"] > 20
    assert scenarios["drain"]["figures"]["lost"] == 0
    assert scenarios["million"]["figures"]["last"]["records"] >= 1500
    assert "quick: the figures say nothing about speed" in told.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flash", "edge", *(pytest.param(name, marks=at_night) for name in LONG)])
def test_scenario_runs_and_nothing_is_lost_or_wrong(name, tmp_path):
    if name == "ble" and shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is missing: apt-get install dbus")
    found = tmp_path / "found.json"
    bench = [sys.executable, "-m", "bega", "bench", name, "--quick", "--json", found]
    told = subprocess.run(bench, capture_output=True, text=True, timeout=110)
    assert told.returncode == 0, told.stderr
    rows = json.loads(found.read_text())["scenarios"][name]["rows"]
    truths = [row for row in rows if row["goal"] and row["goal"]["limit"] == 0]
    assert all(row["verdict"] == "holds" for row in truths), truths


@pytest.mark.slow
@at_night
def test_bench_sees_a_loss(tmp_path):
    """Somebody throws the spool away between a kill and the next start: committed records are gone, and it is said."""

    def vandalise(scene: outages.Scene) -> None:
        scene.broker.stop()
        time.sleep(3)
        scene.gateway.kill()
        scene.kills_s.append(time.monotonic())
        for part in Path(scene.gateway.directory / "state").glob("spool*"):
            part.unlink()
        scene.gateway.start()
        scene.broker.start()

    found, totals = outages._case(Bench(tmp_path, True, lambda words: None), "vandal", vandalise)
    assert found.lost > 20
    assert totals["wrong"] == 0
