"""What the doctor looks with: clock, files, programs. Passed in, so that a test can bring a machine of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bega.clock import Clock, mono_ms, wall_ms

WITHIN_S = 5.0


def _nobody(said: str) -> None:
    pass


def said_by(command: Sequence[str]) -> str | None:
    """Return what a program prints, None where it is missing, fails or takes too long."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 else None


@dataclass(frozen=True)
class Look:
    """The machine, as it is seen."""

    wall_ms: Clock = wall_ms
    mono_ms: Clock = mono_ms
    root: Path = Path("/")  # whose etc, sys and dev are looked at
    said_by: Callable[[Sequence[str]], str | None] = said_by
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    listen_s: float = 11.0  # so long does a talker have to say something; a P1 meter before version 5 takes ten
    say: Callable[[str], None] = _nobody  # what is tried, since it takes its time
