"""Another configuration in a gateway that runs: what did not change goes on, what is wrong changes nothing."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.clock import mono_ms, wall_ms
from bega.notify import Notifier
from bega_gateway import app, control
from bega_gateway import parts as running_parts
from bega_gateway.config import Config, examine, load
from bega_gateway.control import NAME, Origin, Outcome, ask_reload
from bega_gateway.health import Health, Watched
from bega_gateway.reload import parts, plan, settled
from bega_protocols import senml
from bega_protocols.errors import ConfigError

# ------------------------------------------------------------------ the plan

AUDIENCES = ("public", "operator", "personal")


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """The tables of a small file; so small that two of them often have much in common."""
    kinds = {"serial": "pms5003", "modbus-rtu": "modbus_meter", "modbus-tcp": "modbus_meter", "mqtt": ""}
    lines: dict[str, Any] = {}
    devices: dict[str, Any] = {}
    nodes: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(["a", "b", "c"]))):
        kind = draw(st.sampled_from(sorted(kinds)))
        lines[name] = {"kind": kind}
        if kind in ("serial", "modbus-rtu"):
            lines[name]["port"] = f"/dev/{name}{draw(st.integers(1, 2))}"
        if kind == "modbus-tcp":
            lines[name]["host"] = draw(st.sampled_from(["h1", "h2"]))
        if kind == "mqtt":
            lines[name]["broker"] = draw(st.sampled_from(["mqtt://h1", "mqtt://h2"]))
        for number in draw(st.sets(st.integers(1, 2))):
            row: dict[str, Any] = {"line": name, "audience": draw(st.sampled_from(AUDIENCES))}
            row["label"] = draw(st.sampled_from(["", "Piața Victoriei"]))
            if kind == "mqtt":
                nodes[f"n{name}{number}"] = row
            elif kind != "serial" or number == 1:
                profile = draw(st.sampled_from(["sdm630", "iem3155"]))
                row |= {"driver": kinds[kind], "every_s": draw(st.sampled_from([1.0, 2.0]))}
                row["settings"] = {} if kind == "serial" else {"profile": profile, "address": number}
                devices[f"d{name}{number}"] = row
    whole: dict[str, Any] = {
        "gateway": {"name": draw(st.sampled_from(["gw", "other"])), "city": "timisoara"},
        "uplink": {"brokers": draw(st.sampled_from([["mqtt://h1"], ["mqtt://h1", "mqtt://h2"]]))},
        "lines": lines,
        "devices": devices,
        "nodes": nodes,
    }
    whole["gateway"]["commit_window_s"] = draw(st.sampled_from([1.0, 2.0]))
    if devices and draw(st.booleans()):
        whole["air_index"] = {"air": {"inputs": [min(devices)], "label": draw(st.sampled_from(["", "x"]))}}
    if draw(st.booleans()):
        whole["feed"] = {"listen": draw(st.sampled_from(["127.0.0.1:0", "127.0.0.1:1"]))}
    return whole


def config_of(whole: dict[str, Any]) -> Config:
    config, found = examine(Path("/dev/null"), whole)
    assert config, found
    return config


def what_it_reads(whole: dict[str, Any]) -> dict[str, Any]:
    """Return {place: all that decides what is read there}, from the tables alone."""
    found = {}
    for name, line in whole["lines"].items():
        rows = {
            key: {word: value for word, value in row.items() if word not in ("audience", "label")}
            for table in ("devices", "nodes")
            for key, row in whole[table].items()
            if row["line"] == name
        }
        if rows or line["kind"] == "mqtt":
            found[f"lines.{name}"] = (line, rows, list(rows))
    for name, table in whole.get("air_index", {}).items():
        # whose readings they are is part of it: a gateway of another name is another source, after a restart
        # And how often they are measured: that decides how many of them make an hour.
        found[f"air_index.{name}"] = [(given, whole["devices"][given]["every_s"]) for given in table["inputs"]]
    return found


@given(first=tables(), second=tables())
def test_a_part_goes_on_exactly_if_all_that_decides_what_it_reads_is_the_same(first, second):
    second["gateway"]["name"] = first["gateway"]["name"]
    before, after = what_it_reads(first), what_it_reads(second)
    made = plan(config_of(first), config_of(second))
    assert set(made.keep) == {place for place in before if place in after and before[place] == after[place]}
    assert set(made.end) == set(before) - set(made.keep)
    assert set(made.begin) == set(after) - set(made.keep)


@given(first=tables(), second=tables())
def test_what_runs_after_a_reload_is_the_new_file_but_for_what_it_says_waits(first, second):
    before, wanted = config_of(first), config_of(second)
    after, waiting = settled(before, wanted)
    assert (after.uplink, after.feed, after.gateway.name) == (before.uplink, before.feed, before.gateway.name)
    assert after.gateway.commit_window_s == wanted.gateway.commit_window_s
    assert (after.lines, after.devices, after.nodes) == (wanted.lines, wanted.devices, wanted.nodes)
    assert ("gateway.name" in waiting) == (before.gateway.name != wanted.gateway.name)
    assert ("uplink.brokers" in waiting) == (before.uplink != wanted.uplink)
    assert any(place.startswith("feed") for place in waiting) == (before.feed != wanted.feed)
    assert settled(after, wanted) == (after, waiting), "a second reload of the same file changes nothing"
    assert plan(after, after) == (list(parts(after)), [], [])


def test_a_profile_whose_contents_changed_changes_its_line(tmp_path):
    from importlib.resources import files

    own = files("bega_protocols").joinpath("profiles", "sdm630.toml").read_text(encoding="utf-8")
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[gateway]\nname = "gw"\ncity = "t"\n[uplink]\nbrokers = ["mqtt://h"]\n'
        '[lines.hall]\nkind = "modbus-tcp"\nhost = "h"\n'
        '[devices.hall]\nline = "hall"\ndriver = "modbus_meter"\nsettings = { profile = "mine.toml", address = 1 }\n'
    )
    (tmp_path / "mine.toml").write_text(own)
    before, _ = examine(file)
    (tmp_path / "mine.toml").write_text(own + "\n# only a remark\n")
    same, _ = examine(file)
    (tmp_path / "mine.toml").write_text(own.replace("exponent = -1", "exponent = -2", 1))
    other, found = examine(file)
    assert before and same and other, found
    assert plan(before, same).keep == ["lines.hall"]
    assert other != before
    assert plan(before, other) == ([], ["lines.hall"], ["lines.hall"])


# ------------------------------------------------------------------ the gateway itself

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["mqtt://127.0.0.1:1"]
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.001
[lines.second]
kind = "serial"
port = "{second}"
[devices.second-air]
line = "second"
driver = "pms5003"
"""


def reload(process, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bega", "gateway", "reload", "--config", str(process.config)]
    state = ["--set", f"gateway.state_dir={process.state}"]
    return subprocess.run([*command, *state, *more], capture_output=True, text=True, timeout=30)


def frames(state: Path, most: int = -1) -> list[int]:
    """Return the numbers of the sensor's latest frames, in the order in which they were stored."""
    with contextlib.closing(sqlite3.connect(f"file:{state}/spool.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT payload FROM outbox ORDER BY id DESC LIMIT ?", [most]).fetchall()
    records = [senml.decode(payload) for (payload,) in reversed(rows)]
    return [
        reading.value for record in records for reading in record.readings
        if record.device == "roadside-air" and reading.quantity == "pm2_5"
    ]  # fmt: skip


def test_a_device_that_counts_loses_no_frame_while_another_line_changes(sensor, make_gateway, tmp_path, eventually):
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    process = make_gateway(text)
    process.start()
    eventually(lambda: len(frames(process.state)) > 20, "frames are stored")
    sensor.stored = lambda: frames(process.state, 1)[0]  # of two that come in one moment the gateway keeps the later
    eventually(lambda: frames(process.state, 1)[0] == sensor.sent, "the last of them")
    first = sensor.sent
    for round_ in range(3):
        process.config.write_text(text.replace("none", f"none-{round_}"))
        told = reload(process)
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.splitlines() == ["changed place=lines.second", "done kept=1 ended=1 begun=1"]
    before = len(frames(process.state))
    eventually(lambda: len(frames(process.state)) > before + 20, "and go on")
    assert process.stop() == 0
    numbers = frames(process.state)
    numbers = numbers[numbers.index(first) :]
    assert numbers == list(range(first, first + len(numbers))), "none missing, none twice, in order"
    log = process.log.read_text()
    assert "Traceback" not in log
    assert f"{tmp_path}/none-2 is not there" in log


def test_a_line_of_its_own_is_ended_begun_and_reads_again(sensor, make_gateway, tmp_path, eventually):
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    process = make_gateway(text)
    process.start()
    eventually(lambda: len(frames(process.state)) > 5, "frames are stored")
    begun = text.index("[lines.pms]")
    process.config.write_text(text[:begun] + text[text.index("[lines.second]") :])
    assert reload(process).stdout.splitlines() == ["ended place=lines.pms", "done kept=1 ended=1 begun=0"]
    rest = len(frames(process.state))
    time.sleep(0.5)
    assert len(frames(process.state)) <= rest + 2, "what was under way is stored, and nothing after it"
    process.config.write_text(text)
    assert reload(process).stdout.splitlines() == ["begun place=lines.pms", "done kept=1 ended=0 begun=1"]
    eventually(lambda: len(frames(process.state)) > rest + 10, "it reads again")
    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


def test_a_file_with_problems_changes_nothing_and_all_of_them_are_said(sensor, make_gateway, tmp_path, eventually):
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    process = make_gateway(text)
    process.start()
    eventually(lambda: len(frames(process.state)) > 5, "frames are stored")
    process.config.write_text(text.replace("[lines.second]\nkind", "[lines.second]\nkin"))
    told = reload(process)
    assert (told.returncode, told.stdout) == (1, "")
    assert "lines.second.kind: must be one of serial" in told.stderr
    assert told.stderr.splitlines()[-1] == "1 problem"
    os.kill(process._child.pid, signal.SIGHUP)
    eventually(lambda: "reload refused error=" in process.log.read_text(), "by signal it is in the log")
    before = len(frames(process.state))
    eventually(lambda: len(frames(process.state)) > before + 5, "and what ran runs on")
    process.config.write_text(text)
    assert reload(process).stdout == "done kept=2 ended=0 begun=0\n"


def test_a_refusal_to_the_command_is_in_the_gateways_own_log_too(sensor, make_gateway, tmp_path):
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    process = make_gateway(text)
    process.start()
    for damaged in (text.replace("[lines.second]\nkind", "[lines.second]\nkin"), "no = = TOML"):
        process.config.write_text(damaged)
        told = reload(process)
        assert told.returncode == 1
        assert f"reload refused error={told.stderr.splitlines()[0]}" in process.log.read_text()


def test_what_the_gateway_does_not_run_by_is_not_reloaded(sensor, make_gateway, tmp_path):
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    process = make_gateway(text)
    process.start()
    other = tmp_path / "other.toml"
    other.write_text(text.replace("/none", "/nothing"))
    state = f"gateway.state_dir={process.state}"
    command = [sys.executable, "-m", "bega", "gateway", "reload", "--set", state]
    told = subprocess.run([*command, "--config", other], capture_output=True, text=True, timeout=30)
    refusal = f"refused error=the gateway runs by {process.config}, not by {other}"
    assert (told.returncode, told.stdout, told.stderr) == (1, "", f"{refusal}\n")
    assert f"reload {refusal}" in process.log.read_text()
    told = reload(process, "--set", "lines.second.port=/dev/null/3")
    assert told.returncode == 1 and "not started with this --set" in told.stderr
    (tmp_path / "link.toml").symlink_to(process.config)
    told = subprocess.run([*command, "--config", "link.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (told.returncode, told.stdout) == (0, "done kept=2 ended=0 begun=0\n"), "another name of the same file"


def test_what_needs_a_restart_is_named_and_the_rest_is_applied(sensor, make_gateway, tmp_path, eventually):
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    process = make_gateway(text)
    process.start()
    eventually(lambda: len(frames(process.state)) > 5, "frames are stored")
    other = text.replace("gw-corner", "gw-other").replace("127.0.0.1:1", "127.0.0.1:2").replace("0.05", "0.1")
    process.config.write_text(other.replace("/none", "/nothing"))
    told = reload(process)
    assert told.returncode == 0
    assert told.stdout.splitlines() == [
        "waits for a restart place=gateway.name",
        "waits for a restart place=uplink.brokers",
        "changed place=lines.second",
        "done kept=1 ended=1 begun=1",
    ]
    log = process.log.read_text()
    assert "reload waits for a restart place=gateway.name" in log


def test_a_gateway_that_does_not_run_is_told_from_one_that_does(sensor, make_gateway, tmp_path):
    process = make_gateway(CONFIGURATION.format(port=sensor.port, second=tmp_path / "none"))
    told = reload(process)
    assert told.returncode == 1
    assert told.stderr.startswith(f"bega gateway reload: no gateway runs with the state in {process.state}")
    process.start()
    assert reload(process).returncode == 0
    process.kill()
    assert "no gateway runs" in reload(process).stderr, "a socket that was left behind is no gateway"
    process.start()
    assert reload(process).returncode == 0


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\n", b"reload", b"reload\n", b"reload 1\n", b"reload {}\n", b"stop\n", b"x" * 100_000, b"\xff\xfe\n"],
)
def test_nonsense_on_the_control_socket_is_let_go(nonsense, sensor, make_gateway, tmp_path, monkeypatch):
    process = make_gateway(CONFIGURATION.format(port=sensor.port, second=tmp_path / "none"))
    process.start()
    assert (process.state / NAME).stat().st_mode & 0o777 == 0o600
    monkeypatch.chdir(process.state)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(NAME)
        stranger.settimeout(10)
        with contextlib.suppress(OSError):
            stranger.sendall(nonsense)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    assert reload(process).returncode == 0
    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


class SlowMeter:
    """A Modbus TCP server that takes its time; register 0 is the number of the question. It counts what it answered."""

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked = 0
        self.answered: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while head := connection.recv(12):
                self.asked += 1
                number = self.asked
                time.sleep(self._takes_s)
                connection.sendall(head[:4] + b"\0\5" + head[6:8] + b"\2" + number.to_bytes(2, "big"))
                self.answered.append(number)


@pytest.fixture
def slow_meter():
    meter = SlowMeter(0.6)
    yield meter
    meter.close()


MODBUS = """
[lines.hall]
kind = "modbus-tcp"
host = "127.0.0.1"
port = {port}
timeout_s = {timeout_s}
[devices.hall]
line = "hall"
driver = "modbus_meter"
every_s = 0.7
settings = {{ address = 1, tags = [{{ address = 0, quantity = "active_power" }}] }}
"""


def test_a_line_that_changes_ends_after_the_exchange_in_hand(slow_meter, make_gateway, eventually):
    head = '[gateway]\nname = "gw"\ncity = "t"\ncommit_window_s = 0.05\n[uplink]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
    process = make_gateway(head + MODBUS.format(port=slow_meter.port, timeout_s=20.0))
    process.start()
    for round_ in range(3):
        eventually(lambda: slow_meter.asked > len(slow_meter.answered), "a question is under way")
        process.config.write_text(head + MODBUS.format(port=slow_meter.port, timeout_s=21.0 + round_))
        assert reload(process).stdout.splitlines()[0] == "changed place=lines.hall"
    answered = len(slow_meter.answered)
    eventually(lambda: len(slow_meter.answered) > answered + 2, "it reads again")
    assert process.stop() == 0
    with contextlib.closing(sqlite3.connect(f"file:{process.state}/spool.db?mode=ro", uri=True)) as database:
        records = [senml.decode(payload) for (payload,) in database.execute("SELECT payload FROM outbox ORDER BY id")]
    stored = [reading.value for record in records for reading in record.readings]
    wanted = slow_meter.answered[: len(stored)]
    assert stored == wanted, "every answer became a record"
    assert len(stored) >= len(slow_meter.answered) - 1
    assert "Traceback" not in process.log.read_text()


def test_told_to_stop_while_it_reloads_it_stops(slow_meter, make_gateway, eventually):
    head = '[gateway]\nname = "gw"\ncity = "t"\ncommit_window_s = 0.05\n[uplink]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
    for pause_s in (0.0, 0.05, 0.2, 0.7):
        process = make_gateway(head + MODBUS.format(port=slow_meter.port, timeout_s=20.0))
        process.start()
        eventually(lambda: slow_meter.asked > len(slow_meter.answered), "a question is under way")
        process.config.write_text(head + MODBUS.format(port=slow_meter.port, timeout_s=20.0 + pause_s))
        os.kill(process._child.pid, signal.SIGHUP)
        time.sleep(pause_s)
        assert process.stop() == 0, process.log.read_text()
        assert "Traceback" not in process.log.read_text()


STUMBLING = """
import sys
from bega_gateway import build
made, calls = build._device_line, []

def stumbling(ground, config, name, *more):
    calls.append(name)
    if calls.count("second") == 2:
        raise RuntimeError("a defect")
    return made(ground, config, name, *more)

build._device_line = stumbling
from bega.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_line_that_cannot_begin_is_said_costs_no_other_and_is_begun_by_the_next_reload(sensor, tmp_path, eventually):
    file, state, log = tmp_path / "gateway.toml", tmp_path / "state", tmp_path / "log"
    text = CONFIGURATION.format(port=sensor.port, second=tmp_path / "none")
    file.write_text(text)
    place = ["--config", str(file), "--set", f"gateway.state_dir={state}"]
    ask = [sys.executable, "-m", "bega", "gateway", "reload", *place]
    ready = tmp_path / "ready"  # the spool's file is there before its tables are
    command = [sys.executable, "-c", STUMBLING, "gateway", "run", *place, "--ready-file", ready]
    with log.open("wb") as said, contextlib.ExitStack() as stack:
        child = subprocess.Popen(command, stderr=said)
        stack.callback(child.wait)
        stack.callback(child.kill)  # or a test that fails would wait for it
        eventually(lambda: ready.exists() and len(frames(state)) > 5, "frames are stored")
        file.write_text(text.replace("/none", "/nothing"))
        told = subprocess.run(ask, capture_output=True, text=True)
        assert told.returncode == 1 and "failed, see the log place=lines.second" in told.stderr, told.stderr
        before = len(frames(state))
        eventually(lambda: len(frames(state)) > before + 5, "the other line goes on")
        assert subprocess.run(ask, capture_output=True, text=True).returncode == 0
        eventually(lambda: f"{tmp_path}/nothing is not there" in log.read_text(), "now it is begun")
        child.terminate()
        assert child.wait(20) == 0


# ------------------------------------------------------------------ inside a gateway


@contextlib.asynccontextmanager
async def running(file: Path):
    """A gateway in this process, so that its disk can be made to fail."""
    source = app.Source(Origin(str(file), []), lambda: examine(file))
    async with contextlib.AsyncExitStack() as stack:
        gateway = await app.Gateway.opened(load(file), source, app.Clocks(wall_ms, mono_ms), Notifier(None), stack)
        async with gateway.running():
            yield gateway


def every(state: Path, every_s: float) -> str:
    return (
        f'[gateway]\nname = "gw"\ncity = "t"\nstate_dir = "{state}"\n[uplink]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
        + MODBUS.format(port=1, timeout_s=1.0).replace("every_s = 0.7", f"every_s = {every_s}")
    )


@pytest.mark.parametrize("what", ["driver_states", "set_quota"])
def test_a_reload_that_the_disk_refuses_changes_nothing_and_can_be_done_again(what, tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(every(tmp_path / "state", 1.0))

    async def reloaded() -> None:
        async with running(file) as gateway:
            spool_file = gateway._ground.spool._file

            def fail(*_: object) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            setattr(spool_file, what, fail)
            file.write_text(every(tmp_path / "state", 7.0))
            told = await gateway.reload()
            refusal = "refused error=spool: disk I/O error; nothing has changed, see the disk"
            assert told == (False, [refusal])
            assert [station.every_s for _, station, _ in gateway.devices()] == [1.0]
            assert "lines.hall" in [sight.duty for sight in gateway._sights()], "it is asked, and watched"
            delattr(spool_file, what)
            assert (await gateway.reload()).said == ["changed place=lines.hall", "done kept=0 ended=1 begun=1"]
            assert [station.every_s for _, station, _ in gateway.devices()] == [7.0]

    asyncio.run(reloaded())


def test_a_gateway_whose_spool_cannot_store_says_so_in_its_status(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(every(tmp_path / "state", 1.0))

    async def told() -> None:
        async with running(file) as gateway:
            assert gateway._status() == "0 of 1 heard, 0 waiting, uplink down"
            gateway._ground.spool.failing = True
            assert gateway._status() == "spool cannot store, 0 in memory; 0 of 1 heard, 0 waiting, uplink down"

    asyncio.run(told())


def test_a_control_socket_that_could_not_be_made_or_went_away_is_made_later(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(control, "LOOK_EVERY_S", 0.02)
    state = tmp_path / "state"
    state.mkdir()
    made = control._listener

    def fail(_: Path) -> socket.socket:
        raise OSError(30, "Read-only file system")

    async def applied(_: Origin | None) -> Outcome:
        return Outcome(True, ["done"])

    async def told() -> None:
        for _ in range(100):
            with contextlib.suppress(ConfigError):
                assert await asyncio.to_thread(ask_reload, state, Origin("x", [])) == (True, ["done"])
                return
            await asyncio.sleep(0.05)
        raise AssertionError("nobody answers")

    async def lived() -> None:
        monkeypatch.setattr(control, "_listener", fail)
        commands = control.Control(state, applied, recording=lambda *_: None)
        task = asyncio.create_task(commands.run())
        await asyncio.sleep(0.1)
        monkeypatch.setattr(control, "_listener", made)
        await told()
        (state / NAME).unlink()
        await told()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(lived())
    assert caplog.text.count("control socket cannot be made") == 1


def test_an_index_that_cannot_begin_leaves_the_line_of_its_name_watched(monkeypatch):
    async def fail(*_: object) -> None:
        raise OSError("feed.db is gone")

    monkeypatch.setattr(running_parts, "part", fail)
    health = Health(lambda: 0)
    health.watch(Watched("air", "device", "pms", 10.0, heard_mono_ms=lambda: 1))
    owner = running_parts.Parts(SimpleNamespace(health=health))
    assert not asyncio.run(owner._begun("air_index.air", None, {}))
    assert len(health.watched) == 1
    assert not asyncio.run(owner._begun("lines.air", None, {}))
    assert health.watched == []
