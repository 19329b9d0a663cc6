"""`bega gateway record` and `replay`: what a line heard comes back as the readings that the gateway had."""

import asyncio
import contextlib
import json
import re
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bega.devices import device_names, driver_class, load_driver, must_be_asked, wire_of
from bega_gateway import config as configuration
from bega_gateway.lines.asked import _tap
from bega_gateway.lines.station import Station
from bega_gateway.record_file import Row, end_text, head_of, read, row_text
from bega_gateway.replay_readings import retold
from bega_gateway.tape import MOST_WAITING_BYTES, Tape
from bega_protocols.devices.modbus_meter.sim import Sim as Meter
from bega_protocols.devices.pms5003.sim import Sim as Dust
from bega_protocols.errors import ConfigError
from bega_protocols.reading import Reading
from bega_simulators.hosts.rs485 import Rs485Segment
from tests.contract import BOOKS, NOW_MS, drive, make_sim, question_of, set_as_booked, sim_driver, through

BEGA = [sys.executable, "-m", "bega", "gateway"]
DEVICES = Path(__file__).parent.parent / "protocols/bega_protocols/devices"
CONFIGURATION = """
[gateway]
name = "gw-record"
city = "timisoara"
state_dir = "{state}"
[uplink]
brokers = ["mqtt://127.0.0.1:{broker}"]
[feed]
listen = "127.0.0.1:0"
[lines.dust]
kind = "serial"
port = "{port}"
[devices.roadside]
line = "dust"
driver = "pms5003"
every_s = 0.05
audience = "{audience}"
"""


def gateway(*arguments: object, code: int | None = 0, **options: object) -> subprocess.CompletedProcess[str]:
    outcome = subprocess.run([*BEGA, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)
    assert code is None or outcome.returncode == code, outcome.stdout + outcome.stderr
    return outcome


def readings(outcome: subprocess.CompletedProcess[str], quantity: str) -> list[Decimal]:
    rows = [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in outcome.stdout.splitlines()]
    return [row["value"] for row in rows if row["quantity"] == quantity]


def write_configuration(directory: Path, port: str, broker: int = 1, audience: str = "operator") -> Path:
    file = directory / "corner.toml"
    file.write_text(CONFIGURATION.format(state=directory / "gateway", broker=broker, port=port, audience=audience))
    return file


def test_line_is_recorded_while_the_gateway_reads_it_and_replayed_as_the_same_readings(
    tmp_path, sensor, embedded, make_gateway, make_reader, eventually
):
    running = make_gateway(write_configuration(tmp_path, sensor.port, embedded.port, "personal").read_text())
    reader = make_reader(embedded.url)
    running.start()
    eventually(lambda: reader.records, "records come")
    file = tmp_path / "dust.jsonl"
    said = gateway("record", "dust", "--config", running.config, "--for", 2, "-o", file).stderr
    assert "by the gateway that runs" in said
    assert "household" in said and "delete it" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    replayed = readings(gateway("replay", file, "--fast"), "pm2_5")
    assert len(replayed) > 10
    assert replayed == list(range(int(replayed[0]), int(replayed[0]) + len(replayed))), "every frame, in order"
    eventually(lambda: reader.records[-1].readings[1].value > replayed[-1], "the gateway reads on")
    published = {record.readings[1].value for record in reader.records}
    assert len(published & set(map(int, replayed))) > 5, "the gateway published them meanwhile"


def test_a_second_recording_of_a_line_is_refused_and_the_first_goes_on(
    tmp_path, sensor, embedded, make_gateway, eventually
):
    running = make_gateway(write_configuration(tmp_path, sensor.port, embedded.port).read_text())
    running.start()
    first = tmp_path / "first.jsonl"
    with subprocess.Popen(
        [*BEGA, "record", "dust", "--config", running.config, "-o", first], stderr=subprocess.PIPE
    ) as child:
        eventually(lambda: first.exists() and first.stat().st_size > 1000, "the first one writes")
        refused = gateway("record", "dust", "--config", running.config, "-o", tmp_path / "second.jsonl", code=1)
        assert "recorded already" in refused.stderr and "Traceback" not in refused.stderr
        assert not (tmp_path / "second.jsonl").exists()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
    recorded = read(first)
    assert recorded.rows and not recorded.damage
    third = ["record", "dust", "--config", running.config, "--for", 0.5, "--force", "-o", tmp_path / "third.jsonl"]
    eventually(lambda: gateway(*third, code=None).returncode == 0, "the line is free again")


def test_a_reload_that_begins_the_line_anew_ends_its_recording(tmp_path, sensor, embedded, make_gateway, eventually):
    running = make_gateway(write_configuration(tmp_path, sensor.port, embedded.port).read_text())
    running.start()
    file = tmp_path / "dust.jsonl"
    command = [*BEGA, "record", "dust", "--config", running.config, "-o", file]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        eventually(lambda: file.exists() and file.stat().st_size > 1000, "it writes")
        running.config.write_text(running.config.read_text().replace("every_s = 0.05", "every_s = 0.1"))
        gateway("reload", "--config", running.config, "--set", f"gateway.state_dir={running.state}")
        assert child.wait(10) == 0
        assert child.stderr and "begun anew" in child.stderr.read()
    assert not read(file).damage


def test_without_a_gateway_the_line_is_opened_here_and_nothing_is_stored(tmp_path, sensor):
    file = tmp_path / "dust.jsonl"
    config = write_configuration(tmp_path, sensor.port)
    said = gateway("record", "dust", "--config", config, "--for", 1, "-o", file).stderr
    assert "no gateway runs" in said and "household" not in said
    assert len(readings(gateway("replay", file, "--fast"), "pm2_5")) > 5
    assert not (tmp_path / "gateway").exists()


def test_recording_ends_when_it_is_as_large_as_it_may_be(tmp_path, sensor):
    file = tmp_path / "dust.jsonl"
    config = write_configuration(tmp_path, sensor.port)
    began = time.monotonic()
    gateway("record", "dust", "--config", config, "--for", 50, "--max-mb", 0.002, "-o", file)
    assert time.monotonic() - began < 30
    assert file.stat().st_size < 3000
    assert json.loads(file.read_text().splitlines()[-1])["end"] == "size"
    assert not read(file).damage


def test_recording_that_is_shorter_than_the_pause_between_two_questions_says_so(tmp_path):
    file, config = tmp_path / "air.jsonl", write_configuration(tmp_path, "/dev/null")
    text = config.read_text().replace("pms5003", "mhz19")
    config.write_text(re.sub("every_s = .*", "every_s = 900", text))
    outcome = gateway("record", "dust", "--config", config, "--for", 0.2, "-o", file, code=1)
    assert "asked every 900 s (every_s), so record for longer" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["cellar"], "no line 'cellar'"), (["dust", "--for", "0"], "--for"), (["nodes"], "no device")],
)
def test_recording_of_what_cannot_be_is_refused(tmp_path, arguments, word):
    config = write_configuration(tmp_path, "/dev/null")
    config.write_text(config.read_text() + '[lines.nodes]\nkind = "mqtt"\nbroker = "mqtt://127.0.0.1:1"\n')
    file = tmp_path / "file"
    outcome = gateway("record", *arguments, "--config", config, "-o", file, code=None)
    assert outcome.returncode in (1, 2)
    assert word in outcome.stderr and "Traceback" not in outcome.stderr
    assert not file.exists()


def test_a_file_that_is_there_is_not_overwritten(tmp_path, sensor):
    file = tmp_path / "mine"
    file.write_text("mine")
    config = write_configuration(tmp_path, sensor.port)
    assert "--force" in gateway("record", "dust", "--config", config, "-o", file, code=1).stderr
    assert file.read_text() == "mine"
    file.chmod(0o644)
    gateway("record", "dust", "--config", config, "-o", file, "--force", "--for", 0.5)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# Modbus


def meter(unit: int) -> Meter:
    sim = Meter({"profile": {"part": "sdm630"}}, seed=1)
    sim.set("voltage", "l1", 200 + unit)
    return sim


@contextlib.contextmanager
def cellar(directory: Path, port: str, units=(1, 2)):
    file = directory / "cellar.toml"
    head = CONFIGURATION.partition("[lines.dust]")[0].format(state=directory / "gateway", broker=1)
    lines = f'[lines.cellar]\nkind = "modbus-rtu"\nport = "{port}"\ntimeout_s = 0.5\n'
    for unit in units:
        lines += f'[devices.m{unit}]\nline = "cellar"\ndriver = "modbus_meter"\nevery_s = 1\n'
        lines += f'settings = {{ profile = "sdm630", address = {unit} }}\n'
    file.write_text(head + lines)
    yield file


def voltages(outcome: subprocess.CompletedProcess[str]) -> dict[str, set[Decimal]]:
    found: dict[str, set[Decimal]] = {}
    for line in outcome.stdout.splitlines():
        row = json.loads(line, parse_float=Decimal)
        if row["quantity"] == "voltage" and row.get("part") == "l1":
            found.setdefault(row["device"], set()).add(row["value"])
    return found


def test_modbus_is_recorded_as_question_and_answer_and_each_device_reads_its_own(tmp_path):
    file = tmp_path / "cellar.jsonl"
    with Rs485Segment({1: meter(1), 2: meter(2)}, 38400) as segment, cellar(tmp_path, segment.port) as config:
        gateway("record", "cellar", "--config", config, "--for", 3, "-o", file)
    recorded = read(file)
    assert {row.way for row in recorded.rows} == {"in", "out"}
    assert recorded.head["devices"]["m1"]["settings"] == {"profile": "sdm630", "address": 1}, "by name, not by its rows"
    assert voltages(gateway("replay", file, "--fast")) == {"m1": {Decimal("201.00")}, "m2": {Decimal("202.00")}}


@pytest.mark.slow
def test_recorded_meters_answer_a_gateway_on_a_pseudo_terminal(tmp_path):
    file, port = tmp_path / "cellar.jsonl", tmp_path / "port"
    with Rs485Segment({1: meter(1), 2: meter(2)}, 38400) as segment, cellar(tmp_path, segment.port) as config:
        gateway("record", "cellar", "--config", config, "--for", 3, "-o", file)
    again = tmp_path / "again.jsonl"
    with subprocess.Popen([*BEGA, "replay", file, "--pty", port], stderr=subprocess.PIPE) as child:
        assert child.stderr and b"speaks as cellar" in child.stderr.readline()
        with cellar(tmp_path, str(port)) as config:
            gateway("record", "cellar", "--config", config, "--for", 4, "-o", again)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert not port.is_symlink()
    assert voltages(gateway("replay", again, "--fast")) == {"m1": {Decimal("201.00")}, "m2": {Decimal("202.00")}}


def test_question_that_is_not_in_the_recording_is_named_once(tmp_path):
    rows = [Row(0, "m", "out", bytes.fromhex("0104")), Row(1, "m", "in", bytes.fromhex("0104aa"))]
    file = recording(tmp_path, "modbus-rtu", "m", "modbus_meter", {"profile": "sdm630", "address": 1}, rows)
    port = tmp_path / "port"
    with subprocess.Popen([*BEGA, "replay", file, "--pty", port], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr and "speaks as x" in child.stderr.readline()
        with serial.Serial(str(port), timeout=5) as asking:
            for question, answer in (("0703", b""), ("0703", b""), ("0104", bytes.fromhex("0104aa"))):
                asking.write(bytes.fromhex(question))
                time.sleep(0.2)
                assert asking.read(len(answer)) == answer
        child.send_signal(signal.SIGTERM)
        assert child.stderr.read().strip() == f"{port} was asked what is not in the recording: 0703"


@pytest.mark.slow
def test_recorded_talker_speaks_on_a_pseudo_terminal_once_it_is_opened(tmp_path, sensor):
    file, port, again = tmp_path / "dust.jsonl", tmp_path / "port", tmp_path / "again.jsonl"
    gateway("record", "dust", "--config", write_configuration(tmp_path, sensor.port), "--for", 1.5, "-o", file)
    with subprocess.Popen([*BEGA, "replay", file, "--pty", port], stderr=subprocess.PIPE) as child:
        assert child.stderr and child.stderr.readline()
        time.sleep(0.5)  # nobody has it open: nothing may be lost
        gateway("record", "dust", "--config", write_configuration(tmp_path, str(port)), "--for", 3, "-o", again)
        assert child.wait(10) == 0, "it ends with the recording"
    replayed = readings(gateway("replay", again, "--fast"), "pm2_5")
    assert replayed and replayed == readings(gateway("replay", file, "--fast"), "pm2_5")[: len(replayed)]


SAID_AT_THE_START = ("bme280",)  # its calibration, without which its numbers mean nothing


def asked_devices() -> list[str]:
    asked = [name for name in device_names() if BOOKS[name]["vectors"] and must_be_asked(sim_driver(name))]
    return [name for name in asked if wire_of(driver_class(name)) != "modbus"]


# The file


def recording(directory: Path, kind: str, device: str, driver: str, told: dict, rows: list[Row]) -> Path:
    file = directory / "made.jsonl"
    head = {"bega_record": 1, "line": "x", "kind": kind, "from_ms": 1_790_000_000_000}
    head["devices"] = {device: {"driver": driver, "settings": told, "audience": "operator"}}
    file.write_text(
        "".join(text + "\n" for text in [json.dumps(head), *map(row_text, rows), end_text("time", len(rows), 0)])
    )
    return file


def dust_rows(count: int = 5) -> list[Row]:
    sim, rows = Dust({}, seed=1), []
    for number in range(count):
        sim.set("pm2_5", "", 10 + number)
        rows.append(Row(1000 * number, "d", "in", sim.tick(1000 * number)))
    return rows


@given(octets=st.binary(max_size=400), behind_a_head=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_recording_or_refused(tmp_path, octets, behind_a_head):
    file = tmp_path / "any.jsonl"
    head = recording(tmp_path, "serial", "d", "pms5003", {}, []).read_bytes().partition(b"\n")[0] + b"\n"
    file.write_bytes(head * behind_a_head + octets)
    try:
        recorded = read(file)
    except ConfigError as error:
        assert str(error).startswith(f"{file}:1: ")
    else:
        assert behind_a_head and recorded.damage and all(isinstance(row, Row) for row in recorded.rows)


def test_keys_stay_out_of_the_file_and_are_given_again_at_the_replay(tmp_path):
    book = json.loads((DEVICES / "bthome" / "vectors.json").read_text())
    vector = next(vector for vector in book["vectors"] if vector.get("settings", {}).get("key") and "frame" in vector)
    file = tmp_path / "c.toml"
    address = vector["settings"]["address"]
    file.write_text(
        CONFIGURATION.partition("[lines.dust]")[0].format(state=tmp_path, broker=1)
        + '[lines.park]\nkind = "ble"\n[devices.b]\nline = "park"\ndriver = "bthome"\n'
        + f'settings = {{ address = "{address}", key = "{vector["settings"]["key"]}" }}\n'
    )
    head = head_of(configuration.load(file), "park", 0)
    assert vector["settings"]["key"] not in json.dumps(head)
    assert head["devices"]["b"]["without"] == ["key"]
    made = tmp_path / "park.jsonl"
    row = row_text(Row(0, "b", "in", bytes.fromhex(vector["frame"])))
    made.write_text("\n".join([json.dumps(head), row, end_text("time", 1, 0)]) + "\n")
    assert "b: recorded without key; give it with --set b.key=" in gateway("replay", made, code=1).stderr
    outcome = gateway("replay", made, "--set", f"b.key={vector['settings']['key']}")
    expected = (vector.get("readings") or vector["groups"][0])[0]
    assert readings(outcome, expected[0]) == [Decimal(expected[1]).scaleb(expected[2] if len(expected) > 2 else 0)]


def test_replay_keeps_the_pace_unless_it_is_told_otherwise(tmp_path):
    file = recording(tmp_path, "serial", "d", "pms5003", {}, dust_rows(3))
    began = time.monotonic()
    outcome = gateway("replay", file)
    assert time.monotonic() - began >= 2
    assert readings(outcome, "pm2_5") == [10, 11, 12]
    times = [json.loads(line)["time"] for line in outcome.stdout.splitlines()]
    assert times[0] == "2026-09-21T14:13:20.000Z" and times[-1] == "2026-09-21T14:13:22.000Z"


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_a_file_that_was_cut_off_the_whole_rows_are_replayed(tmp_path, data):
    rows = dust_rows()
    whole = recording(tmp_path, "serial", "d", "pms5003", {}, rows).read_bytes()
    head_size = whole.index(b"\n") + 1
    size = data.draw(st.integers(head_size, len(whole) - 1))
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole[:size])
    recorded = read(cut)
    assert recorded.rows == rows[: whole[:size].count(b"\n") - 1]
    assert recorded.damage and str(cut) in recorded.damage[0]


@given(where=st.integers(1, 5), text=st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_that_was_edited_is_named_with_its_number_and_costs_no_other(tmp_path, where, text):
    rows = dust_rows()
    lines = recording(tmp_path, "serial", "d", "pms5003", {}, rows).read_text().split("\n")
    lines[where] = text
    edited = tmp_path / "edited.jsonl"
    edited.write_text("\n".join(lines), newline="")
    recorded = read(edited)
    assert recorded.rows == rows[: where - 1] + rows[where:]
    assert any(said.startswith(f"{edited}:{where + 1}: ") for said in recorded.damage), recorded.damage


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ('{"t_ms": 1, "device": "other", "in": "00"}', "no device 'other'"),
        ('{"t_ms": 1, "device": "d", "in": "0g"}', "no hex"),
        ('{"t_ms": "1", "device": "d", "in": "00"}', "a row is"),
        ('{"t_ms": 1, "device": "d", "in": "00", "out": "00"}', "a row is"),
        ('{"t_ms": 1000000000000000000, "device": "d", "in": "00"}', "a row is"),
        ('{"t_ms": 253402300799999, "device": "d", "in": "00"}', "a row is"),
        ('{"t_ms": -1, "device": "d", "in": "00"}', "a row is"),
        ("[" * 100_000, "no JSON"),
        ('{"end": "time"}', "`rows`"),
        ('"' + "0" * 400_000 + '"', "longer"),
    ],
)
def test_a_row_that_says_nothing_is_named(tmp_path, row, word):
    file = recording(tmp_path, "serial", "d", "pms5003", {}, dust_rows(1))
    head, first, end = file.read_text().splitlines()
    file.write_text("\n".join([head, row, first, end]) + "\n")
    outcome = gateway("replay", file, "--fast", code=1)
    assert f"{file}:2: " in outcome.stderr and word in outcome.stderr and "Traceback" not in outcome.stderr
    assert readings(outcome, "pm2_5") == [10]


NO_LIST = {"d": {"driver": "bthome", "settings": {}, "without": 5}}


@pytest.mark.parametrize(("key", "value"), [("from_ms", 10**20), ("from_ms", -1), ("devices", NO_LIST)])
def test_a_head_that_cannot_be_is_refused(tmp_path, key, value):
    file = recording(tmp_path, "serial", "d", "pms5003", {}, dust_rows(1))
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(head) | {key: value}), *rows]) + "\n")
    outcome = gateway("replay", file, "--fast", code=1)
    assert f"{file}:1: " in outcome.stderr and "Traceback" not in outcome.stderr


def test_any_name_of_a_device_is_printed_as_json(tmp_path):
    file = recording(tmp_path, "serial", 'a"b\\', "pms5003", {}, [row._replace(device='a"b\\') for row in dust_rows(1)])
    outcome = gateway("replay", file, "--fast")
    assert {json.loads(line)["device"] for line in outcome.stdout.splitlines()} == {'a"b\\'}


def test_setting_without_its_key_is_refused(tmp_path):
    outcome = gateway("replay", recording(tmp_path, "serial", "d", "pms5003", {}, dust_rows(1)), "--set", "d=5", code=1)
    assert "write it as d.KEY=VALUE" in outcome.stderr and "Traceback" not in outcome.stderr


def test_line_without_an_end_is_not_held_in_memory(tmp_path):
    file = recording(tmp_path, "serial", "d", "pms5003", {}, dust_rows(2))
    head, first, second, end = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(head + first + b" " * 30_000_000 + b"\n" + second + end)
    tracemalloc.start()
    recorded = read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(recorded.rows) == 2 and len(recorded.damage) == 1 and ":3: is longer" in recorded.damage[0]
    assert peak < 5_000_000


@pytest.mark.parametrize("option", [("--for", "0"), ("--for", "nan"), ("--max-mb", "nan"), ("--max-mb", "-1")])
def test_limit_that_is_none_is_refused_in_words(tmp_path, option):
    outcome = gateway("record", "x", "--config", tmp_path / "c.toml", "-o", tmp_path / "f", *option, code=2)
    assert f"{option[0]}: '{option[1]}' is not more than 0" in outcome.stderr


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"bega_record": 2}', '{"bega_record": 1}', "\xff", '{"bega_record": 1, "line": 1}']
)
def test_what_is_no_recording_is_refused_at_its_first_line(tmp_path, text):
    file = tmp_path / "file"
    file.write_bytes(text.encode("latin-1"))
    outcome = gateway("replay", file, code=1)
    assert f"{file}:1: " in outcome.stderr and outcome.stdout == "" and "Traceback" not in outcome.stderr


@pytest.mark.parametrize("device", [name for name in device_names() if name not in asked_devices()])
def test_recorded_vectors_of_every_device_replay_as_their_readings(device, tmp_path):
    """What `feed` reads in the contract it reads in a recording: settings come back from the head."""
    book = json.loads((DEVICES / device / "vectors.json").read_text())
    vector = book["vectors"][0]
    told = vector.get("settings", {})
    chunks = [bytes.fromhex(text) for text in vector.get("chunks", [vector.get("frame", "")])]
    rows = [Row(number, "d", "in", chunk) for number, chunk in enumerate(chunks)]
    file = recording(tmp_path, "any", "d", device, told, rows)
    outcome = gateway("replay", file, "--fast", code=None)
    groups = vector["groups"] if "groups" in vector else [vector["readings"]]
    assert [json.loads(line)["quantity"] for line in outcome.stdout.splitlines()] == [
        row[0] for group in groups for row in group
    ]


def measured(driver, sim) -> tuple[list[Row], list[list[Reading]]]:
    """Return one measurement with the device's simulator: as the line records it, and what it gave."""
    rows: list[Row] = []
    wire = driver.line.split()[0]

    def carry(ask):
        answer = through(ask, sim.answer(question_of(ask)), wire)
        _tap(lambda way, octets: rows.append(Row(len(rows), "d", way, octets)), ask, answer)
        return answer

    return rows, drive(driver.measure(NOW_MS), carry)


@pytest.mark.parametrize("device", asked_devices())
def test_asked_device_replays_as_what_was_measured(device):
    """From the start of a device, and from the middle, where its driver no longer asks who it is."""
    told_settings = BOOKS[device]["sim"]["settings"]
    driver, sim = load_driver(device, told_settings), set_as_booked(device, make_sim(device))
    first, groups = measured(driver, sim)
    again, groups_again = measured(driver, sim)
    assert [reading for group in groups_again for reading in group]
    told = list(retold(load_driver(device, told_settings), first, NOW_MS))
    assert [group for one in told for group in one.groups] == groups
    told = list(retold(load_driver(device, told_settings), again, NOW_MS))
    heard = [values(group) for one in told for group in one.groups]
    if device in SAID_AT_THE_START:
        assert heard == [], "nothing, rather than something false"
    else:
        assert all(values(group) in heard for group in groups_again)


def values(group: list[Reading]) -> list[tuple]:
    """Without quality: a driver that was not there from the start cannot know all that the first one knew."""
    return [reading[:4] for reading in group]


# The tape


def station() -> Station:
    async def deliver(groups, wall_ms):
        pass

    return Station("d", load_driver("pms5003", {}), 1.0, deliver)


def test_tape_that_nobody_takes_loses_rows_and_no_memory():
    async def scenario():
        there = station()
        with Tape([there], lambda: 0) as tape:
            for _ in range(100):
                there.tap("in", bytes(50_000))
            rows = await tape.take(0)
            assert sum(len(row.octets) for row in rows) <= MOST_WAITING_BYTES
            assert len(rows) + tape.lost == 100 and tape.lost > 0
            there.tap("in", b"\x01")
            assert [row.octets for row in await tape.take(1)] == [b"\x01"]
            with pytest.raises(ConfigError):
                Tape([there], lambda: 0)
        assert there.tap is None

    asyncio.run(scenario())


def test_device_contract_of_replay_knows_every_wire():
    """Replay feeds questions to who needs them: a new kind of wire must be thought of there."""
    wires = {wire_of(driver_class(name)) for name in device_names()}
    assert wires <= {"serial", "modbus", "mbus", "ble", "i2c"}
