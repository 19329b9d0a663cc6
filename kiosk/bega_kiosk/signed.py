"""Messages that only the city can have written: 64 bytes of Ed25519 (RFC 8032), then the bytes that they are of.

    signature (64) | body

Signed is the kind of message, a line feed and the whole body, so that nothing in the body can change and what is signed
as one kind can not be shown as another. The body is read by nobody before the signature was found good.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from bega_protocols.errors import ConfigError, WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64  # RFC 8032, 5.1.6
NO_SIGNATURE = "no signature of the city"
MOST_KEYS = 4  # the one in use, the next, and room for a second office


class OfCity(Protocol):
    """What every body says: whose it is."""

    @property
    def city(self) -> str: ...


Body = TypeVar("Body", bound=OfCity)


class Kind(NamedTuple, Generic[Body]):
    """One kind of message whose body is JSON."""

    signed_as: str
    name: str
    body: type[Body]
    most_bytes: int  # of a message


def sign(key: Ed25519PrivateKey, kind: str, body: bytes) -> bytes:
    """Return the signed message."""
    return key.sign(_signed(kind, body)) + body


def opened(keys: Sequence[Ed25519PublicKey], kind: str, message: bytes) -> bytes:
    """Return the body of a message; raises WireError unless one of `keys` signed all of it as this kind."""
    from cryptography.exceptions import InvalidSignature  # it costs memory: only where something is verified

    signature, body = message[:SIGNATURE_BYTES], message[SIGNATURE_BYTES:]
    for key in keys:
        try:
            key.verify(signature, _signed(kind, body))
        except InvalidSignature:
            continue
        return body
    raise WireError(NO_SIGNATURE, message[:SIGNATURE_BYTES])


def read(keys: Sequence[Ed25519PublicKey], kind: Kind[Body], city: str, message: bytes) -> Body:
    """Return what this city signed; raises WireError. Nothing of it is parsed before its signature was found good."""
    if len(message) > kind.most_bytes:
        raise WireError(f"a {kind.name} of more than {kind.most_bytes} bytes")
    try:
        body = msgspec.json.decode(opened(keys, kind.signed_as, message), type=kind.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"signed, but no {kind.name}: {error}") from None
    if body.city != city:
        raise WireError(f"a {kind.name} of the city {body.city}, not {city}")
    return body


def new_key(path: Path) -> Path:
    """Write a new private key, readable by its owner alone, and beside it the public one, whose path is returned.

    Raises ConfigError; a key that is there already is never written over.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    public_path = path.with_name(path.name + ".pub")
    _write_new(path, private, 0o600)
    _write_new(public_path, public, 0o644)
    return public_path


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the key in a PEM file; raises ConfigError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        raise ConfigError(f"{path} is no private key; give the file that `bega kiosk key new` made") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds no Ed25519 key; give the file that `bega kiosk key new` made")
    return key


def read_public_keys(paths: Sequence[Path]) -> list[Ed25519PublicKey]:
    """Return the keys in PEM files; raises ConfigError."""
    if len(paths) > MOST_KEYS:
        raise ConfigError(f"{len(paths)} keys of the city are given; {MOST_KEYS} are the most")
    return [_read_public_key(path) for path in paths]


def _read_public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is no public key; give the .pub that `bega kiosk key new` made") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} holds no Ed25519 key; give the .pub that `bega kiosk key new` made")
    return key


def _signed(kind: str, body: bytes) -> bytes:
    return kind.encode() + b"\n" + body


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; name a new file, a key is never written over") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
