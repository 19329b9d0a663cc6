"""One meter of ten on one TCP connection falls silent: what that costs the other nine, and when it is read again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bega.broker import free_ports
from bega_protocols.errors import LineError
from bega_simulators.bench.account import absent, left_out
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.programs import Process, Programs, devices, eventually, gateway_configuration, tcp_lines
from bega_simulators.bench.stage import Bench

METERS, FLOATS, EVERY_S, COMMIT_WINDOW_S = 10, 30, 1.0, 0.05
DEAD = 3  # unit 4
WARM_S, DEAD_S, PATIENCE_S = 8.0, 45.0, 60.0
COST = Goal("costs the others at most 2 %", 2.0, tolerance=0.25)
BACK = Goal("read again within 30 s", 30.0, tolerance=0.05)
PEERS = "ThingsBoard loses 55 to 100 %, modpoll2mqtt and modbus2mqtt 91 to 93 %"


class Found(NamedTuple):
    """What a dead unit cost."""

    lost_percent: float  # readings of the others that were left out, or never arrived
    later_percent: float  # the same without the first third of the time: once it is known to be dead
    back_s: float
    wrong: int


def dead_unit(bench: Bench) -> Findings:
    """Run both kinds at once: a server that just says nothing, and a converter whose bus waits a second meanwhile."""
    kinds = {"server that says nothing": 0.0, "converter that waits 1 s for it": 1.0}
    bench.say("dead unit: unit 4 of ten on one connection falls silent")
    with ThreadPoolExecutor(len(kinds)) as threads:
        running = [
            threads.submit(_case, bench, silence_s, port)
            for silence_s, port in zip(kinds.values(), free_ports(len(kinds)), strict=True)
        ]
        results = dict(zip(kinds, [future.result() for future in running], strict=True))
    rows = []
    for name, found in results.items():
        cost = (
            f"{found.lost_percent:.1f} % of the others' readings ({found.later_percent:.1f} % from the second third "
            f"of {bench.seconds(DEAD_S, 4):g} s on), {found.wrong} wrong"
        )
        rows.append(Row(f"one dead unit of ten: {name}", cost, COST, found.lost_percent, peers=PEERS))
        rows.append(Row("its return", f"read again after {found.back_s:.1f} s", BACK, found.back_s))
    return Findings(rows, {name: found._asdict() for name, found in results.items()})


def _case(bench: Bench, silence_s: float, port: int) -> Found:
    every_s = bench.seconds(EVERY_S, 0.2)
    with Programs(bench.directory / f"dead-{silence_s:g}") as programs:
        broker = programs.broker(port=port)
        numbers = ["--meters", str(METERS), "--floats", str(FLOATS), "--silence-s", str(silence_s)]
        converter = programs.module("converter", *numbers)
        ports = converter.hear()["ports"]
        subscriber = programs.subscriber(broker.port, FLOATS)

        def configuration(directory: Path) -> str:
            table = devices(["l0"] * METERS, every_s, [number + 1 for number in range(METERS)])
            return gateway_configuration(directory, [broker.port], tcp_lines(ports), table, COMMIT_WINDOW_S)

        gateway = programs.gateway("gateway", configuration, FLOATS)
        gateway.start()
        eventually(lambda: subscriber.ask("messages")["messages"] >= 2 * METERS, "records arrive", 60)
        time.sleep(bench.seconds(WARM_S, 1))
        converter.ask("silence", meter=DEAD)
        silent_s = time.monotonic()
        time.sleep(bench.seconds(DEAD_S, 4))
        reads = converter.ask("wake", meter=DEAD)["reads"][DEAD]
        woken_s = time.monotonic()
        back_s = _until_read(converter, reads, woken_s)
        time.sleep(2)
        times_s: list[list[float]] = converter.ask("times")["times_s"]
        totals = subscriber.ask("totals")
        missing = absent(times_s, totals)
        others = [meter for meter in range(METERS) if meter != DEAD]
        settled_s = silent_s + (woken_s - silent_s) / 3
        return Found(
            _lost_percent(others, times_s, missing, silent_s, woken_s, every_s),
            _lost_percent(others, times_s, missing, settled_s, woken_s, every_s),
            back_s,
            totals["wrong"],
        )


def _lost_percent(
    meters: Sequence[int],
    times_s: Sequence[Sequence[float]],
    missing: Sequence[Sequence[int]],
    from_s: float,
    to_s: float,
    every_s: float,
) -> float:
    """Return the share of these meters' readings that were left out, or never arrived."""
    lost = due = 0
    for meter in meters:
        during = [at_s for at_s in times_s[meter] if from_s - every_s < at_s < to_s + every_s]
        lost += sum(from_s < times_s[meter][number - 1] < to_s for number in missing[meter])
        skipped = left_out(during, every_s)
        lost += skipped
        due += len(during) + skipped
    return 100 * lost / max(1, due)


def _until_read(converter: Process, reads: int, woken_s: float) -> float:
    """Return after how many seconds the meter was read again; PATIENCE_S if it was not."""
    try:
        eventually(lambda: converter.ask("reads")["reads"][DEAD] > reads, "it is read again", PATIENCE_S)
    except LineError:
        return PATIENCE_S
    return time.monotonic() - woken_s
