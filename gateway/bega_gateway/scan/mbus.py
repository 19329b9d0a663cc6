"""Wired M-Bus: every meter on a segment, by secondary and by primary address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bega_gateway.lines.wire_serial import SerialWire
from bega_gateway.scan.attempt import drivers_on, loaded, measured
from bega_gateway.scan.findings import name_of_port
from bega_gateway.scan.search import taken_frame
from bega_protocols.mbus import MEDIA, reset
from bega_protocols.mbus_search import PrimarySearch, SecondarySearch, secondary_text

if TYPE_CHECKING:
    from bega_gateway.scan.findings import FoundLine
    from bega_gateway.scan.search import Search
    from bega_protocols.mbus_search import Identity

USUAL_BAUD = 2400  # what a driver takes where its settings say nothing
USUAL_PARITY = "E"
EVERYBODY = 254  # each meter acknowledges at this address, whatever its own is
TIMES = 2


async def scan_segment(search: Search, port: str, about: str) -> bool:
    """Look for meters at each of the usual rates; return whether there were any. Raises LineError.

    The meters of a segment have one rate: where some answered, no other is tried.
    """
    frame = taken_frame(port, f"8{USUAL_PARITY}1")
    for baud in search.mbus_bauds:
        table: dict[str, Any] = {"port": port, "baud": baud}
        if frame[1] != USUAL_PARITY:
            table["parity"] = frame[1]
        line = search.findings.line(name_of_port(port), "mbus", about, table)
        segment = _Segment(search, SerialWire(port, baud, frame, search.mono_ms), line, baud)
        await segment.scan()
        if line.devices:
            return True
        search.findings.withdraw(line)
    return False


class _Segment:
    """One port at one rate, and who was found there."""

    def __init__(self, search: Search, wire: SerialWire, line: FoundLine, baud: int) -> None:
        self._search = search
        self._wire = wire
        self._line = line
        self._baud = baud
        self._port: str = line.table["port"]
        self._known: list[Identity] = []

    async def scan(self) -> None:
        """Add each meter; raises LineError.

        The secondary search comes first: it finds meters that share a primary address. The primary one finds those that
        know no other.
        """
        await self._wire.open()
        try:
            if not await self._somebody_is_there():
                return
            await self._carry_out(SecondarySearch(self._baud), "secondary")
            primary = PrimarySearch(self._baud)
            await self._carry_out(primary, "primary")
            taken = {identity.primary for identity in self._known}
            lost = [str(address) for address in primary.collisions if address not in taken]
            if lost:
                why = "several meters answer at once, and none has a secondary address"
                self._search.findings.notes.append(f"{self._port}: M-Bus address {', '.join(lost)}: {why}")
        finally:
            self._wire.close()

    async def _somebody_is_there(self) -> bool:
        """Return whether something comes each time upon a question to everybody: all addresses would take a minute.

        What comes may be destroyed, since all answer at once; an echo of the question is nobody.
        """
        self._search.progress.step(self._port, f"M-Bus at {self._baud}")
        ask = reset(EVERYBODY, self._baud)
        answers = [await self._wire.exchange(ask) for _ in range(TIMES)]
        return all(answer and not answer.startswith(ask.write) for answer in answers)

    async def _carry_out(self, searching: PrimarySearch | SecondarySearch, by: str) -> None:
        """Put each question of a search, and add a meter once it is known: a scan may be broken off."""
        asks = searching.asks()
        answer: bytes | None = None
        while True:
            try:
                ask = asks.send(answer)
            except StopIteration:
                break
            finally:
                for identity in searching.found:
                    if identity not in self._known:
                        self._known.append(identity)
                        await self._add(identity)
            what = f"M-Bus by {by} address at {self._baud}"
            self._search.progress.step(self._port, what, searching.done, searching.total)
            answer = await self._wire.exchange(ask)

    async def _add(self, identity: Identity) -> None:
        address: int | str | None = secondary_text(identity) if identity.identification else identity.primary
        settings: dict[str, Any] = {"address": address}
        if self._baud != USUAL_BAUD:
            settings["baud"] = self._baud
        medium = MEDIA.get(identity.medium or 0, "a medium without a name")
        at = "" if identity.primary is None else f", primary address {identity.primary}"
        heard = f"{medium}, {address}{at}, answered at {self._baud} baud"
        self._search.progress.say(f"{self._port}: {heard}")
        for name in drivers_on("mbus"):
            driver = loaded(name, settings)
            if driver is None:
                continue
            outcome = await measured(self._wire, driver, self._search.mono_ms)
            lacks = "" if outcome.readings else f"it answered, and gave no reading ({outcome.damage or 'none known'})"
            facts = {"readings": outcome.readings, "attributes": outcome.attributes, "lacks": lacks}
            called = f"{medium}-{identity.identification or address}"
            self._search.findings.add(self._line, called, name, settings, heard=heard, **facts)
            return
