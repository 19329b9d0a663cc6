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
            remedy = f"Look at {names.get(line, line)}: the adapter, the supply, the wires of the whole line."
            what = f"Line {line} is silent"
            yield Finding("line silent", what, f"lines.{line}", evidence, remedy, True, LINE)
            continue
        for who in quiet:
            never = "never, since the start" if who.heard_mono_ms() is None else "until then it was heard"
            evidence = f"silent for {words.lasting(now_ms - _heard_ms(who))}; {never}; {who.damaged()} damaged frames"
            others = len(members) - len(quiet)
            remedy = (
                "Others on this line are heard: look at the device itself, its supply and its address."
                if others
                else f"Look at {names.get(line, line)}, then at the device's supply and its wires."
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
        what = "The disk takes nothing"
        yield Finding("disk takes nothing", what, "gateway.state_dir", evidence, remedy, True, DISK)
    if wall_ms < CLOCK_FLOOR_MS:
        remedy = "timedatectl; records go without a time until the clock is right."
        seen = "it shows a time before this release"
        yield Finding("clock not set", "The clock is wrong", "this machine", seen, remedy, False, CLOCK_UNSET)
    if not is_connected and not is_new:
        remedy = "Nothing is lost: records wait here. The log says why: journalctl -u bega-gateway"
        seen = f"{depth} messages wait in the spool"
        yield Finding("uplink down", "No broker can be reached", "uplink", seen, remedy, False, UPLINK)


def _heard_ms(who: Watched) -> int:
    heard_ms = who.heard_mono_ms()
    return who.since_ms if heard_ms is None else heard_ms
