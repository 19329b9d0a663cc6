"""What the page says is wrong: what the gateway knows by itself, what is seen of its ports, what an examination found.

One cause is said once: who is silent is left out where a port that is gone, or the last examination, explains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bega_gateway import node_status, status
from bega_gateway.doctor.finding import Finding, in_order
from bega_gateway.doctor.machine import of_spool
from bega_gateway.doctor.nodes import of_node
from bega_gateway.page import words, wrong
from bega_gateway.page.view import Seen, View, address, how
from bega_protocols.errors import ConfigError

MOST_FINDINGS = 12  # shown
EXAMINES_FOR_S = 120.0
EXAMINED_FOR_MS = 900_000  # so long is what was found shown
STOPS, STOPS_UPLINK = "This stops readings now.", "Readings wait here until it is mended."
NEW_FOR_MS = 15_000  # so long after the start nobody is missed


class Told(NamedTuple):
    """A finding as it is shown: a sentence, its place, and the page of that place, '' where there is none."""

    what: str
    where: str
    address: str
    evidence: str
    remedy: str
    stops: str


class _Examined(NamedTuple):
    at_ms: int
    found: list[Finding]


class Causes:
    """What is wrong with one gateway, as it is at this moment."""

    def __init__(self, seen: Seen, view: View) -> None:
        self._seen = seen
        self._view = view
        self._mono_ms = seen.ground.clocks.mono_ms
        self.began_ms = self._mono_ms()
        self._ports: list[Finding] = []
        self._examining = asyncio.Lock()
        self._examined: _Examined | None = None

    async def look(self) -> None:
        """See whether every port is there; none is opened. What cannot be seen is not wrong."""
        config = self._seen.config()
        try:
            self._ports = await asyncio.to_thread(lambda: list(self._seen.ports(config)))
        except OSError:
            self._ports = []

    async def examine(self) -> None:
        """Look closer, as `bega gateway doctor` does. One at a time; raises ConfigError for a second."""
        if self._examining.locked():
            raise ConfigError("Somebody has it look already; wait a minute.")
        async with self._examining, asyncio.timeout(EXAMINES_FOR_S):
            found = await self._seen.examine()
        self._examined = _Examined(self._mono_ms(), found)

    def shown(self) -> dict[str, Any]:
        """Return what the overview shows."""
        found = self._now()
        lately = self._lately()
        return {
            "findings": [self._told(each) for each in found[:MOST_FINDINGS]],
            "more_findings": max(0, len(found) - MOST_FINDINGS),
            "not_heard": sum(who.heard_mono_ms() is None for who in self._view.watched()),
            "examined": lately
            and {
                "ago": words.lasting(self._mono_ms() - lately.at_ms),
                "findings": [self._told(each) for each in lately.found[:MOST_FINDINGS]],
            },
        }

    def _now(self) -> list[Finding]:
        ground, config, publisher = self._seen.ground, self._seen.config(), self._seen.publisher
        now_ms = self._mono_ms()
        is_new = now_ms - self.began_ms < NEW_FOR_MS
        is_connected = publisher.connected_to is not None
        spool = ground.spool
        ports = self._view.of_shown(self._ports)
        silent = wrong.silent(self._view.watched(), {name: how(line) for name, line in config.lines.items()}, now_ms)
        known = wrong.of_gateway(
            spool.failing, spool.waiting, is_connected, is_new, spool.depth, ground.clocks.wall_ms()
        )
        stored = () if spool.failing else of_spool(status.of_spool(spool), Path(config.gateway.state_dir))
        return in_order(
            [
                *ports,
                *stored,
                *self._of_nodes(now_ms),
                *(each for each in (*known, *silent) if not self._is_explained(each, ports)),
            ]
        )

    def _of_nodes(self, now_ms: int) -> Iterator[Finding]:
        """Yield what nodes that are heard say is wrong with them, but what the last examination has said already."""
        lately = self._lately()
        told = {(each.cause, each.what) for each in lately.found} if lately else set()
        for who in self._view.watched():
            node = node_status.of(self._seen.ground.nodes, who.name, now_ms) if who.kind == "node" else None
            if node and not who.silent:
                yield from (each for each in of_node(who.name, node) if (each.cause, each.what) not in told)

    def _is_explained(self, finding: Finding, ports: Iterable[Finding]) -> bool:
        """Return whether something closer is said of the same thing."""
        lately = self._lately()
        said = {_place(each) for each in ports}
        if lately and not self._has_begun_since(finding, lately):
            said |= {_place(each) for each in lately.found if each.stops_readings}
        return _place(finding) in said or self._line_of(finding) in said

    def _has_begun_since(self, finding: Finding, examined: _Examined) -> bool:
        """Return whether somebody whom a finding is about was heard after an examination."""
        place = _place(finding)
        about = [who for who in self._view.watched() if place in (f"{who.kind}s.{who.name}", f"lines.{who.line}")]
        return any((who.heard_mono_ms() or 0) > examined.at_ms for who in about)

    def _line_of(self, finding: Finding) -> str:
        config = self._seen.config()
        kind, _, name = _place(finding).partition(".")
        table = config.devices.get(name) if kind == "devices" else config.nodes.get(name) if kind == "nodes" else None
        return f"lines.{table.line}" if table else ""

    def _lately(self) -> _Examined | None:
        """Return the last examination, None where it is long ago; without those who are not shown."""
        if self._examined is None or self._mono_ms() - self._examined.at_ms >= EXAMINED_FOR_MS:
            return None
        return self._examined._replace(found=self._view.of_shown(self._examined.found))

    def _told(self, finding: Finding) -> Told:
        """Return a finding as it is shown."""
        config = self._seen.config()
        first = finding.what.split(" ")[0]
        is_name = first in {*config.lines, *config.devices, *config.nodes, config.gateway.name}
        what = finding.what if is_name or not first.isalpha() else first[:1].upper() + finding.what[1:]
        kind, _, name = _place(finding).partition(".")
        ways = {
            "lines": f"/lines/{name}" if name in config.lines else "",
            "devices": address((config.gateway.name, name)) if name in config.devices else "",
            "nodes": address((name, "")) if name in config.nodes else "",
        }
        stops = STOPS_UPLINK if finding.where == "uplink" else STOPS
        return Told(
            what,
            finding.where,
            ways.get(kind, ""),
            finding.evidence,
            finding.remedy,
            stops if finding.stops_readings else "",
        )


def _place(finding: Finding) -> str:
    """Return what a finding is about: "lines.cellar" of "lines.cellar.port"."""
    return ".".join(finding.where.split(".")[:2])
