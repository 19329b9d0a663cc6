"""What a gateway counts, for Prometheus: GET /metrics, text format 0.0.4, and nothing else.

Written here because it is little: prometheus_client takes 5 MB and Starlette 4.7 MB of memory, this next to none.
Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for what only rises.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bega import __version__
from bega.clock import Clock
from bega.outbox.publish import Publisher
from bega.outbox.spool import Spool
from bega_gateway.lines.ble_counters import BleCounters
from bega_gateway.lines.station import PERSONAL, Station
from bega_gateway.node_status import OfNode
from bega_gateway.updates.told import STATES, OfUpdate

ASK_WITHIN_S = 5.0
LONGEST_HEAD = 8_192  # bytes
MOST_CONNECTIONS = 20
TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Family(NamedTuple):
    """One metric, with a value for each set of labels."""

    name: str
    kind: str  # "counter" or "gauge"
    meaning: str
    samples: Sequence[tuple[Labels, float]]


Device = tuple[str, Station, str]  # its line, what is counted of it, and who may see it
Node = tuple[str, str, OfNode, str]  # its line, its name, what it says, and who may see it
OF_NODES: tuple[tuple[str, str, str, Callable[[OfNode], int | None]], ...] = (  # None: it does not say
    ("safe_mode", "gauge", "1 while the node is in safe mode and measures nothing.", lambda node: bool(node.said.safe)),
    ("sensors", "gauge", "Sensors that the node has.", lambda node: len(node.said.devices)),
    ("faulty_sensors", "gauge", "Sensors of the node that measure nothing.", lambda node: len(node.faulty)),
    ("held_records", "gauge", "Records that wait in the node's store.", lambda node: node.held),
    ("free_memory_bytes", "gauge", "Heap that the node has left.", lambda node: node.said.heap_free),
    ("starts_total", "counter", "Starts of the node that were seen.", lambda node: node.started),
    ("supply_dips_total", "counter", "Starts of the node after a dip of its supply.", lambda node: node.dips),
    ("dropped_records_total", "counter", "Records that the node dropped for good.", lambda node: node.lost),
)
OUTCOMES = ("done", "failed", "expired", "repeated", "unknown")  # of commands that were not refused


class Seen(Protocol):
    """What is asked when somebody asks for the metrics."""

    def devices(self) -> Iterable[Device]:
        """Return every device that is read."""

    def nodes(self) -> Iterable[Node]:
        """Return what each of our own nodes says of itself, those left out that have said nothing yet."""

    def adapters(self) -> Iterable[tuple[str, BleCounters]]:
        """Return what is counted of each Bluetooth adapter, with the name of its line."""

    def left_out(self) -> Iterable[tuple[str, int, str]]:
        """Return the place of each calculation, what it could not use, and who may see it."""

    def commanded(self) -> Mapping[tuple[str, str], int] | None:
        """Return how many commands came to what end, a refusal with its kind; None where none are taken."""

    def updates(self) -> Iterable[OfUpdate]:
        """Return how each rollout of an update to nodes is."""

    def heard(self) -> tuple[int, int]:
        """Return how many devices and nodes are heard, and of how many."""

    def lag_s(self) -> float:
        """Return how late the loop came at worst, in the last minute."""


def text(families: Iterable[Family]) -> str:
    """Return families in the text format."""
    lines = []
    for name, kind, meaning, samples in families:
        lines += [f"# HELP {name} {_escaped(meaning)}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def families(seen: Seen, spool: Spool, publisher: Publisher, mono_ms: Clock) -> Iterator[Family]:
    """Yield all that a gateway counts."""
    yield _one("bega_gateway_info", "gauge", "Always 1; the version is in the label.", 1, {"version": __version__})
    heard, watched = seen.heard()
    yield _one("bega_gateway_watched", "gauge", "Devices and nodes that should be heard.", watched)
    yield _one("bega_gateway_heard", "gauge", "Devices and nodes that are heard.", heard)
    yield _one("bega_gateway_loop_lag_seconds", "gauge", "How late the loop was at worst, last minute.", seen.lag_s())
    yield from _of_devices(list(seen.devices()), mono_ms())
    yield from _of_nodes(list(seen.nodes()))
    yield from _of_adapters(list(seen.adapters()))
    yield from _of_calculations(seen.left_out())
    yield from _of_commands(seen.commanded())
    yield from _of_updates(list(seen.updates()))
    yield from _of_spool(spool)
    yield from _of_uplink(publisher)
    yield from _of_process()


async def serve(listener: socket.socket, now: Callable[[], str]) -> None:
    """Answer until cancelled; now() gives the text."""
    writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        writer.transport.set_write_buffer_limits(0)  # so that drain() is over when all of it is
        try:
            if len(writers) <= MOST_CONNECTIONS:
                async with asyncio.timeout(ASK_WITHIN_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(response(head, now))
                    await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # gone, too slow, or a head without end: it is closed
        finally:
            writers.discard(writer)
            writer.transport.abort()  # close() would wait for one that does not read, and keep its answer until then

    server = await asyncio.start_server(answer, sock=listener, limit=LONGEST_HEAD)
    try:
        await asyncio.Event().wait()
    finally:  # without wait_closed(), which waits for strangers since Python 3.12
        server.close()
        for writer in writers:
            writer.transport.abort()


def response(head: bytes, now: Callable[[], str]) -> bytes:
    """Return the whole answer to a request whose head (up to the empty line) is `head` (RFC 9112)."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _answered("400 Bad Request", "this is no HTTP/1.1\n")
    if words[1].split(b"?")[0] != b"/metrics":
        return _answered("404 Not Found", "only /metrics is here\n")
    if words[0] != b"GET":
        return _answered("405 Method Not Allowed", "only GET is answered\n", "Allow: GET\r\n")
    return _answered("200 OK", now())


def _answered(status: str, said: str, more: str = "") -> bytes:
    body = said.encode()
    kind = TYPE if status.startswith("200") else "text/plain; charset=utf-8"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _of_devices(devices: list[Device], now_ms: int) -> Iterator[Family]:
    """Yield what was counted of each device; those of households are one row a line, without a name."""
    rows: dict[tuple[str, str], list[Station]] = {}
    for line, station, audience in devices:
        name = PERSONAL if audience == "personal" else station.name
        rows.setdefault((line, name), []).append(station)
    for word, kept, meaning in (
        ("exchanges", "asked", "Questions put to the device."),
        ("readings_groups", "records", "Groups of readings that the device gave, one a frame."),
        ("silences", "silent", "Questions without an answer."),
        ("damaged_frames", "damaged", "Frames that broke their specification."),
        ("skipped_polls", "skipped", "Polls left out: the bus had no time, or the device was known to be silent."),
        ("refused_answers", "refused", "Answers that were not to the question: late ones, another unit's."),
    ):
        samples = [
            ({"line": line, "device": name}, sum(getattr(station.counters, kept) for station in stations))
            for (line, name), stations in rows.items()
        ]
        yield Family(f"bega_gateway_device_{word}_total", "counter", meaning, samples)
    ages = [
        ({"line": line, "device": name}, (now_ms - max(heard)) / 1000)
        for (line, name), stations in rows.items()
        if (heard := [station.heard_mono_ms for station in stations if station.heard_mono_ms is not None])
    ]
    yield Family("bega_gateway_device_since_heard_seconds", "gauge", "How long ago the device gave readings.", ages)


def _of_nodes(nodes: list[Node]) -> Iterator[Family]:
    """Yield what nodes say; those of households are one row a line, without a name. No sensor's name: nodes make them.

    Nothing where there is none.
    """
    rows: dict[tuple[str, str], list[OfNode]] = {}
    for line, name, node, audience in nodes:
        rows.setdefault((line, PERSONAL if audience == "personal" else name), []).append(node)
    if not rows:
        return
    for word, kind, meaning, value in OF_NODES:
        samples = [
            ({"line": line, "node": name}, sum(said))
            for (line, name), row in rows.items()
            if (said := [number for number in map(value, row) if number is not None])
        ]
        yield Family(f"bega_gateway_node_{word}", kind, meaning, samples)
    ages = [({"line": line, "node": name}, max(node.said_ago_s for node in row)) for (line, name), row in rows.items()]
    yield Family("bega_gateway_node_since_status_seconds", "gauge", "How long ago the node said how it is.", ages)


def _of_adapters(adapters: list[tuple[str, BleCounters]]) -> Iterator[Family]:
    """Yield what was counted of each Bluetooth adapter; nothing where there is none."""
    if not adapters:
        return
    labels: list[Labels] = [{"line": line, "adapter": counters.adapter} for line, counters in adapters]
    for word, kept, meaning in (
        ("scan_restarts", "restarted", "Scans begun anew because nothing at all was heard."),
        ("adapter_resets", "resets", "Times that the adapter was switched off and on."),
        ("connects", "connects", "Connections to sensors that are read."),
        ("failed_connects", "failed_connects", "Connections that did not come about."),
        ("overtaken_advertisements", "overtaken", "Advertisements that a newer one of the same sensor replaced."),
    ):
        samples = [(label, getattr(each, kept)) for label, (_, each) in zip(labels, adapters, strict=True)]
        yield Family(f"bega_gateway_ble_{word}_total", "counter", meaning, samples)
    heard = [
        ({**label, "of": whose}, count)
        for label, (_, each) in zip(labels, adapters, strict=True)
        for whose, count in (("ours", each.ours), ("foreign", each.foreign))
    ]
    meaning = "Advertisements heard: of configured sensors, and of all others."
    yield Family("bega_gateway_ble_advertisements_total", "counter", meaning, heard)


def _of_calculations(left_out: Iterable[tuple[str, int, str]]) -> Iterator[Family]:
    """Yield what calculations could not use; of those from households one row a table, without a name."""
    rows: dict[tuple[str, str], int] = {}
    for place, count, audience in left_out:
        table, _, name = place.partition(".")
        key = table, PERSONAL if audience == "personal" else name
        rows[key] = rows.get(key, 0) + count
    if rows:
        meaning = "Readings that came too late, intervals without every meter's total, nights without a whole hour."
        samples = [({"table": table, "name": name}, count) for (table, name), count in rows.items()]
        yield Family("bega_gateway_calculation_left_out_total", "counter", meaning, samples)


def _of_commands(counted: Mapping[tuple[str, str], int] | None) -> Iterator[Family]:
    """Yield what came of commands; nothing where none are taken."""
    if counted is None:
        return
    ends = [({"outcome": outcome}, counted.get((outcome, ""), 0)) for outcome in OUTCOMES]
    yield Family("bega_gateway_commands_total", "counter", "Commands by what came of them, but for refusals.", ends)
    refused = [({"reason": kind}, count) for (status, kind), count in sorted(counted.items()) if status == "refused"]
    yield Family("bega_gateway_commands_refused_total", "counter", "Commands of which nothing was done.", refused)


def _of_updates(updates: list[OfUpdate]) -> Iterator[Family]:
    """Yield how rollouts are; nothing where there is none."""
    if not updates:
        return
    labels = [{"hardware": update.hardware, "version": update.version} for update in updates]
    name = "bega_gateway_update"
    states = [
        ({**label, "state": state.replace(" ", "_")}, update.counts.get(state, 0))
        for label, update in zip(labels, updates, strict=True)
        for state in STATES
    ]
    yield Family(f"{name}_nodes", "gauge", "Nodes by what became of the update.", states)
    stopped = [int(update.is_stopped) for update in updates]
    for word, meaning, values in (
        ("stopped", "1 while the rollout has stopped and waits for somebody.", stopped),
        ("away_nodes", "Nodes that the rollout waits for and that are not heard.", [each.away for each in updates]),
    ):
        yield Family(f"{name}_{word}", "gauge", meaning, list(zip(labels, values, strict=True)))


def _of_spool(spool: Spool) -> Iterator[Family]:
    name = "bega_gateway_spool"
    yield _one(f"{name}_messages", "gauge", "Messages stored and not acknowledged.", spool.depth)
    yield _one(f"{name}_uncommitted_messages", "gauge", "Messages that wait for a commit.", spool.waiting)
    yield _one(f"{name}_committed_messages_total", "counter", "Messages stored.", spool.committed)
    yield _one(f"{name}_commits_total", "counter", "Commits that worked.", spool.commits)
    yield _one(f"{name}_commit_tries_total", "counter", "Commits that came to an end, good or bad.", spool.tries)
    yield _one(f"{name}_set_aside_messages_total", "counter", "Messages nobody would take.", spool.set_aside)
    for word, meaning, counts in (
        ("dropped", "Messages dropped to make room.", spool.dropped),
        ("refused", "Messages that found no room.", spool.refused),
    ):
        samples: list[tuple[Labels, float]] = [({"class": kept}, count) for kept, count in counts.items()]
        yield Family(f"{name}_{word}_messages_total", "counter", meaning, samples)
    yield _one(f"{name}_failing", "gauge", "1 while the disk takes nothing.", int(spool.failing))
    yield _one(f"{name}_used_bytes", "gauge", "What of the file holds something.", spool.used_bytes)
    yield _one(f"{name}_quota_bytes", "gauge", "What the file may grow to.", spool.quota_bytes)


def _of_uplink(publisher: Publisher) -> Iterator[Family]:
    name = "bega_gateway_uplink"
    yield _one(f"{name}_up", "gauge", "1 while connected and proved.", int(publisher.connected_to is not None))
    yield _one(f"{name}_connects_total", "counter", "Connects begun.", publisher.attempts)
    yield _one(f"{name}_acknowledged_messages_total", "counter", "Messages acknowledged.", publisher.acknowledged)
    yield _one(f"{name}_messages_in_flight", "gauge", "Messages sent and not acknowledged.", publisher.in_flight)


def _of_process() -> Iterator[Family]:
    """Yield what Prometheus' own clients tell of a process, by the same names."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    used = os.times()
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    descriptors = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - the one that it is listed with is not ours
    yield _one("process_cpu_seconds_total", "counter", "CPU time, user and system.", used.user + used.system)
    yield _one("process_resident_memory_bytes", "gauge", "Resident memory.", resident)
    yield _one("process_open_fds", "gauge", "Open file descriptors.", descriptors)


def _one(name: str, kind: str, meaning: str, value: float, labels: Labels | None = None) -> Family:
    return Family(name, kind, meaning, [(labels or {}, value)])


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value, True)}"' for key, value in labels.items()) + "}"


def _escaped(said: str, quoted: bool = False) -> str:
    said = said.replace("\\", "\\\\").replace("\n", "\\n")
    return said.replace('"', '\\"') if quoted else said


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
