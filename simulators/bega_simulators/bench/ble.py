"""Three hundred Bluetooth sensors in one adapter's air: what hearing them costs, and whether any is lost or starved."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bega_protocols.errors import LineError
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.programs import Programs, eventually, gateway_configuration
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.usage import Meter

SENSORS, EVERY_S, COMMIT_WINDOW_S = 300, 5.0, 0.05
SETTLE_S = 1.0  # what is on its way when the air falls silent
CASES = {1000: 8.0, 100: 25.0}  # ms between two advertisements of a sensor: percent of a core
MEAN_JITTER_MS = 5  # each advertisement comes up to 10 ms later than its interval
ALL_HEARD = Goal("every advertisement heard", 0)
NONE_STARVED = Goal("a record of each sensor each every_s", 0)


class Found(NamedTuple):
    """What came of one case."""

    offered_s: float  # advertisements a second that bluetoothd told of
    cpu_percent: float
    at_full_rate_percent: float  # the same for as many as the sensors would send: a busy machine's air is slow
    others_percent: float
    unheard: int
    starved: int  # sensors with a window that has no record
    doubled: int  # sensors with more records than windows
    records: int
    damaged: int


def ble(bench: Bench) -> Findings:
    """Run both cases: half of the sensors encrypted, each advertisement a new measurement."""
    rows, figures = [], {}
    for every_ms, percent in CASES.items():
        bench.say(f"ble: {bench.count(SENSORS, 20)} sensors, each every {every_ms} ms")
        found = _case(bench, every_ms)
        figures[str(every_ms)] = found._asdict()
        what = f"{bench.count(SENSORS, 20)} Bluetooth sensors each {every_ms} ms"
        measured = (
            f"{found.at_full_rate_percent:.1f} % of a core (measured {found.cpu_percent:.1f} % "
            f"at {found.offered_s:.0f} advertisements a second); other work {found.others_percent:.0f} %"
        )
        goal = Goal(f"{percent:g} % of a core", percent, tolerance=0.2)
        rows.append(Row(what, measured, goal, found.at_full_rate_percent))
        rows.append(Row("heard", f"{found.unheard} not heard, {found.damaged} refused", ALL_HEARD, found.unheard))
        kept = f"{found.records} records; {found.starved} sensors with too few, {found.doubled} with too many"
        rows.append(Row(f"records, every_s = {EVERY_S:g}", kept, NONE_STARVED, found.starved + found.doubled))
    return Findings(rows, figures)


def _case(bench: Bench, every_ms: int) -> Found:
    sensors = bench.count(SENSORS, 20)
    with Programs(bench.directory / f"ble-{every_ms}") as programs:
        broker = programs.broker()
        counts = ["--sensors", str(sensors), "--encrypted", str(sensors // 2), "--every-ms", str(every_ms)]
        beacons = programs.module("beacons", *counts)
        facts = beacons.hear()

        def configuration(directory: Path) -> str:
            lines = '[metrics]\nlisten = "127.0.0.1:0"\n[lines.air]\nkind = "ble"\n'
            table = "".join(_device(name, settings) for name, settings in facts["sensors"].items())
            return gateway_configuration(directory, [broker.port], lines, table, COMMIT_WINDOW_S)

        gateway = programs.gateway("gateway", configuration, 0)
        with _Reader(broker.port) as reader:
            gateway.start(DBUS_SYSTEM_BUS_ADDRESS=facts["bus"])
            eventually(lambda: len(reader.records) == sensors, "every sensor is recorded", 60)
            time.sleep(EVERY_S)
            reader.begin()
            published = beacons.ask("counts")["published"]
            meter = Meter({"gateway": gateway.pid, "beacons": beacons.pid})
            time.sleep(bench.seconds(6 * EVERY_S, EVERY_S))
            cost, records = meter.read(), reader.take()
            offered_s = (beacons.ask("counts")["published"] - published) / cost.wall_s
            total = beacons.ask("silence")["published"]
            time.sleep(SETTLE_S)
            heard, damaged = _counted(gateway.facts["metrics"])
        windows = cost.wall_s / EVERY_S
        cpu_percent = 100 * cost.cpu_s["gateway"] / cost.wall_s
        full_rate_s = 1000 * sensors / (every_ms + MEAN_JITTER_MS)
        return Found(
            offered_s=offered_s,
            cpu_percent=cpu_percent,
            at_full_rate_percent=cpu_percent * max(1.0, full_rate_s / offered_s),
            others_percent=100 * cost.others_cpu_s / cost.wall_s,
            unheard=total - heard,
            starved=sum(records[name] < int(windows) - 1 for name in facts["sensors"]),
            doubled=sum(count > windows + 1 for count in records.values()),
            records=records.total(),
            damaged=damaged,
        )


def _device(name: str, settings: dict[str, str]) -> str:
    table = ", ".join(f'{key} = "{value}"' for key, value in settings.items())
    return f'[devices.{name}]\nline = "air"\ndriver = "bthome"\nevery_s = {EVERY_S}\nsettings = {{ {table} }}\n'


def _counted(address: str) -> tuple[int, int]:
    """Return how many advertisements of its sensors a gateway has heard, and how many of them it refused."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:  # noqa: S310 - our own child
        said = answer.read().decode()
    heard = re.search(r'bega_gateway_ble_advertisements_total\{[^}]*of="ours"\} (\d+)', said)
    if not heard:
        raise LineError("the gateway counts no advertisements")
    damaged = re.findall(r"^bega_gateway_device_damaged_frames_total\{[^}]*\} (\d+)", said, re.M)
    return int(heard[1]), sum(map(int, damaged))


class _Reader:
    """Counts the records of each device at the broker; one that comes twice, as QoS 1 may, counts once."""

    def __init__(self, port: int) -> None:
        self.records: Counter[str] = Counter()
        self._seen: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-reader")
        self._client.on_connect = lambda client, *_: client.subscribe("city/+/+/+/+/up", 1)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def begin(self) -> None:
        """Count from now on."""
        with self._lock:
            self.records = Counter()

    def take(self) -> Counter[str]:
        """Return what was counted."""
        with self._lock:
            return self.records.copy()

    def _take(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        head = json.loads(message.payload)[0]
        with self._lock:
            identity = (head["boot"], head["seq"])
            if identity not in self._seen:
                self._seen.add(identity)
                self.records[message.topic.split("/")[4]] += 1
