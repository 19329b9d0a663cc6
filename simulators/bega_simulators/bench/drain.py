"""The broker was away for a day: how fast the spool drains, and how late live records are meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bega.broker import free_port
from bega_protocols.errors import LineError
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.plots import Series, plot
from bega_simulators.bench.programs import (
    Process,
    Programs,
    devices,
    eventually,
    gateway_configuration,
    tcp_lines,
)
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.usage import percentile, rss_bytes

METERS, FLOATS, COMMIT_WINDOW_S = 100, 30, 1.0
LIVE_METERS, LIVE_EVERY_S = 3, 2.0  # 90 records a minute
DAY_RECORDS = 90 * 60 * 24
FILL_EVERY_S, FILL_S = 0.04, 240.0
QUIET_S = 5.0  # nothing of the backlog has come for so long: it is over
PATIENCE_S = 600.0
RATE = Goal("20 times the live rate", 20.0, tolerance=0.1, at_least=True)
LATE = Goal("live records at most 60 s late", 60.0, tolerance=0.05)
BIN_S = 0.5


def drain(bench: Bench) -> Findings:
    """Let the gateway itself fill its spool with what a day brings; then let it drain beside live records."""
    wanted = bench.count(DAY_RECORDS, 1500)
    with Programs(bench.directory / "drain") as programs:
        farm, ports = programs.farm(METERS, FLOATS)
        bench.say(f"drain: filling a spool with {wanted} records, no broker")
        filled = _fill(programs, farm, ports, wanted)
        bench.say(f"drain: {sum(filled)} records wait, the broker is back")
        broker = programs.broker()
        subscriber = programs.subscriber(broker.port, FLOATS)

        def configuration(directory: Path) -> str:
            table = devices([f"l{number}" for number in range(LIVE_METERS)], LIVE_EVERY_S)
            lines = tcp_lines(ports[:LIVE_METERS])
            return gateway_configuration(directory, [broker.port], lines, table, COMMIT_WINDOW_S)

        gateway = programs.gateway("gateway", configuration, FLOATS)
        subscriber.ask("begin")
        boot = gateway.start()
        _until_quiet(subscriber, sum(filled) - METERS)
        rss_mb = rss_bytes(gateway.pid) / 1e6
        report, totals = subscriber.ask("report"), subscriber.ask("totals")
    lost = sum(number != filled[int(meter)] for meter, missing in totals["missing"].items() for number in missing)
    return _findings(report, totals, boot, lost, rss_mb)


def _fill(programs: Programs, farm: Process, ports: Sequence[int], wanted: int) -> list[int]:
    """Return how often each meter was read; the last answer of each may have come too late for the stop."""
    nobody = free_port()

    def configuration(directory: Path) -> str:
        table = devices([f"l{number}" for number in range(METERS)], FILL_EVERY_S)
        return gateway_configuration(directory, [nobody], tcp_lines(ports), table, COMMIT_WINDOW_S)

    gateway = programs.gateway("gateway", configuration, FLOATS)
    gateway.start()
    with contextlib.suppress(LineError):  # a slow machine: less than a day drains at the same rate
        eventually(lambda: sum(farm.ask("reads")["reads"]) >= wanted, "a day is in the spool", FILL_S)
    gateway.stop()
    reads: list[int] = farm.ask("reads")["reads"]
    return reads


def _until_quiet(subscriber: Process, wanted: int) -> None:
    """Wait until all of the backlog has come, or no more of it comes."""
    deadline_s = time.monotonic() + PATIENCE_S
    last, quiet_since_s = -1, time.monotonic()
    while time.monotonic() < deadline_s:
        time.sleep(1)
        messages = subscriber.ask("messages")["messages"]
        if messages >= wanted:
            break
        if messages > last + 2 * LIVE_METERS:
            last, quiet_since_s = messages, time.monotonic()
        if time.monotonic() - quiet_since_s > 35 + QUIET_S:  # the longest pause before a reconnect
            break
    time.sleep(QUIET_S)


def _findings(report: dict[str, Any], totals: dict[str, Any], boot: int, lost: int, rss_mb: float) -> Findings:
    live = report["boots"].get(str(boot), {"arrived_s": [], "delay_ms": []})
    old = sorted(at_s for key, heard in report["boots"].items() if key != str(boot) for at_s in heard["arrived_s"])
    took_s = old[-1] - old[0] if len(old) > 1 else float("inf")
    rate = len(old) / took_s
    times = rate / (LIVE_METERS / LIVE_EVERY_S)
    meanwhile = [
        delay
        for at_s, delay in zip(live["arrived_s"], live["delay_ms"], strict=True)
        if old and old[0] <= at_s <= old[-1]
    ]
    doubled = totals["doubled_reads"]
    latest_s = max(meanwhile, default=float("nan")) / 1000
    measured = (
        f"{times:,.0f} times ({len(old)} records in {took_s:.0f} s, {rate:,.0f} a second); "
        f"{totals['wrong']} wrong; RSS {rss_mb:.0f} MB"
    )
    rows = [
        Row("draining a day of 90 records a minute", measured, RATE, times),
        Row(
            "live records meanwhile",
            f"{len(meanwhile)} records, p50 {percentile(meanwhile, 50) / 1000:.2f} s, latest {latest_s:.1f} s",
            LATE,
            latest_s if meanwhile else None,
        ),
        Row("of the backlog", f"{lost} lost, {doubled} doubled", Goal("0 lost, 0 doubled", 0), lost + doubled),
    ]
    figures = {"records": len(old), "took_s": took_s, "times": times, "lost": lost, "live_latest_s": latest_s}
    return Findings(rows, figures, {"drain": _picture(old)})


def _picture(old: Sequence[float]) -> str:
    """Return how many records wait, over time."""
    if not old:
        return plot("No backlog came", [], "s", "")
    start_s = old[0]
    backlog, left = [(0.0, float(len(old)))], len(old)
    for index, at_s in enumerate(old):
        left = len(old) - index - 1
        if at_s - start_s >= backlog[-1][0] + BIN_S or not left:
            backlog.append((at_s - start_s, float(left)))
    return plot("A day drains", [Series("records that wait", backlog)], "s since the broker is back", "records")
