"""Files in which citizens are named: for their owner's eyes alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def require_private(path: Path) -> None:
    """Begin the file if it is not there, readable by its owner alone, whatever the umask; raises OSError.

    SQLite gives the files beside its own (-wal, -shm) the same mode. One that is there is not even opened: to close it
    would let go of SQLite's own locks on it (POSIX; sqlite.org/howtocorrupt.html, 2.2).
    """
    if not path.exists():
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
