"""`bega kiosk timetable`: look into a GTFS feed; which stops it has, and what it says of some of them."""

from __future__ import annotations

import argparse
import json
import os
import resource
import unicodedata
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bega.clock import wall_ms
from bega_protocols.errors import ConfigError, WireError

if TYPE_CHECKING:
    from bega.service import Verbs
    from bega_kiosk.timetable import Timetable

PURPOSE = "look into a GTFS feed: which stops it has, and what it says of some of them"
EXAMPLES = """examples:
  bega kiosk timetable city.zip --find "Piața Victoriei"      the stop_id of each platform of that name
  bega kiosk timetable city.zip --stop 1024 --stop 1025       what a kiosk there would know"""
KINDS = {"": "platform", "0": "platform", "1": "station", "2": "entrance", "3": "node", "4": "boarding area"}
NICE = 10
AHEAD_MS = 86_400_000
MOST_MEMORY_BYTES = 512 << 20


def look(args: argparse.Namespace) -> int:
    """List stops, or say what the feed knows of some; with --into, keep it in the form that a kiosk reads."""
    try:
        if not args.stop:
            return _list(args)
        if args.into is None:
            return _cut(args)
        os.nice(NICE)  # a kiosk's pages go before
        with _bounded_memory():
            return _cut(args)
    except WireError as error:
        raise ConfigError(error.why) from None


def add_verb(verbs: Verbs) -> None:
    """Add the verb `timetable`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser("timetable", help=PURPOSE, description=PURPOSE, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("feed", type=Path, metavar="FEED", help="a zip file, or the folder of its files")
    parser.add_argument("--find", default="", metavar="NAME", help="only stops whose name has this in it")
    parser.add_argument("--stop", action="append", default=[], metavar="ID", help="a platform or a station; repeat it")
    parser.add_argument("--into", type=Path, metavar="FILE", help="keep what a kiosk at these stops needs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(command=look)


def _list(args: argparse.Namespace) -> int:
    found = [*_found(args.feed, _plain(args.find))]
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print("\n".join("{stop:20} {kind:8} {name} {platform}".format(**one).rstrip() for one in found))
    if not found:
        raise ConfigError(f"no stop has {args.find!r} in its name; leave --find out to see all")
    return 0


def _found(feed: Path, part: str) -> Iterator[dict[str, str]]:
    from bega_kiosk.gtfs import Feed

    with closing(Feed(feed)) as opened:
        columns = ("stop_id stop_name", "platform_code location_type")
        for stop, name, platform, kind in opened.rows("stops.txt", *columns):
            if part in _plain(name):
                yield {"stop": stop, "kind": KINDS.get(kind, kind), "name": name, "platform": platform}


def _cut(args: argparse.Namespace) -> int:
    import sqlite3

    from bega_kiosk.prepared import prepare_into
    from bega_kiosk.timetable import Timetable

    try:
        with closing(sqlite3.connect(args.into or ":memory:", isolation_level=None)) as file:
            prepare_into(file, args.feed, args.stop)
            said = _said(Timetable(file))
    except sqlite3.Error as error:
        raise ConfigError(f"{args.into}: {error}; it must be a new file in a folder that can be written") from None
    if args.json:
        print(json.dumps(said, ensure_ascii=False))
        return 0
    for line in said["lines"]:
        print(f"line {line['name']:8} to {', '.join(line['towards'])}")
    print(f"until {said['until'] or 'no day at all'}, {said['next_day']} departures within a day from now")
    print(f"left out: {said['left_out'] or 'nothing'}")
    return 0


def _said(timetable: Timetable) -> dict[str, Any]:
    now_ms = wall_ms()
    return {
        "publisher": timetable.publisher,
        "until": timetable.until_day.isoformat() if timetable.until_day else "",
        "stops": [{"stop": stop.id, "name": stop.name, "platform": stop.platform} for stop in timetable.stops],
        "lines": [{"name": line.name, "towards": line.towards} for line in timetable.lines],
        "next_day": len(timetable.passings(now_ms, now_ms + AHEAD_MS)),
        "left_out": timetable.left_out,
    }


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """End in a sentence where a zip that is made to harm would fill the memory of the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_MEMORY_BYTES, hard))
    try:
        yield
    except MemoryError:
        raise WireError(f"the feed needs more than {MOST_MEMORY_BYTES >> 20} MB of memory; name fewer stops") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _plain(name: str) -> str:
    """Return a name without accents and capitals: a technician's keyboard may have none."""
    spread = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in spread if not unicodedata.combining(letter))
