"""The gateway's state directory and what is opened in it: places that cannot be used are said in words."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bega.outbox.spool import Spool
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega_gateway.config import Gateway


async def open_spool(path: Path, executor: ThreadPoolExecutor, table: Gateway) -> Spool:
    """Return the spool at `path`; raises ConfigError."""
    try:
        quota_bytes = table.spool_quota_mb * 1_000_000
        return await Spool.open(path, executor, window_s=table.commit_window_s, quota_bytes=quota_bytes)
    except sqlite3.OperationalError as error:
        why = f"gateway.state_dir: {path} cannot be opened ({error})"
        raise ConfigError(f"{why}; see who owns it, and whether the disk is full") from None


async def settle(spool: Spool, table: Gateway) -> None:
    """Let the spool run by `table` from now on; raises sqlite3.Error."""
    await spool.settle(table.commit_window_s, table.spool_quota_mb * 1_000_000)


def make_state_dir(state: Path) -> None:
    """Make the directory unless it is there; raises ConfigError."""
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"gateway.state_dir: {state} cannot be made ({error.strerror})"
        raise ConfigError(f"{why}; give a place that the gateway's user may write") from None


def thread_of(stack: AsyncExitStack, name: str) -> ThreadPoolExecutor:
    """Return a thread that the stack lets go of, without a wait for a disk that hangs."""
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    stack.callback(executor.shutdown, wait=False)
    return executor
