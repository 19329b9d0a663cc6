"""What is wrong with a cable, in sentences: what was seen at which port, and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from serial import serial_for_url

PROC = Path("/proc")
ROM_ANSWERS = b"\xc0\x01\x08"  # the head of an answer to a sync, in SLIP
ROM_WAITS = re.compile(rb"waiting for download|invalid header: 0x")
MOSTLY_TEXT = 0.8
ERRNO = re.compile(r"OSError: (?:\[Errno )?-?(\d+)")
ERRORS = {
    2: "a file that was asked for is not on it",
    5: "its flash fails, or its file system is broken: flash it anew",
    19: "it has no file system: flash it, or let one be made",
    28: "its flash is full: `bega node wipe`, or a smaller firmware",
}


def no_port(port: str) -> str:
    """Return why `port` could not be opened."""
    if "://" in port:
        scheme = port.partition("://")[0]
        if scheme not in ("socket", "rfc2217"):
            return f"{port} is no port: a device as /dev/ttyUSB0, or socket://HOST:PORT, or rfc2217://HOST:PORT"
        return f"nobody answers at {port}: is the board there, and its port number the one of this start?"
    path = Path(port)
    if not path.exists():
        return f"there is no port {port}: is the board plugged in? It may have another name by now: look in /dev"
    if holder := who_holds(port):
        return f"{port} is held by {holder}: end that program"
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group(path)
        return f"{port} may not be used by you: `sudo usermod -a -G {group} $USER`, then log in anew"
    if _error_of(port) == "lock":
        return f"{port} is held by another program, perhaps one of another user: end it"
    return f"{port} cannot be opened: it is no serial port, or its adapter hangs; pull it and plug it in"


def no_answer(port: str, heard: bytes, when: str = "", rom: bytes = b"") -> str:
    """Return why no prompt came. heard: what did; rom: what came when a ROM was asked."""
    if ROM_ANSWERS in rom or ROM_WAITS.search(heard):
        return f"the board at {port} waits in its ROM, there is nothing on it to run: `bega node flash --port {port}`"
    if holder := who_holds(port):
        return f"no prompt at {port}, which {holder} has open too and takes the answers: end that program"
    if not heard:
        said = " ".join(word for word in ("the board at", port, "does not answer", when) if word)
        return (
            f"{said}: has it power, is it awake (press EN), and does the cable carry data? Some only charge: "
            "take another one"
        )
    text = sum(32 <= octet < 127 or octet in b"\r\n\t\x1b" for octet in heard)
    if text < MOSTLY_TEXT * len(heard):
        return f"what comes from {port} is no text: is it a board with MicroPython, at 115200 baud?"
    return f"the program on the board at {port} does not let go: press EN, and try again at once"


def too_slow(port: str, within_s: float) -> str:
    """Return what an answer means that does not come, from a board that answered before."""
    return (
        f"the board at {port} began what it was told and has not ended it in {within_s:.0f} s: "
        "press EN, look at the cable, and run the same command again"
    )


def pulled(port: str, error: OSError) -> str:
    """Return what happened when a port that was open fails."""
    gone = "://" not in port and not Path(port).exists()
    what = "the cable was pulled, or the board lost its power" if gone or error.errno == 5 else "the connection broke"
    return f"{port}: {what}: plug it in and run the same command again, it goes on where it was"


def refusal(port: str, traceback: str) -> str:
    """Return what a traceback of the board means."""
    last = traceback.splitlines()[-1].strip()
    number = ERRNO.match(last)
    if number and (meaning := ERRORS.get(int(number[1]))):
        return f"the board at {port}: {meaning} ({last})"
    if last.startswith("MemoryError"):
        return f"the board at {port} has no memory left for this: press EN, and try again"
    return f"the board at {port} says: {last}"


def who_holds(port: str) -> str:
    """Return the name and number of another process that has this port open, '' if none can be seen."""
    if "://" in port:
        return ""
    place = os.path.realpath(port)
    for process in PROC.glob("[0-9]*"):
        if process.name != str(os.getpid()) and place in _open_files(process):
            try:
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
            except OSError:
                continue
    return ""


def _open_files(process: Path) -> Iterator[str]:
    try:
        for file in (process / "fd").iterdir():
            try:
                yield str(file.readlink())
            except OSError:
                continue
    except OSError:
        return  # another user's, or gone


def _group(path: Path) -> str:
    try:
        return path.group()
    except (KeyError, OSError):
        return "dialout"


def _error_of(port: str) -> str:
    """Return "lock" if a port cannot be had for oneself."""
    try:
        serial_for_url(port, exclusive=True).close()
    except (OSError, ValueError) as error:
        return "lock" if "lock" in str(error) else "other"
    return ""
