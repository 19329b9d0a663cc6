"""The node's application: wires the parts together, and starts them."""

import asyncio
import gc
import os
import time

import board
import machine
from choice import TRIAL_MS, Choice, take
from commands import Commands
from flash import Segments, begin_boot
from health import Health
from link import Link
from sensor import Sensor
from starts import FOLDER, VERSION, WORKS_MS
from store import Store
from wires import Buses

from bega_protocols.errors import ConfigError
from bega_protocols.ring import Ring
from bega_protocols.timekeeping import Clock, Monotonic, Patience

SEGMENT_BYTES = 4096
DAY_S = 86400
COLLECT_BYTES = 16384  # allocated, and the heap is swept: one that first fills up is torn, and no 4 kB fit any more
STORE_LIMIT_MS = 60000
LINK_LIMIT_MS = 180000
GOOD_BYE_MS = 2000  # for the result of a command, before the restart that it asked for


def start(starts):
    """Run until the power goes; raises what a defect or a failing flash raises.

    A configuration that cannot be is said, and left to the technician at the console.
    """
    gc.collect()
    gc.threshold(COLLECT_BYTES)
    choice = None
    try:
        choice = Choice(board)
        asyncio.run(Node(choice, starts).run())
    except ConfigError as error:
        print("bega: configuration: %s" % error)
        if choice and choice.is_trial():  # a driver refuses it: back to the node's own
            machine.reset()


class Node:
    """Everything that runs on the board."""

    def __init__(self, choice, starts):
        """Raises ConfigError if a driver refuses its settings or its bus."""
        self._choice = choice
        self._starts = starts
        self._config = config = choice.values
        self._monotonic = Monotonic(time.ticks_ms())
        storage = Segments(make_path(FOLDER, "ring"))
        ring = Ring(storage, config["ring_segments"] or storage.room(SEGMENT_BYTES), SEGMENT_BYTES)
        # A node has no clock at this moment. The time of its configuration keeps an erased one above its past.
        self._boot = begin_boot(FOLDER, max(config["made_s"], ring.last_boot() + 1))
        self._patience = Patience()
        # A day of tolerance: whoever configured the node need not have had the gateway's clock.
        self._clock = Clock(max(0, config["made_s"] - DAY_S) * 1000)
        self._store = Store(config["node"], self._boot, ring, self._clock, self._patience, self.mono)
        self._sensors = self._make_sensors()
        verbs = {"restart": self._restart, "config": self._take_configuration}
        self._commands = Commands(FOLDER, self._now_ms, verbs, lambda: self._link.wake())
        way = __import__(config["way"]).Way(config)
        self._link = Link(way, self._store, self._patience, self.mono, self.report, self._commands, choice.confirm)

    def mono(self):
        """Return ms since this boot began."""
        return self._monotonic.ms(time.ticks_ms())

    async def run(self):
        """Start every task; returns when the first of them ends, which none should."""
        health = Health(self.mono, self._config["watchdog_s"] * 1000)
        health.expect("store", STORE_LIMIT_MS)
        health.expect("link", LINK_LIMIT_MS)
        tasks = [
            asyncio.create_task(self._store.run(lambda: health.moved("store"), self._link.wake)),
            asyncio.create_task(self._link.run(lambda: health.moved("link"))),
            asyncio.create_task(health.run()),
            asyncio.create_task(self._come_to_work(health)),
        ]
        for sensor in self._sensors:
            name = "device " + sensor.name
            health.expect(name, 3 * sensor.every_ms + 10000)
            tasks.append(asyncio.create_task(sensor.run(lambda name=name: health.moved(name))))
        print("bega: node %s runs, boot %d, firmware %s" % (self._config["node"], self._boot, VERSION))
        await asyncio.gather(*tasks)

    async def _come_to_work(self, health):
        """Once all of it has moved for a minute, the next reset is not counted with those before it."""
        await asyncio.sleep_ms(WORKS_MS)
        if not health.late():
            self._starts.worked()
        await asyncio.sleep_ms(TRIAL_MS - WORKS_MS)
        if self._choice.is_trial():
            print("bega: the new configuration is not confirmed by the gateway: back to the former one")
            self._restart_now()
        await asyncio.Event().wait()

    def report(self):
        """Return what the status says beside holds and dropped."""
        gc.collect()
        ring = self._store.ring
        return {
            "firmware": VERSION,
            "boot": self._boot,
            "up_s": self.mono() // 1000,
            "reset_cause": machine.reset_cause(),
            "time_quality": self._clock.stamp(self.mono())[1],
            "devices": {sensor.name: sensor.report() for sensor in self._sensors},
            "ring": {
                "held": ring.held_count(),
                "segments": ring.used_segments(),
                "damaged": ring.damaged,
                "errors": self._store.errors,
                "unstored": self._store.unstored,
            },
            "connects": self._link.connects,
            "malformed": self._link.malformed,
            "heap_free": gc.mem_free(),
            "configuration": self._choice.said,
            "last_error": self._starts.last_error(),
        }

    def _now_ms(self):
        return self._clock.stamp(self.mono())[0]

    def _restart(self, asked):
        asyncio.create_task(self._restart_soon())

    async def _restart_soon(self):
        await asyncio.sleep_ms(GOOD_BYE_MS)
        self._restart_now()

    def _restart_now(self):
        self._starts.worked()  # it was asked for, and is no crash
        machine.reset()

    def _take_configuration(self, asked):
        """Put a configuration on trial: it is used from the next start, which is now, and kept if it works."""
        return take(asked.get("configuration"), self._config, board) or self._restart(asked)

    def _make_sensors(self):
        buses = Buses(board.BUSES)
        sensors = []
        for device in self._config["devices"]:
            driver = load_driver(device["driver"], device["settings"])
            gc.collect()  # or what the next one keeps lies behind what this one's loading left: holes for ever
            sensors.append(
                Sensor(
                    device["name"],
                    driver,
                    buses.bus(device["bus"], driver.line),
                    device["every_ms"],
                    self.mono,
                    self._store.take,
                    lambda: self._link.say_status(),
                )
            )
        return sensors


def load_driver(name, settings):
    """Return the driver of the device folder `name`; raises ConfigError if there is none or it refuses its settings."""
    try:
        module = __import__("bega_protocols.devices." + name + ".driver", None, None, ("Driver",))
    except ImportError:
        raise ConfigError("there is no device %s in this firmware" % name)
    return module.Driver(settings)


def make_path(folder, name):
    """Return folder/name, `folder` made if it is not there."""
    try:
        os.mkdir(folder)
    except OSError:
        pass
    return folder + "/" + name
