"""Forms on paper, by CUPS: `lp` run as a process with a time limit. That it took a form is all that it can tell.

`lp -d QUEUE -t TITLE` reads the document from its standard input (lp(1) of CUPS 2.4) and ends with 0 once the queue has
it; whether paper comes out it does not know, so no page says that it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable
from typing import IO, Literal

import msgspec

from bega.clock import Clock

log = logging.getLogger("bega.kiosk.printer")

AGAIN_AFTER_MS = 15_000  # a second tap on the same form is impatience or a trembling hand, not a wish for two
KEPT_MS = 3 * 60_000  # what came of it is of no use to the next citizen
LONGEST_SAID = 300  # letters of what lp complains of

State = Literal["doing", "taken", "failed", ""]


class Job(msgspec.Struct):
    """One form on its way to the queue."""

    begun_ms: int
    state: State = "doing"


class Printer:
    """One queue; a job a form."""

    def __init__(self, queue: str, limit_s: float, mono_ms: Clock, call_pages: Callable[[], None]) -> None:
        self._queue = queue
        self._limit_s = limit_s
        self._mono_ms = mono_ms
        self._call_pages = call_pages
        self._jobs: dict[tuple[str, bytes], Job] = {}  # by name and SHA-256: in another language it is another
        self._last: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, title: str, document: bytes) -> None:
        """Have a document printed; within 15 s the same one of this name is not printed again."""
        now_ms, sheet = self._mono_ms(), (name, hashlib.sha256(document).digest())
        last = self._jobs.get(sheet)
        if last and (last.state == "doing" or (last.state == "taken" and now_ms - last.begun_ms < AGAIN_AFTER_MS)):
            return
        job = self._jobs[sheet] = self._last[name] = Job(now_ms)
        task = asyncio.get_running_loop().create_task(self._run(job, title, document))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def state(self, name: str) -> State:
        """Return what became of the last document of this name, "" where nobody printed it lately."""
        job = self._last.get(name)
        return job.state if job and self._mono_ms() - job.begun_ms < KEPT_MS else ""

    async def _run(self, job: Job, title: str, document: bytes) -> None:
        try:
            why = await self._print(title, document)
        except OSError as error:  # no lp on this machine, no room for a temporary file
            why = f"lp cannot be run: {error.strerror}"
        except ValueError as error:  # a title that no command line can hold
            why = f"lp cannot be run: {error}"
        job.state = "failed" if why else "taken"
        if why:
            log.error("form not printed queue=%s error=%s", self._queue, why)
        self._call_pages()

    async def _print(self, title: str, document: bytes) -> str:
        """Return "", or why the queue did not take it."""
        with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as said:
            sent.write(document)
            sent.seek(0)
            process = await asyncio.create_subprocess_exec(
                *("lp", "-d", self._queue, "-t", title),
                stdin=sent,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # what it starts ends with it
            )
            try:
                async with asyncio.timeout(self._limit_s):
                    code = await process.wait()
            except TimeoutError:
                return f"no answer within {self._limit_s:g} s"
            finally:
                await _end(process)
            return f"lp ended with {code}: {_complaint(said)}" if code else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _complaint(said: IO[bytes]) -> str:
    said.seek(0)
    return " ".join(said.read(LONGEST_SAID).decode("utf-8", "replace").split())
