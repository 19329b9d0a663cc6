"""How `reload`, `record`, `status` and `doctor` reach the gateway that runs: a Unix socket in its state directory.

The client writes on a line "reload" and, as JSON, what it checked, {"file": ..., "assignments": [...]}; the gateway
answers with one line of JSON, {"applied": true, "said": [...]}, when it is done. Upon "record" and what is wanted,
{"line": ..., "for_s": ...}, it answers with a recording, line by line as record_file.py has it, or with
{"refused": "..."}, until the time is over or the client has gone. Upon "status" it answers with one line of JSON, as
status.py has it. Upon "lend" and a line's name as JSON it answers {"lent": ...} when it has let go of the line, and
takes it back when the client has gone, or {"refused": "..."}: a line on which somebody is heard is not lent. Upon
"update" and what is wanted, {"do": "publish", "bytes": ...}, with so many bytes behind the line, it answers
{"said": [...], "updates": [...]} or {"refused": "..."}.

Only who may enter the state directory can ask, and nothing that can be asked changes what the gateway measures, but
reading again the file that it runs by. An update of nodes is signed by whoever made it, not by whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from bega.control_socket import NAME, asked, short, unanswered
from bega.control_socket import NoAnswer as NoAnswer
from bega.control_socket import NoGateway as NoGateway
from bega.update_bundle import LARGEST_FILE
from bega_protocols.errors import ConfigError

log = logging.getLogger(__name__)

LONGEST_LINE = 16_000
LONGEST_TEXT = 4_000_000  # of a recording: its head may hold many register maps
ASK_WITHIN_S = 5.0
TAKE_WITHIN_S = 5.0  # the answer
LOOK_EVERY_S = 10.0  # whether the socket is there: the disk may have been read-only at the start
ANSWER_WITHIN_S = 200.0  # a reload waits for a line that is lent, three minutes at most
TELL_WITHIN_S = 10.0  # how it is doing a gateway tells at once; one that does not hangs


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


class Wanted(NamedTuple):
    """What is to be recorded."""

    line: str
    for_s: float


Reload = Callable[[Origin | None], Awaitable[Outcome]]
Recording = Callable[[Wanted, Callable[[], bool]], AsyncGenerator[str, None]]
Told = Callable[[], bytes]
Updating = Callable[[dict[str, Any], bytes], Awaitable[dict[str, Any]]]
Lending = Callable[[str, Callable[[], bool]], AsyncGenerator[str, None]]


class Control:
    """Owns the socket. Where none can be made that is said once, and tried again; SIGHUP works all the same."""

    def __init__(
        self,
        state: Path,
        reload: Reload,
        recording: Recording,
        status: Told = bytes,
        lending: Lending | None = None,
        updating: Updating | None = None,
    ) -> None:
        """Make the socket, so that it is there before the gateway says that it is ready.

        recording(wanted, is_over): gives the texts of a recording until `is_over()`; raises ConfigError
        status(): gives the JSON of how the gateway is doing
        lending(line, is_over): gives a text once it has let go of a line, and takes it back; raises ConfigError
        updating(question, octets): does what is asked about updates of nodes, and gives the answer; raises ConfigError
        """
        self._state = state
        self._reload = reload
        self._recording = recording
        self._status = status
        self._lending = lending
        self._updating = updating
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
            except (OSError, ValueError, RecursionError):  # gone, too slow, a line or a nest without end
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
            word, _, checked = (await reader.readline()).strip().partition(b" ")
        writer.transport.set_write_buffer_limits(0)  # so that drain() is over when all of it is
        try:
            if word == b"reload":
                outcome = await self._reload(Origin(**json.loads(checked)))
                await _say(writer, json.dumps(outcome._asdict()))
            elif word == b"record":
                await self._pass_on(self._recording(Wanted(**json.loads(checked)), reader.at_eof), writer)
            elif word == b"lend" and self._lending:
                await self._pass_on(self._lending(str(json.loads(checked)), reader.at_eof), writer)
            elif word == b"update":
                await self._update(json.loads(checked), reader, writer)
            elif word == b"status":
                await _say(writer, self._status().decode())
        except (TypeError, AttributeError):  # not what Origin or Wanted has
            return
        except ConfigError as error:
            await _say(writer, json.dumps({"refused": str(error)}))

    async def _update(
        self, question: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._updating is None:
            raise ConfigError("this gateway takes no updates of nodes: its configuration has no table [updates]")
        size = question.pop("bytes", 0)
        if type(size) is not int or not 0 <= size <= LARGEST_FILE:
            raise ConfigError(f"no bundle has more than {LARGEST_FILE} bytes")
        async with asyncio.timeout(ASK_WITHIN_S):
            octets = await reader.readexactly(size)
        await _say(writer, json.dumps(await self._updating(question, octets)))

    async def _pass_on(self, given: AsyncGenerator[str, None], writer: asyncio.StreamWriter) -> None:
        async with contextlib.aclosing(given) as texts:
            async for text in texts:
                await _say(writer, text)


async def _say(writer: asyncio.StreamWriter, text: str) -> None:
    """Write a line; raises TimeoutError, an OSError, if nobody takes it."""
    writer.write(text.encode() + b"\n")
    async with asyncio.timeout(TAKE_WITHIN_S):
        await writer.drain()


def ask_reload(state: Path, checked: Origin) -> Outcome:
    """Have the gateway whose state lies in `state` read its file again, the one that was `checked`.

    Raises ConfigError if none answers.
    """
    question = b"reload " + json.dumps(checked._asdict()).encode() + b"\n"
    try:
        return Outcome(**json.loads(asked(state, question, ANSWER_WITHIN_S)))
    except (OSError, ValueError, TypeError) as error:
        raise unanswered(state, error) from None


def ask_status(state: Path) -> bytes:
    """Return, as JSON, how the gateway is doing whose state lies in `state`; raises ConfigError if none answers."""
    try:
        answer = asked(state, b"status\n", TELL_WITHIN_S)
        json.loads(answer)
    except (OSError, ValueError) as error:
        raise unanswered(state, error) from None
    return answer


async def ask_recording(state: Path, line: str, for_s: float) -> AsyncGenerator[str, None]:
    """Have the gateway whose state lies in `state` copy what `line` hears and says; return the texts, head first.

    Raises NoGateway where none runs, ConfigError if it refuses.
    """
    try:
        with short(state) as folder:
            reader, writer = await asyncio.open_unix_connection(f"{folder}/{NAME}", limit=LONGEST_TEXT)
        await _say(writer, f"record {json.dumps(Wanted(line, for_s)._asdict())}")
        head = (await reader.readline()).decode()
        refused = json.loads(head).get("refused")
    except (OSError, ValueError, TypeError) as error:
        raise unanswered(state, error) from None
    if refused:
        writer.close()
        raise ConfigError(str(refused))
    return _texts(head, reader, writer)


async def ask_to_lend(state: Path, line: str) -> asyncio.StreamWriter:
    """Have the gateway let go of `line` until what is returned is closed; raises ConfigError if it refuses."""
    try:
        with short(state) as folder:
            reader, writer = await asyncio.open_unix_connection(f"{folder}/{NAME}")
        await _say(writer, f"lend {json.dumps(line)}")
        async with asyncio.timeout(ANSWER_WITHIN_S):
            answer = json.loads(await reader.readline())
    except (OSError, ValueError) as error:
        raise unanswered(state, error) from None
    if "lent" not in answer:
        writer.transport.abort()
        raise ConfigError(str(answer.get("refused")))
    return writer


async def _texts(head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncGenerator[str, None]:
    try:
        yield head.rstrip("\n")
        while (text := await reader.readline()).endswith(b"\n"):
            yield text.decode().rstrip("\n")
    finally:
        writer.transport.abort()  # it is what tells the gateway that we have enough


def _listener(state: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with short(state) as folder:
            (state / NAME).unlink(missing_ok=True)  # left by one that was killed
            listener.bind(f"{folder}/{NAME}")
            (state / NAME).chmod(0o600)
            listener.listen()  # who asks before we answer waits, and is not sent away
    except OSError:
        listener.close()
        raise
    return listener
