"""What processes cost, as the kernel counts it: /proc/<pid>/stat, smaps_rollup and fd (proc(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Of a stretch of time."""

    wall_s: float
    cpu_s: dict[str, float]  # by name
    others_cpu_s: float  # everything else on this machine, with what a hypervisor took


def cpu_s(pid: int) -> float:
    """Return the CPU that all threads of a process have used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return 1024 * int(line.split()[1])
    return 0


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Meter:
    """Measures from its making to `read`."""

    def __init__(self, pids: dict[str, int]) -> None:
        """pids: by name; this process is counted as ours too."""
        self._pids = pids
        self._started_s = time.monotonic()
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}
        self._own_s = cpu_s(os.getpid())
        self._machine_s = _machine_s()

    def read(self) -> Cost:
        """Return the cost since the start."""
        used = {name: cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}
        ours_s = sum(used.values()) + cpu_s(os.getpid()) - self._own_s
        others_s = max(0.0, _machine_s() - self._machine_s - ours_s)
        return Cost(time.monotonic() - self._started_s, used, others_s)


def _machine_s() -> float:
    """Return the CPU that was not idle since the machine started: all but the fields idle and iowait, and no guest."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK_S


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of `values` lie; nan for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")
