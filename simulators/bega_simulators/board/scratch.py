"""A folder for what a board needs while it has power, gone afterwards also if the board was killed."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Waits for the end of its input, which is ours, whatever ends us; it leads a session of its own, so that neither Ctrl-C
# nor a power cut (kill -9 of our process group) ends it too.
REMOVER = 'read -r nothing; rm -rf -- "$0"'


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a fresh folder in the temporary one."""
    folder = Path(tempfile.mkdtemp(prefix="bega-board-"))
    remover = subprocess.Popen(["sh", "-c", REMOVER, folder], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield folder
    finally:
        remover.communicate()
