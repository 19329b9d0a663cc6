"""Putting an update that has come into the other slot, before the application starts: all of the heap is free then.

A cut at any moment leaves what runs as it is; the next start does all of it again.
"""

import json
import os

import deflate
import kept_update as kept
import machine
import slot
from choice import content
from offer import checked

from bega_protocols import slots
from bega_protocols.archive import Archive
from bega_protocols.errors import WireError

WINDOW_BITS = 10
WATCHDOG_MS = 120000
CRASHES = 3  # starts in a row that ended here by the watchdog: then without it
NEW_FACTS = "/facts.new"


def run(crashes):
    """Put it there, and reset the board into its trial; return if it is not taken. crashes: starts that failed."""
    version = ""
    try:
        offer = json.loads(content(kept.OFFER))
        manifest, why = checked(offer["manifest"], offer["signature"], None)
        version = manifest["version"] if manifest else ""
        if version == slot.facts(slot.running())["version"]:  # power failed once it was there
            clear()
            return
        if crashes > CRASHES:
            why = "%d starts failed while it was being put in its place" % crashes
        watchdog = machine.WDT(timeout=WATCHDOG_MS)
        why = why or unpacked(manifest, "/" + slots.other(slot.running()), watchdog)
    except WireError as error:
        why = error.why
    except Exception as error:  # a node that did not get past this would never start again
        why = "it cannot be put in its place: %r" % error
    if why:
        kept.refuse(version, why)
        return
    kept.note(version=version, state="trial", why="", worked=kept.worked())
    slot.put_state(slots.tried(slots.State(slot.running(), slots.NONE, slots.NONE, slot.state().failed), version))
    clear()
    print("bega: version %s is tried" % version)
    machine.reset()


def unpacked(manifest, folder, watchdog):
    """Put the files there in the place of what is there; return why they are not what was promised, "" if they are."""
    if kept.hash_of(kept.WHOLE) != manifest["sha256"]:
        return "its files are not those that were signed: the hash differs"
    kept.remove(folder + slot.FACTS)  # first: from now on nobody takes it for whole
    empty(folder)
    with open(kept.WHOLE, "rb") as file:
        stream = deflate.DeflateIO(file, deflate.RAW, WINDOW_BITS)
        archive = Archive(stream.read, manifest["unpacked"])
        path = archive.next()
        while path is not None:
            watchdog.feed()
            place = folder + (NEW_FACTS if "/" + path == slot.FACTS else "/" + path)
            make_folders(place)
            with open(place, "wb") as target:
                octets = archive.read(kept.PIECE)
                while octets:
                    target.write(octets)
                    octets = archive.read(kept.PIECE)
            path = archive.next()
    watchdog.feed()
    why = slot.why_broken(folder[1:], NEW_FACTS)
    if why:
        return "its files are not whole: %s" % why
    facts = json.loads(content(folder + NEW_FACTS))
    if (facts["version"], facts["hardware"]) != (manifest["version"], manifest["hardware"]):
        return "its files are those of another: version %s for the board %s" % (facts["version"], facts["hardware"])
    if "keys" not in facts["files"]:
        return "it brings no key: the node could never be updated again"
    os.rename(folder + NEW_FACTS, folder + slot.FACTS)
    return ""


def clear():
    """Let go of what has been put in its place."""
    for path in (kept.WHOLE, kept.PART, kept.OFFER):
        kept.remove(path)


def empty(folder):
    """Remove all that is in a folder."""
    try:
        for name, kind, *_ in os.ilistdir(folder):
            path = folder + "/" + name
            if kind == 0x4000:
                empty(path)
                os.rmdir(path)
            else:
                os.remove(path)
    except OSError:
        os.stat("/")  # there is no such folder; a flash that fails, fails here too


def make_folders(path):
    """Make the folders that a file is in."""
    at = path.find("/", 1)
    while at > 0:
        try:
            os.mkdir(path[:at])
        except OSError:
            os.stat(path[:at])  # raises if it could not be made and is not there
        at = path.find("/", at + 1)
