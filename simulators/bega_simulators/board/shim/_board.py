# The way from the interpreter to the process that is the board: one request a line, one answer a line back, over file
# descriptors that the interpreter inherited. The modules of the port are names that ask there (remote.py has the
# values' form): what a shim takes of the heap, the firmware lacks.
import builtins
import json
import os
import sys

import vfs

sys.path, _path = (), sys.path
import machine as _builtin

sys.path = _path
_fds = json.loads(os.getenv("BEGA_BOARD_FDS"))
_control = open(_fds["control"], "r+b")
_drain = None  # hands on the interrupts that have come; there once the firmware named a handler
_host = vfs.VfsPosix(os.getenv("MICROPYPATH").split(":")[0])
cut = open(_fds["cut"], "r+b") if "cut" in _fds else None  # see _flash.py


def call(op, **facts):
    """Return the answer of the board; ends the program where the board is gone."""
    facts["op"] = op
    _control.write(json.dumps(facts).encode() + b"\n")
    line = _control.readline()
    if not line:
        sys.exit(1)  # the process that is this board was killed: so is the program on it
    if _drain:
        _drain()  # only now: a handler that asks in between would take this answer
    answer = json.loads(line)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    return answer["ok"]


def ask(path, args=(), more=(), owner=None):
    """Call what lies at `path`; owner is what a handler among the arguments is called with."""
    answer = call("ask", path=path, args=_sent(args, owner), more={name: _sent(more[name], owner) for name in more})
    if isinstance(answer, dict) and "into" in answer:
        for arg in args:
            if isinstance(arg, (bytearray, memoryview)):
                arg[:] = bytes.fromhex(answer["into"])
        answer = answer["ok"]
    return _received(answer)


def file(name):
    """Return the file of a UART, or of the whole flash."""
    return open(_fds[name], "r+b")


def load(name):
    """Return the shim's module `name`. The firmware's file system shows none, so they are mounted for just as long."""
    path = sys.path
    sys.path = ("/rom", ".frozen")
    vfs.mount(_host, "/rom")
    try:
        return __import__(name)
    finally:
        vfs.umount("/rom")
        sys.path = path


class Thing:
    """A class or an object on the board's side."""

    def __init__(self, path):
        self._path = path

    def __getattr__(self, name):
        if name[0] == "_":
            raise AttributeError(name)
        if self._path[0] == "#" and name[0].islower():
            return lambda *args, **more: ask(self._path + "." + name, args, more, self)
        return _received(call("get", path=self._path, name=name))

    def __call__(self, *args, **more):
        return ask(self._path, args, more, self)

    def __int__(self):
        return ask(self._path + ".__int__")


class Module(Thing):
    """A module of the port. Those of its names that are near their bytes are loaded when they are first named."""

    def __init__(self, name, here=()):
        self._path = name
        self._here = here
        sys.modules[name] = self

    def __getattr__(self, name):
        if self._path == "ssl":
            return getattr(load("_ssl").real, name)
        if name in self._here:
            return getattr(load("_" + name.lower()), name)
        try:
            return super().__getattr__(name)
        except AttributeError:
            if self._path == "machine":
                return getattr(_builtin, name)
            raise


def _sent(value, owner):
    if isinstance(value, (list, tuple)):
        return [_sent(part, owner) for part in value]
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, (bytearray, memoryview)):
        return {"m": bytes(value).hex()}
    if isinstance(value, Thing):
        return {"r": value._path}
    if callable(value):
        _interrupts().handlers[owner._path] = lambda _: value(owner)
        return {"c": owner._path}
    return value


def _interrupts():
    global _drain
    module = load("_interrupts")
    _drain = module.drain
    return module


def _received(value):
    if isinstance(value, list):
        return [_received(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "e" in value:
        raise getattr(builtins, value["e"][0])(*value["e"][1:])
    if "r" in value:
        return Thing(value["r"])
    if "b" in value:
        return bytes.fromhex(value["b"])
    if "t" in value:
        return tuple(_received(value["t"]))
    if "sleep" in value:
        import time

        return time.sleep_ms(value["sleep"])
    _interrupts().mask(value["mask"])
    return value["ok"]


Module("machine", ("UART",))
Module("esp32", ("Partition",))
Module("network")
Module("bluetooth")
Module("ssl")
