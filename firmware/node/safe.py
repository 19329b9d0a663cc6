"""Safe mode: network and commands only. No sensor is read, and the ring is left as it is, until half an hour is over.

What made the node fail may lie in any of these; here it can still be told what
happened, be given another configuration, or be restarted.
"""

import asyncio
import json
import time

import board
import machine
from choice import Choice, is_there, take
from commands import Commands
from starts import FOLDER, VERSION
from together import until_first_ends

from bega_protocols.errors import ConfigError, WireError
from bega_protocols.timekeeping import Clock, Monotonic, read_time

LASTS_MS = 1800000
STATUS_MS = 30000
TURN_MS = 1000
PAUSE_MS = 10000
GOOD_BYE_MS = 2000


def start(why, starts):
    """Stay in safe mode for its time, then reset; a configuration that cannot be is left to the technician."""
    print("bega: safe mode: %s" % why)
    try:
        asyncio.run(Safe(why, starts, Choice(board)).run())
    except ConfigError as error:
        print("bega: configuration: %s" % error)
        starts.worked()  # once the technician has put another one there, the node is to measure
        return
    starts.worked()
    machine.reset()


class Safe:
    """The node without its sensors and its ring."""

    def __init__(self, why, starts, choice):
        self._why = why
        self.starts = starts
        self._choice = choice
        self.config = choice.values
        self._monotonic = Monotonic(time.ticks_ms())
        self._clock = Clock(0)
        self._is_over = False
        self._turn = asyncio.Event()
        self.pull = None  # an update that is being fetched
        self.link, self.sensors, self.say_status = self, (), self._turn.set  # as updates.py asks for them
        import updates

        if is_there("/state/offer"):
            updates.resume(self)
        verbs = {"restart": self.restart, "config": self._take_configuration}
        verbs.update(update=lambda asked: updates.take(self, asked), rollback=lambda asked: updates.back(self, asked))
        self._commands = Commands(FOLDER, self.now_ms, verbs, lambda: None)
        self._watchdog = machine.WDT(timeout=self.config["watchdog_s"] * 1000)

    async def run(self):
        """Return when it is over."""
        speaking = asyncio.create_task(self._speak())
        while self.mono() < LASTS_MS and not self._is_over:
            self._watchdog.feed()
            await asyncio.sleep_ms(TURN_MS)
        await asyncio.sleep_ms(GOOD_BYE_MS)
        speaking.cancel()

    async def _speak(self):
        if self.config["way"] == "beacon":
            return  # it hears nobody
        way = None
        while True:
            try:
                way = way or __import__(self.config["way"]).Way(self.config)
                await way.open()
                print("bega: link up")
                await until_first_ends(way.run(self._hear), self._tell(way))
            except Exception as error:  # whatever it is: nothing but this way leads to the node
                print("bega: link down: %s %s" % (type(error).__name__, error))
            if way:
                way.close()
            await asyncio.sleep_ms(PAUSE_MS)

    async def _tell(self, way):
        said_ms = -STATUS_MS
        while True:
            way.check()
            if self.mono() - said_ms >= STATUS_MS:
                said_ms = self.mono()
                await way.send("status", json.dumps(self._report()).encode())
            while self._commands.results:
                await way.send("result", json.dumps(self._commands.results[0]).encode())
                self._commands.results.pop(0)
            want = self.pull and self.pull.want()
            if want:
                await way.send("want", want)
            self._turn.clear()
            try:
                await asyncio.wait_for_ms(self._turn.wait(), TURN_MS // 2)
            except asyncio.TimeoutError:
                pass

    def _report(self):
        """Without "holds": nobody looked into the ring, and a gateway must not take that for an empty one."""
        return {
            "firmware": VERSION,
            "safe": self._why,
            "up_s": self.mono() // 1000,
            "reset_cause": machine.reset_cause(),
            "configuration": self._choice.said,
            "update": self.pull and self.pull.words,
            "last_error": self.starts.last_error(),
        }

    def _hear(self, kind, payload):
        try:
            if kind == "time":
                self._clock.heard(read_time(payload), self.mono())
            elif kind == "piece" and self.pull:
                self.pull.take(payload)
                self._turn.set()
            elif kind[:4] == "cmd/":
                self._commands.hear(kind[4:], payload)
        except (WireError, MemoryError):
            pass  # the next one may make sense

    def mono(self):
        return self._monotonic.ms(time.ticks_ms())

    def now_ms(self):
        return self._clock.stamp(self.mono())[0]

    def restart(self, asked=None):
        self._is_over = True

    def _take_configuration(self, asked):
        return take(asked.get("configuration"), self.config, board, self.now_ms()) or self.restart(asked)
