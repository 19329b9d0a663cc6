"""What the gateway asks of this node's application: another version, or the one before. Loaded when it is asked."""

import json
import os
from binascii import a2b_base64

import kept_update as kept
import slot
from choice import content, put

from bega_protocols.errors import WireError
from bega_protocols.slots import NONE, other
from bega_protocols.update import read_manifest, why_not, why_unsigned

ASKED = "/state/asked"
SPARE_BYTES = 32768  # that an update leaves free: littlefs writes a block anew before it lets go of the old one


def take(asked, config, now_ms):
    """Note an update as the one to be fetched; return why it is not taken, None if it is. Raises OSError.

    asked["worked"]: the devices that work now. All of it may have come before they have warmed up after a restart.
    """
    manifest, why = checked(asked.get("manifest"), asked.get("signature"), config)
    state = slot.state()
    why = why or (now_ms >= manifest["expires"] * 1000 and "it has expired") or why_no_room(manifest)
    if not why and state.left != NONE:
        why = "version %s is on trial: ask again when that is over" % state.version
    if not why and kept.size(kept.WHOLE):
        why = "another one is about to be tried: ask again when that is over"
    if why:
        return why
    if kept.size(kept.PART) and _sha256() != manifest["sha256"]:
        kept.remove(kept.PART)
    put(kept.OFFER, json.dumps({"manifest": asked["manifest"], "signature": asked["signature"]}).encode())
    kept.note(version=manifest["version"], state="loading", why="", worked=asked["worked"])


def take_asked():
    """Do what `take` does with what was put aside for it; the note says what came of that."""
    text, version = content(ASKED), "?"
    kept.remove(ASKED)  # first: whatever is wrong with it must not end the next start too
    try:
        asked = json.loads(text)
        version = json.loads(asked["manifest"])["version"]  # the gateway is to know which one was refused
        why = take(asked, asked, asked["now_ms"])
    except Exception as error:
        why = "it cannot be looked at: %r" % error
    if why:
        kept.refuse(version, why)


def checked(text, signature, config):
    """Return (the manifest, why it is not taken); config: what it must work with, or None."""
    if not isinstance(text, str) or not isinstance(signature, str):
        return None, "it has no manifest, or no signature"
    try:
        text = text.encode()
        manifest = read_manifest(text)
        runs = slot.facts(slot.running())
        why = why_unsigned(text, a2b_base64(signature), manifest["key"], content("/" + slot.running() + "/keys"))
    except WireError as error:
        return None, error.why
    except ValueError:
        return None, "its signature is none"
    failed = slot.state().failed
    devices = [device["driver"] for device in config["devices"]] if config else []
    way = config["way"] if config else ""
    return manifest, why or why_not(manifest, runs, "" if failed == NONE else failed, devices, way)


def why_no_room(manifest):
    """Return why there is no room for an update, "" if there is; what the other slot has gives way to it."""
    block_bytes, _, _, free = os.statvfs("/")[:4]
    taken = _blocks("/" + other(slot.running()), block_bytes) * block_bytes
    needed = manifest["size"] - kept.size(kept.PART) + manifest["unpacked"] * 3 // 2 + SPARE_BYTES
    if free * block_bytes + taken < needed:
        return "no room: %d kB of %d are free; ask again once the records that are held have been sent" % (
            (free * block_bytes + taken) // 1024,
            needed // 1024,
        )
    return ""


def _blocks(folder, block_bytes):
    """Return how many blocks of the flash the files in a folder take."""
    try:
        found = 0
        for name, kind, _, size in os.ilistdir(folder):
            path = folder + "/" + name
            found += _blocks(path, block_bytes) if kind == 0x4000 else (size + block_bytes - 1) // block_bytes
        return found
    except OSError:
        return 0


def _sha256():
    """Return the hash of what is being fetched."""
    try:
        return json.loads(json.loads(content(kept.OFFER))["manifest"])["sha256"]
    except (ValueError, KeyError, TypeError):
        return ""
