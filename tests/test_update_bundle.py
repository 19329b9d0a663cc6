"""A bundle that no node would take is refused on the bench and at the gateway, each for its own reason."""

import hashlib
import json
import random
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from bega.update_bundle import (
    LARGEST_FILE,
    BundleError,
    check,
    manifest_text,
    pack,
    read,
    unpack,
    write,
)
from bega.update_keys import key_id
from bega_protocols.update import why_unsigned

NOW_S = 1_795_300_000
BOARD = "esp32_devkitc"


def made_key() -> tuple[RSAPrivateKey, bytes]:
    key = generate_private_key(65537, 3072)
    return key, key.public_key().public_numbers().n.to_bytes(384, "big")


KEY, PUBLIC = made_key()
FOREIGN, FOREIGN_PUBLIC = made_key()


def slot(version: str = "1.3.0", filling: int = 0) -> dict[str, bytes]:
    facts = json.dumps({"version": version, "hardware": BOARD, "mpy": 6}).encode()
    code = random.Random(1).randbytes(filling)
    return {"facts.json": facts, "keys": PUBLIC, "app.mpy": b"M\x06\x00\x1f" + code, "lib/a/b.mpy": b"M\x06\x00\x1f"}


def manifest_of(payload: bytes, unpacked: int, **changes: Any) -> dict[str, Any]:
    return {
        "hardware": BOARD,
        "version": "1.3.0",
        "from": "1.0.0",
        "size": len(payload),
        "unpacked": unpacked,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "expires": NOW_S + 1000,
        "key": key_id(PUBLIC),
        "devices": ["pms5003"],
        "ways": ["broker"],
        "mpy": 6,
    } | changes


def bundle(files: dict[str, bytes] | None = None, signer: RSAPrivateKey = KEY, **changes: Any) -> bytes:
    payload, unpacked = pack(slot(changes.get("version", "1.3.0")) if files is None else files)
    text = manifest_text(manifest_of(payload, unpacked, **changes))
    return write(text, signer.sign(text, PKCS1v15(), SHA256()), payload)


def fits(signature: bytes, text: bytes, modulus: bytes) -> bool:
    return why_unsigned(text, signature, key_id(modulus), modulus) == ""


def why_not(octets: bytes, now_s: int = NOW_S) -> str:
    try:
        check(read(octets), [PUBLIC], now_s)
    except BundleError as error:
        return str(error)
    return ""


def test_a_good_bundle_is_read_as_it_was_made():
    found = read(bundle())
    assert why_not(bundle()) == ""
    assert (found.version, found.hardware) == ("1.3.0", BOARD)
    assert unpack(found.payload, found.manifest["unpacked"]) == slot()
    assert bundle() == bundle(), "same files, same bytes"


BAD = {
    "a bit that fell over": bundle()[:-20] + bytes((bundle()[-20] ^ 4,)) + bundle()[-19:],
    "cut off": bundle()[:-1],
    "cut off in its head": bundle()[:16],
    "of another key": bundle(signer=FOREIGN),
    "of a key that is none of ours": bundle(signer=FOREIGN, key=key_id(FOREIGN_PUBLIC)),
    "with the files of another": write(
        read(bundle()).text, read(bundle()).signature, read(bundle(version="1.4.0")).payload
    ),
    "expired": bundle(expires=NOW_S),
    "too large": bytes(bundle()[:14]) + bytes(LARGEST_FILE),
    "empty": b"",
    "without files": write(read(bundle()).text, read(bundle()).signature, b""),
    "with another hash": bundle(sha256="0" * 64),
    "unsigned": write(
        manifest_text({key: value for key, value in read(bundle()).manifest.items() if key not in ("expires", "key")}),
        b"",
        read(bundle()).payload,
    ),
    "with more behind": bundle() + b"x",
    "no bundle": b"PK\x03\x04" + bytes(100),
    "for other bytecode": bundle(mpy=7),
    "from a higher version": bundle(**{"from": "1.3.1"}),
    "without keys": bundle({**slot(), "keys": b""}),
    "of a version that its files are not": bundle(slot("1.2.0")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_refused(name):
    assert why_not(BAD[name])


def test_each_has_a_reason_of_its_own():
    reasons = {name: why_not(octets) for name, octets in BAD.items()}
    same = (
        {"cut off in its head", "cut off"},
        {"with another hash", "with the files of another", "a bit that fell over"},
    )
    told = [reasons[name] for name in BAD if not any(name in group for group in same)]
    assert len(set(told)) == len(told), reasons


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_no_bit_of_a_bundle_can_fall_over_unseen(at, bit):
    octets = bytearray(bundle())
    octets[at % len(octets)] ^= 1 << bit
    assert why_not(bytes(octets))


@given(octets=st.binary(max_size=600))
@settings(max_examples=150, deadline=None)
def test_noise_is_no_bundle(octets):
    for whole in (octets, b"BEGA-UPDATE-1\n" + octets):
        with pytest.raises(BundleError):
            read(whole)
    with pytest.raises(BundleError):
        unpack(octets, 1000)


def test_a_signature_of_less_than_the_whole_block_fits_nothing():
    """As in Bleichenbacher's forgery of 2006: what stands behind the hash must not be anybody's to choose."""
    signature = KEY.sign(b"words", PKCS1v15(), SHA256())
    assert fits(signature, b"words", PUBLIC)
    assert not fits(signature, b"other words", PUBLIC)
    assert not fits(signature[:-1], b"words", PUBLIC)
    assert not fits(bytes(384), b"words", PUBLIC) and not fits(b"\xff" * 384, b"words", PUBLIC)
    of = int.from_bytes(PUBLIC, "big")
    assert not fits(((int.from_bytes(signature, "big") + of) % (1 << 3072)).to_bytes(384, "big"), b"words", PUBLIC)


@pytest.mark.parametrize("path", ["../main.py", "/main.py", "a//b", "a/../b", "", ".x", "a/", "a\0b", "ă.mpy"])
def test_a_path_that_leads_out_of_the_slot_is_no_place_in_it(path):
    with pytest.raises(BundleError):
        pack({path: b"x"})
    name = path.encode()
    archive = bytes((len(name),)) + name + bytes((0, 0, 0, 1)) + b"x\0"
    press = zlib.compressobj(9, zlib.DEFLATED, -10)
    with pytest.raises(BundleError):
        unpack(press.compress(archive) + press.flush(), len(archive))


def test_what_unpacks_to_more_than_it_says_costs_no_more_memory_than_that():
    press = zlib.compressobj(9, zlib.DEFLATED, -10)
    bomb = press.compress(bytes(50_000_000)) + press.flush()
    with pytest.raises(BundleError, match="not as large as it says"):
        unpack(bomb, 1000)
