"""Where a technician's machine keeps what is Bega's: sites, interpreter images, builds, reports, the bench book.

$BEGA_DATA if it is set, else `bega` in the XDG Base Directory Specification's data home ($XDG_DATA_HOME, or
~/.local/share where that is not set or not absolute).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bega_protocols.errors import ConfigError

OWNER_ALONE = 0o700  # secrets of sites lie in it


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder, made if it was not there, the owner's alone. Raises ConfigError if it cannot be."""
    folder = _place(environment)
    try:
        folder.mkdir(OWNER_ALONE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}): set BEGA_DATA to a folder of yours") from None
    return folder


def _place(environment: Mapping[str, str]) -> Path:
    own = environment.get("BEGA_DATA", "")
    if own:
        return Path(own).expanduser().absolute()
    home = Path(environment.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path("~/.local/share").expanduser()) / "bega"
