"""What is wrong, from what the gateway itself knows: what stops readings now comes first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bega.clock import CLOCK_FLOOR_MS
from bega_gateway.doctor.finding import CLOCK_UNSET, DEVICE, DISK, LINE, UPLINK, Finding
from bega_gateway.health import Watched
from bega_gateway.page import words


def silent(watched: Iterable[Watched], names: dict[str, str], now_ms: int) -> Iterator[Finding]:
    """Yield what is silent: a whole line as one finding, since it has one cause.

    names: how each line is reached, by its name. now_ms: the clock by which devices are heard.
    """
    lines: dict[str, list[Watched]] = {}
    for who in watched:
        lines.setdefault(who.line, []).append(who)
    for line, members in lines.items():
        quiet = [who for who in members if who.silent]
        if len(quiet) == len(members) and len(members) > 1:
            since_ms = now_ms - max(_heard_ms(who) for who in members)
            evidence = f"none of its {len(members)} devices was heard for {words.lasting(since_ms)}"
            remedy = f"look at {names.get(line, line)}: the adapter, the supply, the wires of the whole line"
            what = f"the whole line {line} is silent"
            yield Finding("line silent", what, f"lines.{line}", evidence, remedy, True, LINE)
            continue
        for who in quiet:
            lasts = words.lasting(now_ms - _heard_ms(who))
            evidence = f"never heard, waited for {lasts}" if who.heard_mono_ms() is None else f"last heard {lasts} ago"
            evidence += f"; {who.damaged()} damaged frames" if who.damaged() else "; not one damaged frame"
            others = len(members) - len(quiet)
            remedy = (
                "others on this line are heard: look at the device itself, its supply and its address"
                if others
                else f"look at {names.get(line, line)}, then at the device's supply and its wires"
            )
            where = f"{who.kind}s.{who.name}"
            yield Finding(f"{who.kind} silent", f"{who.name} is silent", where, evidence, remedy, True, DEVICE)


def of_gateway(
    disk_fails: bool, in_memory: int, is_connected: bool, is_new: bool, depth: int, wall_ms: int
) -> Iterator[Finding]:
    """Yield what is wrong with the gateway itself. is_new: it has had no time to connect yet."""
    if disk_fails:
        evidence = f"{in_memory} records wait in memory, and a power cut would lose them"
        remedy = "df -h; is the card full, or read-only?"
        what = "the disk takes nothing"
        yield Finding("disk takes nothing", what, "gateway.state_dir", evidence, remedy, True, DISK)
    if wall_ms < CLOCK_FLOOR_MS:
        remedy = "timedatectl; records go without a time until the clock is right"
        seen = "it shows a time before this release"
        yield Finding("clock not set", "the clock is wrong", "this machine", seen, remedy, False, CLOCK_UNSET)
    if not is_connected and not is_new:
        remedy = "Examine says why, and so does the log: journalctl -u bega-gateway -n 50"
        seen = f"{depth} messages wait on the disk, and none is lost"
        yield Finding("uplink down", "no broker can be reached", "uplink", seen, remedy, True, UPLINK)


def _heard_ms(who: Watched) -> int:
    heard_ms = who.heard_mono_ms()
    return who.since_ms if heard_ms is None else heard_ms
