"""The number of this boot: it rises at each start, whatever the clock says and wherever the power fails."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

from bega.clock import CLOCK_FLOOR_MS
from bega_protocols.checks import crc32
from bega_protocols.errors import ConfigError
from bega_protocols.record import next_boot

log = logging.getLogger(__name__)

COPIES = ("boot.a", "boot.b")
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def raise_boot(directory: Path, unix_s: int) -> int:
    """Return the number of the boot that begins now, kept in two copies in `directory`.

    One copy is whole at any moment, so a power cut in between costs nothing. Where the disk takes nothing, the time
    itself is the number, if the clock is set and past every number that was given: no other start has this second.
    Raises ConfigError if `directory` cannot be written, or the disk takes nothing and there is no such time.
    """
    last = max((_read(directory / copy) for copy in COPIES), default=0)
    boot = next_boot(last, unix_s)
    if not last and any((directory / copy).exists() for copy in COPIES):
        log.error("boot number lost, both copies are damaged; the clock gives a new one boot=%d", boot)
    faults = [fault for fault in [_keep(directory / copy, boot) for copy in COPIES] if fault]
    if len(faults) < len(COPIES):
        return boot
    why = faults[0].strerror
    if faults[0].errno not in DISK_FAULTS:
        raise ConfigError(
            f"{directory}: the boot number cannot be kept ({why}); give state_dir a place that can be written"
        )
    if unix_s <= last or unix_s * 1000 < CLOCK_FLOOR_MS:
        raise ConfigError(
            f"{directory}: the boot number cannot be kept ({why}), and the clock cannot stand in for it;"
            " make room on the disk, or see that it can be written"
        )
    log.error("boot number cannot be kept, the clock stands in for it boot=%d error=%s", boot, why)
    time.sleep(1)  # whoever starts after us does so in another second
    return boot


def _read(copy: Path) -> int:
    """Return the number in `copy`, 0 where it is missing, damaged, or on a sector that cannot be read any more."""
    try:
        number, check = copy.read_text(encoding="ascii").split()
        return int(number) if int(check, 16) == crc32(number.encode()) else 0
    except (OSError, ValueError):
        return 0


def _keep(copy: Path, boot: int) -> OSError | None:
    """Write one copy; return what prevented it. On a full disk it goes in the place of the old one."""
    text = f"{boot} {crc32(str(boot).encode()):08x}\n".encode("ascii")
    part = copy.with_name(copy.name + ".part")
    try:
        _write(part, "wb", text)
        part.replace(copy)
        _sync_directory(copy.parent)
    except OSError as error:
        try:
            part.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return error
            _write(copy, "r+b", text)
        except OSError:
            return error
    return None


def _write(file: Path, mode: str, text: bytes) -> None:
    with file.open(mode) as octets:
        octets.write(text)
        octets.flush()
        octets.truncate(len(text))
        os.fsync(octets.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
