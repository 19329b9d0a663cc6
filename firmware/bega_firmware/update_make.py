"""Making a bundle: its key, its files, its signature. Nothing here needs a network."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bega import __version__
from bega.clock import Clock, wall_ms
from bega.update_bundle import Bundle, check, manifest_text, pack, read, write
from bega.update_keys import BITS, EXPONENT, key_id, moduli, modulus
from bega_firmware.authority import require_clock
from bega_firmware.board import board_names, read_board
from bega_firmware.build import build as build_node
from bega_firmware.build import show_progress, slot_files
from bega_firmware.bytecode import VERSION
from bega_firmware.contents import WAYS, node_devices
from bega_protocols.errors import ConfigError
from bega_protocols.update import version_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

PUBLIC = ".pub"
DAYS, MOST_DAYS = 90, 3_650
LOWEST = "0.0.0"


def add_to(verbs: Any) -> None:
    """Add what makes a bundle to `bega update`."""
    keys = verbs.add_parser("key", help="make a key that updates are signed with", description="Keys of updates.")
    new = keys.add_subparsers(dest="what", required=True, metavar="WHAT").add_parser(
        "new", help="make one", description=key_new.__doc__
    )
    new.add_argument("file", type=Path, metavar="FILE", help=f"where it goes; its public part is FILE{PUBLIC}")
    new.add_argument("--json", action="store_true", help="print what was made as JSON")
    new.set_defaults(command=key_new)
    builder = verbs.add_parser("build", help="make a bundle, not signed yet", description=build.__doc__)
    builder.add_argument("--board", required=True, metavar="BOARD", help=f"one of {', '.join(board_names())}")
    builder.add_argument("--update-key", action="append", required=True, type=Path, metavar="FILE")
    builder.add_argument("--version", default=__version__, metavar="X.Y.Z", help=f"(default: {__version__})")
    builder.add_argument("--from", dest="lowest", default=LOWEST, metavar="X.Y.Z", help="lowest version to update from")
    builder.add_argument("--device", action="append", default=[], metavar="NAME", help="as of `bega node build`")
    builder.add_argument("--way", action="append", choices=WAYS, help="as of `bega node build`")
    builder.add_argument("--actions", action="store_true", help="as of `bega node build`")
    builder.add_argument("--out", type=Path, metavar="FILE", help="(default: build/BOARD-X.Y.Z.bega)")
    builder.add_argument("--json", action="store_true", help="print the manifest")
    builder.set_defaults(command=build)
    signer = verbs.add_parser("sign", help="sign a bundle", description=sign.__doc__)
    signer.add_argument("bundle", type=Path, metavar="BUNDLE")
    signer.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the private key; it may lie on a stick"
    )
    signer.add_argument("--days", type=int, default=DAYS, help=f"how long it may be rolled out ({DAYS})")
    signer.add_argument("--json", action="store_true", help="print the manifest")
    signer.set_defaults(command=sign)


def key_new(args: argparse.Namespace) -> int:
    """Make a key of updates, for its owner alone; nothing is written over."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    public = args.file.with_name(args.file.name + PUBLIC)
    for file in (args.file, public):
        if file.exists():
            raise ConfigError(f"{file} is there already, and is not written over: name another")
    key = generate_private_key(EXPONENT, BITS)
    pem = serialization.Encoding.PEM
    octets = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(octets)
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    id_ = key_id(modulus(public))
    if args.json:
        print(json.dumps({"key": id_, "private": str(args.file), "public": str(public)}))
        return 0
    print(f"key {id_}: {args.file} signs, keep it on a medium that is locked away")
    print(f"{public} goes into each node (bega node build --update-key) and into each gateway ([updates] public_keys)")
    return 0


def build(args: argparse.Namespace) -> int:
    """Compile what a node runs and pack it as a bundle. Same sources, same bytes; `sign` makes it good."""
    board, devices, ways = read_board(args.board), args.device or node_devices(), args.way or WAYS
    progress = show_progress if sys.stderr.isatty() else None
    keys = moduli(args.update_key)
    built = build_node(board, devices, ways, progress=progress, actions=args.actions, version=args.version, keys=keys)
    payload, unpacked = pack(slot_files(built))
    manifest = {
        "hardware": board.key,
        "version": args.version,
        "from": args.lowest,
        "size": len(payload),
        "unpacked": unpacked,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "devices": built.devices,
        "ways": sorted(ways),
        "mpy": VERSION,
    }
    octets = write(manifest_text(manifest), b"", payload)
    bundle = read(octets)
    file = args.out or Path("build") / f"{board.key}-{args.version}.bega"
    _put(file, octets)
    _tell(args, file, bundle, f"not signed yet: bega update sign {file} --key FILE")
    return 0


def sign(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Sign a bundle, and say until when it may be rolled out. Signing it again gives it a later end."""
    if not 1 <= args.days <= MOST_DAYS:
        raise ConfigError(f"--days is from 1 to {MOST_DAYS}")
    now_ms = clock()
    require_clock(now_ms)
    bundle = read_bundle(args.bundle)
    key = _private_key(args.key)
    public = key.public_key().public_numbers().n.to_bytes(BITS // 8, "big")
    expires_s = now_ms // 1000 + 86_400 * args.days
    text = manifest_text({**bundle.manifest, "expires": expires_s, "key": key_id(public)})
    octets = write(text, _signature(key, text), bundle.payload)
    signed = read(octets)
    check(signed, [public], now_ms // 1000)
    _put(args.bundle, octets)
    _tell(args, args.bundle, signed, f"signed by {key_id(public)} for {args.days} days")
    return 0


def read_bundle(file: Path) -> Bundle:
    """Return the bundle in a file; raises ConfigError that names it."""
    try:
        return read(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _signature(key: RSAPrivateKey, text: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return key.sign(text, PKCS1v15(), SHA256())


def _private_key(file: Path) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), None)
        is_open = bool(file.stat().st_mode & 0o077)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; is the medium with the key there?") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        raise ConfigError(f"{file} is no private key as `bega update key new` makes it") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size != BITS:
        raise ConfigError(f"{file} is no RSA key of {BITS} bits: nodes know no other")
    if is_open:
        print(f"bega update sign: others may read {file}: chmod 600 it, if its medium can", file=sys.stderr)
    return key


def _put(file: Path, octets: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_bytes(octets)
    part.replace(file)


def _tell(args: argparse.Namespace, file: Path, bundle: Bundle, what: str) -> None:
    if args.json:
        print(json.dumps({"file": str(file), **bundle.manifest}))
        return
    manifest = bundle.manifest
    lowest = f", from {manifest['from']} on" if version_of(manifest["from"]) > version_of(LOWEST) else ""
    size = f"{manifest['size'] / 1000:.1f} kB to load, {manifest['unpacked'] / 1000:.1f} kB on the node"
    print(f"{file}: {bundle.version} for {bundle.hardware}{lowest}; {size}")
    print(f"  {what}")
