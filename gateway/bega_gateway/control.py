"""How `bega gateway reload` reaches the gateway that runs: a Unix socket in its state directory.

The client writes "reload" on a line; the gateway answers with one line of JSON, {"applied": true, "said": [...]},
when it is done. Only who may enter the state directory can ask, and all that can be asked is to read the file again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bega_protocols.errors import ConfigError

log = logging.getLogger(__name__)

NAME = "control.sock"
LONGEST_LINE = 1_000
ASK_WITHIN_S = 5.0
ANSWER_WITHIN_S = 120.0


class Outcome(NamedTuple):
    """What became of a reload."""

    applied: bool
    said: list[str]  # what changed and what waits for a restart, or every problem with its place


def listen(state: Path) -> socket.socket | None:
    """Return a socket in `state` for `serve`; where none can be made that is said, and SIGHUP works all the same."""
    try:
        return _listener(state)
    except OSError as error:
        log.warning("control socket cannot be made, reload by SIGHUP only error=%s", error)
        return None


async def serve(listener: socket.socket, reload: Callable[[], Awaitable[Outcome]]) -> None:
    """Answer until cancelled."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                asked = await reader.readline()
            if asked == b"reload\n":
                outcome = await reload()
                writer.write(json.dumps(outcome._asdict()).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # gone, too slow, or a line without end
            log.debug("control connection ended early")
        finally:
            writer.close()

    async with await asyncio.start_unix_server(answer, sock=listener, limit=LONGEST_LINE) as server:
        await server.serve_forever()


def ask_reload(state: Path) -> Outcome:
    """Have the gateway whose state lies in `state` read its file again; raises ConfigError if none answers."""
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection, _short(state) as folder:
            connection.settimeout(ANSWER_WITHIN_S)
            connection.connect(f"{folder}/{NAME}")
            connection.sendall(b"reload\n")
            with connection.makefile("rb") as answers:
                return Outcome(**json.loads(answers.readline()))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise ConfigError(
            f"no gateway runs with the state in {state}; start it, or give --config as it has it"
        ) from None
    except PermissionError:
        raise ConfigError(f"{state} may not be entered: run this as root, or as the gateway's user") from None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the gateway ended without an answer ({error}); see its log") from None


def _listener(state: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _short(state) as folder:
            (state / NAME).unlink(missing_ok=True)  # left by one that was killed
            listener.bind(f"{folder}/{NAME}")
            (state / NAME).chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Yield another name of `folder`: the name of a socket may have 107 bytes, that of a directory 4,095."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
