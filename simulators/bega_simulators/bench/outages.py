"""Three ways to lose the broker for a minute, and what they cost: ten meters at 1 Hz each, every read accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bega.broker import free_ports
from bega_simulators.bench.account import Fate, absent, fate
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.programs import (
    Embedded,
    Gateway,
    Mosquitto,
    Process,
    Programs,
    devices,
    eventually,
    gateway_configuration,
    tcp_lines,
)
from bega_simulators.bench.relay import Relay
from bega_simulators.bench.stage import Bench

METERS, FLOATS, EVERY_S, COMMIT_WINDOW_S = 10, 30, 1.0, 0.05
AWAY_S, BEFORE_S, SETTLE_S, STUCK_S = 60.0, 10.0, 3.0, 40.0
NOTHING_LOST = Goal("0 lost after commit, 0 doubled after de-duplication", 0)
PEERS = {
    "broker stopped": "ThingsBoard 0 lost; modpoll2mqtt 630 of 851, Node-RED 635 of 857",
    "black hole": "ThingsBoard 190 to 560 of 902 lost",
    "gateway killed twice, no broker": "ThingsBoard 240 to 260 of 902 lost, 168 doubled after one kill",
}


@dataclass(frozen=True)
class Scene:
    """What an outage may act upon."""

    broker: Mosquitto | Embedded
    relay: Relay
    gateway: Gateway
    away_s: float
    kills_s: list[float]


def outages(bench: Bench) -> Findings:
    """Run the three at once, each with a broker, meters and a gateway of its own: they cost next to nothing."""
    cases = {
        "broker stopped": _stop_broker,
        "black hole": _black_hole,
        "gateway killed twice, no broker": _kill_twice,
    }
    bench.say(f"outages: {', '.join(cases)}, {bench.seconds(AWAY_S, 4):g} s each, at once")
    with ThreadPoolExecutor(len(cases)) as threads:
        running = {
            name: threads.submit(_case, bench, name.split()[0], act, port)
            for (name, act), port in zip(cases.items(), free_ports(len(cases)), strict=True)
        }
        results = {name: future.result() for name, future in running.items()}
    return Findings([_row(name, *found) for name, found in results.items()], {"outages": _figures(results)})


def _stop_broker(scene: Scene) -> None:
    scene.broker.stop()
    time.sleep(scene.away_s)
    scene.broker.start()


def _black_hole(scene: Scene) -> None:
    scene.relay.stall()
    time.sleep(scene.away_s)
    scene.relay.reset()


def _kill_twice(scene: Scene) -> None:
    scene.broker.stop()
    for _ in range(2):
        time.sleep(scene.away_s * 25 / 60)
        scene.gateway.kill()
        scene.kills_s.append(time.monotonic())
        scene.gateway.start()
    time.sleep(scene.away_s * 10 / 60)
    scene.broker.start()


def _case(bench: Bench, name: str, act: Callable[[Scene], None], port: int = 0) -> tuple[Fate, dict[str, Any]]:
    every_s = bench.seconds(EVERY_S, 0.2)
    with Programs(bench.directory / name) as programs:
        broker = programs.broker(at_each_change=True, port=port)
        farm, ports = programs.farm(METERS, FLOATS, keep_times=True)
        subscriber = programs.subscriber(broker.port, FLOATS)
        relay = Relay(broker.port)

        def configuration(directory: Path) -> str:
            table = devices([f"l{number}" for number in range(METERS)], every_s)
            return gateway_configuration(directory, [relay.port], tcp_lines(ports), table, COMMIT_WINDOW_S)

        try:
            gateway = programs.gateway("gateway", configuration, FLOATS)
            gateway.start()
            eventually(lambda: subscriber.ask("messages")["messages"] >= METERS, "records arrive", 60)
            time.sleep(bench.seconds(BEFORE_S, 1))
            kills_s: list[float] = []
            act(Scene(broker, relay, gateway, bench.seconds(AWAY_S, 4), kills_s))
            _until_caught_up(farm, subscriber, kills_s, every_s, bench.seconds(STUCK_S, 15))
            time.sleep(SETTLE_S)
            until_s = time.monotonic() - SETTLE_S
            times_s: list[list[float]] = farm.ask("times")["times_s"]
            totals = subscriber.ask("totals")
            missing = absent(times_s, totals)
            return fate(times_s, missing, kills_s, COMMIT_WINDOW_S, every_s, until_s), totals
        finally:
            relay.close()


def _until_caught_up(farm: Process, subscriber: Process, kills_s: list[float], every_s: float, stuck_s: float) -> None:
    """Wait until all that was read before this moment has arrived, or nothing of it has for a while: it never will."""
    wanted = farm.ask("times")["times_s"]
    least, since_s = sum(map(len, wanted)), time.monotonic()
    while time.monotonic() < since_s + stuck_s:
        missing = absent(wanted, subscriber.ask("totals"))
        lost = fate(wanted, missing, kills_s, COMMIT_WINDOW_S, every_s, since_s).lost
        if not lost:
            return
        if lost < least:
            least, since_s = lost, time.monotonic()
        time.sleep(0.5)


def _row(name: str, found: Fate, totals: dict[str, Any]) -> Row:
    bad = found.lost + totals["doubled_reads"] + totals["wrong"]
    measured = (
        f"{found.read} read: {found.lost} lost after commit, {found.in_open_window} in the open window of a kill, "
        f"{totals['doubled']} came twice, {totals['doubled_reads']} doubled after de-duplication, "
        f"{totals['wrong']} wrong; {found.not_read} polls not made"
    )
    return Row(f"{name}, 60 s", measured, NOTHING_LOST, bad, peers=PEERS[name])


def _figures(results: dict[str, tuple[Fate, dict[str, Any]]]) -> dict[str, Any]:
    return {
        name: found._asdict() | {key: totals[key] for key in ("messages", "doubled", "doubled_reads", "wrong")}
        for name, (found, totals) in results.items()
    }
