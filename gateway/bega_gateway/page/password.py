"""A password as the configuration keeps it: scrypt (RFC 7914) with a salt of its own.

    scrypt$16384$8$1$<salt>$<key>      N, r, p; salt and key in base64 (RFC 4648, section 4)

N = 2^14, r = 8 takes 16 MB for a moment, and on a Pi 4 some tenths of a second: the same for who guesses.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import NamedTuple

from bega_protocols.errors import ConfigError

COST, BLOCK, LANES = 16_384, 8, 1
SALT_BYTES, KEY_BYTES = 16, 32
MOST_MEMORY = 64_000_000  # bytes: a hash that asks for more is refused, the gateway needs its memory
SHORTEST, LONGEST = 10, 200  # characters; it is typed on a phone, and guessed at by machines


class _Kept(NamedTuple):
    cost: int
    block: int
    lanes: int
    salt: bytes
    key: bytes


def hashed(password: str) -> str:
    """Return what to write as `page.password_hash`; raises ConfigError for a password that is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(f"a password has {SHORTEST} to {LONGEST} characters, this one has {len(password)}")
    salt = secrets.token_bytes(SALT_BYTES)
    kept = _Kept(COST, BLOCK, LANES, salt, b"")
    numbers = "$".join(map(str, kept[:3]))
    return f"scrypt${numbers}${_text(salt)}${_text(_key(password, kept))}"


def is_hash(text: str) -> bool:
    """Return whether `text` is one of ours, and one that this machine can compute."""
    return _kept(text) is not None


def is_password(password: str, text: str) -> bool:
    """Return whether `password` is the one that `text` was made of. It takes time: not in the loop."""
    kept = _kept(text)
    if kept is None or len(password) > LONGEST:
        return False
    return hmac.compare_digest(_key(password, kept), kept.key)


def _key(password: str, kept: _Kept) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=kept.salt,
        n=kept.cost,
        r=kept.block,
        p=kept.lanes,
        maxmem=MOST_MEMORY,
        dklen=KEY_BYTES,
    )


def _kept(text: str) -> _Kept | None:
    words = text.split("$")
    if len(words) != 6 or words[0] != "scrypt" or not all(word.isascii() and word.isdigit() for word in words[1:4]):
        return None
    if max(map(len, words[1:4])) > 7:
        return None
    cost, block, lanes = map(int, words[1:4])
    is_good = cost >= COST and cost & (cost - 1) == 0 and block >= BLOCK and lanes >= LANES
    if not is_good or 128 * block * (cost + lanes + 2) > MOST_MEMORY or lanes > 4:
        return None
    try:
        salt, key = (base64.b64decode(word, validate=True) for word in words[4:])
    except (binascii.Error, ValueError):
        return None
    return _Kept(cost, block, lanes, salt, key) if len(salt) >= SALT_BYTES and len(key) == KEY_BYTES else None


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
