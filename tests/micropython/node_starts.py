# How a node starts, and what keeps it from coming back: first.py, starts.py, safe.py, choice.py, commands.py, kept.py
# on MicroPython, with parts that fail. Run as: micropython node_starts.py first.py; prints what was found as JSON.
import asyncio
import builtins
import json
import os
import sys
import time

import choice
import kept
import link
import machine
import starts
import vfs
from commands import Commands
from dying_flash import Flash

NOW_MS = 1795300000000
FOUND = {}


class Part:
    """A module, or a table of a configuration, made of what is needed of it."""

    def __init__(self, **parts):
        for name in parts:
            setattr(self, name, parts[name])


class Reset(Exception):
    pass


def reset():
    raise Reset


def flash_mounted():
    flash = Flash(512, 128)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(flash, "/n")
    choice.OWN, choice.NEW, choice.TRIAL, choice.GOOD = ["/n/config." + end for end in ("json", "new", "trial", "good")]


def configuration(**more):
    made = {
        "node": "air-1",
        "made_s": NOW_MS // 1000,
        "wifi": {"ssid": "city", "key": "secret"},
        "broker": {"host": "h"},
        "devices": {"sht": {}},
    }
    made.update(more)
    return {key: made[key] for key in made if made[key] is not None}


def takes():
    board = Part(BUSES={"i2c0": {}}, DEVICES={"sht": {"driver": "sht4x", "bus": "i2c0"}})
    used = {"node": "air-1"}

    def take(**more):
        try:
            why_not = choice.take(configuration(**more), used, board, NOW_MS)
        except MemoryError:
            why_not = "MemoryError"
        left = sorted(os.listdir("/n"))
        return [why_not, "config.new" in left]

    found = {"made ahead": take(made_s=NOW_MS // 1000 + 90000)}
    real = builtins.__import__

    def lean(name, *more):
        if name == "uplink":
            raise ImportError("no module named 'uplink'")
        if name == "broker" and FOUND.get("full"):
            raise MemoryError
        return real(name, *more)

    builtins.__import__ = lean
    found["way not built"] = take(broker=None, uplink={"bus": "uart1"})
    FOUND["full"] = True
    found["no memory"] = take()
    del FOUND["full"]
    found["good"] = take()
    found["good, then bad"] = take(devices={})
    builtins.__import__ = real
    os.remove(choice.NEW)
    return found


def starts_in_a_row(cause):
    """Return at which starts in a row, none of which comes to work, the node is in safe mode."""
    safe = []
    for number in range(1, 26):
        if starts.Starts("/n", cause).why_safe():
            safe.append(number)
    os.remove("/n/starts")
    return safe


def told_ms(clock_ms):
    """Return the time of a chip whose clock shows `clock_ms`, and whose memory says that it was told at NOW_MS."""
    kept.set_chip(NOW_MS)
    kept.write(1, 7, 0, NOW_MS - 5000, 0)
    kept.set_chip(clock_ms)
    return kept.told_ms()


def main_with(why_safe, is_new, text_fails=False):
    """Run first.py; return what it began, and how it ended."""
    begun = []

    def begin(name, is_failing=False):
        begun.append(name)
        if is_failing:
            raise ValueError("a defect")

    counts = Part(why_safe=lambda: why_safe, note_error=lambda text: begun.append("noted"))
    if text_fails:
        counts.note_error = lambda text: 1 // 0
    fakes = {
        "starts": Part(begin=lambda: counts),
        "safe": Part(start=lambda why, _: begin("safe")),
        "begin": Part(start=lambda *_: begin("app", text_fails)),
        "app": Part(start=lambda _: begin("app", text_fails)),
        "choice": Part(is_new_there=lambda: is_new, is_there=lambda path: False),
        "machine": Part(reset=reset),
        "time": Part(sleep=lambda _: None),
    }
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        with open(sys.argv[1]) as file:
            first = {}
            exec(file.read(), first)
        first["start"](False)
    except Reset:
        begun.append("reset")
    except ZeroDivisionError:
        begun.append("console")
    for name in before:
        if before[name]:
            sys.modules[name] = before[name]
        else:
            del sys.modules[name]
    return begun


async def safe_speaks():
    """Return what is said in safe mode over a way that fails in ways that no way should."""
    sys.modules["board"] = Part()
    import safe

    said, tries = [], []
    safe.PAUSE_MS = safe.TURN_MS = 1

    class Way:
        def __init__(self, config):
            tries.append("made")
            if len(tries) == 1:
                raise MemoryError

        async def open(self):
            tries.append("opened")
            if tries.count("opened") == 1:
                raise KeyError("what nobody thought of")

        async def send(self, kind, payload):
            said.append(kind)

        async def run(self, hear):
            hear("time", b'{"unix_ms": %d}' % NOW_MS)
            await asyncio.sleep(10)

        def check(self):
            pass

        def close(self):
            pass

    sys.modules["strange"] = Part(Way=Way)
    chosen = Part(values={"way": "strange", "watchdog_s": 60}, said="")
    counts = Part(last_error=lambda: "")
    speaking = asyncio.create_task(safe.Safe("why", counts, chosen)._speak())
    for _ in range(200):
        if said:
            break
        await asyncio.sleep(0.01)
    speaking.cancel()
    return said[:1]


async def commands_without_memory():
    """Return (results, how many are being done while one is, and after it)."""
    go_on = asyncio.Event()
    doing = []

    async def wait(asked):
        await go_on.wait()
        return asked.get("why_not")

    commands = Commands("/n", lambda: NOW_MS, {"wait": wait}, int)
    asked = {"id": "c-1", "expires": NOW_MS // 1000 + 60}
    real, commands._write = commands._write, lambda: bytearray(1 << 60)
    commands.hear("wait", json.dumps(asked))
    doing.append(commands.doing)
    commands._write = real
    commands.hear("wait", json.dumps(asked))
    doing.append(commands.doing)
    go_on.set()
    while commands.doing:  # noqa: ASYNC110 - what is done beside sets no event
        await asyncio.sleep(0)
    doing.append(commands.doing)
    commands.hear("wait", json.dumps({"id": "c-2", "expires": asked["expires"], "why_not": "x" * 5000}))
    while commands.doing:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return [[result["done"] for result in commands.results], doing, os.stat("/n/commands")[6]]


def acknowledgements():
    """Return how often what brought us here was called good.

    After one that frees nothing, one that frees what an earlier start had sent, and two that free what this one sent.
    """
    held = [3, 3]
    confirmed = []
    ring = Part(held_count=lambda: held[-1], dropped=lambda: [])
    store = Part(ring=ring, pack=None, boot=5)
    node = link.Link(Part(), store, None, lambda: 0, None, None, lambda: confirmed.append(1))
    node._window = Part(acknowledged=lambda pairs, _: held.pop() and False)
    counts = []
    for left, boot in ((3, 5), (2, 4), (1, 5), (0, 5)):
        held[:] = [left] + held[-1:]
        node._hear("ack", json.dumps([[boot, 6]]).encode())
        counts.append(len(confirmed))
    return counts


async def opens_that_do_not_last():
    """Return how often a way is opened whose every connection ends at once, as where a broker refuses us."""
    opened = []

    async def end(*_):
        raise OSError("refused")

    async def open_():
        opened.append(1)

    way = Part(open=open_, run=end, close=lambda: None, check=lambda: None, send=end, pack=None)
    ring = Part(held_count=lambda: 0, dropped=lambda: [], holds=lambda: [])
    patience = Part(connected=int, disconnected=int)
    link.FIRST_PAUSE_MS, link.BRIEF_PAUSE_MS = 10, 160
    node = link.Link(way, Part(ring=ring), patience, time.ticks_ms, dict, Part(results=[]), None)
    node._window = Part(restart=int)
    running = asyncio.create_task(node.run(lambda: None))
    await asyncio.sleep(1)
    running.cancel()
    return len(opened)


flash_mounted()
FOUND["takes"] = takes()
FOUND["crashes"] = starts_in_a_row(machine.WDT_RESET)
FOUND["powers"] = starts_in_a_row(machine.PWRON_RESET)
FOUND["told"] = {
    "went on": told_ms(NOW_MS + 60000) - NOW_MS,
    "began anew": told_ms(946684805000),
    "set by the configuration": told_ms(NOW_MS - 86400000),
}
FOUND["main"] = {
    "well": main_with("", False),
    "safe": main_with("5 resets", False),
    "new": main_with("5 resets", True),
    "defect": main_with("", False, True),
}
FOUND["safe speaks"] = asyncio.run(safe_speaks())
FOUND["acknowledgements"] = acknowledgements()
FOUND["opens"] = asyncio.run(opens_that_do_not_last())
FOUND["commands"] = asyncio.run(commands_without_memory())
print(json.dumps(FOUND))
