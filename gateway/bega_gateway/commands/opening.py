"""From the table `[commands]` to a desk that takes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from bega.clock import Clock
from bega_gateway.commands.acts import Acts, Gateway
from bega_gateway.commands.desk import Desk, Seal, Store
from bega_gateway.commands.ledger import Ledger
from bega_gateway.commands.table import Commands
from bega_protocols.errors import ConfigError

log = logging.getLogger(__name__)

LEDGER = "commands.db"


class _NoSeal:
    """Of a gateway whose key cannot be used: no signature is good."""

    def fits(self, signature: str, signed: bytes) -> bool:
        return False


def opened(
    root: str, table: Commands, state: Path, executor: Executor, store: Store, gateway: Gateway, wall_ms: Clock
) -> tuple[Desk, Callable[[], Awaitable[None]]]:
    """Return what takes commands, and what closes its ledger. A key that cannot be used lets no command in."""
    ledger = Ledger(state / LEDGER)
    acts = Acts(gateway, table.led, wall_ms)
    seal = _seal(table)
    desk = Desk(root, ledger, executor, store, acts.prepare, wall_ms, seal=seal, per_second=table.per_second)

    async def close() -> None:
        await asyncio.get_running_loop().run_in_executor(executor, ledger.close)

    return desk, close


def _seal(table: Commands) -> Seal | None:
    if table.public_key is None:
        return None
    from bega_gateway.commands.signature import Seal as PublicKey  # cryptography costs memory

    try:
        return PublicKey(Path(table.public_key))
    except ConfigError as error:
        log.error("no command is taken error=%s", error)
        return _NoSeal()
