"""What a node says of itself, as far as it can be true (docs/firmware.md, section "Status").

Each key may be missing or nonsense; then it was not said. What is kept of it
is bounded, and its texts are fit for a terminal: a node is whoever has its
certificate, and certificates are stolen with the pole.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bega.clock import Clock

log = logging.getLogger(__name__)

LARGEST = 2**53
MOST_DEVICES = 32
RAREST_S = 86_400  # no node sends less often (docs/firmware.md, "On a battery"), and none may be forgotten for longer
LONGEST_WORDS = 200
LONGEST_WHY = 40
LONGEST_UPDATE = 120  # characters of why an update was refused
LONGEST_ERROR = 400  # characters: what the firmware keeps of a traceback
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
STATE = re.compile(r"[a-z ]{1,16}")
FAULTS = ("silent", "damaged", "stuck", "fault", "lost")  # states of a device that measures nothing
STARTS = {1: "power", 2: "reset", 3: "watchdog", 4: "sleep", 5: "reset"}  # machine.reset_cause() of an ESP32
DIP = "dip"  # a power-on that left the memory which a power cut clears
SAME_START_MS = 60_000  # two moments of a start no farther apart are one: a status may wait in a broker
MOST_STARTS = 50  # that are remembered
MOST_LINES, IN_MS = 10, 600_000  # of one node in the log; one that says another thing each second is not to fill it


class DeviceSaid(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a node."""

    state: str = ""
    good_ago_s: int | None = None
    groups: int = 0
    damaged: int = 0
    unanswered: int = 0
    anew: int = 0  # how often it was set up anew, to bring it back
    cut: int = 0  # and how often its supply was cut
    why: str = ""  # of the state "fault": what it was before
    fault_s: int | None = None

    @property
    def is_faulty(self) -> bool:
        """Whether it measures nothing."""
        return self.state in FAULTS


class RingSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The store of a node."""

    held: int = 0  # records
    segments: int = 0
    most: int = 0  # segments that it may have, 0: not said
    damaged: int = 0  # entries that rotted
    errors: int = 0  # writes that failed
    unstored: int = 0  # records that found no place


class UpdateSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of an update (docs/updates.md)."""

    version: str
    state: str  # "loading", "waiting", "trial", "confirmed", "refused", "rolled back"
    got: int = 0  # octets
    of: int = 0
    why: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A status, checked."""

    firmware: str = ""
    hardware: str = ""  # the key of its board
    update: UpdateSaid | None = None
    safe: str = ""  # why it is in safe mode, "" if it is not
    boot: int | None = None
    up_s: int | None = None
    start: str = ""  # a word of STARTS, or DIP
    time_quality: int | None = None
    connects: int = 0
    malformed: int = 0
    heap_free: int | None = None  # bytes
    configuration: str = ""  # why it does not run by the one that it was given
    last_error: str = ""  # the end of its last traceback, however old
    send_every_s: int = 0  # of a node on a battery; 0: it is on mains
    devices: dict[str, DeviceSaid] = {}
    ring: RingSaid = RingSaid()

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (who, what) of all that keeps it from measuring as it should; who: a device, '' for the node."""
        if self.safe:
            yield "", "safe mode"
        for name, device in self.devices.items():
            if device.is_faulty:
                yield name, device.state
        if self.configuration:
            yield "", "another configuration"


def read(status: dict[str, Any]) -> Said:
    """Return what a status says that was decoded from JSON; never raises."""
    start = STARTS.get(_whole(status.get("reset_cause")) or 0, "")
    rows = status.get("devices")
    ring = status.get("ring")
    battery = status.get("battery")
    return Said(
        firmware=_words(status.get("firmware"), 32),
        hardware=_words(status.get("hardware"), 64),
        update=_update(status.get("update")),
        safe=_words(status.get("safe"), LONGEST_WORDS),
        boot=_whole(status.get("boot")),
        up_s=_whole(status.get("up_s")),
        start=DIP if start == "power" and status.get("brown_out") is True else start,
        time_quality=_whole(status.get("time_quality")),
        connects=_whole(status.get("connects")) or 0,
        malformed=_whole(status.get("malformed")) or 0,
        heap_free=_whole(status.get("heap_free")),
        configuration=_words(status.get("configuration"), LONGEST_WORDS),
        last_error=_words(status.get("last_error"), LONGEST_ERROR),
        send_every_s=min(RAREST_S, _whole(battery.get("send_every_s")) or 0) if isinstance(battery, dict) else 0,
        devices=_devices(rows if isinstance(rows, dict) else {}),
        ring=RingSaid(**_counts(ring if isinstance(ring, dict) else {}, RingSaid)),
    )


@dataclass
class Known:
    """What a node said last, and what came of it since the gateway began."""

    said: Said
    said_ms: int  # by the gateway's monotonic clock, as all times here
    starts: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=MOST_STARTS))  # when, and a word
    started: int = 0  # how many starts were seen, the first one left out, which may be long ago
    dips: int = 0
    failed_ms: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_STARTS))  # by a defect or the watchdog


class Nodes:
    """What each node said last; a change between well and faulty is one line in the log. It outlives every reload."""

    def __init__(self, mono_ms: Clock) -> None:
        self._mono_ms = mono_ms
        self._known: dict[str, Known] = {}
        self._lost: dict[str, tuple[int, int]] = {}  # node: (records, when the last of them)
        self._logged: dict[str, tuple[str, deque[int]]] = {}  # node: (what was said last, when the last ones were)
        self.told: Callable[[str, Said], None] = lambda node, said: None  # called with each status

    def of(self, node: str) -> Known | None:
        """Return what is known of a node, None if it has said nothing yet."""
        return self._known.get(node)

    def speaks_every_s(self, node: str) -> float:
        """Return how often a node on a battery speaks, 0 where it has not said that it is on one."""
        known = self._known.get(node)
        return float(known.said.send_every_s) if known else 0.0

    def lost(self, node: str) -> tuple[int, int | None]:
        """Return how many records a node dropped since the gateway began, and when that was last heard."""
        return self._lost.get(node, (0, None))

    def take(self, node: str, status: dict[str, Any], said_name: Callable[[str], str]) -> None:
        """Take a status; said_name(node): its name for the log, which is another where the node is a household's."""
        said, now_ms = read(status), self._mono_ms()
        before = self._known.get(node)
        known = self._known[node] = before or Known(said, now_ms)
        _note_start(known, said, now_ms, is_first=before is None)
        known.said, known.said_ms = said, now_ms
        self._log(node, said_name(node), said, now_ms)
        self.told(node, said)

    def dropped(self, node: str, records: int) -> None:
        """Note that records of a node are gone for good."""
        self._lost[node] = (min(LARGEST, self._lost.get(node, (0, 0))[0] + records), self._mono_ms())

    def _log(self, node: str, name: str, said: Said, now_ms: int) -> None:
        is_named = name == node  # else it is a household's, and so are the names of its devices
        words = ", ".join(f"{who} {what}" if who and is_named else what for who, what in said.faults())
        before, lines = self._logged.setdefault(node, ("", deque(maxlen=MOST_LINES)))
        if words == before or (len(lines) == MOST_LINES and now_ms - lines[0] < IN_MS):
            return
        lines.append(now_ms)
        self._logged[node] = words, lines
        if words:
            log.warning("node fault node=%s said=%s", name, words)
        else:
            log.info("node well again node=%s", name)


def _note_start(known: Known, said: Said, now_ms: int, is_first: bool) -> None:
    """Note a start that was not known yet, and what it was for."""
    if said.up_s is None or said.start == "sleep":
        return
    began_ms = now_ms - 1000 * said.up_s
    if not is_first:
        if _is_same_start(known, said, began_ms):
            return
        known.started += 1
        known.dips += said.start == DIP
    known.starts.append((began_ms, said.start))
    is_new_error = not is_first and said.last_error not in ("", known.said.last_error)
    if said.start == "watchdog" or is_new_error:
        known.failed_ms.append(began_ms)


def _is_same_start(known: Known, said: Said, began_ms: int) -> bool:
    """Return whether it is the start that is known: by its boot, or by when, since safe mode says no boot."""
    if known.said.boot is not None and said.boot is not None:
        return known.said.boot == said.boot
    return bool(known.starts) and began_ms - known.starts[-1][0] < SAME_START_MS


def _devices(rows: dict[str, Any]) -> dict[str, DeviceSaid]:
    found: dict[str, DeviceSaid] = {}
    for name, row in rows.items():
        if len(found) < MOST_DEVICES and NAME.fullmatch(name) and isinstance(row, dict):
            state = row.get("state")
            found[name] = DeviceSaid(
                state=state if isinstance(state, str) and STATE.fullmatch(state) else "",
                why=_words(row.get("why"), LONGEST_WHY),
                good_ago_s=_whole(row.get("good_ago_s")),
                fault_s=_whole(row.get("fault_s")),
                **{key: _whole(row.get(key)) or 0 for key in ("groups", "damaged", "unanswered", "anew", "cut")},
            )
    return found


def _update(said: Any) -> UpdateSaid | None:
    if not isinstance(said, dict):
        return None
    version, state = _words(said.get("version"), 16), said.get("state")
    if not version or not isinstance(state, str) or not STATE.fullmatch(state):
        return None
    got, of = _whole(said.get("got")) or 0, _whole(said.get("of")) or 0
    return UpdateSaid(version=version, state=state, got=got, of=of, why=_words(said.get("why"), LONGEST_UPDATE))


def _counts(table: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, int]:
    return {key: _whole(table.get(key)) or 0 for key in kind.__struct_fields__}


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < LARGEST else None


def _words(value: Any, longest: int) -> str:
    """Return a text in one line, its end where it is too long, as of a traceback; '' if it is none."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())[-longest:]
