"""`bega gateway record`: what a line hears and says, into a file that `bega gateway replay` reads.

The gateway that runs copies it, without losing a reading; where none runs, the line is opened here, by the
configuration, and nothing is published. The file holds no keys; it does hold readings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver, must_be_asked
from bega.service import add_verb, log_to_stderr, until_signalled
from bega.settings import parse_assignments
from bega_gateway import config as settings
from bega_gateway.record_file import end_text, head_of, is_personal, row_text
from bega_gateway.tape import Tape
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega.service import Verbs
    from bega_gateway.lines.station import Station

LONGEST_S = 86_400.0
MOST_MB = 20.0
LARGEST_MB = 10_000.0
LOOK_EVERY_S = 1.0  # whether the time is over, or whoever asked has gone

EXAMPLES = """examples:
  bega gateway record cellar --config corner.toml --for 300 -o cellar.jsonl
  bega gateway replay cellar.jsonl"""


def add_record(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "record", record, "copy what a line hears and says into a file")
    parser.description = __doc__
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("line", help="a line's name in the configuration")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="readable by you alone")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.add_argument("--for", dest="for_s", type=_seconds, default=60.0, metavar="S", help="how long (default 60)")
    parser.add_argument(
        "--max-mb", type=_megabytes, default=MOST_MB, metavar="N", help="end when the file is so large (default 20)"
    )


def record(args: argparse.Namespace) -> int:
    """Record until the time is over, the file is as large as it may be, or a signal ends it; all three are an end."""
    log_to_stderr(False, "pymodbus", "asyncio", "bleak", "dbus_fast")
    config = settings.load(args.config, parse_assignments(args.set))
    head_of(config, args.line, 0)  # refused before a file is made
    if args.output.exists() and not args.force:
        raise ConfigError(f"{args.output} is there already; --force overwrites it")
    rows = 0

    async def work(stop: asyncio.Event) -> None:
        nonlocal rows
        rows = await _record(args, config, stop)

    asyncio.run(until_signalled(work))
    print(f"{args.output}: {rows} rows{'' if rows else _why_none(config, args.line, args.for_s)}", file=sys.stderr)
    return 0 if rows else 1


def _why_none(config: settings.Config, line: str, for_s: float) -> str:
    devices = [device for device in config.devices.values() if device.line == line]
    asked = [device.every_s for device in devices if must_be_asked(load_driver(device.driver, device.settings))]
    if len(asked) == len(devices) and for_s < min(asked):
        return f": its devices are asked every {min(asked):g} s (every_s), so record for longer (--for)"
    return ": nothing was heard; see the gateway's log, or that of this command"


async def _record(args: argparse.Namespace, config: settings.Config, stop: asyncio.Event) -> int:
    """Return the number of rows."""
    from bega_gateway.control import NoGateway, ask_recording

    try:
        texts = await ask_recording(Path(config.gateway.state_dir), args.line, args.for_s)
        who = "by the gateway that runs"
    except NoGateway:
        texts = _by_ourselves(config, args.line, args.for_s)
        who = "by this command: no gateway runs"
    async with contextlib.aclosing(texts):
        head = await anext(texts)
        facts = json.loads(head)
        print(f"recording {args.line}, {len(facts['devices'])} devices, {who}; Ctrl-C ends it", file=sys.stderr)
        with _opened(args.output, args.force) as file:
            if is_personal(facts):
                warning = "holds what a household's device says: only you may read it; delete it after use"
                print(f"{args.output} {warning}", file=sys.stderr)
            return await _write(file, head, texts, round(1e6 * args.max_mb), stop)


async def _write(
    file: IO[str], head: str, texts: AsyncGenerator[str, None], most_bytes: int, stop: asyncio.Event
) -> int:
    """Write head and rows, each when it comes, until the end; return the number of rows."""
    stopped = asyncio.ensure_future(stop.wait())
    size = file.write(head + "\n")
    rows = 0
    why = "signal"
    try:
        while not stop.is_set():
            coming = asyncio.ensure_future(anext(texts, ""))
            await asyncio.wait((coming, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await coming
                break
            text = coming.result()
            if not text:
                why = "the gateway ended"
                break
            if text.startswith('{"end"'):
                file.write(text + "\n")
                if (said := json.loads(text))["end"] != "time" or said["lost"]:
                    print(f"recording over: {said['end']}; {said['lost']} rows lost", file=sys.stderr)
                return rows
            size += file.write(text + "\n")
            file.flush()
            rows += 1
            if size >= most_bytes:
                why = "size"
                break
    finally:
        stopped.cancel()
    file.write(end_text(why, rows, 0) + "\n")
    return rows


async def _by_ourselves(config: settings.Config, line: str, for_s: float) -> AsyncGenerator[str, None]:
    """Yield head, rows and end of a line that is opened here."""
    from bega_gateway.build import Clocks, line_alone

    head = head_of(config, line, wall_ms())
    work, stations = line_alone(config, line, Clocks(wall_ms, mono_ms))
    running = asyncio.ensure_future(work())
    try:
        async for text in taped(head, stations, for_s, mono_ms, str):
            yield text
            if running.done():
                running.result()
    finally:
        running.cancel()
        await asyncio.wait((running,))


async def taped(
    head: dict[str, Any], stations: list[Station], for_s: float, mono_ms: Clock, why_over: Callable[[], str]
) -> AsyncGenerator[str, None]:
    """Yield the texts of a recording of `stations`, beginning with its head; raises ConfigError.

    why_over: says why it is over before its time, '' while it is not
    """
    end_ms = mono_ms() + round(1000 * min(for_s, LONGEST_S))
    rows = 0
    with Tape(stations, mono_ms) as tape:
        yield json.dumps(head)
        while (left_ms := end_ms - mono_ms()) > 0 and not why_over():
            for row in await tape.take(min(LOOK_EVERY_S, left_ms / 1000)):
                rows += 1
                yield row_text(row)
        yield end_text(why_over() or "time", rows, tape.lost)


def _opened(path: Path, force: bool) -> IO[str]:
    """Return a new file for its owner alone; raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600)
        os.fchmod(descriptor, 0o600)  # one that was there may have had another
        return os.fdopen(descriptor, "w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from None


def _seconds(text: str) -> float:
    return _number(text, LONGEST_S, "seconds")


def _megabytes(text: str) -> float:
    return _number(text, LARGEST_MB, "megabytes")


def _number(text: str, most: float, unit: str) -> float:
    """Return a number above 0 and up to `most`; raises ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) <= most:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 and at most {most:g} {unit}")
