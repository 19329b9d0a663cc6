"""One gateway to a state directory: two would take each other's ids, and the second one's records would be lost."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from bega_protocols.errors import ConfigError

log = logging.getLogger(__name__)


def hold_alone(directory: Path) -> int:
    """Return a descriptor that holds `directory` for this process, until it is closed or the process ends.

    The directory itself is locked, not a file in it: that works on a disk that takes nothing, too.
    Raises ConfigError if another process holds it, or it may not be read.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        why = f"gateway.state_dir: {directory} cannot be opened ({error.strerror})"
        raise ConfigError(f"{why}; see who owns it") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"gateway.state_dir: a gateway already runs with the state in {directory};"
            " stop it first (systemctl stop bega-gateway)"
        ) from None
    except OSError as error:  # a file system without locks
        log.warning("nothing prevents a second gateway on this state directory error=%s", error.strerror)
    return descriptor
