"""How `bega gateway reload` reaches the gateway that runs: a Unix socket in its state directory.

The client writes on a line "reload" and, as JSON, what it checked, {"file": ..., "assignments": [...]}; the gateway
answers with one line of JSON, {"applied": true, "said": [...]}, when it is done. Only who may enter the state
directory can ask, and all that can be asked is to read again the file that it runs by.
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
LONGEST_LINE = 16_000
ASK_WITHIN_S = 5.0
TAKE_WITHIN_S = 5.0  # the answer
LOOK_EVERY_S = 10.0  # whether the socket is there: the disk may have been read-only at the start
ANSWER_WITHIN_S = 120.0


class Outcome(NamedTuple):
    """What became of a reload."""

    applied: bool
    said: list[str]  # what changed and what waits for a restart, or every problem with its place


class Origin(NamedTuple):
    """Where a configuration comes from."""

    file: str  # the whole path
    assignments: list[str]  # laid over it, by --set

    def why_not(self, asked: Origin) -> str:
        """Return why a gateway that runs by this cannot reload what was `asked`; '' if it can.

        Assignments that the asker left out are no reason: the gateway goes on with those of its start.
        """
        if os.path.realpath(self.file) != os.path.realpath(asked.file):
            return f"the gateway runs by {self.file}, not by {asked.file}"
        if not set(asked.assignments) <= set(self.assignments):
            return "the gateway was not started with this --set; leave it out, or start the gateway anew with it"
        return ""


Reload = Callable[[Origin | None], Awaitable[Outcome]]


class Control:
    """Owns the socket. Where none can be made that is said once, and tried again; SIGHUP works all the same."""

    def __init__(self, state: Path, reload: Reload) -> None:
        """Make the socket, so that it is there before the gateway says that it is ready."""
        self._state = state
        self._reload = reload
        self._failed = False
        self._listener = self._listen()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            if self._listener:
                await self._serve(self._listener)
            else:
                await asyncio.sleep(LOOK_EVERY_S)
            self._listener = self._listen()

    def close(self) -> None:
        """Close the socket."""
        if self._listener:
            self._listener.close()

    def _listen(self) -> socket.socket | None:
        try:
            listener = _listener(self._state)
        except OSError as error:
            if not self._failed:
                log.warning("control socket cannot be made, reload by SIGHUP only error=%s", error)
            self._failed = True
            return None
        if self._failed:
            log.info("control socket made, reload by command works")
        self._failed = False
        return listener

    async def _serve(self, listener: socket.socket) -> None:
        """Answer for as long as the socket can be found; a connection is let go with it, whatever it still wanted."""
        writers: set[asyncio.StreamWriter] = set()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            try:
                await self._answer(reader, writer)
            except (OSError, ValueError):  # gone, too slow, or a line without end
                log.debug("control connection ended early")
            finally:
                writers.discard(writer)
                writer.transport.abort()  # close() would wait for one that does not read

        server = await asyncio.start_unix_server(answer, sock=listener, limit=LONGEST_LINE)
        try:
            while (self._state / NAME).exists():  # noqa: ASYNC110 - who removes a file sets no event
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(ASK_WITHIN_S):
            word, _, checked = (await reader.readline()).partition(b" ")
        if word != b"reload":
            return
        try:
            asked = Origin(**json.loads(checked))
        except TypeError:
            return
        outcome = await self._reload(asked)
        writer.transport.set_write_buffer_limits(0)  # so that drain() is over when all of it is
        writer.write(json.dumps(outcome._asdict()).encode() + b"\n")
        async with asyncio.timeout(TAKE_WITHIN_S):
            await writer.drain()


def ask_reload(state: Path, checked: Origin) -> Outcome:
    """Have the gateway whose state lies in `state` read its file again, the one that was `checked`.

    Raises ConfigError if none answers.
    """
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection, _short(state) as folder:
            connection.settimeout(ANSWER_WITHIN_S)
            connection.connect(f"{folder}/{NAME}")
            connection.sendall(b"reload " + json.dumps(checked._asdict()).encode() + b"\n")
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
            listener.listen()  # who asks before we answer waits, and is not sent away
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
