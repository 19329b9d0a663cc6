"""Tasks that run as long as a block of code, and end it where one of them has a defect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bega_gateway.build import Work

log = logging.getLogger(__name__)


@asynccontextmanager
async def owned(works: list[tuple[str, Work]]) -> AsyncIterator[None]:
    """Run `works` while the block runs, and end them with it; a defect in one of them ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_named(name, work), name=name) for name, work in works]
        yield
        for task in tasks:
            task.cancel()


async def _named(name: str, work: Work) -> None:
    """Run a task that should never end by itself; a defect in it is logged with its name and ends the gateway."""
    try:
        await work()
    except Exception:
        log.exception("task failed name=%s", name)
        raise
    finally:
        log.debug("task ended name=%s", name)
