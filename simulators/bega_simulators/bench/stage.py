"""A hundred meters, a broker, a reader, and one program under measurement: windows of time, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bega_simulators.bench.programs import (
    Gateway,
    Process,
    Programs,
    devices,
    eventually,
    gateway_configuration,
    tcp_lines,
)
from bega_simulators.bench.usage import Meter, percentile, rss_bytes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """How a bench is to be run."""

    directory: Path
    quick: bool  # short windows and few meters: shows that it works, says nothing about speed
    say: Say

    def seconds(self, long_s: float, short_s: float) -> float:
        return short_s if self.quick else long_s

    def count(self, long: int, short: int) -> int:
        return short if self.quick else long


@dataclass(frozen=True)
class Window:
    """What one program did in a stretch of time."""

    wall_s: float
    records: int
    values_s: float  # delivered a second
    offered_s: float  # values a second if every poll came
    cpu_s: float
    cpu_s_per_1000: float
    p50_ms: float
    p99_ms: float
    first_p99_ms: float  # of the first third of the window
    last_p99_ms: float  # of its last third
    last_p50_ms: float
    first_p50_ms: float
    rss_mb: float
    polls: int  # that the meters answered
    skipped: int  # that were due and never asked
    cpu_percent: dict[str, float] = field(default_factory=dict)
    others_percent: float = 0.0

    @property
    def share(self) -> float:
        """Return delivered over offered."""
        return self.values_s / self.offered_s

    @property
    def grows(self) -> bool:
        """Return whether latency grew over the window: more than a busy machine explains."""
        return self.last_p50_ms > 1.5 * self.first_p50_ms + 50


class Stage:
    """Brings up what stays the same for all programs: use as a block."""

    def __init__(
        self, programs: Programs, meters: int, floats: int, at_each_change: bool = False, computes: bool = False
    ) -> None:
        self.programs = programs
        self.meters = meters
        self.floats = floats
        self.broker = programs.broker(at_each_change)
        self.farm, self.ports = programs.farm(meters, floats)
        self.subscriber = programs.subscriber(self.broker.port, floats, computes=computes)

    def gateway(self, name: str, every_s: float, window_s: float, edge: str = "") -> Gateway:
        """Make a gateway that reads every meter on a line of its own.

        edge: the tables of what it computes, TOML.
        """

        def configuration(directory: Path) -> str:
            hang = [f"l{number}" for number in range(self.meters)]
            table = devices(hang, every_s) + edge
            return gateway_configuration(directory, [self.broker.port], tcp_lines(self.ports), table, window_s)

        return self.programs.gateway(name, configuration, self.floats)

    def floor(self, name: str, every_s: float, store: bool) -> Process:
        """Start the floor on the same meters."""
        arguments = ["--broker-port", str(self.broker.port), "--every-s", str(every_s), "--floats", str(self.floats)]
        if store:
            arguments += ["--store", str(self.programs.directory / f"{name}.db")]
        return self.programs.module("floor", *arguments, "--ports", *map(str, self.ports))

    def until_flowing(self) -> None:
        """Wait until more messages have arrived."""
        wanted = self.subscriber.ask("messages")["messages"] + self.meters
        eventually(lambda: self.subscriber.ask("messages")["messages"] >= wanted, "records arrive", 60)

    def window(self, pid: int, every_s: float, for_s: float) -> Window:
        """Measure the program `pid`, which polls all meters each `every_s`."""
        pids = {"program": pid, "farm": self.farm.pid, "subscriber": self.subscriber.pid}
        if self.broker.pid:
            pids["broker"] = self.broker.pid
        reads = sum(self.farm.ask("reads")["reads"])
        self.subscriber.ask("begin")
        meter = Meter(pids)
        time.sleep(for_s)
        cost = meter.read()
        report = self.subscriber.ask("report")
        polls = sum(self.farm.ask("reads")["reads"]) - reads
        rss = rss_bytes(pid)
        times = sorted(_pairs(report))
        delays = [delay for _, delay in times]
        third = max(1, len(delays) // 3)
        values = len(times) * self.floats
        offered_s = self.meters * self.floats / every_s
        return Window(
            wall_s=cost.wall_s,
            records=len(times),
            values_s=values / cost.wall_s,
            offered_s=offered_s,
            cpu_s=cost.cpu_s["program"],
            cpu_s_per_1000=1000 * cost.cpu_s["program"] / max(1, values),
            p50_ms=percentile(delays, 50),
            p99_ms=percentile(delays, 99),
            first_p99_ms=percentile(delays[:third], 99),
            last_p99_ms=percentile(delays[-third:], 99),
            first_p50_ms=percentile(delays[:third], 50),
            last_p50_ms=percentile(delays[-third:], 50),
            rss_mb=rss / 1e6,
            polls=polls,
            skipped=max(0, round(self.meters / every_s * cost.wall_s) - polls),
            cpu_percent={name: 100 * used / cost.wall_s for name, used in cost.cpu_s.items()},
            others_percent=100 * cost.others_cpu_s / cost.wall_s,
        )


def _pairs(report: dict[str, Any]) -> list[tuple[float, float]]:
    """Return (arrival, delay) of every record of every boot."""
    return [
        pair for heard in report["boots"].values() for pair in zip(heard["arrived_s"], heard["delay_ms"], strict=True)
    ]


def cleanliness(subscriber: Process) -> dict[str, Any]:
    """Return what must be nothing (wrong values, doubles that readers cannot drop), and what may be."""
    totals = subscriber.ask("totals")
    return {name: totals[name] for name in ("messages", "wrong", "doubled", "doubled_reads", "examples")}
