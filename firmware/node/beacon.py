"""The way out by Bluetooth: the node says what it measures to whoever listens, as a BTHome v2 sensor, and hears nobody.

There is no ring, no acknowledgement and no time: what nobody hears is lost.
What counts up (a pulse total, the packets' own counter) lies on flash, so that
a lost packet costs resolution and no energy.
"""

import asyncio
import time

import bluetooth
import cryptolib
import kept
import machine
from choice import TRIAL_MS
from counter import Counter
from health import Health
from sensors import make_sensors
from starts import FOLDER, VERSION, WORKS_MS

from bega_protocols.bthome_write import OBJECTS, advertisement, bodies, encoded
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, Reading
from bega_protocols.settings import hex_bytes, only, whole_number
from bega_protocols.timekeeping import Monotonic

KEY_SIZE = 16
ECB = 1
LONGEST_NAME = 29  # bytes of a scan response, less its length and type
COMPLETE_NAME = 0x09
TOGETHER_MS = 200  # what is measured within this time goes into the same packets
TIMES, TIMES_AT_LEAST = 10, 3  # that a packet goes out before the next one has its turn
TURN_AT_LEAST_MS = 1000  # so that the counter never runs faster than Unix time, from which it began
LIMIT_MS = 300000
WELL = ("ok", "starting")  # states of a device; each other one is a problem


def read(config):
    """Return what `beacon` of the configuration says. Raises ConfigError."""
    from config import table_in, word_in  # here: choice.py lets go of its code, once all is read

    table = table_in(config, "beacon")
    only(table, "key", "interval_ms", "name")
    battery = config.get("battery")
    if "wifi" in config or (isinstance(battery, dict) and "send_every_s" in battery):
        raise ConfigError("wifi and battery.send_every_s have no meaning for a beacon: it speaks when it has measured")
    name = word_in(table, "beacon.name", "name").encode() if "name" in table else b""
    if len(name) > LONGEST_NAME:
        raise ConfigError("beacon.name has more than %d bytes" % LONGEST_NAME)
    return {
        "key": hex_bytes(table, "key", KEY_SIZE),
        "interval_ms": whole_number(table, "interval_ms", 100, 10240, 1000),
        "name": name,
    }


class Beacon:
    """Everything that runs on such a node."""

    def __init__(self, choice, starts):
        """Raises ConfigError if a driver refuses its settings or its bus."""
        self._choice = choice
        self._starts = starts
        self._config = config = choice.values
        self._monotonic = Monotonic(time.ticks_ms())
        counter = Counter(FOLDER, config["made_s"])
        slept = kept.read() if config["battery"] and machine.reset_cause() == machine.DEEPSLEEP_RESET else None
        if slept:
            _, _, last, zero_ms, _ = slept
            counter.resume(last)
            self._monotonic = Monotonic(time.ticks_ms(), kept.chip_ms() - zero_ms)
        self._air = Air(config["beacon"], counter, bool(config["battery"]))
        self._sensors = make_sensors(config, counter.last, self.mono, self._air.take, self._air.say_status)
        self._air.sensors = self._sensors

    def mono(self):
        """Return ms since power-on or the last reset."""
        return self._monotonic.ms(time.ticks_ms())

    async def run(self):
        """Start every task; returns when the first of them ends, which none should. On a battery it ends in sleep."""
        print("bega: node %s runs, beacon %s, firmware %s" % (self._config["node"], self._air.address_text(), VERSION))
        if self._config["battery"]:
            return await self._run_on_battery()
        health = Health(self.mono, self._config["watchdog_s"] * 1000)
        health.expect("beacon", LIMIT_MS)
        tasks = [
            asyncio.create_task(self._air.run(lambda: health.moved("beacon"))),
            asyncio.create_task(health.run()),
            asyncio.create_task(self._come_to_work(health)),
        ]
        for sensor in self._sensors:
            name = "device " + sensor.name
            health.expect(name, 3 * sensor.every_ms + 10000)
            tasks.append(asyncio.create_task(sensor.run(lambda name=name: health.moved(name))))
        await asyncio.gather(*tasks)

    async def _run_on_battery(self):
        from battery import Battery

        battery = Battery(self._config, self.mono, self._air, self._air, self._sensors)
        await battery.run()
        self._air.close()
        self._starts.worked()
        self._settle()
        self._end_trial()
        battery.sleep(0, False)

    async def _come_to_work(self, health):
        """Once all of it has moved for a minute, the next reset is not counted with those before it."""
        while True:
            await asyncio.sleep_ms(WORKS_MS)
            if not health.late():
                self._starts.worked()
                self._settle()
            if self.mono() > TRIAL_MS:
                self._end_trial()

    def _settle(self):
        """Keep a configuration by which something was measured: no gateway can confirm it to who hears nobody."""
        if self._air.has_measured():
            self._choice.confirm()

    def _end_trial(self):
        if self._choice.is_trial():
            print("bega: with the new configuration nothing is measured: back to the former one")
            self._starts.worked()
            machine.reset()


class Air:
    """What is said of the last measurements. To battery.py it is the store and the link: what is said is handed on."""

    def __init__(self, beacon, counter, is_on_battery):
        """beacon: what `read` returned; `sensors` is set by who made them."""
        self.sensors = []
        self._beacon = beacon
        self._counter = counter
        self._is_on_battery = is_on_battery
        self._ble = bluetooth.BLE()
        self._ble.active(True)
        self._address = self._ble.config("mac")[1]
        self._encipher = cryptolib.aes(beacon["key"], ECB).encrypt
        self._groups = {}  # by device what it measured last
        self._left_out = []  # (device, quantity, part)
        self._new = asyncio.Event()
        self._is_idle = False

    def address_text(self):
        """Return the address by which a gateway knows it."""
        return ":".join(["%02X" % octet for octet in self._address])

    def take(self, device, measured_ms, readings):
        """Say these from now on in the place of what `device` measured before."""
        self._groups[device] = readings
        self._new.set()

    def say_status(self):
        """The state of a device has changed."""
        self._new.set()

    def has_measured(self):
        """Return whether any device has."""
        return len(self._groups) > 0

    @property
    def seq(self):
        """The number of the last packet."""
        return self._counter.last

    def flush(self):
        """Nothing is stored."""

    def is_idle(self):
        """Return whether all that was measured has been said."""
        return self._is_idle

    def close(self):
        """Switch the radio off."""
        self._ble.active(False)

    async def run(self, moved):
        """Say what is new, and keep it on the air until something else is, until cancelled."""
        while True:
            moved()
            try:
                await asyncio.wait_for_ms(self._new.wait(), 10000)
            except asyncio.TimeoutError:
                continue
            await asyncio.sleep_ms(TOGETHER_MS)
            self._new.clear()
            packets = bodies(self._objects())
            for number, body in enumerate(packets):
                self._say(body)
                moved()
                await asyncio.sleep_ms(self._turn_ms(len(packets), number + 1 == len(packets)))
            self._is_idle = True

    def _objects(self):
        """Return all that can be said now, with `problem`: whether a device is silent, damaged, stuck or lost."""
        troubled = [sensor for sensor in self.sensors if sensor.state not in WELL]
        objects = [encoded(Reading("problem", len(troubled)))]
        takers = {}  # by its objects or its name, whose quantity is said: the format would not tell two apart
        for sensor in self.sensors:
            unsaid = []
            for reading in self._groups.get(sensor.name, ()):
                octets = encoded(reading)
                what = (sensor.name, reading.quantity, reading.part)
                if octets is None or takers.setdefault(OBJECTS.get(reading.quantity, reading.quantity), what) != what:
                    unsaid.append(what)
                elif reading.quality == GOOD and sensor.state in WELL:
                    objects.append(octets)
            self._leave_out([what for what in unsaid if what not in self._left_out])
        return objects

    def _leave_out(self, new):
        """Say once what is not said."""
        self._left_out += new
        if new:
            names = ", ".join([quantity + (part and ":" + part) for _, quantity, part in new])
            print("bega: device %s: BTHome has no place for %s" % (new[0][0], names))

    def _say(self, body):
        name = self._beacon["name"]
        self._ble.gap_advertise(
            self._beacon["interval_ms"] * 1000,
            advertisement(body, self._encipher, self._address, self._counter.next()),
            resp_data=bytes((len(name) + 1, COMPLETE_NAME)) + name if name else b"",
            connectable=False,
        )

    def _turn_ms(self, packets, is_last):
        """Return how long a packet is on the air at least; the last one stays there until something is new."""
        interval_ms = self._beacon["interval_ms"]
        least_ms = max(TURN_AT_LEAST_MS, TIMES_AT_LEAST * interval_ms)
        if is_last and not self._is_on_battery:
            return least_ms
        return max(least_ms, min(TIMES * interval_ms, min([sensor.every_ms for sensor in self.sensors]) // packets))
