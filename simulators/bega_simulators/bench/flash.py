"""Bytes that reach the flash for a record, journal and deletes included, for four commit windows at the same time.

Each gateway has its state on an ext4 of its own, in a file behind a loop device, whose writes the kernel counts
(/sys/block/<name>/stat, field 7: sectors of 512 bytes). Mounting needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.programs import (
    Gateway,
    Process,
    Programs,
    devices,
    eventually,
    gateway_configuration,
    tcp_lines,
)
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.usage import percentile

WINDOWS_S = (0.05, 1.0, 10.0, 40.0)
GOALS = {10.0: Goal("2,000 with 10 s", 2000, tolerance=0.1), 40.0: Goal("1,200 with 40 s", 1200, tolerance=0.1)}
METERS, FLOATS, EVERY_S = 3, 8, 2.0  # 90 records a minute; as many values as an air station has
FOR_S, WARM_S = 160.0, 45.0
DISK_BYTES, SECTOR_BYTES = 256 << 20, 512
PEERS = "7,973 with a commit each"
WHAT = "bytes on flash a record, 90 a minute"


def flash(bench: Bench) -> Findings:
    """Run all windows at once; each gateway reads meters of its own and has a broker's reader of its own."""
    why = _why_not()
    if why:
        return Findings([Row(WHAT, f"not measured: {why}", GOALS[10.0], None, peers=PEERS)])
    windows_s = (0.05, 0.5) if bench.quick else WINDOWS_S
    words = ", ".join(f"{window_s:g}" for window_s in windows_s)
    bench.say(f"flash: windows of {words} s at once, {bench.seconds(FOR_S + WARM_S, 6):.0f} s and more")
    try:
        with contextlib.ExitStack() as stack:
            cases = [_Case(bench, window_s, stack) for window_s in windows_s]
            return _measure(bench, cases)
    except (OSError, subprocess.CalledProcessError) as error:
        return Findings([Row(WHAT, f"not measured: no loop mount here ({error})", GOALS[10.0], None, peers=PEERS)])


class _Case:
    """One window: its disk, broker, meters, reader and gateway."""

    def __init__(self, bench: Bench, window_s: float, stack: contextlib.ExitStack) -> None:
        self.window_s = window_s
        directory = bench.directory / f"flash-{window_s:g}"
        directory.mkdir(parents=True, exist_ok=True)
        self._mount, self._device = stack.enter_context(_disk(directory))
        programs = stack.enter_context(Programs(directory))
        broker = programs.broker()
        _, ports = programs.farm(METERS, FLOATS)
        self.subscriber: Process = programs.subscriber(broker.port, FLOATS)

        def configuration(_: Path) -> str:
            table = devices([f"l{number}" for number in range(METERS)], bench.seconds(EVERY_S, 0.2))
            return gateway_configuration(self._mount, [broker.port], tcp_lines(ports), table, window_s)

        self.gateway: Gateway = programs.gateway("gateway", configuration, FLOATS)

    def wait_for_commit(self) -> None:
        """Return shortly after a commit: what it stored has arrived, and nothing of the next one has."""
        before = self.subscriber.ask("messages")["messages"]
        patience_s = 2 * self.window_s + 60
        eventually(lambda: self.subscriber.ask("messages")["messages"] > before, "records arrive", patience_s)
        time.sleep(min(1.0, self.window_s / 2))

    def written(self) -> int:
        """Return how many bytes its disk was given so far."""
        subprocess.run(["sync", "-f", str(self._mount)], check=True)
        fields = Path(f"/sys/block/{self._device}/stat").read_text(encoding="ascii").split()
        return int(fields[6]) * SECTOR_BYTES


def _measure(bench: Bench, cases: Sequence[_Case]) -> Findings:
    for case in cases:
        case.gateway.start()
    time.sleep(bench.seconds(WARM_S, 1))
    with ThreadPoolExecutor(len(cases)) as threads:
        found = list(threads.map(lambda case: _between_commits(case, bench.seconds(FOR_S, 3)), cases))
    rows, figures = [], {}
    for case, (each, report) in zip(cases, found, strict=True):
        delays = [delay for heard in report["boots"].values() for delay in heard["delay_ms"]]
        size = report["octets"] / max(1, len(delays))
        measured = (
            f"{each:,.0f} B ({len(delays)} records of {size:.0f} B); "
            f"latency p50 {percentile(delays, 50) / 1000:.2f} s, p99 {percentile(delays, 99) / 1000:.2f} s"
        )
        goal = GOALS.get(case.window_s)
        rows.append(Row(f"{WHAT}: commit window {case.window_s:g} s", measured, goal, each, peers=PEERS))
        figures[f"{case.window_s:g}"] = {"bytes": each, "records": len(delays), "record_bytes": size}
    return Findings(rows, figures)


def _between_commits(case: _Case, for_s: float) -> tuple[float, dict[str, Any]]:
    """Return the bytes a record and what arrived, from one commit to another at least `for_s` later.

    So each commit in between counts whole, with its deletes: a long window has only a few of them.
    """
    case.wait_for_commit()
    case.subscriber.ask("begin")
    before = case.written()
    time.sleep(for_s - case.window_s / 2)
    case.wait_for_commit()
    report = case.subscriber.ask("report")
    records = sum(len(heard["delay_ms"]) for heard in report["boots"].values())
    return (case.written() - before) / max(1, records), report


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root, for loop mounts"
    missing = [program for program in ("losetup", "mkfs.ext4", "mount", "umount", "sync") if not shutil.which(program)]
    return f"{missing[0]} is missing" if missing else ""


@contextlib.contextmanager
def _disk(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield (mount point, block device) of a fresh ext4 in a file."""
    image, mount = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    mount.mkdir()
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        _run("mount", device, str(mount))
        try:
            yield mount, Path(device).name
        finally:
            _run("umount", str(mount))
    finally:
        _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
