"""What the machine and Python cost without a gateway: the least program that does the same work, for comparison.

Read 60 registers of each meter once a period, decode 30 floats, JSON, SQLite outbox (WAL, FULL) with a commit each
50 ms, publish at QoS 1, delete on PUBACK. Plain asyncio; no checks, no logs, and no fault survived: not a product.
Started by the bench with `python -m bega_simulators.bench.floor`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bega_simulators.bench.numbered import names

WINDOW_S = 0.05
IN_FLIGHT = 100
KEEP_ROWS = 2000  # rows read back at a time


class Meter(asyncio.Protocol):
    """Asks one meter each period; whole answers go to `deliver`."""

    def __init__(self, number: int, every_s: float, floor: Floor) -> None:
        self._number = number
        self._every_s = every_s
        self._floor = floor
        self._transaction = 0
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + self._every_s * (self._number % 100) / 100
        self._loop.call_at(self._due_s, self._ask)

    def _ask(self) -> None:
        self._transaction = (self._transaction + 1) & 0xFFFF
        self._transport.write(struct.pack(">HHHBBHH", self._transaction, 0, 6, 1, 4, 0, 2 * self._floor.floats))
        self._due_s += self._every_s
        self._loop.call_at(self._due_s, self._ask)

    def data_received(self, octets: bytes) -> None:
        heard = self._heard + octets
        size = 9 + 4 * self._floor.floats
        while len(heard) >= size:
            self._floor.take(self._number, heard[9:size])
            heard = heard[size:]
        self._heard = heard


class Floor(asyncio.Protocol):
    """Outbox and MQTT session in one."""

    def __init__(self, floats: int, database: sqlite3.Connection | None) -> None:
        self.floats = floats
        self._names = names(floats)
        self._decode = struct.Struct(f">{floats}f").unpack
        self._database = database
        self._thread = ThreadPoolExecutor(1)
        self._seq = self._read_up_to = self._packet = 0
        self._boot = int(time.time())
        self._fresh: list[tuple[bytes, bytes]] = []
        self._acknowledged: list[tuple[int]] = []
        self._in_flight: dict[int, int] = {}
        self._waiting: list[tuple[int, bytes, bytes]] = []
        self._heard = b""
        self.connected = asyncio.Event()

    # From the meters.

    def take(self, number: int, octets: bytes) -> None:
        """One answer: into the outbox, or out at once where there is none."""
        self._seq += 1
        values = self._decode(octets)
        pack = [{"n": name, "v": value} for name, value in zip(self._names, values, strict=True)]
        head = {"bn": f"floor/m{number}/", "bt": round(time.time(), 3), "boot": self._boot, "seq": self._seq}
        payload = json.dumps([head | pack[0], *pack[1:]], separators=(",", ":")).encode()
        topic = f"city/bench/floor/floor/m{number}/up".encode()
        if self._database:
            self._fresh.append((topic, payload))
            return
        self._waiting.append((self._seq, topic, payload))
        self._send()

    async def commit(self) -> None:
        """Store and delete, a group each window."""
        assert self._database
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WINDOW_S)
            fresh, self._fresh = self._fresh, []
            gone, self._acknowledged = self._acknowledged, []
            if fresh or gone or (self._behind and not self._waiting):
                rows = await loop.run_in_executor(self._thread, self._store, fresh, gone)
                self._waiting.extend(rows)
                self._send()

    _behind = False

    def _store(self, fresh: list[tuple[bytes, bytes]], gone: list[tuple[int]]) -> list[tuple[int, bytes, bytes]]:
        assert self._database
        with self._database as database:
            database.executemany("INSERT INTO outbox (topic, payload) VALUES (?, ?)", fresh)
            database.executemany("DELETE FROM outbox WHERE id = ?", gone)
        query = "SELECT id, topic, payload FROM outbox WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._database.execute(query, (self._read_up_to, KEEP_ROWS)).fetchall()
        self._behind = len(rows) == KEEP_ROWS
        if rows:
            self._read_up_to = rows[-1][0]
        return rows

    # To the broker: MQTT 3.1.1.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"\x10\x11\0\4MQTT\4\2\0\0\0\5floor")

    def _send(self) -> None:
        frames = []
        while self._waiting and len(self._in_flight) < IN_FLIGHT:
            row, topic, payload = self._waiting.pop(0)
            self._packet = self._packet % 65535 + 1
            self._in_flight[self._packet] = row
            body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", self._packet) + payload
            frames.append(b"\x32" + _length(len(body)) + body)
        if frames:
            self._transport.write(b"".join(frames))

    def data_received(self, octets: bytes) -> None:
        heard = self._heard + octets
        while len(heard) >= 4:  # CONNACK and PUBACK have four bytes each
            if heard[0] == 0x20:
                self.connected.set()
            else:
                self._acknowledged.append((self._in_flight.pop(heard[2] << 8 | heard[3]),))
            heard = heard[4:]
        self._heard = heard
        if not self._database:
            self._acknowledged.clear()
        self._send()


def _length(length: int) -> bytes:
    octets = bytearray()
    while length > 127:
        octets.append(length & 127 | 128)
        length >>= 7
    return bytes([*octets, length])


def _outbox(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, topic BLOB, payload BLOB)")
    return database


async def main(argv: list[str]) -> None:
    """Run until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker-port", type=int, required=True)
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--every-s", type=float, required=True)
    parser.add_argument("--floats", type=int, required=True)
    parser.add_argument("--store", type=Path)
    args = parser.parse_args(argv)
    floor = Floor(args.floats, _outbox(args.store) if args.store else None)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: floor, "127.0.0.1", args.broker_port)
    await floor.connected.wait()
    for number, port in enumerate(args.ports):
        meter = Meter(number, args.every_s, floor)
        await loop.create_connection(lambda meter=meter: meter, "127.0.0.1", port)  # type: ignore[misc]
    await (floor.commit() if floor._database else asyncio.Event().wait())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
