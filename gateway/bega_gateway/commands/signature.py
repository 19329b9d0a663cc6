"""Whether a command was signed by whoever holds the private key: Ed25519 (RFC 8032)."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bega_protocols.errors import ConfigError


class Seal:
    """A public key."""

    def __init__(self, file: Path) -> None:
        """Raise ConfigError if `file` holds no public key of this kind."""
        try:
            key = load_pem_public_key(file.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"commands.public_key: {file} cannot be used ({type(error).__name__})") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"commands.public_key: {file} holds no Ed25519 key")
        self._key = key

    def fits(self, signature: str, signed: bytes) -> bool:
        """Return whether `signature`, in hex, is of `signed`."""
        try:
            self._key.verify(bytes.fromhex(signature), signed)
        except (InvalidSignature, ValueError):
            return False
        return True
