"""`bega gateway check|run|backfill`: exit codes, and a sentence that says what to do for whatever is wrong."""

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bega.broker import free_port
from bega.outbox.spool import Spool
from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record

CORNER = Path(__file__).parent.parent / "gateway/examples/corner.toml"
BEGA_GATEWAY = [sys.executable, "-m", "bega", "gateway"]
CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["{broker}"]
[feed]
listen = "127.0.0.1:0"
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.1
audience = "public"
[devices.second-air]
line = "second"
driver = "pms5003"
every_s = 0.1
[lines.second]
kind = "serial"
port = "{second}"
[air_index.air]
inputs = ["roadside-air"]
every_s = 0.2
"""


def configuration(broker: str = "mqtt://127.0.0.1:1", port: object = "/dev/null/1", second: object = "/dev/null/2"):
    return CONFIGURATION.format(broker=broker, port=port, second=second)


def gateway(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BEGA_GATEWAY, *map(str, arguments)], capture_output=True, text=True, timeout=30)


def stored(state: Path) -> list[Record]:
    with contextlib.closing(sqlite3.connect(f"file:{state}/spool.db?mode=ro", uri=True)) as database:
        return [senml.decode(payload) for (payload,) in database.execute("SELECT payload FROM outbox ORDER BY id")]


def stop(process, within_s: float = 10.0) -> None:
    """Every process of ours ends soon after SIGTERM, whatever it waits for: two seconds, more on a busy machine."""
    begun = time.monotonic()
    assert process.stop() == 0, process.log.read_text()
    assert time.monotonic() - begun < within_s
    assert "Traceback" not in process.log.read_text()


# ------------------------------------------------------------------ check


def test_check_says_that_a_good_file_is_good():
    told = gateway("check", "--config", CORNER)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"{CORNER}: good; 6 lines, 10 devices and nodes\n"


def test_check_lists_every_problem_and_counts_them(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(configuration().replace("city =", "ciyt =").replace('"pms5003"', '"pms"', 1))
    told = gateway("check", "--config", file, "--set", "lines.pms.kind=serail")
    assert (told.returncode, told.stdout) == (1, "")
    lines = told.stderr.splitlines()
    assert lines[-1] == "4 problems"
    assert any("devices.second-air.line" in line or "devices.roadside-air.driver" in line for line in lines)
    assert all(line.startswith(f"{file}:") for line in lines[:-1])


def test_check_says_what_is_good_and_may_not_be_meant(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(configuration())
    told = gateway("check", "--config", file, "--set", "uplink.brokers=mqtt://broker.example")
    assert told.returncode == 0 and "good" in told.stdout
    assert told.stderr == f"{file}: mqtt://broker.example is not encrypted: mqtts:// is, for any other machine\n"
    lacking = gateway(
        "check", "--config", file, "--set", "uplink.brokers=mqtts://b", "--set", "uplink.ca_file=/none/ca.pem"
    )
    assert lacking.returncode == 1 and "uplink.ca_file: there is no file /none/ca.pem" in lacking.stderr


@pytest.mark.parametrize("example", [[], ["--tags"], ["--edge"]])
def test_examples_that_are_printed_are_good(tmp_path, example):
    file = tmp_path / "gateway.toml"
    file.write_text(gateway("example", *example).stdout)
    assert ("\n[[devices.boiler.tags]]" in file.read_text()) == ("--tags" in example)
    assert gateway("check", "--config", file).returncode == 0


def test_check_reads_the_file_and_opens_nothing(tmp_path):
    """Missing ports and refusing brokers are found by `run`, said, and tried again."""
    file = tmp_path / "gateway.toml"
    file.write_text(configuration())
    told = gateway("check", "--config", file, "--set", f"gateway.state_dir={tmp_path}/none/of/these")
    assert told.returncode == 0
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("verb", ["check", "run", "backfill"])
def test_every_verb_answers_a_mistake_with_a_sentence(verb, tmp_path):
    more = ["--from", "/dev/null"] if verb == "backfill" else []
    missing = gateway(verb, "--config", tmp_path / "none.toml", *more)
    assert missing.returncode == 1 and "none.toml: cannot be read: No such file or directory" in missing.stderr
    garbled = gateway(verb, "--config", CORNER, "--set", "nonsense", *more)
    assert garbled.returncode == 1 and "--set nonsense: write it as key=value" in garbled.stderr
    assert "Traceback" not in missing.stderr + garbled.stderr


# ------------------------------------------------------------------ run: what makes it impossible


def refused(tmp_path: Path, *arguments: str) -> str:
    """Run a gateway that cannot; return its one sentence."""
    file = tmp_path / "gateway.toml"
    file.write_text(configuration())
    told = gateway("run", "--config", file, "--set", f"gateway.state_dir={tmp_path}/state", *arguments)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr and "never awaited" not in told.stderr
    (sentence,) = [line for line in told.stderr.splitlines() if line.startswith("bega gateway run: ")]
    return sentence.removeprefix("bega gateway run: ")


def test_feed_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refused(tmp_path, "--set", f"feed.listen={address}") == (
            f"feed.listen: {address} cannot be used (Address already in use); take another address or port"
        )


def test_feed_address_that_is_not_ours_is_named(tmp_path):
    assert "feed.listen: 192.0.2.1:80 cannot be used" in refused(tmp_path, "--set", "feed.listen=192.0.2.1:80")


def test_state_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("where a directory should be")
    said = refused(tmp_path, "--set", f"gateway.state_dir={tmp_path}/file")
    assert said.startswith(f"gateway.state_dir: {tmp_path}/file cannot be made (File exists)")
    said = refused(tmp_path, "--set", f"gateway.state_dir={tmp_path}/file/state")
    assert "cannot be made (Not a directory); give a place that the gateway's user may write" in said


def test_boot_number_that_cannot_be_kept_is_named(tmp_path):
    for copy in ("boot.a", "boot.b"):
        (tmp_path / "state" / copy / "something").mkdir(parents=True)
    assert "the boot number cannot be kept" in refused(tmp_path)


def test_ready_file_that_cannot_be_written_is_named(tmp_path):
    assert refused(tmp_path, "--ready-file", "/no/such/ready").startswith("--ready-file /no/such/ready cannot be")


# ------------------------------------------------------------------ run: what is said, and tried again


def test_what_is_missing_is_said_and_the_rest_goes_on(sensor, tmp_path, make_gateway, eventually):
    process = make_gateway(configuration(port=sensor.port, second=tmp_path / "no-such-port"))
    process.start()
    eventually(lambda: len(stored(process.state)) > 5, "the sensor that is there is stored")
    log = process.log.read_text()
    assert f"line down line=second error={tmp_path}/no-such-port is not there: plug the adapter in" in log
    assert "uplink down, records wait in the spool broker=mqtt://127.0.0.1:1" in log
    assert log.count("line down") == 1
    stop(process)


def test_broker_that_refuses_is_said_and_the_rest_goes_on(sensor, tmp_path, make_gateway, eventually):
    port = free_port()
    access = tmp_path / "mosquitto.conf"
    access.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")
    with subprocess.Popen(["/usr/sbin/mosquitto", "-c", access], stderr=subprocess.DEVNULL) as broker:
        process = make_gateway(configuration(f"mqtt://127.0.0.1:{port}", sensor.port))
        process.start()
        eventually(lambda: "Not authorized" in process.log.read_text(), "the refusal is said")
        eventually(lambda: len(stored(process.state)) > 5, "records are stored all the same")
        stop(process)
        broker.terminate()


def test_damaged_spool_is_set_aside_and_the_gateway_runs(sensor, make_gateway, eventually):
    process = make_gateway(configuration(port=sensor.port))
    process.state.mkdir()
    (process.state / "spool.db").write_bytes(b"rotten" * 3000)
    (process.state / "feed.db").write_bytes(b"rotten" * 3000)
    process.start()
    eventually(lambda: len(stored(process.state)) > 3, "it stores")
    assert (process.state / "spool.db.damaged-1").read_bytes() == b"rotten" * 3000
    assert "spool damaged, set aside" in process.log.read_text()
    stop(process)


def test_feed_that_cannot_be_kept_costs_no_record(sensor, make_gateway, eventually):
    process = make_gateway(configuration(port=sensor.port))
    (process.state / "feed.db").mkdir(parents=True)
    process.start()
    eventually(lambda: len(stored(process.state)) > 3, "it stores")
    with urllib.request.urlopen(f"{process.feed}/public/v1/latest") as answer:
        assert json.load(answer)["readings"], "and its feed lives in memory"
    assert "public feed cannot be kept, it lives in memory" in process.log.read_text()
    stop(process)


STUMBLING = """
import sys
from bega_protocols.devices.pms5003.driver import Driver
feed, calls = Driver.feed, []

def stumbling(self, chunk, now_ms):
    calls.append(1)
    return 1 // 0 if len(calls) == 3 else feed(self, chunk, now_ms)

Driver.feed = stumbling
from bega.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_defect_in_one_driver_is_logged_and_costs_a_pause(sensor, tmp_path, eventually):
    """It would else end the gateway, at each start again, and every other line with it."""
    file, state, log = tmp_path / "gateway.toml", tmp_path / "state", tmp_path / "log"
    file.write_text(configuration(port=sensor.port))
    command = [
        sys.executable,
        "-c",
        STUMBLING,
        "gateway",
        "run",
        "--config",
        file,
        "--set",
        f"gateway.state_dir={state}",
    ]
    with log.open("wb") as said, subprocess.Popen(command, stderr=said) as child:
        eventually(lambda: "it is begun again name=pms" in log.read_text(), "the defect is said")
        before = len(stored(state))
        eventually(lambda: len(stored(state)) > before + 3, "the line reads again")
        child.terminate()
        assert child.wait(5) == 0
    assert log.read_text().count("ZeroDivisionError") == 1


ROTTING = """
import sqlite3, sys
from bega.outbox.spool_file import SpoolFile
work, calls = getattr(SpoolFile, sys.argv[1]), []

def rotting(*given):
    calls.append(1)
    if len(calls) > 1:
        raise sqlite3.DatabaseError("database disk image is malformed")
    return work(*given)

setattr(SpoolFile, sys.argv[1], rotting)
from bega.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


async def fill_spool(state: Path) -> None:
    state.mkdir()
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(state / "spool.db", executor, window_s=0)
        stored = [spool.add("city/timisoara/gw-corner/gw-corner/roadside-air/up", b"[]") for _ in range(2_500)]
        committing = asyncio.create_task(spool.run())
        await asyncio.gather(*stored)
        committing.cancel()
        await asyncio.wait([committing])
        await spool.close()


@pytest.mark.parametrize("place", ["commit", "take"], ids=["found by the writer", "found by the publisher"])
def test_a_spool_that_rots_while_it_is_used_ends_the_gateway_for_a_new_start(place, sensor, mosquitto, tmp_path):
    """The next start sets the file aside; a gateway that went on would store and send nothing, for years."""
    file = tmp_path / "gateway.toml"
    file.write_text(configuration(mosquitto.url, sensor.port))
    asyncio.run(fill_spool(tmp_path / "state"))  # so much that the publisher reads the file
    command = [sys.executable, "-c", ROTTING, place, "gateway", "run"]
    command += ["--config", str(file), "--set", f"gateway.state_dir={tmp_path}/state"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert child.returncode == 1
    assert "malformed" in child.stderr


# ------------------------------------------------------------------ run: how it ends


def test_told_to_stop_it_commits_what_it_had(sensor, make_gateway, eventually):
    process = make_gateway(configuration(port=sensor.port).replace("commit_window_s = 0.05", "commit_window_s = 60"))
    process.start()
    time.sleep(1)
    assert stored(process.state) == []
    stop(process)
    seqs = [record.seq for record in stored(process.state)]
    assert len(seqs) > 3 and seqs == list(range(1, len(seqs) + 1))


LATE = """
import sys
from bega_gateway.lines.window import Window
from bega_protocols.reading import Reading
run = Window.run

async def late(self):
    try:
        await run(self)
    finally:
        await self._deliver([[Reading("pm2_5", 4711)]], 1_795_300_000_000)

Window.run = late
from bega.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_what_a_line_brings_while_it_ends_is_committed_too(tmp_path, eventually):
    file, state, ready = tmp_path / "gateway.toml", tmp_path / "state", tmp_path / "ready"
    file.write_text(configuration())
    command = [sys.executable, "-c", LATE, "gateway", "run", "--config", file, "--set", f"gateway.state_dir={state}"]
    with subprocess.Popen([*command, "--ready-file", ready], stderr=subprocess.DEVNULL) as child:
        eventually(ready.exists, "it runs")
        time.sleep(0.3)
        child.terminate()
        assert child.wait(5) == 0
    values = [reading.value for record in stored(state) for reading in record.readings]
    assert values.count(4711) == 2, "one from each window"


def test_it_stops_while_somebody_listens_to_its_events(sensor, make_gateway, eventually):
    process = make_gateway(configuration(port=sensor.port))
    process.start()
    heard: list[bytes] = []

    def listen() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{process.feed}/public/v1/events") as events:
            heard.extend(events)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    eventually(lambda: any(line.startswith(b"data: ") for line in heard), "events flow")
    stop(process)
    listener.join(5)
    assert not listener.is_alive()


def test_it_stops_while_its_broker_is_a_black_hole(sensor, make_gateway, eventually):
    with socket.create_server(("127.0.0.1", 0)) as hole:
        process = make_gateway(configuration(f"mqtt://127.0.0.1:{hole.getsockname()[1]}", sensor.port))
        process.start()
        hole.settimeout(10)
        connection, _ = hole.accept()
        with connection:
            stop(process)


def test_it_stops_while_a_name_is_looked_up_or_a_connect_hangs(sensor, make_gateway):
    """A listener whose backlog is full drops what comes: the connect hangs, in a thread that nobody can cancel."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        process = make_gateway(configuration(f"mqtt://127.0.0.1:{full.getsockname()[1]}", sensor.port))
        process.start()
        time.sleep(0.7)
        stop(process)


def test_control_c_is_as_good_as_a_service_managers_stop(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(configuration())
    ready = tmp_path / "ready"
    command = [*BEGA_GATEWAY, "run", "--config", file, "--set", f"gateway.state_dir={tmp_path}/state"]
    child = subprocess.Popen([*command, "--ready-file", ready], stderr=subprocess.PIPE, text=True)
    while not ready.exists():
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=5)
    assert child.returncode == 0
    assert "Traceback" not in said and "gateway stops" in said


# ------------------------------------------------------------------ backfill


def pack(number: int, *, source: str = "gw-corner", device: str = "roadside-air", time_ms: int | None = 0) -> bytes:
    readings = [Reading("pm2_5", number)]
    moment = 1_795_300_000_000 + 60_000 * number if time_ms == 0 else time_ms
    return senml.encode(Record(source, 1, number, device, moment, SYNCHRONISED, readings)) + b"\n"


def backfill(tmp_path: Path, packs: bytes, *more: str) -> subprocess.CompletedProcess[str]:
    file, history = tmp_path / "gateway.toml", tmp_path / "history"
    file.write_text(configuration())
    history.write_bytes(packs)
    state = f"gateway.state_dir={tmp_path}/state"
    return gateway("backfill", "--config", file, "--from", history, "--set", state, *more)


def points(tmp_path: Path) -> list[tuple[str, str, str, int]]:
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "feed.db")) as database:
        return database.execute(
            "SELECT source, device, value, simulated FROM point JOIN series ON id = series ORDER BY time_ms"
        ).fetchall()


def test_backfill_takes_what_is_public_and_readable_and_counts_the_rest(tmp_path):
    packs = pack(1) + pack(2, device="second-air") + b"nonsense\n" + pack(3, source="stranger") + pack(4, time_ms=None)
    packs += b"\n" + pack(5)
    told = backfill(tmp_path, packs, "--simulated")
    assert told.returncode == 0, told.stderr
    assert told.stdout == "2 records loaded, 5 left out (not public, or not readable)\n"
    assert points(tmp_path) == [("gw-corner", "roadside-air", "1", 1), ("gw-corner", "roadside-air", "5", 1)]
    assert backfill(tmp_path, packs).returncode == 0
    assert len(points(tmp_path)) == 2, "loading it again doubles nothing"


def test_backfill_of_which_nothing_was_taken_fails_and_what_it_made_is_not_for_everybody(tmp_path):
    told = backfill(tmp_path, b"nonsense\n")
    assert (told.returncode, told.stdout) == (1, "0 records loaded, 1 left out (not public, or not readable)\n")
    assert backfill(tmp_path, b"").returncode == 0, "nothing to load is no fault"
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "state" / "feed.db").stat().st_mode & 0o777 == 0o640


def test_backfill_says_what_it_cannot_do(tmp_path):
    told = backfill(tmp_path, pack(1), "--set", "gateway.state_dir=/dev/null/state")
    assert told.returncode == 1 and told.stderr.startswith("bega gateway backfill: /dev/null")
    (tmp_path / "state" / "feed.db").mkdir(parents=True)
    told = backfill(tmp_path, pack(1))
    assert told.returncode == 1 and "feed.db: unable to open database file" in told.stderr
    told = gateway("backfill", "--config", tmp_path / "gateway.toml", "--from", tmp_path / "none")
    assert told.returncode == 1 and "none: No such file or directory" in told.stderr


def test_the_command_itself_brings_nothing_that_only_some_verbs_need():
    """What is imported to parse a command stays in the gateway for its life: the doctor's certificates were 9 MB."""
    heavy = ("cryptography", "bleak", "pymodbus", "starlette", "jinja2", "smbus2", "serial")
    code = "import sys; from bega_gateway.command import _parser; _parser(); print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "bega_gateway.config" in names
    assert not [name for name in names if name.split(".")[0] in heavy]
