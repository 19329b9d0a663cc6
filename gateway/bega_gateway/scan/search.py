"""What a scan looks for, and what its parts share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_gateway.scan.findings import Findings
    from bega_gateway.scan.progress import Progress

PSEUDO = "/dev/pts/"  # where pseudo terminals are


@dataclass(frozen=True)
class Search:
    """One scan."""

    findings: Findings
    progress: Progress
    mono_ms: Clock
    listen_s: float  # so long does a talker have to say something; 0: nobody is listened to
    units: Sequence[int]  # of Modbus
    modbus_rates: Sequence[tuple[int, str]]  # baud and parity
    mbus_bauds: Sequence[int]


def note_of(error: object) -> str:
    """Return what a line says of its failure, without the promise to try again: a scan does not."""
    return str(error).removesuffix("trying again").rstrip("; ")


def taken_frame(port: str, frame: str) -> str:
    """Return the frame to open `port` with: a pseudo terminal knows no parity and refuses one."""
    return "8N1" if os.path.realpath(port).startswith(PSEUDO) else frame


def holder(port: str) -> str:
    """Return the program that has `port` open, as "minicom (pid 812)", or '' if none is seen.

    Only root sees those of other users. A pseudo terminal is always held by who made it.
    """
    device = os.path.realpath(port)
    if device.startswith(PSEUDO):
        return ""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        try:
            held = any(os.path.realpath(link) == device for link in (process / "fd").iterdir())
            if held:
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # it ended, or it is another's
            continue
    return ""
