"""How a rollout is, as data and in words: for `bega update status`, `bega gateway status`, doctor and metrics."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bega_gateway.updates.rollout import IN_HAND, RINGS, Quiet, Rollout, Seat

GOING_BACK = ("to go back", "gone back")
STATES = ("confirmed", "trial", "ready", "loading", "offered", "waiting", "failed", "left out", *GOING_BACK)


class OfUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, without the names of nodes."""

    hardware: str
    version: str
    state: str  # "running", "stopped", "over", "going back"
    why: str = ""  # it was stopped
    ring: str = ""  # whose turn it is
    nodes: int = 0
    counts: dict[str, int] = {}
    away: int = 0  # nodes that are waited for and not heard

    @property
    def is_stopped(self) -> bool:
        """Whether somebody must decide how it goes on."""
        return self.state == "stopped"


def of_rollout(rollout: Rollout, quiet_ms: Quiet) -> OfUpdate:
    """Return how a rollout is now."""
    counts = rollout.count()
    return OfUpdate(
        hardware=rollout.hardware,
        version=rollout.version,
        state=_state(rollout),
        why="" if rollout.is_going_back else rollout.stopped,
        ring="" if rollout.is_over else RINGS[rollout.ring],
        nodes=len(rollout.seats),
        counts={state: counts[state] for state in STATES if counts[state]},
        away=len(rollout.away(quiet_ms)),
    )


def line(update: OfUpdate) -> str:
    """Return how it is in one line."""
    counts = update.counts
    in_hand = sum(counts.get(state, 0) for state in IN_HAND)
    parts = [
        f"update {update.version} for {update.hardware}: {counts.get('confirmed', 0)} of {update.nodes} confirmed",
        f"ring {update.ring!r}" if update.ring and update.state == "running" else "",
        f"{in_hand} in hand" if in_hand else "",
        f"{update.away} away" if update.away else "",
        *(f"{counts[state]} {state}" for state in ("failed", "left out", "to go back", "gone back") if state in counts),
        {"running": "", "stopped": f"stopped: {update.why}", "over": "over", "going back": "going back"}[update.state],
    ]
    return ", ".join(part for part in parts if part)


def words(rollout: Rollout, quiet_ms: Quiet) -> Iterator[str]:
    """Yield how it is, first in one line, then node by node: those that need a word."""
    yield line(of_rollout(rollout, quiet_ms))
    away = set(rollout.away(quiet_ms))
    for node, seat in sorted(rollout.seats.items(), key=lambda row: (STATES.index(row[1].state), row[0])):
        if said := _of_seat(seat, node in away):
            yield f"  {node}: {said}"


def facts(rollout: Rollout, quiet_ms: Quiet) -> dict[str, object]:
    """Return all of it for a machine."""
    nodes = {
        node: {"ring": RINGS[seat.ring], "state": seat.state, "why": seat.why, "firmware": seat.firmware}
        | ({"got": seat.got, "of": seat.of} if seat.state == "loading" else {})
        for node, seat in sorted(rollout.seats.items())
    }
    whole: dict[str, object] = msgspec.to_builtins(of_rollout(rollout, quiet_ms))
    return {**whole, "sha256": rollout.sha256, "expires": rollout.expires_s, "of_nodes": nodes}


def _state(rollout: Rollout) -> str:
    if rollout.is_going_back:
        return "over" if rollout.is_over else "going back"
    if rollout.stopped:
        return "stopped"
    return "over" if rollout.is_over else "running"


def _of_seat(seat: Seat, is_away: bool) -> str:
    parts = [
        seat.state if seat.state != "confirmed" else "",
        f"{100 * seat.got // seat.of} %" if seat.of and seat.state == "loading" else "",
        seat.why,
        f"runs {seat.firmware}" if seat.state in ("failed", "gone back") and seat.firmware else "",
        "not heard, it is waited for" if is_away else "",
    ]
    told = [part for part in parts if part]
    return ", ".join(told) if told != ["waiting"] else ""
