# Devices that fail by a script, and what the node's own sensor.py, care.py and power.py do.
# Run as: micropython sensor_care.py. Its last line is what happened, as JSON.
import asyncio
import json
import sys

from care import begin_anew
from sensor import Sensor

from bega_protocols.ask import Ask
from bega_protocols.doubt import NOTHING, STUCK
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import Reading

really_sleep = asyncio.sleep_ms
HOUR_MS = 3600000


class Time:
    now_ms = 0


def mono():
    return Time.now_ms


async def sleep_ms(ms):
    Time.now_ms += ms
    await really_sleep(0)


asyncio.sleep_ms = sleep_ms


class FakePin:
    OUT = 1
    moves = ()

    def __init__(self, pin, mode, value):
        if pin > 40:
            raise ValueError("invalid pin")
        self.value(value)

    def value(self, level):
        FakePin.moves += ((Time.now_ms, level),)


class FakeMachine:
    Pin = FakePin


sys.modules["machine"] = FakeMachine
from power import Supply  # noqa: E402


class Over(Exception):
    pass


class Bus:
    async def exchange(self, ask):
        await asyncio.sleep_ms(ask.wait_ms)
        return b"" if ask.wait_ms else None

    def begin(self):
        pass


class Driver:
    """What the device says at a time is its `air`: value, "" or None; and its `doubt`."""

    def __init__(self, device, state):
        self.device = device
        self.state_then = state
        self.damaged = []
        self.attributes = {}
        self.told = []

    def measure(self, now_ms):
        self.device["asked"] += 1
        yield Ask(b"?", self.device.get("takes_ms", 0), 1)
        value = self.device["air"](now_ms)
        if value == "":
            self.damaged.append((0, WireError("noise")))
        self.attributes["doubt"] = self.device["doubt"](now_ms, self) if "doubt" in self.device else ""
        return [[Reading("pm2_5", value), Reading("laser_time", now_ms)]] if value not in (None, "") else []

    @property
    def period_ms(self):
        return self.device.get("period_ms", 0)

    def state(self):
        return b"%d" % Time.now_ms

    def beside(self, readings):
        self.device.setdefault("beside", []).append(readings[0].value)


def run(sensor, moved):
    try:  # noqa: SIM105 - MicroPython has no contextlib
        asyncio.run(sensor.run(moved))
    except Over:
        pass


def scene(device, until_ms, every_ms=1000, supply_pin=None, keeps=False):
    """Return what happened to a device until then: [when, what] of its states, set-ups, cuts, records."""
    Time.now_ms = 0
    FakePin.moves = ()
    device["asked"] = 0
    happened = []
    device["made"] = made = []

    def make(state):
        made.append((Time.now_ms, state))
        return Driver(device, state)

    def changed():
        happened.append((Time.now_ms, sensor.state))

    def take(name, now_ms, readings):
        happened.append((now_ms, readings[0].value))

    def moved():
        if Time.now_ms >= until_ms:
            raise Over

    sensor = Sensor("dust", make(b""), make, Bus(), every_ms, mono, take, changed)
    if supply_pin:
        sensor.supply = Supply(supply_pin, mono)
        sensor.supply.sensors.append(sensor)
    kept = []
    if keeps:
        sensor.put = kept.append
    run(sensor, moved)
    report = sensor.report()
    states = [row for row in happened if isinstance(row[1], str)]
    records = [row for row in happened if not isinstance(row[1], str)]
    return {
        "states": states,
        "records": records,
        "made_ms": [at for at, _ in made],
        "given": [state.decode() for _, state in made],
        "cuts_ms": [at for at, level in FakePin.moves if not level],
        "on_ms": [at for at, level in FakePin.moves if level],
        "kept": [state.decode() for state in kept],
        "report": report,
    }


class Hung:
    """A device that hangs from a time on, until its supply was cut."""

    def __init__(self, from_ms, says):
        self.from_ms = from_ms
        self.says = says

    def hangs(self, now_ms):
        return now_ms >= self.from_ms and not any(self.from_ms < at < now_ms for at, _ in FakePin.moves)

    def air(self, now_ms):
        return self.says if self.hangs(now_ms) else now_ms


def doubt_while(hung, why, judged_after_ms=0):
    """A driver doubts what repeats itself only after it has seen it for a while."""
    seen = {}

    def doubt(now_ms, driver):
        if not hung.hangs(now_ms):
            return ""
        first_ms = seen.setdefault(id(driver), now_ms)
        return why if now_ms - first_ms >= judged_after_ms else "warming up"

    return doubt


def with_two_on_one_supply():
    Time.now_ms = 0
    FakePin.moves = ()
    supply = Supply(25, mono)
    made = {}
    sensors = []
    for name in ("a", "b"):
        made[name] = []

        def make(state, name=name):
            made[name].append(Time.now_ms)
            return Driver({"asked": 0}, state)

        sensors.append(Sensor(name, make(b""), make, Bus(), 1000, mono, None, None))
        supply.sensors.append(sensors[-1])

    async def both():
        await supply.cut()
        Time.now_ms += 2000
        await supply.cut()
        Time.now_ms += 20000
        await supply.cut()

    asyncio.run(both())
    return {"made_ms": made, "cuts_ms": [at for at, level in FakePin.moves if not level]}


def measured_while_it_was_cut():
    """Return the records of a device whose supply was cut, for another one, between question and answer."""
    Time.now_ms = 0
    taken = []
    device = {"asked": 0, "takes_ms": 500}

    def air(now_ms):
        if device["asked"] == 2:
            begin_anew(sensor, now_ms)
        return device["asked"]

    def moved():
        if Time.now_ms > 4000:
            raise Over

    device["air"] = air

    def make(state):
        return Driver(device, state)

    def take(name, now_ms, readings):
        taken.append(readings[0].value)

    sensor = Sensor("dust", make(b""), make, Bus(), 1000, mono, take, lambda: None)
    run(sensor, moved)
    return taken


def who_is_told():
    Time.now_ms = 0
    barometer, co2 = {"asked": 0, "air": lambda now_ms: now_ms}, {"asked": 0}
    one = Sensor("bme", Driver(barometer, b""), None, Bus(), 1000, mono, lambda *row: None, lambda: None)
    one.beside = (Sensor("co2", Driver(co2, b""), None, Bus(), 1000, mono, None, None),)

    def moved():
        if Time.now_ms >= 3000:
            raise Over

    run(one, moved)
    return co2["beside"]


def refused_pin():
    try:
        Supply(99, mono)
    except ConfigError as error:
        return str(error)


silent = Hung(5000, None)
noisy = Hung(5000, "")
stuck = Hung(5000, 42)
blind = Hung(5000, 0)


def is_away(now_ms):
    return 5000 < now_ms < 26000 or 600000 < now_ms < 630000


told = {
    "gone": scene({"air": lambda now_ms: None}, 10 * HOUR_MS),
    "gone with a supply": scene({"air": lambda now_ms: None}, 10 * HOUR_MS, supply_pin=25),
    "gone, asked each hour": scene({"air": lambda now_ms: None}, 20 * HOUR_MS, every_ms=HOUR_MS, supply_pin=25),
    "silent": scene({"air": silent.air}, 60000, supply_pin=25),
    "noisy": scene({"air": noisy.air}, 60000, supply_pin=25),
    "stuck": scene({"air": stuck.air, "doubt": doubt_while(stuck, STUCK, 4000)}, 120000, supply_pin=25),
    "blind": scene({"air": blind.air, "doubt": doubt_while(blind, NOTHING)}, 60000, supply_pin=25),
    "stuck for ever": scene({"air": lambda now_ms: 42, "doubt": lambda now_ms, driver: STUCK}, HOUR_MS),
    "again later": scene(
        {"air": lambda now_ms: None if 5000 < now_ms < 26000 or 600000 < now_ms < 630000 else 1}, 700000
    ),
    "slow": scene({"air": lambda now_ms: None if now_ms % 30000 else 1, "period_ms": 30000}, 300000),
    "keeps": scene(
        {"air": lambda now_ms: 1 if now_ms < 2 * HOUR_MS else None}, 2 * HOUR_MS + 60000, every_ms=10000, keeps=True
    ),
    "two on one supply": with_two_on_one_supply(),
    "measured while it was cut": measured_while_it_was_cut(),
    "who is told": who_is_told(),
    "pin": refused_pin(),
}
print(json.dumps(told))
