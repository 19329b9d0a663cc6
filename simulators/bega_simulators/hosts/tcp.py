"""A Modbus TCP server with any number of devices behind it, as a meter with a network port or a converter.

Spec: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3: transaction, protocol 0, length, unit; the
header is cut by hand here, so that it checks the gateway's. Several connections are served at once.

    server = ModbusTcpServer({1: meter})
    port = await server.start("127.0.0.1", 0)
    ...
    await server.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

END_S = 0.5  # to let go of a connection
NO_PATH = 0x0B  # exception: the device behind the gateway did not answer


class AskedSim(Protocol):
    """What a device's sim.py offers to the wire it hangs on."""

    faults: set[str]

    def answer(self, request: bytes) -> bytes | None: ...


class ModbusTcpServer:
    """Answers for each unit in `sims`; an unknown one gets exception 0x0B, as a converter gives it.

    faults, of the server (each device has its own): "wrong transaction" (answers carry another number),
    "wrong unit" (answers come in the name of the next unit), "cut" (closes in the middle of an answer),
    "noise" (sends bytes that are no header), "twice" (gives each answer twice), "says no path" (after `silence_s` a
    silent device's question is answered with exception 0x0B, as most converters do).
    """

    def __init__(self, sims: dict[int, AskedSim]) -> None:
        self.sims = sims
        self.faults: set[str] = set()
        self.late_s = 0.0  # each answer comes so much later
        self.silence_s = 0.0  # a converter waits so long for a silent device, and lets no other question pass
        self.questions = 0
        self.functions: set[int] = set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None] | None] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; return the port, which the system chose if it was 0."""
        self._server = await asyncio.start_server(self._serve, host, port)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def stop(self) -> None:
        """Refuse new connections and end those that are open."""
        if self._server:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None
        # Exchanges that were cut off end here: cancelled with the loop, each would leave a traceback.
        if ending := [task for task in self._serving if task]:
            await asyncio.wait(ending, timeout=END_S + self.late_s + self.silence_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self._serving.add(asyncio.current_task())
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._open.discard(writer)
            self._serving.discard(asyncio.current_task())
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one question; return whether the connection goes on."""
        header = await reader.readexactly(7)
        length = header[4] * 256 + header[5]
        if header[2:4] != b"\0\0" or not 3 <= length <= 254:
            return False
        request = await reader.readexactly(length - 1)
        response = self._answer(header[6], request)
        if response is None:
            await asyncio.sleep(self.silence_s)
            if "says no path" not in self.faults:
                return True
            response = bytes([request[0] | 0x80, NO_PATH])
        if self.late_s:
            await asyncio.sleep(self.late_s)
        answer = self._frame(header, response)
        writer.write(answer[: len(answer) // 2] if "cut" in self.faults else answer)
        await writer.drain()
        return "cut" not in self.faults

    def _answer(self, unit: int, request: bytes) -> bytes | None:
        self.questions += 1
        self.functions.add(request[0])
        if unit not in self.sims:
            return bytes([request[0] | 0x80, NO_PATH])
        return self.sims[unit].answer(request)

    def _frame(self, header: bytes, response: bytes) -> bytes:
        transaction, unit = header[:2], header[6]
        if "wrong transaction" in self.faults:
            transaction = bytes([header[0] ^ 0x40, header[1]])
        if "wrong unit" in self.faults:
            unit = (unit + 1) % 256
        length = len(response) + 1
        frame = transaction + bytes([0, 0, length // 256, length % 256, unit]) + response
        if "twice" in self.faults:
            frame += frame
        return b"\xff" * 12 + frame if "noise" in self.faults else frame
