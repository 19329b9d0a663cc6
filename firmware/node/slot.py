"""The slots as the application sees them: which runs, whether the other is whole, and going back to it."""

import json
import sys

from choice import content, put
from kept_update import hash_of, note

from bega_protocols import slots

STATE = "/state/slot"
FACTS = "/facts.json"
HEAD = 2048


def running():
    """Return which slot runs."""
    return sys.path[0][1:]


def state():
    """Return what pick.py goes by."""
    return slots.read(content(STATE)) or slots.State(running(), slots.NONE, slots.NONE, slots.NONE)


def put_state(new):
    """Have pick.py go by `new`. Raises OSError."""
    put(STATE, slots.written(new))


def facts(slot):
    """Return version and hardware of what lies in a slot. Raises OSError, WireError."""
    from bega_protocols.update import read_facts  # not on the heap while an update comes

    with open("/" + slot + FACTS, "rb") as file:
        return read_facts(file.read(HEAD))


def why_broken(slot, name=FACTS):
    """Return what is wrong with the application in a slot, "" if it is whole."""
    try:
        files = json.loads(content("/" + slot + name))["files"]
        for path in files:
            if hash_of("/" + slot + "/" + path) != files[path]:
                return "%s is damaged" % path
    except (OSError, ValueError, TypeError, KeyError):
        return "a file is missing"
    return ""


def go_back(why, left=None):
    """Have the other slot run from the next start on; return why it cannot be, None if it can. Raises OSError.

    left: the version that is to be left, if that was said: said twice, it must not bring it back.
    """
    before = state()
    other = slots.other(running())
    broken = why_broken(other)
    if broken:
        return "there is no other version to go back to: %s" % broken
    gone = facts(running())["version"]
    if left is not None and left != gone:
        return "version %s runs already" % gone
    put_state(slots.back(slots.State(running(), before.left, before.version, before.failed)))
    note(version=gone, state="rolled back", why=why)
