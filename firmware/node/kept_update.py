"""What a node keeps of an update on its flash, and what it says of it."""

import binascii
import hashlib
import json
import os

from choice import content, put

NOTED = "/state/update"  # what the status says of an update
OFFER = "/state/offer"  # what was promised, and by whom it is signed
PART, WHOLE = "/state/part", "/state/new"  # its payload: as far as it has come; all of it, its hash checked
PIECE = 512


def note(**words):
    """Note `words` for the status. Raises OSError."""
    put(NOTED, json.dumps(words).encode())
    return words


def worked():
    """Return the devices that worked when the update was offered, or had come."""
    try:
        return list(json.loads(content(NOTED))["worked"])
    except (ValueError, KeyError, TypeError):
        return []


def refuse(version, why):
    """Note that a version was not taken, and why; nothing of it is kept."""
    print("bega: update %s refused: %s" % (version, why))
    for path in (WHOLE, PART, OFFER):  # in this order: a start that finds the first wants the last
        remove(path)
    try:
        return note(version=version, state="refused", why=why)
    except OSError:
        return None


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
