"""The manifest of a node's update: what it promises, who signed it, and why a node does not take it.

Spec: docs/updates.md, "Bundle"; RFC 8017 (PKCS #1 v2.2), sections 8.2.2 and 9.2.
"""

import hashlib
import json
from binascii import hexlify

from bega_protocols.errors import WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

MPY = 6
LARGEST_MANIFEST = 2048
LARGEST_PAYLOAD, LARGEST_UNPACKED = 262144, 524288
KEY_BYTES = 384  # RSA-3072, and so is its signature
EXPONENT = 65537
_TEXTS = ("hardware", "version", "from", "sha256", "key")
_NUMBERS = ("size", "unpacked", "expires", "mpy")
_LISTS = ("devices", "ways")
# DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1).
_DIGEST_INFO = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"


def read_manifest(text: bytes) -> "dict[str, Any]":
    """Return what a manifest says; raises WireError if it says too little, or what cannot be."""
    try:
        manifest = json.loads(text) if len(text) <= LARGEST_MANIFEST else None
    except (ValueError, RuntimeError):  # RuntimeError: nested without end
        manifest = None
    if not isinstance(manifest, dict):
        raise WireError("its manifest is none")
    for keys, kind in ((_TEXTS, str), (_NUMBERS, int), (_LISTS, list)):
        for key in keys:
            if not isinstance(manifest.get(key), kind) or isinstance(manifest[key], bool):
                raise WireError("its manifest's %s is none" % key)
    version_of(manifest["version"])
    version_of(manifest["from"])
    return manifest


def why_not(
    manifest: "Mapping[str, Any]", facts: "Mapping[str, Any]", failed: str, devices: "Iterable[str]", way: "str | None"
) -> str:
    """Return why a node does not take what its signed manifest promises, "" if it does.

    facts: "version" and "hardware" of what runs; failed: the highest version that failed on this node, "" for none;
    devices, way: what its configuration needs, "" for a way that was looked at before.
    """
    version, runs = manifest["version"], facts["version"]
    if manifest["hardware"] != facts["hardware"]:
        return "it is for the board %s, and this is %s" % (manifest["hardware"], facts["hardware"])
    if manifest["mpy"] != MPY:
        return "it is for bytecode %d, not %d" % (manifest["mpy"], MPY)
    if version == runs:
        return "version %s runs already" % runs
    if version_of(version) < version_of(runs):
        return "it is version %s, older than %s, which runs" % (version, runs)
    if failed and version_of(version) <= version_of(failed):
        return "version %s failed here: only a higher one is tried" % failed
    if version_of(runs) < version_of(manifest["from"]):
        return "it updates from version %s on" % manifest["from"]
    if manifest["size"] <= 0 or manifest["unpacked"] <= 0:
        return "it is empty"
    if manifest["size"] > LARGEST_PAYLOAD or manifest["unpacked"] > LARGEST_UNPACKED:
        return "it is too large"
    missing = ["driver %s" % device for device in devices if device not in manifest["devices"]]
    if way and way not in manifest["ways"]:
        missing.append("way %s" % way)
    return "it has no %s, and this node needs it" % missing[0] if missing else ""


def why_unsigned(text: bytes, signature: bytes, key: str, keys: bytes) -> str:
    """Return why the manifest `text` is not what one of `keys` has signed, "" if it is.

    key: the one that it names; keys: moduli of 384 octets, one behind the other.
    """
    if not keys:
        return "this node has no key for updates"
    if not signature:
        return "it is not signed"
    if len(signature) != KEY_BYTES:
        return "its signature is cut off"
    for at in range(0, len(keys), KEY_BYTES):
        modulus = keys[at : at + KEY_BYTES]
        if hexlify(hashlib.sha256(modulus).digest()[:8]).decode() == key:
            return "" if _fits(signature, text, modulus) else "its signature does not fit"
    return "its key %s is none of this node's" % key[:16]


def version_of(text: str) -> "tuple[int, ...]":
    """Return what orders versions; raises WireError if it is not like "1.2.3"."""
    try:
        numbers = tuple([int(part) for part in text.split(".")])
    except ValueError:
        numbers = ()
    if len(numbers) != 3 or not 0 <= min(numbers) <= max(numbers) <= 9999 or "%d.%d.%d" % numbers != text:
        raise WireError("its manifest's version is none")
    return numbers


def read_facts(head: bytes) -> "dict[str, Any]":
    """Return what the beginning of a slot's facts.json says, before the hashes of its files; raises WireError."""
    try:
        facts = json.loads(head[: head.index(b',"files"')] + b"}")
        if not isinstance(facts["version"], str) or not isinstance(facts["hardware"], str):
            raise ValueError
        return dict(facts)
    except (ValueError, KeyError, TypeError):
        raise WireError("no facts")


def _fits(signature: bytes, text: bytes, modulus: bytes) -> bool:
    """Return whether the whole block that the signature gives is that of `text`: what is left unread can be forged."""
    number, of = int.from_bytes(signature, "big"), int.from_bytes(modulus, "big")
    if number >= of:
        return False
    tail = b"\0" + _DIGEST_INFO + hashlib.sha256(text).digest()
    block = b"\0\1" + b"\xff" * (KEY_BYTES - 2 - len(tail)) + tail
    return pow(number, EXPONENT, of).to_bytes(KEY_BYTES, "big") == block
