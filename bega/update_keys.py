"""Public keys of updates: RSA-3072 with e = 65537, as PEM here, as bare moduli on a node.

Spec: docs/updates.md, "Keys". Two may be good at a time, so that an update can bring the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bega_protocols.errors import ConfigError

BITS, EXPONENT = 3072, 65537
MODULUS_BYTES = BITS // 8
MOST_KEYS = 2


def modulus(file: Path) -> bytes:
    """Return the 384 octets of the public key in a PEM file; raises ConfigError."""
    from cryptography.exceptions import UnsupportedAlgorithm  # it costs memory: only where a key is read
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give the public part that `bega update key new` made") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{file} is no public key; give the .pub that `bega update key new` made") from None
    if not isinstance(key, RSAPublicKey) or key.key_size != BITS or key.public_numbers().e != EXPONENT:
        raise ConfigError(f"{file} is no RSA key of {BITS} bits with the exponent {EXPONENT}: nodes know no other")
    return key.public_numbers().n.to_bytes(MODULUS_BYTES, "big")


def moduli(files: Sequence[Path]) -> bytes:
    """Return what a node keeps of public keys: their moduli, one behind the other; raises ConfigError."""
    if len(files) > MOST_KEYS:
        raise ConfigError(
            f"{len(files)} keys were given, and a node takes {MOST_KEYS}: the one in use and the next one"
        )
    found = [modulus(file) for file in files]
    if len(set(found)) != len(found):
        raise ConfigError("the same key was given twice")
    return b"".join(found)


def key_id(modulus: bytes) -> str:
    """Return the 16 hex digits by which a manifest names its key."""
    return hashlib.sha256(modulus).hexdigest()[:16]
