"""`bega gateway replay`: the readings in a recording, at the pace in which they came, or the recording on a port.

What is whole in a file that was cut off or edited is replayed; each line that is not is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import sys
import tty
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bega.decode import reading_json
from bega.devices import load_driver
from bega.service import until_signalled
from bega.settings import merge, parse_assignments
from bega_gateway.record_file import Recorded, Row, read
from bega_gateway.replay_readings import Told, retold
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.service import Verbs
    from bega_protocols.driver import Driver

EXAMPLES = """examples:
  bega gateway replay cellar.jsonl --fast
  bega gateway replay park.jsonl --set park-2.key=231d39c1d7cc1ab1aee224cd096db932
  bega gateway replay p1.jsonl --pty /tmp/p1      then: bega gateway run --config c.toml --set lines.p1.port=/tmp/p1"""
ON_A_PORT = ("serial", "mbus", "modbus-rtu")
LOOK_EVERY_S = 0.02
MOST_SAID = 20  # questions that are not in the recording
ASKED_AFTER_S = 0.02  # a question is over when nothing came for so long


def add_replay(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "replay",
        help="print the readings in a recording, or put it on a serial port",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what `bega gateway record` wrote")
    parser.add_argument("--fast", action="store_true", help="without the pauses in which nothing came")
    parser.add_argument("--set", action="append", default=[], metavar="DEVICE.KEY=VALUE", help="a setting, as its key")
    parser.add_argument(
        "--pty",
        type=Path,
        metavar="PATH",
        help="make PATH a serial port on which the recorded devices speak and answer",
    )
    parser.set_defaults(command=replay)


def replay(args: argparse.Namespace) -> int:
    """Return 0 if all of the file was whole and gave something."""
    recorded = read(args.file)
    print(*recorded.damage, sep="\n", end="\n" * bool(recorded.damage), file=sys.stderr)
    if args.pty:
        _on_a_port(args, recorded)
        return 1 if recorded.damage else 0
    drivers = _drivers(recorded.head, parse_assignments(args.set))
    printed = 0

    async def work(stop: asyncio.Event) -> None:
        nonlocal printed
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for device, told in _in_turn(recorded, drivers):
            if not args.fast and await _stopped(stop, began_s + told.t_ms / 1000 - loop.time()):
                return
            printed += _print(recorded.head, device, told)
            sys.stdout.flush()

    asyncio.run(until_signalled(work))
    if not printed:
        print(f"bega gateway replay: no reading in {len(recorded.rows)} rows", file=sys.stderr)
    return 0 if printed and not recorded.damage else 1


def _drivers(head: dict[str, Any], given: dict[str, Any]) -> dict[str, Driver]:
    """Return the driver of each device, with the settings of the recording and what was `given`; raises ConfigError."""
    if strange := [name for name in given if name not in head["devices"]]:
        raise ConfigError(f"--set {strange[0]}: the recording has {', '.join(head['devices'])}")
    if bare := [name for name, table in given.items() if not isinstance(table, dict)]:
        raise ConfigError(f"--set {bare[0]}: write it as {bare[0]}.KEY=VALUE")
    drivers = {}
    for name, device in head["devices"].items():
        try:
            drivers[name] = load_driver(device["driver"], merge(device["settings"], given.get(name, {})))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        missing = [key for key in device.get("without", ()) if key not in given.get(name, {})]
        if missing:
            what = f"recorded without {', '.join(missing)}; give it with --set {name}.{missing[0]}=..."
            print(f"{name}: {what}", file=sys.stderr)
    return drivers


def _in_turn(recorded: Recorded, drivers: dict[str, Driver]) -> list[tuple[str, Told]]:
    """Return what each device told, all in the order of their times."""
    rows: dict[str, list[Row]] = {name: [] for name in drivers}
    for row in recorded.rows:
        rows[row.device].append(row)
    from_ms = recorded.head["from_ms"]
    told = [(name, one) for name, driver in drivers.items() for one in retold(driver, rows[name], from_ms)]
    return sorted(told, key=lambda pair: pair[1].t_ms)


def _print(head: dict[str, Any], device: str, told: Told) -> int:
    """Print a line of JSON for each reading, name what is damaged on standard error; return how many readings."""
    at_ms = head["from_ms"] + told.t_ms
    when = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    readings = [reading for group in told.groups for reading in group]
    for reading in readings:
        print(f'{{"time": "{when}", "device": {json.dumps(device)}, {reading_json(reading)[1:]}')
    for error in told.damaged:
        print(f"{when} {device}: {error}", file=sys.stderr)
    return len(readings)


async def _stopped(stop: asyncio.Event, after_s: float) -> bool:
    """Wait; return whether somebody ended it meanwhile."""
    if after_s > 0:
        try:
            async with asyncio.timeout(after_s):
                await stop.wait()
        except TimeoutError:
            pass
    return stop.is_set()


def _on_a_port(args: argparse.Namespace, recorded: Recorded) -> None:
    """Let the recorded devices speak at args.pty until the recording or the user ends it."""
    kind = recorded.head["kind"]
    if kind not in ON_A_PORT:
        raise ConfigError(f"{recorded.head['line']} is a {kind} line: only {', '.join(ON_A_PORT)} have a serial port")
    with Port(args.pty) as port:
        print(f"{args.pty} speaks as {recorded.head['line']} once it is opened", file=sys.stderr)
        is_asked = any(row.way == "out" for row in recorded.rows)
        speak = port.answer(recorded.rows) if is_asked else port.talk(recorded.rows, args.fast)

        async def work(stop: asyncio.Event) -> None:
            speaking = asyncio.ensure_future(speak)
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((speaking, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (speaking, stopping):
                task.cancel()

        asyncio.run(until_signalled(work))


class Port:
    """A pseudo terminal under a name of its own, for as long as the block."""

    def __init__(self, link: Path) -> None:
        """Raises ConfigError if the name is taken by anything but a link that was left behind."""
        self._link = link
        self._master = -1

    def __enter__(self) -> Port:
        self._master, slave = os.openpty()
        tty.setraw(slave)  # or the terminal would echo what is said to it
        os.set_blocking(self._master, False)
        name = os.ttyname(slave)
        os.close(slave)
        self._opened = select.poll()
        self._opened.register(self._master, 0)
        try:
            if self._link.is_symlink() and not self._link.exists():
                self._link.unlink()
            self._link.symlink_to(name)
        except OSError as error:
            os.close(self._master)
            raise ConfigError(f"{self._link} cannot be made ({error.strerror}): give a path that is free") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._link.unlink(missing_ok=True)
        os.close(self._master)

    async def talk(self, rows: list[Row], fast: bool) -> None:
        """Say what the device said, at its pace, once somebody has opened the port."""
        await self._until_open()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for row in rows:
            if not fast:
                await asyncio.sleep(max(0.0, began_s + (row.t_ms - rows[0].t_ms) / 1000 - loop.time()))
            await self._say(row.octets)
        await asyncio.sleep(1)  # so that the last of it is read before the port goes

    async def answer(self, rows: list[Row]) -> None:
        """Answer each question that was recorded with what followed it, in turn and then anew, until cancelled."""
        answers = _answers(rows)
        strange: set[bytes] = set()
        heard, heard_s = b"", 0.0
        loop = asyncio.get_running_loop()
        while True:
            chunk = self._hear()
            if chunk:
                heard, heard_s = heard + chunk, loop.time()
            if answers.get(heard):
                said = answers[heard].popleft()
                answers[heard].append(said)
                heard = b""
                await self._say(said)
            elif heard and loop.time() - heard_s > ASKED_AFTER_S:
                if heard not in answers and heard not in strange and len(strange) < MOST_SAID:
                    strange.add(heard)
                    print(f"{self._link} was asked what is not in the recording: {heard.hex()}", file=sys.stderr)
                heard = b""
            await asyncio.sleep(LOOK_EVERY_S / 4)

    async def _until_open(self) -> None:
        while any(event & select.POLLHUP for _, event in self._opened.poll(0)):  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(LOOK_EVERY_S)

    def _hear(self) -> bytes:
        try:
            return os.read(self._master, 4096)
        except OSError:  # nothing there, or nobody
            return b""

    async def _say(self, octets: bytes) -> None:
        while octets:
            try:
                octets = octets[os.write(self._master, octets) :]
            except BlockingIOError:
                await asyncio.sleep(LOOK_EVERY_S)
            except OSError:  # nobody has it open: lost, as on a wire
                return


def _answers(rows: list[Row]) -> dict[bytes, deque[bytes]]:
    """Return for each question all that was said upon it; b"" where nothing was."""
    answers: dict[bytes, deque[bytes]] = {}
    last: dict[str, bytes] = {}
    for row in rows:
        if row.way == "out":
            last[row.device] = row.octets
            answers.setdefault(row.octets, deque())
        elif row.device in last:
            answers[last.pop(row.device)].append(row.octets)
    return answers
