"""Processes of ours, started by their own commands, and none of them left behind.

Each child leads a session of its own: Ctrl-C in the terminal reaches only us, and we end the child with all that it
started. Should we be killed outright, a keeper process notices that our pipe to it closed, and ends them for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LOOK_AGAIN_S = 0.05
GRACE_S = 2.0  # every command of Bega ends within two seconds of SIGTERM
# Reads "+group" and "-group" lines; at the end of its input it ends the groups that are left.
KEEPER = f"""
import os, signal, sys, time
left = set()
for line in sys.stdin:
    (left.add if line[0] == "+" else left.discard)(int(line[1:]))
for how in (signal.SIGTERM, signal.SIGKILL):
    for group in left:
        try:
            os.killpg(group, how)
        except OSError:
            pass
    if left and how == signal.SIGTERM:
        time.sleep({GRACE_S})
"""


class Child:
    """One process, its log, and the file in which it says that it is up."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log_path(directory, name)
        self.ready_file = ready_path(directory, name)
        self._process = process

    @property
    def ended(self) -> bool:
        """Return whether it has ended; it keeps its number until it is reaped, so its group is still ours to end."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> int:
        """Return the exit code of a child that has ended."""
        return self._process.wait()

    def ready(self) -> dict[str, Any] | None:
        """Return what it wrote once it was up, None before."""
        with contextlib.suppress(OSError, ValueError):
            facts: dict[str, Any] = json.loads(self.ready_file.read_text(encoding="utf-8"))
            return facts
        return None

    def last_words(self) -> str:
        """Return what it said of its end: a command that cannot go on says in one line what is missing and what to do.

        Of a command that broke, the last line of its log, and where the rest is.
        """
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        sentences = [line for line in lines if line.startswith("bega ")]
        return sentences[-1] if sentences else f"{(lines or ['it said nothing'])[-1].strip()} ({self.log})"


class Children:
    """All of them. `stop` ends every one, with what it started, within three seconds."""

    def __init__(self, directory: Path) -> None:
        """directory: for logs, ready files and the children's temporary files (TMPDIR); BEGA_DEMO names it to them."""
        self._directory = directory
        self._all: list[Child] = []
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", KEEPER], stdin=subprocess.PIPE, start_new_session=True
        )

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start `bega COMMAND...`."""
        ready_path(self._directory, name).unlink(missing_ok=True)
        surroundings = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "BEGA_DEMO": str(self._directory),
            "TMPDIR": str(self._directory),
        }
        with log_path(self._directory, name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bega", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=surroundings | dict(environment or {}),
                start_new_session=True,
            )
        self.keep(process.pid)
        child = Child(name, process, self._directory)
        self._all.append(child)
        return child

    def keep(self, group: int) -> None:
        """Have a process group ended if we should die: also one that somebody else of us started."""
        self._tell_keeper(f"+{group}")

    def release(self, group: int) -> None:
        self._tell_keeper(f"-{group}")

    async def until_ready(self, child: Child, timeout_s: float) -> dict[str, Any] | None:
        """Return what the child says once it is up, or None if it ended or took longer."""
        await _until(lambda: child.ready() is not None or child.ended, timeout_s)
        return child.ready()

    async def until_ended(self, child: Child, timeout_s: float) -> int | None:
        """Return the exit code, or None if the child is still busy after `timeout_s`."""
        return self._bury(child) if await _until(lambda: child.ended, timeout_s) else None

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """End all children in order; whoever is still there after `grace_s` is ended by force."""
        for child in self._all:
            os.kill(child.pid, signal.SIGTERM)
        await _until(lambda: all(child.ended for child in self._all), grace_s)
        for child in list(self._all):
            self._bury(child)

    def close(self) -> None:
        """Let the keeper go; after this nobody watches over us."""
        with contextlib.suppress(BrokenPipeError):
            self._keeper.communicate()

    def _bury(self, child: Child) -> int:
        """End what the child left behind, then the child; return its exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        exit_code = child.reap()
        self.release(child.pid)
        self._all.remove(child)
        return exit_code

    def _tell_keeper(self, line: str) -> None:
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody ended the keeper: we still end our children ourselves
            self._keeper.stdin.write(line.encode() + b"\n")
            self._keeper.stdin.flush()


async def _until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether `done` came true within `timeout_s`."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while not done():
        if asyncio.get_running_loop().time() > deadline_s:
            return False
        await asyncio.sleep(LOOK_AGAIN_S)
    return True


def log_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.log"


def ready_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.ready.json"
