"""CCM: a block cipher made to encipher and to seal at once.

Spec: RFC 3610 (Counter with CBC-MAC), section 2. The block cipher is passed
in: `encipher(block)` takes and returns 16 bytes under a key that it knows
(`cryptography` on a gateway, `cryptolib` on a board), so no key passes here.
"""

from bega_protocols.errors import ChecksumError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable

    Encipher = Callable[[bytes], bytes]

BLOCK = 16


def seal(encipher: "Encipher", nonce: bytes, text: bytes, tag_size: int, header: bytes = b"") -> bytes:
    """Return `text` enciphered, with `tag_size` bytes that vouch for it and for the clear `header` at its end.

    Raises ValueError for sizes that the RFC has no place for: tag 4, 6 to 16; nonce 7 to 13; header below 0xFF00.
    """
    tag = _tag(encipher, nonce, text, tag_size, header)
    return _stream(encipher, nonce, text, 1) + _stream(encipher, nonce, tag, 0)


def open_sealed(encipher: "Encipher", nonce: bytes, sealed: bytes, tag_size: int, header: bytes = b"") -> bytes:
    """Return the text in what `seal` made.

    Raises ChecksumError if the tag differs: wrong key, wrong nonce, or not one byte is to be trusted.
    """
    if len(sealed) < tag_size:
        raise ChecksumError("CCM: shorter than its tag", sealed)
    text = _stream(encipher, nonce, sealed[: len(sealed) - tag_size], 1)
    tag = _stream(encipher, nonce, sealed[len(sealed) - tag_size :], 0)
    if not _same(tag, _tag(encipher, nonce, text, tag_size, header)):
        raise ChecksumError("CCM tag differs", sealed)
    return text


def _tag(encipher: "Encipher", nonce: bytes, text: bytes, tag_size: int, header: bytes) -> bytes:
    """CBC-MAC over block B_0, the header and the text (section 2.2), cut to `tag_size`."""
    length_size = 15 - len(nonce)  # L: bytes that say how long the text is
    if not 2 <= length_size <= 8 or not 4 <= tag_size <= 16 or tag_size % 2 or len(header) >= 0xFF00:
        raise ValueError("CCM has no such sizes")
    if length_size < 8 and len(text) >> 8 * length_size:
        raise ValueError("text too long for this nonce")
    flags = (64 if header else 0) | (tag_size - 2) // 2 << 3 | length_size - 1
    mac = encipher(bytes((flags,)) + nonce + len(text).to_bytes(length_size, "big"))
    if header:
        mac = _mac(encipher, mac, len(header).to_bytes(2, "big") + header)
    return _mac(encipher, mac, text)[:tag_size]


def _mac(encipher: "Encipher", mac: bytes, data: bytes) -> bytes:
    for at in range(0, len(data), BLOCK):
        mac = encipher(_xor(mac, data[at : at + BLOCK]))  # a short last block is filled up with zeros: mac stays
    return mac


def _stream(encipher: "Encipher", nonce: bytes, data: bytes, first: int) -> bytes:
    """Encipher or decipher `data` with the key stream from block A_`first` on (section 2.3); A_0 is the tag's."""
    length_size = 15 - len(nonce)
    if not 2 <= length_size <= 8:
        raise ValueError("CCM has no such nonce")
    result = b""
    for at in range(0, len(data), BLOCK):
        counter = (first + at // BLOCK).to_bytes(length_size, "big")
        piece = data[at : at + BLOCK]
        result += _xor(encipher(bytes((length_size - 1,)) + nonce + counter), piece)[: len(piece)]
    return result


def _xor(block: bytes, piece: bytes) -> bytes:
    """Return `block` with `piece` laid over its beginning by exclusive or."""
    mixed = bytearray(block)
    for index in range(len(piece)):
        mixed[index] ^= piece[index]
    return bytes(mixed)


def _same(one: bytes, other: bytes) -> bool:
    """Compare every byte, whatever the first ones say: the time it takes tells a forger nothing."""
    difference = len(one) ^ len(other)
    for index in range(min(len(one), len(other))):
        difference |= one[index] ^ other[index]
    return difference == 0
