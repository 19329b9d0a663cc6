"""Whose the state is: root, running a gateway once by hand, must leave no file that the service cannot open."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from bega_protocols.errors import ConfigError

ROOT = 0
KEPT = ("spool.db", "feed.db", "boot.")  # how the names begin of what a start opens
SHARED = stat.S_IWGRP | stat.S_IWOTH


def require_owner(state: Path, user: int) -> None:
    """Raise ConfigError if a gateway of `user` would spoil the state of another user, or finds files of another.

    What may not even be looked at is left to whoever opens it.
    """
    try:
        owner = state.stat().st_uid
        files = [path for path in state.iterdir() if path.name.startswith(KEPT) and ".damaged" not in path.name]
        strange = [path for path in files if not _is_usable(path.lstat(), user)]
    except OSError:
        return
    if user == ROOT and owner != ROOT:
        name = _name(owner)
        raise ConfigError(
            f"gateway.state_dir: {state} belongs to {name}, who could not open what root writes there;"
            f" run it as that user: sudo -u {name} ..."
        )
    if user != ROOT and strange:
        name = _name(user)
        raise ConfigError(
            f"gateway.state_dir: {strange[0]} belongs to {_name(strange[0].lstat().st_uid)}, not to {name}, who runs"
            f" this: sudo chown -R {name}: {state}"
        )


def _is_usable(status: os.stat_result, user: int) -> bool:
    return status.st_uid == user or bool(status.st_mode & SHARED)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
