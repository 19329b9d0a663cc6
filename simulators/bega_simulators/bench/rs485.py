"""Three meters that frame by silence on one RS-485 bus: how much of the wire is used, and whether a fault ever lies."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bega_simulators.bench.account import stale
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.programs import Process, Programs, devices, eventually, gateway_configuration
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.usage import Meter

METERS, FLOATS, EVERY_S, COMMIT_WINDOW_S = 3, 5, 0.01, 0.05
BITS_A_CHARACTER = 11
QUESTION_CHARACTERS, ANSWER_CHARACTERS = 8, 5 + 4 * FLOATS  # of function 4 in RTU
GOALS_PERCENT = {9600: 97.0, 19200: 97.0, 115200: 92.0}
NEVER_WRONG = Goal("0 wrong values", 0)
PEERS = "bare pymodbus: half of the questions unanswered, 8 of 20 values silently wrong"
NOISE = 0.0005  # bit errors: about every sixth exchange is hit
FAULTS: dict[str, Callable[[Process, float], object]] = {
    "noise": lambda bus, for_s: bus.ask("noise", rate=NOISE),
    "jam": lambda bus, for_s: bus.ask("jam", for_s=for_s / 4),
    "late": lambda bus, for_s: bus.ask("late", unit=2, late_s=0.8),
    "dropped": lambda bus, for_s: bus.ask("drop", unit=3, share=0.3),
}
CALM: dict[str, Callable[[Process], object]] = {
    "noise": lambda bus: bus.ask("noise", rate=0.0),
    "jam": lambda bus: None,
    "late": lambda bus: bus.ask("late", unit=2, late_s=0.0),
    "dropped": lambda bus: bus.ask("drop", unit=3, share=0.0),
}


class Found(NamedTuple):
    """What came of one speed."""

    exchanges_s: float
    percent: float  # of what the wire allows with legal silences
    too_early: int  # questions that came before 3.5 characters had passed
    cpu_percent: float
    others_percent: float
    records: int
    wrong: int  # values that no meter gave
    stale: int  # values that a meter gave to an earlier question


def rs485(bench: Bench) -> Findings:
    """Run each speed: first undisturbed, then through the faults."""
    rows, figures = [], {}
    for baud, percent in GOALS_PERCENT.items():
        bench.say(f"rs485: {baud} baud, undisturbed, then {', '.join(FAULTS)}")
        found = _speed(bench, baud)
        figures[str(baud)] = found._asdict()
        measured = (
            f"{found.percent:.1f} % ({found.exchanges_s:.1f} exchanges a second), {found.too_early} too early; "
            f"CPU {found.cpu_percent:.0f} %, other work {found.others_percent:.0f} %"
        )
        goal = Goal(f"{percent:g} % of the limit", percent, tolerance=0.03, at_least=True)
        rows.append(Row(f"RS-485 at {baud}", measured, goal, found.percent, peers=PEERS))
        lies = f"{found.records} records: {found.wrong} wrong, {found.stale} a late answer taken for the next"
        rows.append(Row(f"{baud}: noise, jam, late, dropped", lies, NEVER_WRONG, found.wrong + found.stale))
    return Findings(rows, figures)


def limit_s(baud: int, silence_s: float) -> float:
    """Return the least time of an exchange: question, silence, answer, silence."""
    return (QUESTION_CHARACTERS + ANSWER_CHARACTERS) * BITS_A_CHARACTER / baud + 2 * silence_s


def _speed(bench: Bench, baud: int) -> Found:
    with Programs(bench.directory / f"rs485-{baud}") as programs:
        broker = programs.broker()
        bus = programs.module("bus", "--baud", str(baud), "--meters", str(METERS), "--floats", str(FLOATS))
        port = bus.hear()["port"]
        subscriber = programs.subscriber(broker.port, FLOATS, keep_stamps=True)

        def configuration(directory: Path) -> str:
            line = f'[lines.bus]\nkind = "modbus-rtu"\nport = "{port}"\nbaud = {baud}\ntimeout_s = 0.5\n'
            table = devices(["bus"] * METERS, EVERY_S, [number + 1 for number in range(METERS)])
            return gateway_configuration(directory, [broker.port], line, table, COMMIT_WINDOW_S)

        gateway = programs.gateway("gateway", configuration, FLOATS)
        gateway.start()
        eventually(lambda: subscriber.ask("messages")["messages"] >= 2 * METERS, "records arrive", 60)
        time.sleep(bench.seconds(2, 0.5))
        bus.ask("take")
        meter = Meter({"gateway": gateway.pid, "bus": bus.pid})
        time.sleep(bench.seconds(10, 1))
        cost, counts = meter.read(), bus.ask("take")
        for name, begin in FAULTS.items():
            for_s = bench.seconds(4, 1)
            begin(bus, for_s)
            time.sleep(for_s)
            CALM[name](bus)
            time.sleep(bench.seconds(1, 0.2))
        gateway.stop()
        time.sleep(0.5)
        lies = _lies(bus, subscriber)
        return Found(
            exchanges_s=counts["answered"] / cost.wall_s,
            percent=100 * counts["answered"] / cost.wall_s * limit_s(baud, counts["silence_s"]),
            too_early=counts["too_early"],
            cpu_percent=100 * cost.cpu_s["gateway"] / cost.wall_s,
            others_percent=100 * cost.others_cpu_s / cost.wall_s,
            **lies,
        )


def _lies(bus: Process, subscriber: Process) -> dict[str, Any]:
    times_s = bus.ask("times")["times_s"]
    totals = subscriber.ask("totals")
    wall_minus_mono_s = time.time() - time.monotonic()
    old = sum(
        stale(totals["stamps"].get(str(meter), []), times, wall_minus_mono_s) for meter, times in enumerate(times_s)
    )
    return {"records": totals["messages"], "wrong": totals["wrong"], "stale": old}
