"""What a node that runs has to do with updates, beside measuring. Loaded only where there is one.

`node` is an app.Node or a safe.Safe: sensors, config, link, starts, mono(), now_ms() and restart(asked).
"""

import gc
import json
import sys

from choice import content, put
from starts import FOLDER, VERSION
from trial import Trial, settled

CHECK_BYTES = 24576  # of heap: the code that checks an update, and a number of 3072 bits to the power of 65537


def go_on(node, is_trial):
    """Go on where the last start left it; return (trial or None, what the status says of the last update)."""
    try:
        words = json.loads(content(FOLDER + "/update"))
        state = words["state"]
    except (ValueError, KeyError, TypeError):  # its note rots
        words, state = None, ""
    trial = None
    if is_trial:
        trial = _tried(node, words or {"version": VERSION})
    elif state == "trial":
        words = settled(words, VERSION, node.starts.last_error())
    elif state == "loading":
        resume(node)
    sys.modules.pop("updates", None)
    return trial, words


def resume(node):
    """Go on fetching what was begun."""
    from pull import resumed

    node.link.pull = resumed(*_sides(node))


def take(node, asked):
    """Begin to fetch an update; return why not, None if it is so. Raises OSError."""
    gc.collect()
    config = node.config
    asked.update(now_ms=node.now_ms(), way=config["way"], worked=_working(node))
    asked["devices"] = [{"driver": device["driver"]} for device in config["devices"]]
    if gc.mem_free() < CHECK_BYTES:  # it is checked at a start, before all else; the status says what came of it
        put(FOLDER + "/asked", json.dumps(asked).encode())
        return node.restart(asked)
    from pull import begun

    came = begun(asked, asked, asked["now_ms"], *_sides(node))
    if isinstance(came, str):
        return came
    node.link.pull = came
    node.link.say_status()


def back(node, asked):
    """Go back to the version before; return why not, None if it is so. Raises OSError."""
    from slot import go_back

    return go_back("by command", asked.get("version")) or node.restart(asked)


def _sides(node):
    """Return what a Pull asks for what works, and what it calls at its end."""

    def ended():
        node.link.say_status()
        node.restart(None)

    return (lambda: _working(node)), ended


def _working(node):
    return [sensor.name for sensor in node.sensors if sensor.state == "ok"]


def _tried(node, words):
    trial = Trial(node.sensors, node.mono, words, node.link.say_status)
    confirm = node.link.confirm

    def acknowledged():
        confirm()
        trial.acknowledged = True

    node.link.confirm = acknowledged
    return trial
