"""The node that stores and hands on: wires the parts together, and runs them."""

import asyncio
import gc
import os
import time

import kept
import machine
from choice import TRIAL_MS, is_there, take
from commands import Commands
from flash import Segments, begin_boot
from health import Health
from link import Link
from sensors import make_sensors
from starts import FOLDER, VERSION, WORKS_MS
from store import Store

from bega_protocols.ring import Ring
from bega_protocols.timekeeping import Clock, Monotonic, Patience

SEGMENT_BYTES = 4096
DAY_S = 86400
STORE_LIMIT_MS = 60000
LINK_LIMIT_MS = 180000
TELL_EVERY_MS = 3600000
OPEN_FIRST_MS = 5000
LAST_RESORT_MS = 3600000
GOOD_BYE_MS = 2000  # for the result of a command, before the restart that it asked for


class Node:
    """Everything that runs on the board."""

    def __init__(self, choice, starts, is_trial):
        """is_trial: this version has still to prove itself. Raises ConfigError if a driver refuses settings or bus."""
        self._choice = choice
        self.starts = starts
        self.config = config = choice.values
        self._monotonic = Monotonic(time.ticks_ms())
        storage = Segments(make_path(FOLDER, "ring"))
        ring = Ring(storage, config["ring_segments"] or storage.room(SEGMENT_BYTES), SEGMENT_BYTES)
        is_wake = machine.reset_cause() == machine.DEEPSLEEP_RESET and not choice.is_trial()
        slept = kept.read() if config["battery"] and is_wake else None
        if slept:  # one boot over all its sleeps: its flash need not note each, nor its gateway
            _, self._boot, seq, zero_ms, _ = slept
            self._monotonic = Monotonic(time.ticks_ms(), kept.chip_ms() - zero_ms)
        else:
            # A node has no clock at this moment. The time of its configuration keeps an erased one above its past.
            self._boot = begin_boot(FOLDER, max(config["made_s"], ring.last_boot() + 1))
            seq = 0
        self._patience = Patience()
        # A day of tolerance: whoever configured the node need not have had the gateway's clock.
        self._clock = Clock(max(0, config["made_s"] - DAY_S) * 1000)
        # A power-on that left the memory which a power cut clears: the supply only dipped.
        self._is_brown_out = machine.reset_cause() == machine.PWRON_RESET and kept.read() is not None
        told_ms = kept.told_ms()
        self._told = told_ms is not None  # the chip's clock shows the gateway's time
        self._told_ms = -TELL_EVERY_MS
        self._is_ending = False  # a restart was asked for
        if self._told:
            self._clock.resume(told_ms, self.mono())
        self._store = Store(
            config["node"], self._boot, seq, ring, self._clock, self._patience, self.mono, self._tell_chip
        )
        self.sensors = make_sensors(config, self._boot, self.mono, self._store.take, lambda: self.link.say_status())
        verbs = {"restart": self.restart, "config": self._take_configuration, "set_total": self._set_total}
        verbs.update(
            update=lambda asked: self._updates().take(self, asked),
            rollback=lambda asked: self._updates().back(self, asked),
        )
        if config["led_pin"] is not None:
            verbs["blink"] = lambda asked: __import__("blink").blink(config["led_pin"], asked)
        if any(device["actions"] for device in config["devices"]):
            verbs.update(__import__("acts").verbs(config["devices"], self.sensors, self.now_ms))
        self._commands = Commands(FOLDER, self.now_ms, verbs, lambda: self.link.wake())
        way = __import__(config["way"]).Way(config)
        self.link = Link(way, self._store, self._patience, self.mono, self.report, self._commands, choice.confirm)
        self._trial = self.words = None  # what is said of the last update
        if is_trial or is_there(FOLDER + "/update"):
            self._trial, self.words = self._updates().go_on(self, is_trial)

    def mono(self):
        """Return ms since this boot began."""
        return self._monotonic.ms(time.ticks_ms())

    async def run(self):
        """Start every task; returns when the first of them ends, which none should. On a battery it ends in sleep."""
        print("bega: node %s runs, boot %d, firmware %s" % (self.config["node"], self._boot, VERSION))
        if self.config["battery"]:
            return await self._run_on_battery()
        health = Health(self.mono, self.config["watchdog_s"] * 1000)
        health.expect("store", STORE_LIMIT_MS)
        health.expect("link", LINK_LIMIT_MS)
        tasks = [
            asyncio.create_task(self._store.run(lambda: health.moved("store"), self.link.wake)),
            asyncio.create_task(self.link.run(lambda: health.moved("link"))),
            asyncio.create_task(health.run()),
            asyncio.create_task(self._come_to_work(health)),
        ]
        if self._trial:
            tasks.append(asyncio.create_task(self._trial.run(self._restart_now)))
        # TLS wants its memory in one piece, and gets it before anything else runs.
        await self.link.opened(OPEN_FIRST_MS)
        for sensor in self.sensors:
            name = "device " + sensor.name
            health.expect(name, 3 * sensor.every_ms + 10000)
            tasks.append(asyncio.create_task(sensor.run(lambda name=name: health.moved(name))))
        await asyncio.gather(*tasks)

    async def _run_on_battery(self):
        from battery import Battery

        battery = Battery(self.config, self.mono, self._store, self.link, self.sensors)
        if self._choice.is_trial() or self._trial:  # this wake decides
            battery.is_first = True
        await battery.run()
        if self._is_ending:
            self._restart_now()
        if self._trial and not self._trial.confirm():
            self._trial.give_up()
            self._restart_now()
        self.starts.worked()
        if self._choice.is_trial():
            print("bega: the new configuration is not confirmed by the gateway: back to the former one")
            machine.reset()
        battery.sleep(self._boot, self._told)

    async def _come_to_work(self, health):
        """Once all of it has moved for a minute, the next reset is not counted with those before it.

        Then see whether the node must be restarted: for a configuration that
        brings it nowhere, or as the last thing to try where no way opens.
        """
        while True:
            await asyncio.sleep_ms(WORKS_MS)
            if not health.late():
                self.starts.worked()
            if self._choice.is_trial() and self.mono() > TRIAL_MS:
                print("bega: the new configuration is not confirmed by the gateway: back to the former one")
                self._restart_now()
            if self.mono() - self.link.up_ms > LAST_RESORT_MS:
                print("bega: no way to the gateway for an hour: restart")
                self._restart_now()

    def report(self):
        """Return what the status says beside holds and dropped."""
        gc.collect()
        ring = self._store.ring
        return {
            "firmware": VERSION,
            "boot": self._boot,
            "up_s": self.mono() // 1000,
            "reset_cause": machine.reset_cause(),
            "brown_out": self._is_brown_out,
            "time_quality": self._clock.stamp(self.mono())[1],
            "devices": {sensor.name: sensor.report() for sensor in self.sensors},
            "ring": {
                "held": ring.held_count(),
                "segments": ring.used_segments(),
                "most": ring.most_segments,
                "damaged": ring.damaged,
                "errors": self._store.errors,
                "unstored": self._store.unstored,
            },
            "connects": self.link.connects,
            "malformed": self.link.malformed,
            "heap_free": gc.mem_free(),
            "battery": self.config["battery"],
            "configuration": self._choice.said,
            "update": (self.link.pull or self._trial or self).words,
            "last_error": self.starts.last_error(),
        }

    def _tell_chip(self, gateway_ms):
        """Let the chip's clock, which runs on through resets and sleep, show the gateway's time."""
        if self._told and self.mono() - self._told_ms < TELL_EVERY_MS:
            return
        self._told, self._told_ms = True, self.mono()
        kept.set_chip(gateway_ms)
        kept.write(1, self._boot, self._store.seq, kept.chip_ms() - self.mono(), 0)

    def now_ms(self):
        """Return Unix time, None while it is not known."""
        return self._clock.stamp(self.mono())[0]

    def restart(self, asked=None):
        """Restart once what came of a command is told."""
        self._is_ending = True
        asyncio.create_task(self._restart_soon())

    async def _restart_soon(self):
        await asyncio.sleep_ms(GOOD_BYE_MS)
        self._restart_now()

    def _restart_now(self):
        for sensor in self.sensors:
            if hasattr(sensor, "keep"):
                sensor.keep()
        try:
            self._store.flush()
        except OSError:
            pass  # said already
        self.starts.worked()  # it was asked for, and is no crash
        machine.reset()

    def _take_configuration(self, asked):
        """Put a configuration on trial: it is used from the next start, which is now, and kept if it works."""
        import board

        return take(asked.get("configuration"), self.config, board, self.now_ms()) or self.restart(asked)

    def _updates(self):
        import updates  # late: most nodes are on no update

        return updates

    def _set_total(self, asked):
        from pulses import set_total

        return set_total(self.sensors, asked)


def make_path(folder, name):
    """Return folder/name, `folder` made if it is not there."""
    try:
        os.mkdir(folder)
    except OSError:
        pass
    return folder + "/" + name
