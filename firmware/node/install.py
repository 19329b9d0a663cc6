"""Putting an update that has come into the other slot, before the application starts: all of the heap is free then.

A cut at any moment leaves what runs as it is; the next start does all of it again.
"""

import json
import os

import deflate
import machine
import slot
from choice import content
from offer import checked, running_facts

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
        offer = json.loads(content(slot.OFFER))
        manifest, why = checked(offer["manifest"], offer["signature"], None)
        version = manifest["version"] if manifest else ""
        if version == running_facts()["version"]:  # power failed once it was there
            slot.clear()
            return
        if crashes > CRASHES:
            why = "%d starts failed at it" % crashes
        if why:
            raise WireError(why)
        unpack(manifest, slot.other_folder(), machine.WDT(timeout=WATCHDOG_MS))
    except WireError as error:
        slot.refuse(version, error.why)
        return
    except (OSError, MemoryError, ValueError, KeyError, TypeError, EOFError) as error:
        slot.refuse(version, "it cannot be unpacked: %r" % error)
        return
    slot.note(version, "trial", worked=slot.worked())
    slot.try_other(version)
    slot.clear()
    machine.reset()


def unpack(manifest, folder, watchdog):
    """Put the files there in the place of what is there; raises WireError if they are not what was promised."""
    if slot.hash_of(slot.WHOLE) != manifest["sha256"]:
        raise WireError("its files have rotted")
    slot.remove(folder + slot.FACTS)  # first: from now on nobody takes it for whole
    empty(folder)
    with open(slot.WHOLE, "rb") as file:
        archive = Archive(deflate.DeflateIO(file, deflate.RAW, WINDOW_BITS).read, manifest["unpacked"])
        path = archive.next()
        while path is not None:
            watchdog.feed()
            place = folder + (NEW_FACTS if "/" + path == slot.FACTS else "/" + path)
            make_folders(place)
            with open(place, "wb") as target:
                octets = archive.read(slot.PIECE)
                while octets:
                    target.write(octets)
                    octets = archive.read(slot.PIECE)
            path = archive.next()
    watchdog.feed()
    facts = slot.whole(folder, NEW_FACTS)
    if (facts["version"], facts["hardware"]) != (manifest["version"], manifest["hardware"]):
        raise WireError(
            "its files are those of another: version %s for the board %s" % (facts["version"], facts["hardware"])
        )
    if "keys" not in facts["files"]:
        raise WireError("it brings no key for the next one")
    os.rename(folder + NEW_FACTS, folder + slot.FACTS)


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
