"""Many Modbus TCP meters in one process, cheap enough to be no part of what is measured.

Started by the bench with `python -m bega_simulators.bench.farm`; asked on standard input, one JSON object a line.
Each meter has a port of its own, as meters in a network have an address of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from bega_simulators.bench.numbered import NumberedMeter

HEADER_BYTES = 7  # transaction, protocol, length, unit


class Answering(asyncio.Protocol):
    """One connection to one meter."""

    def __init__(self, meter: NumberedMeter) -> None:
        self._meter = meter
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, octets: bytes) -> None:
        heard = self._heard + octets
        while len(heard) >= HEADER_BYTES:
            end = 6 + (heard[4] << 8 | heard[5])
            if len(heard) < end:
                break
            response = self._meter.answer(heard[HEADER_BYTES:end])
            if response is not None:
                length = len(response) + 1
                self._transport.write(heard[:4] + bytes((length >> 8, length & 255, heard[6])) + response)
            heard = heard[end:]
        self._heard = heard


async def serve(meters: list[NumberedMeter]) -> list[int]:
    """Listen for each meter; return the ports."""
    loop = asyncio.get_running_loop()
    ports = []
    for meter in meters:
        server = await loop.create_server(lambda meter=meter: Answering(meter), "127.0.0.1", 0)  # type: ignore[misc]
        ports.append(server.sockets[0].getsockname()[1])
    return ports


def answer(meters: list[NumberedMeter], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the bench wants to know: how often each meter was read, and when."""
    if asked["verb"] == "times":
        return {"times_s": [list(meter.times_s) for meter in meters]}
    return {"reads": [meter.reads for meter in meters]}


async def main(argv: list[str]) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, required=True)
    parser.add_argument("--floats", type=int, required=True)
    parser.add_argument("--keep-times", action="store_true")
    args = parser.parse_args(argv)
    meters = [NumberedMeter(number, args.floats, args.keep_times) for number in range(args.meters)]
    print(json.dumps({"ports": await serve(meters)}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(answer(meters, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
