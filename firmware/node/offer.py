"""What the gateway offers this node: another version. Loaded when it does."""

import json
import os
from binascii import a2b_base64

import slot
from choice import content, put

from bega_protocols.errors import WireError
from bega_protocols.update import read_facts, read_manifest, why_not, why_unsigned

ASKED = "/state/asked"
SPARE_BYTES = 32768  # that an update leaves free: littlefs writes a block anew before it lets go of the old one
HEAD = 2048  # of a slot's facts: what comes before the hashes of its files


def take(asked, config, now_ms):
    """Note an update as the one to be fetched; return why it is not taken, None if it is. Raises OSError."""
    manifest, why = checked(asked.get("manifest"), asked.get("signature"), config)
    if not why and now_ms >= manifest["expires"] * 1000:
        why = "it has expired"
    if not why and slot.state().left != slot.NONE:
        why = "another one is on trial: ask again"
    why = why or why_no_room(manifest)
    if why:
        return why
    try:
        is_begun = slot.offered()["sha256"] == manifest["sha256"]
    except (ValueError, KeyError, TypeError):
        is_begun = False
    if not is_begun:
        slot.remove(slot.PART)
    put(slot.OFFER, json.dumps({"manifest": asked["manifest"], "signature": asked["signature"]}).encode())
    slot.note(manifest["version"], "loading", worked=asked.get("worked", ()))


def take_asked():
    """Do what `take` does with what was put aside for it; the note says what came of that. It comes once, ever."""
    version = ""
    try:
        asked = json.loads(content(ASKED))
        version = read_manifest(asked["manifest"].encode())["version"]
        why = take(asked, asked, asked["now_ms"])
    except Exception as error:  # whatever it is: a start must not end by it, nor the next one
        why = "it is none: %r" % error
    if why:
        slot.refuse(version, why)
    slot.remove(ASKED)


def checked(text, signature, config):
    """Return (the manifest, why it is not taken); config: what it must work with, or None."""
    try:
        manifest = read_manifest(text.encode())
        keys = content("/" + slot.running() + "/keys")
        why = why_unsigned(text.encode(), a2b_base64(signature), manifest["key"], keys)
        runs = running_facts()
    except WireError as error:
        return None, error.why
    except (ValueError, TypeError, AttributeError):
        return None, "its manifest is none"
    devices = [device["driver"] for device in config["devices"]] if config else ()
    way = config and config["way"]
    return manifest, why or why_not(manifest, runs, slot.state().failed.strip(slot.NONE), devices, way)


def running_facts():
    """Return version and hardware of what runs. Raises OSError, WireError."""
    with open("/" + slot.running() + slot.FACTS, "rb") as file:
        return read_facts(file.read(HEAD))


def why_no_room(manifest):
    """Return why there is no room for an update, "" if there is; what the other slot has gives way to it."""
    block_bytes, _, _, free = os.statvfs("/")[:4]
    free = (free + _blocks(slot.other_folder(), block_bytes)) * block_bytes
    needed = manifest["size"] - slot.size(slot.PART) + manifest["unpacked"] * 3 // 2 + SPARE_BYTES
    if free >= needed:
        return ""
    return "no room: %d kB of %d are free; ask again" % (free // 1024, needed // 1024)


def _blocks(folder, block_bytes):
    """Return how many blocks of the flash the files in a folder take."""
    found = 0
    try:
        for name, kind, _, size in os.ilistdir(folder):
            is_folder = kind == 0x4000
            found += _blocks(folder + "/" + name, block_bytes) if is_folder else -(-size // block_bytes)
    except OSError:
        pass
    return found
