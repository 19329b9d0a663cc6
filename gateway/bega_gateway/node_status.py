"""How a node is doing by its own words, as data and in words: for `status`, doctor, page and metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from bega_gateway.lines.node_said import DIP, DeviceSaid, Known, Nodes, Said

LATELY_MS = 86_400_000  # what happened within a day is worth a look
FULL_SHARE = 0.9  # of a node's store
FEW_SEGMENTS = 10
FRESH_S = 300.0  # a node that cannot hand on says its status each half minute
MOST_ERROR = 160  # characters of a traceback in a sentence: its end
STARTS_IN_WORDS = {
    "power": "power came",
    DIP: "its supply dipped",
    "reset": "it reset itself",
    "watchdog": "its watchdog ended it",
    "sleep": "it woke",
}
CLOCKS = {0: "by the gateway's time", 1: "estimated", 2: "not known"}


class OfNode(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says, and what this gateway has seen of it since its own start."""

    said: Said = Said()
    said_ago_s: float = 0.0
    started: int = 0
    dips: int = 0
    starts_lately: int = 0  # within a day
    dips_lately: int = 0
    failed_lately: int = 0  # starts after a defect or the watchdog
    last_start_ago_s: float | None = None
    lost: int = 0  # records that it dropped
    lost_ago_s: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether its counters are of now."""
        return self.said_ago_s < FRESH_S

    @property
    def has_lost_lately(self) -> bool:
        """Whether it dropped records within a day."""
        return self.lost_ago_s is not None and 1000 * self.lost_ago_s < LATELY_MS

    @property
    def faulty(self) -> dict[str, DeviceSaid]:
        """Its sensors that measure nothing, by name."""
        return {name: device for name, device in self.said.devices.items() if device.is_faulty}

    @property
    def held(self) -> int | None:
        """Records in its store; None in safe mode, when it does not look."""
        return None if self.said.safe else self.said.ring.held

    @property
    def store_share(self) -> float:
        """How full its store was, from 0 to 1; 0 where it does not say, or has so few segments that one is a share."""
        ring = self.said.ring
        return ring.segments / ring.most if ring.most >= FEW_SEGMENTS else 0.0


def of(nodes: Nodes, name: str, now_ms: int) -> OfNode | None:
    """Return how a node is doing, None if it has said nothing yet."""
    known = nodes.of(name)
    return _of(known, *nodes.lost(name), now_ms) if known else None


def _of(known: Known, lost: int, lost_ms: int | None, now_ms: int) -> OfNode:
    lately = [word for when_ms, word in known.starts if now_ms - when_ms < LATELY_MS]
    return OfNode(
        said=known.said,
        said_ago_s=(now_ms - known.said_ms) / 1000,
        started=known.started,
        dips=known.dips,
        starts_lately=len(lately),
        dips_lately=lately.count(DIP),
        failed_lately=sum(now_ms - when_ms < LATELY_MS for when_ms in known.failed_ms),
        last_start_ago_s=(now_ms - known.starts[-1][0]) / 1000 if known.starts else None,
        lost=lost,
        lost_ago_s=None if lost_ms is None else (now_ms - lost_ms) / 1000,
    )


def troubles(node: OfNode) -> Iterator[str]:
    """Yield what is wrong, a few words each: first what measures nothing now."""
    said = node.said
    if said.safe:
        yield f"safe mode, {said.safe}"
    for name, device in node.faulty.items():
        yield f"its sensor {name} is {state(device)}"
    if said.configuration:
        yield f"another configuration: {said.configuration}"
    if node.is_fresh and node.store_share >= FULL_SHARE:
        yield f"its store is nearly full, {said.ring.held} records wait"
    if node.has_lost_lately:
        yield f"{node.lost} records dropped"
    if node.dips_lately:
        yield f"its supply dipped, {times(node.dips_lately)} within a day"


def line(node: OfNode) -> str:
    """Return how it is in one line."""
    said = node.said
    well = len(said.devices) - len(node.faulty)
    parts = [
        f"firmware {said.firmware}" if said.firmware else "",
        "safe mode" if said.safe else f"{well} of {len(said.devices)} sensors well" if said.devices else "",
        f"up for {lasting(up_s(node))}" if said.up_s is not None else "",
        f"{said.ring.held} records held" if said.ring.held else "",
        f"{node.lost} dropped" if node.lost else "",
        f"said {lasting(node.said_ago_s)} ago",
    ]
    return ", ".join(part for part in parts if part)


def facts(node: OfNode) -> Iterator[tuple[str, str]]:
    """Yield what it says of itself, each with its name."""
    said, ring = node.said, node.said.ring
    if said.firmware:
        yield "Firmware", said.firmware
    if said.up_s is not None:
        why = f", since {STARTS_IN_WORDS[said.start]}" if said.start in STARTS_IN_WORDS else ""
        yield "Up for", lasting(up_s(node)) + why
    if said.safe:
        yield "Safe mode", said.safe
    for name, device in said.devices.items():
        yield f"Sensor {name}", in_words(device)
    if not said.safe:  # it has not looked into it
        yield "Store", ", ".join(_of_ring(node))
    if said.send_every_s:
        yield "On a battery", f"it sends every {lasting(said.send_every_s)}"
    if said.time_quality in CLOCKS:
        yield "Its clock", CLOCKS[said.time_quality]
    if said.connects:
        yield "Connected", times(said.connects) + " since its start"
    if said.malformed:
        yield "Not understood", f"{said.malformed} of our messages"
    if said.heap_free is not None:
        yield "Free memory", f"{said.heap_free / 1000:.0f} kB"
    if said.configuration:
        yield "Configuration", said.configuration
    if said.last_error:
        yield "Its last error, however old", end_of(said.last_error)
    if node.dips or ring.errors or ring.damaged:
        seen = f"dips since the gateway began: {node.dips}; failed writes: {ring.errors}; rotted places: {ring.damaged}"
        yield "Seen of its supply and flash", seen
    yield "Said", f"{lasting(node.said_ago_s)} ago"


def in_words(device: DeviceSaid) -> str:
    """Return how one of its sensors is, with its counters."""
    good = "" if device.good_ago_s is None else f", good {lasting(device.good_ago_s)} before it said so"
    counts = [
        f"{number} {of}"
        for number, of in (
            (device.damaged, "frames damaged"),
            (device.unanswered, "questions unanswered"),
            (device.anew, "times set up anew"),
            (device.cut, "times switched off and on"),
        )
        if number
    ]
    return ", ".join([state(device) + (good if device.is_faulty else ""), *counts])


def state(device: DeviceSaid) -> str:
    """Return its state, for a fault with what it was."""
    words = "in fault" if device.state == "fault" else device.state or "not said"
    return f"{words} ({device.why})" if device.why else words


def up_s(node: OfNode) -> float:
    """Return for how long it has run by now, if it still does."""
    return (node.said.up_s or 0) + node.said_ago_s


def end_of(error: str) -> str:
    """Return the end of a traceback, where the error stands."""
    return error if len(error) <= MOST_ERROR else "..." + error[-MOST_ERROR:]


def times(number: int) -> str:
    """Return "once", "3 times"."""
    return "once" if number == 1 else f"{number} times"


def lasting(seconds: float) -> str:
    """Return "5 min"."""
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{math.floor(seconds / size_s)} {unit}"
    return f"{seconds:.0f} s"


def _of_ring(node: OfNode) -> Iterator[str]:
    ring = node.said.ring
    yield f"{ring.held} records held"
    if ring.most:
        yield f"{100 * node.store_share:.0f} % full"
    if ring.unstored:
        yield f"{ring.unstored} found no place"
    if node.lost:
        yield f"{node.lost} dropped since the gateway began"
