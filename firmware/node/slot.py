"""What a node keeps of updates on its flash: which slot runs, what has come of the next one, and what is said of it."""

import binascii
import hashlib
import json
import os
import sys

from choice import content, put
from starts import VERSION

from bega_protocols.errors import WireError
from bega_protocols.slots import NONE, State, back, confirmed, other, read, tried, written

NOTED = "/state/update"  # what the status says of an update
OFFER = "/state/offer"  # what was promised, and by whom it is signed
PART, WHOLE = "/state/part", "/state/new"  # its payload: as far as it has come; all of it, its hash checked
STATE = "/state/slot"
FACTS = "/facts.json"
PIECE = 512


def running():
    """Return which slot runs."""
    return sys.path[0][1:]


def other_folder():
    """Return where the one that does not run lies."""
    return "/" + other(running())


def state():
    """Return what pick.py goes by."""
    return State(running(), *(read(content(STATE)) or 4 * NONE)[1:])


def confirm():
    """Have the slot that runs stay. Raises OSError."""
    put(STATE, written(confirmed(state())))


def try_other(version):
    """Have the other slot, with this version, run on trial from the next start on. Raises OSError."""
    put(STATE, written(tried(state(), version)))


def whole(folder, name=FACTS):
    """Return what is said of the application in a folder, once each of its files is as it says; raises WireError."""
    try:
        facts = json.loads(content(folder + name))
        files = facts["files"]
        for path in files:
            if hash_of(folder + "/" + path) != files[path]:
                raise WireError(path + " is damaged")
        return facts
    except (OSError, ValueError, TypeError, KeyError):
        raise WireError("a file is missing")


def go_back(why, left=None):
    """Have the other slot run from the next start on; return why it cannot be, None if it can. Raises OSError.

    left: the version that is to be left, if that was said: said twice, it must not bring it back.
    """
    if left is not None and left != VERSION:
        return "version %s runs already" % VERSION
    try:
        whole(other_folder())
    except WireError as error:
        return "there is no other version: " + error.why
    put(STATE, written(back(state())))
    note(VERSION, "rolled back", why)


def note(version, state, why="", **more):
    """Note that for the status. Raises OSError."""
    more.update(version=version, state=state, why=why)
    put(NOTED, json.dumps(more).encode())
    return more


def offered():
    """Return the manifest of what is being fetched. Raises ValueError, KeyError, TypeError."""
    return json.loads(json.loads(content(OFFER))["manifest"])


def worked():
    """Return the devices that worked with the version before."""
    try:
        return json.loads(content(NOTED))["worked"]
    except (ValueError, KeyError, TypeError):
        return []


def refuse(version, why):
    """Note that a version was not taken, and why; nothing of it is kept."""
    print("bega: update %s refused: %s" % (version, why))
    clear()
    try:
        note(version, "refused", why)
    except OSError:
        pass


def clear():
    """Let go of what has come."""
    for path in (WHOLE, PART, OFFER):  # in this order: a start that finds the first wants the last
        remove(path)


def hash_of(path):
    """Return the SHA-256 of a file in hex. Raises OSError."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        octets = file.read(PIECE)
        while octets:
            found.update(octets)
            octets = file.read(PIECE)
    return binascii.hexlify(found.digest()).decode()


def size(path):
    """Return how large a file is, 0 if it is not there."""
    try:
        return os.stat(path)[6]
    except OSError:
        return 0


def remove(path):
    """Remove a file, if it is there."""
    try:
        os.remove(path)
    except OSError:
        pass
