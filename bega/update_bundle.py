"""Update bundles of nodes: one file with a manifest, its signature, and the files of a slot, packed.

Spec: docs/updates.md, "Bundle". What a node would refuse is refused here with the same sentence.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bega.update_keys import MODULUS_BYTES, MOST_KEYS, key_id
from bega_protocols import update
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.update import LARGEST_MANIFEST, LARGEST_PAYLOAD, LARGEST_UNPACKED, MPY, version_of

MAGIC = b"BEGA-UPDATE-1\n"
WINDOW_BITS = 10  # of deflate: a node unpacks with 1 kB of memory for it
LARGEST_FILE = len(MAGIC) + 2 + LARGEST_MANIFEST + 2 + MODULUS_BYTES + LARGEST_PAYLOAD
UNSIGNED = "it is not signed: bega update sign"
VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEX_64, HEX_16 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{16}")
PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
WORDS = {"hardware": NAME, "version": VERSION, "from": VERSION, "sha256": HEX_64, "key": HEX_16}
NUMBERS = ("size", "unpacked", "expires", "mpy")
LISTS = ("devices", "ways")
ADDED_BY_SIGNING = ("expires", "key")


class BundleError(ConfigError):
    """A bundle that no node would take."""


class Bundle(NamedTuple):
    """A bundle, as far as its own words make sense."""

    manifest: dict[str, Any]
    text: bytes  # of the manifest, as it is signed
    signature: bytes  # b"": it is not signed yet
    payload: bytes

    @property
    def version(self) -> str:
        """Return "1.2.3"."""
        return str(self.manifest["version"])

    @property
    def hardware(self) -> str:
        """Return the key of the board that it is for."""
        return str(self.manifest["hardware"])

    @property
    def sha256(self) -> str:
        """Return the hash of the payload, by which pieces are asked for."""
        return str(self.manifest["sha256"])


def read(octets: bytes) -> Bundle:
    """Return the bundle in a file's octets; raises BundleError for what is none, or not whole."""
    if not octets:
        raise BundleError("it is empty")
    if not octets.startswith(MAGIC):
        raise BundleError("it is no update bundle")
    if len(octets) > LARGEST_FILE:
        raise BundleError(f"it has {len(octets)} bytes, and no bundle has more than {LARGEST_FILE}")
    text, at = _counted(octets, len(MAGIC))
    signature, at = _counted(octets, at)
    if len(signature) not in (0, MODULUS_BYTES):
        raise BundleError(f"its signature has {len(signature)} bytes in place of {MODULUS_BYTES}")
    bundle = Bundle(read_manifest(text, is_signed=bool(signature)), text, signature, octets[at:])
    _check_payload(bundle)
    return bundle


def write(text: bytes, signature: bytes, payload: bytes) -> bytes:
    """Return the octets of a bundle's file."""
    return MAGIC + struct.pack(">H", len(text)) + text + struct.pack(">H", len(signature)) + signature + payload


def read_manifest(text: bytes, *, is_signed: bool) -> dict[str, Any]:
    """Return what a manifest says; raises BundleError where it is not as docs/updates.md has it."""
    try:
        manifest = (
            json.loads(text.decode(), object_pairs_hook=_without_twins) if len(text) <= LARGEST_MANIFEST else None
        )
    except (ValueError, RecursionError):
        manifest = None
    wanted = {*WORDS, *NUMBERS, *LISTS} - (set() if is_signed else set(ADDED_BY_SIGNING))
    if not isinstance(manifest, dict) or manifest.keys() != wanted:
        raise BundleError("its manifest is none")
    for key in wanted:
        if not _is_good(key, manifest[key]):
            raise BundleError(f"its manifest's {key} is none")
    if is_signed:
        _as_a_node_reads(text)
    if manifest["mpy"] != MPY:
        raise BundleError(f"it is for bytecode {manifest['mpy']}, and nodes run {MPY}")
    if manifest["size"] > LARGEST_PAYLOAD or manifest["unpacked"] > LARGEST_UNPACKED:
        raise BundleError("it is larger than a node can take")
    if version_of(manifest["from"]) > version_of(manifest["version"]):
        raise BundleError("it is from a version that is higher than its own")
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> bytes:
    """Return the octets of a manifest: the same for the same words."""
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def check(bundle: Bundle, keys: Sequence[bytes], now_s: int) -> None:
    """Raise BundleError unless one of `keys` (moduli) signed it and it has not expired."""
    if not bundle.signature:
        raise BundleError(UNSIGNED)
    if bundle.manifest["key"] not in map(key_id, keys):
        raise BundleError(f"its key {bundle.manifest['key']} is none of ours")
    if why := update.why_unsigned(bundle.text, bundle.signature, bundle.manifest["key"], b"".join(keys)):
        raise BundleError(why)
    if bundle.manifest["expires"] <= now_s:
        raise BundleError("it has expired: sign it again")


def pack(files: Mapping[str, bytes]) -> tuple[bytes, int]:
    """Return (payload, octets when unpacked) of a slot's files, by their path in it; the same for the same files."""
    archive = b""
    for path in sorted(files):
        if not PATH.fullmatch(path) or len(path) > 255:
            raise BundleError(f"{path} is no place in a slot")
        archive += struct.pack(">B", len(path)) + path.encode() + struct.pack(">I", len(files[path])) + files[path]
    archive += b"\0"
    press = zlib.compressobj(9, zlib.DEFLATED, -WINDOW_BITS, 9)
    return press.compress(archive) + press.flush(), len(archive)


def unpack(payload: bytes, unpacked: int) -> dict[str, bytes]:
    """Return the files of a payload that has `unpacked` octets when unpacked; raises BundleError."""
    opener = zlib.decompressobj(-WINDOW_BITS)
    try:
        archive = opener.decompress(payload, unpacked + 1)
    except zlib.error:
        raise BundleError("its files cannot be unpacked") from None
    if len(archive) != unpacked or not opener.eof or opener.unused_data:
        raise BundleError("its files are not as large as it says")
    found: dict[str, bytes] = {}
    at = 0
    try:
        while size := archive[at]:
            path = archive[at + 1 : at + 1 + size].decode("ascii")
            (length,) = struct.unpack_from(">I", archive, at + 1 + size)
            start = at + 5 + size
            at = start + length
            if not PATH.fullmatch(path) or path in found or at >= len(archive):
                raise BundleError("its files are no files of a slot")
            found[path] = archive[start:at]
    except (IndexError, struct.error, UnicodeDecodeError):
        raise BundleError("its files are no files of a slot") from None
    if at + 1 != len(archive):
        raise BundleError("its files are no files of a slot")
    return found


def _as_a_node_reads(text: bytes) -> None:
    try:
        update.read_manifest(text)
    except WireError as error:
        raise BundleError(error.why) from None


def _check_payload(bundle: Bundle) -> None:
    payload, manifest = bundle.payload, bundle.manifest
    if not payload:
        raise BundleError("it is empty: it has no files")
    if len(payload) < manifest["size"]:
        raise BundleError(f"it is cut off: {len(payload)} of {manifest['size']} bytes")
    if len(payload) > manifest["size"]:
        raise BundleError(f"it has {len(payload) - manifest['size']} bytes more than its manifest says")
    if hashlib.sha256(payload).hexdigest() != manifest["sha256"]:
        raise BundleError("its files are not those that were signed: the hash differs")
    _check_slot(unpack(payload, manifest["unpacked"]), manifest)


def _check_slot(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Raise BundleError for a slot that would not be what the manifest says, or the node's last."""
    try:
        facts = json.loads(files.get("facts.json", b""))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or any(facts.get(key) != manifest[key] for key in ("version", "hardware", "mpy")):
        raise BundleError("its files are not of the version and board that its manifest names")
    keys = files.get("keys", b"")
    if len(keys) not in (MODULUS_BYTES, MOST_KEYS * MODULUS_BYTES):
        raise BundleError("it brings no public keys: a node with it could never be updated again")


def _counted(octets: bytes, at: int) -> tuple[bytes, int]:
    """Return what stands at `at` behind its length, and where that ends."""
    if len(octets) < at + 2:
        raise BundleError("it is cut off")
    end = at + 2 + struct.unpack_from(">H", octets, at)[0]
    if len(octets) < end:
        raise BundleError("it is cut off")
    return octets[at + 2 : end], end


def _is_good(key: str, value: Any) -> bool:
    if key in NUMBERS:
        return type(value) is int and 0 < value < 1 << 40
    if key in LISTS:
        return (
            isinstance(value, list)
            and len(value) <= 64
            and all(isinstance(x, str) and NAME.fullmatch(x) for x in value)
        )
    return isinstance(value, str) and bool(WORDS[key].fullmatch(value))


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found
