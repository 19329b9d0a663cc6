"""The number of this boot: it rises at each start, whatever the clock says and wherever the power fails."""

from __future__ import annotations

import os
from pathlib import Path

from bega_protocols.checks import crc32
from bega_protocols.errors import ConfigError
from bega_protocols.record import next_boot

COPIES = ("boot.a", "boot.b")


def raise_boot(directory: Path, unix_s: int) -> int:
    """Return the number of the boot that begins now, kept in two copies in `directory`.

    One copy is whole at any moment, so a power cut in between costs nothing.
    Raises ConfigError if `directory` cannot be written.
    """
    try:
        last = max((_read(directory / copy) for copy in COPIES), default=0)
        boot = next_boot(last, unix_s)
        for copy in COPIES:
            _write(directory / copy, boot)
    except OSError as error:
        why = f"{directory}: the boot number cannot be kept ({error.strerror})"
        raise ConfigError(f"{why}; give state_dir a place that can be written") from None
    return boot


def _read(copy: Path) -> int:
    """Return the number in `copy`, 0 where it is missing, damaged, or on a sector that cannot be read any more."""
    try:
        number, check = copy.read_text(encoding="ascii").split()
        return int(number) if int(check, 16) == crc32(number.encode()) else 0
    except (OSError, ValueError):
        return 0


def _write(copy: Path, boot: int) -> None:
    part = copy.with_name(copy.name + ".part")
    with part.open("w", encoding="ascii") as file:
        file.write(f"{boot} {crc32(str(boot).encode()):08x}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(copy)
    directory = os.open(copy.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
