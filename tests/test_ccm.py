"""CCM against the vectors of RFC 3610 and against another implementation."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given
from hypothesis import strategies as st

from bega.devices import aes_block_cipher
from bega_protocols.ccm import open_sealed, seal
from bega_protocols.errors import ChecksumError

KEY = bytes(range(0xC0, 0xD0))

# RFC 3610, section 8: packet vectors 1, 2 and 7. All count up from 00; the first 8 bytes stay clear.
VECTORS = [
    (
        "00000003020100a0a1a2a3a4a5",
        31,
        8,
        "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0",
    ),
    (
        "00000004030201a0a1a2a3a4a5",
        32,
        8,
        "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916",
    ),
    (
        "00000009080706a0a1a2a3a4a5",
        31,
        10,
        "0135d1b2c95f41d5d1d4fec185d166b8094e999dfed96c048c56602c97acbb7490",
    ),
]


@pytest.mark.parametrize(("nonce", "length", "tag_size", "sealed"), VECTORS)
def test_vectors_of_rfc_3610(nonce, length, tag_size, sealed):
    packet = bytes(range(length))
    header, text = packet[:8], packet[8:]
    encipher = aes_block_cipher(KEY)
    assert seal(encipher, bytes.fromhex(nonce), text, tag_size, header).hex() == sealed
    assert open_sealed(encipher, bytes.fromhex(nonce), bytes.fromhex(sealed), tag_size, header) == text


@given(
    key=st.binary(min_size=16, max_size=16),
    nonce=st.binary(min_size=7, max_size=13),
    text=st.binary(max_size=80),
    header=st.binary(max_size=40),
    tag_size=st.sampled_from([4, 6, 8, 10, 12, 14, 16]),
)
def test_seals_as_another_implementation_does(key, nonce, text, header, tag_size):
    sealed = seal(aes_block_cipher(key), nonce, text, tag_size, header)
    assert sealed == AESCCM(key, tag_length=tag_size).encrypt(nonce, text, header)
    assert open_sealed(aes_block_cipher(key), nonce, sealed, tag_size, header) == text


@given(bit=st.integers(0, 8 * 24 - 1))
def test_any_flipped_bit_is_noticed(bit):
    nonce = bytes(13)
    sealed = bytearray(seal(aes_block_cipher(KEY), nonce, bytes(20), 4))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChecksumError):
        open_sealed(aes_block_cipher(KEY), nonce, bytes(sealed), 4)


@pytest.mark.parametrize("length", range(4))
def test_what_is_shorter_than_its_tag_is_refused(length):
    with pytest.raises(ChecksumError):
        open_sealed(aes_block_cipher(KEY), bytes(13), bytes(length), 4)


@pytest.mark.parametrize(("nonce_size", "tag_size"), [(6, 4), (14, 4), (13, 2), (13, 5), (13, 18)])
def test_sizes_that_the_rfc_does_not_have_are_refused(nonce_size, tag_size):
    with pytest.raises(ValueError, match="CCM has no such"):
        seal(aes_block_cipher(KEY), bytes(nonce_size), b"", tag_size)


def test_text_too_long_for_its_nonce_is_refused():
    with pytest.raises(ValueError, match="too long"):
        seal(aes_block_cipher(KEY), bytes(13), bytes(65536), 4)
