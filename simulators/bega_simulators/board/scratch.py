"""A folder for what a board needs while it has power, gone afterwards also if the board was killed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "bega-board-"
LONGEST = 78  # of the path around it: a Unix socket's has at most 107 bytes, and our names in it

# Waits for the end of its input, which is ours, whatever ends us; it leads a session of its own, so that neither Ctrl-C
# nor a power cut (kill -9 of our process group) ends it too, and it is no child of ours: those are the board's parts.
REMOVER = 'exec 3<&0; { read -r nothing <&3; rm -rf -- "$0"; } >/dev/null 2>&1 &'


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a fresh folder in the temporary one, or in /tmp where that has too long a name for a socket in it."""
    usual = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=usual if len(usual) <= LONGEST else "/tmp"))  # noqa: S108
    remover = subprocess.Popen(["/bin/sh", "-c", REMOVER, folder], stdin=subprocess.PIPE, start_new_session=True)
    remover.wait()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        assert remover.stdin is not None
        remover.stdin.close()
