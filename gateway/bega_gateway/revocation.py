"""Which nodes are revoked, as the authority's list says: the gateway believes nothing of them, over whatever wire.

The list comes by a command (`revoke`) or with the broker's, which `bega broker revoke` wrote; the newer one counts.
Who may write either file changes nothing by it: each is believed for its signature alone, and only while its number
rises. The command's is kept in the state directory, where a systemd path unit sees it and brings it to the broker.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from bega.revocation import RevocationList, understood
from bega_gateway.broker.identity import LIST, trusted_in
from bega_gateway.broker.place import put
from bega_gateway.config.tables import Revocation
from bega_protocols.errors import ConfigError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
HEEDED_WITHIN_S = 20.0
HEEDED_LOOK_S = 0.25

Stamp = tuple[int, int, int]


class Revocations:
    """The newest list that could be believed."""

    def __init__(self, table: Revocation, state: Path) -> None:
        """Read what is there; what cannot be read or believed is said, and looked at again when it changes."""
        self._ca_file = Path(table.ca_file)
        self._own = state / LIST
        self._brokers = Path(table.broker_list) if table.broker_list else None
        self._stamps: dict[Path, Stamp | None] = {}
        self._newest: RevocationList | None = None
        self._of_broker = 0  # the number of the list that the broker has
        self.look()

    @property
    def number(self) -> int:
        """Return the number of the newest list, 0 without one."""
        return self._newest.number if self._newest else 0

    def is_barred(self, node: str) -> bool:
        """Return whether nothing of `node` is to be believed."""
        return self._newest is not None and node in self._newest.barred

    async def run(self) -> None:
        """Look for a newer list until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Read each file that changed."""
        for path in filter(None, (self._own, self._brokers)):
            stamp = _stamp(path)
            if stamp == self._stamps.get(path):
                continue
            self._stamps[path] = stamp
            if stamp is None:
                continue
            try:
                found = self.understood(path.read_bytes(), str(path))
            except (ConfigError, OSError) as error:
                log.error("list of revoked certificates cannot be used error=%s", error)
                continue
            if path == self._brokers:
                self._of_broker = found.number
            self._believe(found)

    def understood(self, pem: bytes, where: str) -> RevocationList:
        """Return a list that the authority signed; raises ConfigError for any other, and for one that is too old."""
        found = understood(pem, trusted_in(self._ca_file), where)
        if found.number < self.number:
            raise ConfigError(f"{where}: is list {found.number}, and list {self.number} is here already")
        return found

    async def take(self, found: RevocationList) -> bool:
        """Go by a list that was understood, and keep it; return whether the broker has it too, after a while.

        Raises ConfigError if it cannot be kept: it counts until the next start all the same.
        """
        self._believe(found)
        is_again = put(self._own, found.pem, 0o644).startswith("same")
        if self._brokers is None:
            return True
        if is_again and self._of_broker < found.number:  # systemd's path unit is to try again: systemd.path(5)
            self._own.touch()
        try:
            async with asyncio.timeout(HEEDED_WITHIN_S):
                while self._of_broker < found.number:
                    await asyncio.sleep(HEEDED_LOOK_S)
                    self.look()
        except TimeoutError:
            return False
        return True

    def _believe(self, found: RevocationList) -> None:
        if found.number <= self.number:
            return
        new = found.revoked_since(self._newest)
        self._newest = found
        log.warning(
            "list of revoked certificates number=%d revoked=%d new=%d", found.number, len(found.entries), len(new)
        )


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
