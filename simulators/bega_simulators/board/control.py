"""The board's bench: a socket over which a test makes sensors fail, changes the air, and presses reset."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bega_simulators.board.board import Board
from bega_simulators.board.peripherals import AirPeripherals


async def serve_control(path: Path, peripherals: AirPeripherals, board: Board) -> asyncio.Server:
    """Serve `path` (a Unix socket); each line is a JSON object, each is answered by one with the board's state."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                _obey(json.loads(line), peripherals, board)
                answer: dict[str, Any] = {"resets": board.resets, "rom": board.in_rom, **peripherals.state()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                answer = {"error": repr(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(serve, path)


def _obey(order: dict[str, Any], peripherals: AirPeripherals, board: Board) -> None:
    download, reset = order.pop("download", False), order.pop("reset", False)
    if download:
        board.hold_boot()
    elif reset:
        board.press_en()
    peripherals.obey(order)
