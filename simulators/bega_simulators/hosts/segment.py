"""The port of a wire that many devices share: a pseudo-terminal, and the thread that carries its bytes.

What the wire makes of them is for its kind: rs485.py, mbus.py. Each computes it in the wire's own time, character by
character, and is told here when to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pty
import select
import threading
import time
import tty
from pathlib import Path
from typing import Self

BITS_A_CHARACTER = 11
MOST_WAITING_S = 0.05  # the segment looks at least this often whether it shall stop
PR_SET_TIMERSLACK = 29


class Segment:
    """A wire behind a port that can be pulled out. Its kinds say what is due when, and what the wire does."""

    def __init__(self, link: Path | None) -> None:
        """link: a name for the port that stays when it is unplugged and plugged in again."""
        self._link = link
        self._master = self._slave = -1
        self.port = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # between `unplug` and the moment in which the wire uses the port

    def open(self) -> str:
        """Make the port and return its path: the link if there is one. Again after `unplug`."""
        with self._lock:
            self._master, self._slave = pty.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.port = os.ttyname(self._slave)
            if self._link:
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(self.port)
                self.port = str(self._link)
        return self.port

    def unplug(self) -> None:
        """Take the port away, as when the adapter is pulled out; `open` plugs it in again."""
        with self._lock:
            for descriptor in (self._master, self._slave):
                if descriptor >= 0:
                    os.close(descriptor)
            self._master = self._slave = -1
            if self._link:
                self._link.unlink(missing_ok=True)

    def run(self, stop: threading.Event) -> None:
        """Carry the bytes until `stop` is set; meant for a thread of its own."""
        _be_punctual()
        while not stop.is_set():
            self._wait()
            octets = self._read()
            if octets:
                self._hear_master(octets, time.monotonic())
            self._advance(time.monotonic())

    async def serve(self) -> None:
        """Carry the bytes until cancelled, in a thread so that the event loop's pauses do not reach the wire."""
        self._stop.clear()
        try:
            await asyncio.to_thread(self.run, self._stop)
        finally:
            self._stop.set()

    def __enter__(self) -> Self:
        if self._master < 0:
            self.open()
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, args=(self._stop,), name=type(self).__name__, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, if there is one, and take the port away."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        self.unplug()

    # What each kind of wire does.

    def _due_s(self, now_s: float) -> float:
        """Return when something happens on the wire next, by the monotonic clock; infinity if nothing will."""
        raise NotImplementedError

    def _hear_master(self, octets: bytes, now_s: float) -> None:
        """Take what the master has written."""
        raise NotImplementedError

    def _advance(self, now_s: float) -> None:
        """Let happen what is due."""
        raise NotImplementedError

    # What each kind of wire uses.

    def _tell_master(self, octet: int) -> None:
        with self._lock:
            if self._master >= 0:
                with contextlib.suppress(OSError):  # nobody reads: a wire has no memory
                    os.write(self._master, bytes([octet]))

    def _wait(self) -> None:
        """Sleep until something is due, or the master speaks."""
        now_s = time.monotonic()
        pause_s = min(max(0.0, self._due_s(now_s) - now_s), MOST_WAITING_S)
        master = self._master
        if master < 0:
            time.sleep(min(pause_s, 0.01))
            return
        with contextlib.suppress(OSError, ValueError):  # unplugged while we wait
            select.select([master], (), (), pause_s)

    def _read(self) -> bytes:
        with self._lock:
            if self._master < 0:
                return b""
            try:
                return os.read(self._master, 4096)
            except OSError:  # nothing there
                return b""


def _be_punctual() -> None:
    """Let this thread be woken when it asked for it, not up to 50 us later: half a character at 115200 baud.

    prctl(2), PR_SET_TIMERSLACK in ns. A system without it is only less punctual.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
