# The board's side of every peripheral: one request a line to the process that owns them, one answer a line back.
# All goes over file descriptors that the interpreter inherited, so a board needs no port.
import json
import os
import sys

import vfs

_fds = json.loads(os.getenv("BEGA_BOARD_FDS"))
_control = open(_fds["control"], "r+b")
_interrupts = None
_handlers = {}  # by the interrupt's name
_host = vfs.VfsPosix(os.getenv("MICROPYPATH").split(":")[0])
cut = open(_fds["cut"], "r+b") if "cut" in _fds else None  # see _flash.py
masked = 0  # interrupts wait while this is set


def call(op, **facts):
    """Return the answer; raises OSError where the peripheral does, and ends the program where the board is gone."""
    facts["op"] = op
    _control.write(json.dumps(facts).encode() + b"\n")
    line = _control.readline()
    if not line:
        sys.exit(1)  # the process that is this board was killed: so is the program on it
    if _interrupts:
        drain()  # only now: a handler that asks in between would take this answer
    answer = json.loads(line)
    if "errno" in answer:
        if answer["errno"] == 22:  # where the port raises ValueError
            raise ValueError(answer["text"])
        if answer["errno"] < 0:  # the IDF's
            raise OSError(answer["errno"], answer["text"])
        raise OSError(answer["errno"] or answer["text"])
    return answer.get("ok")


def serial_file(number):
    """Return the file behind a UART."""
    return open(_fds["uart%d" % number], "r+b")


def flash_file():
    """Return the file that is the whole flash."""
    return open(_fds["flash"], "r+b")


def load(name):
    """Return the module `name` of the shims, loaded when it is first asked for: all of them share the firmware's heap.

    The firmware's file system shows none of them, so they are mounted for just as long.
    """
    path = sys.path
    sys.path = ("/rom", ".frozen")
    vfs.mount(_host, "/rom")
    try:
        return __import__(name)
    finally:
        vfs.umount("/rom")
        sys.path = path


class _Late:
    """Stands for a module until something of it is asked for."""

    def __init__(self, name):
        self._name = name
        sys.modules[name] = self

    def __getattr__(self, name):
        if sys.modules[self._name] is self:
            del sys.modules[self._name]
            load(self._name)
        return getattr(sys.modules[self._name], name)


def on_interrupt(name, handler):
    """Call handler(what came with it) at each interrupt of this name, soon: at the latest when asyncio is idle."""
    global _interrupts
    if handler is None:
        _handlers.pop(name, None)
        return
    _handlers[name] = handler
    if _interrupts is None:
        import asyncio

        _interrupts = open(_fds["interrupts"], "r+b")
        asyncio.create_task(_pump(asyncio.StreamReader(_interrupts)))  # noqa: RUF006 - the loop keeps it


def drain():
    """Hand on the interrupts that have come."""
    while not masked:
        event = _interrupts.read(16)
        if not event:
            return
        _hand_on(event)


async def _pump(reader):
    import asyncio

    while True:
        event = await reader.read(16)
        while masked:
            await asyncio.sleep_ms(1)
        _hand_on(event)


def _hand_on(event):
    import micropython

    name, _, facts = event.decode().partition(" ")
    if name in _handlers:
        micropython.schedule(
            _handlers[name], facts
        )  # as the port does: between two instructions, what it raises is said


for _name in ("network", "esp32", "bluetooth"):
    _Late(_name)
