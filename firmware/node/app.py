"""The node's application: wires the parts together, and starts them."""

import asyncio
import gc
import os
import sys
import time

import board
import machine
from config import read_config
from flash import Segments, begin_boot
from health import Health
from link import Link
from sensor import Sensor
from store import Store
from wires import Buses

from bega_protocols.errors import ConfigError
from bega_protocols.ring import Ring
from bega_protocols.timekeeping import Clock, Monotonic, Patience

VERSION = "0.1.0"
CONFIG = "/config.json"
STATE_FOLDER = "/state"
SEGMENT_BYTES = 4096
REST_S = 3  # before a reset after a defect, so that a loop of them stays readable on the console
DAY_S = 86400
COLLECT_BYTES = 16384  # allocated, and the heap is swept: one that first fills up is torn, and no 4 kB fit any more
STORE_LIMIT_MS = 60000
LINK_LIMIT_MS = 180000


def start():
    """Run until the power goes. A configuration that cannot be is said, and left to the technician at the console."""
    gc.collect()
    gc.threshold(COLLECT_BYTES)
    try:
        asyncio.run(Node(read_config(CONFIG, board)).run())
    except ConfigError as error:
        print("bega: configuration: %s" % error)
        return
    except Exception as error:  # a defect of ours, or a flash that fails: say it, and begin anew
        sys.print_exception(error)
    time.sleep(REST_S)
    machine.reset()


class Node:
    """Everything that runs on the board."""

    def __init__(self, config):
        """Raises ConfigError if a driver refuses its settings or its bus."""
        self._config = config
        self._monotonic = Monotonic(time.ticks_ms())
        storage = Segments(make_path(STATE_FOLDER, "ring"))
        ring = Ring(storage, config["ring_segments"] or storage.room(SEGMENT_BYTES), SEGMENT_BYTES)
        # A node has no clock at this moment. The time of its configuration keeps an erased one above its past.
        self._boot = begin_boot(STATE_FOLDER, max(config["made_s"], ring.last_boot() + 1))
        self._patience = Patience()
        # A day of tolerance: whoever configured the node need not have had the gateway's clock.
        self._clock = Clock(max(0, config["made_s"] - DAY_S) * 1000)
        self._store = Store(config["node"], self._boot, ring, self._clock, self._patience, self.mono)
        self._sensors = self._make_sensors()
        self._link = Link(__import__(config["way"]).Way(config), self._store, self._patience, self.mono, self.report)

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
        ]
        for sensor in self._sensors:
            name = "device " + sensor.name
            health.expect(name, 3 * sensor.every_ms + 10000)
            tasks.append(asyncio.create_task(sensor.run(lambda name=name: health.moved(name))))
        print("bega: node %s runs, boot %d, firmware %s" % (self._config["node"], self._boot, VERSION))
        await asyncio.gather(*tasks)

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
        }

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
