"""Check values against what their papers publish, and against long division, bit by bit."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols import checks

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(sys.executable).with_name("micropython")
NINE = b"123456789"

PUBLISHED = [
    (checks.crc16_modbus, NINE, 0x4B37),
    (checks.crc16_modbus, bytes((0x02, 0x07)), 0x1241),  # MODBUS over Serial Line V1.02, appendix B
    (checks.crc16_arc, NINE, 0xBB3D),
    (checks.crc16_x25, NINE, 0x906E),
    (checks.crc16_kermit, NINE, 0x2189),
    (checks.crc8_sensirion, bytes((0xBE, 0xEF)), 0x92),  # SHT4x datasheet, section 4.4
    (checks.crc8_sensirion, NINE, 0xF7),  # CRC-8/NRSC-5 is the same polynomial and start
    (checks.crc32, NINE, 0xCBF43926),
    (checks.sum8, bytes((0xFF, 0xFF, 3)), 1),
    (checks.xor8, bytes((0x0F, 0xF0, 1)), 0xFE),
]
OF_NOTHING = [
    (checks.crc16_modbus, 0xFFFF),
    (checks.crc16_arc, 0),
    (checks.crc16_x25, 0),
    (checks.crc16_kermit, 0),
    (checks.crc8_sensirion, 0xFF),
    (checks.crc32, 0),
    (checks.sum8, 0),
    (checks.xor8, 0),
]


def divided(data: bytes, width: int, polynomial: int, start: int, reflected: bool) -> int:
    """Return the remainder of the textbook: no table, most significant bit first, bits turned round where reflected."""
    crc, top = start, 1 << width - 1
    for octet in data:
        bits = f"{octet:08b}"[::-1] if reflected else f"{octet:08b}"
        for bit in bits:
            crc = (crc << 1 ^ polynomial if bool(crc & top) != (bit == "1") else crc << 1) & (1 << width) - 1
    return int(f"{crc:0{width}b}"[::-1], 2) if reflected else crc


@pytest.mark.parametrize(("check", "data", "value"), PUBLISHED)
def test_check_gives_its_published_value(check, data, value):
    assert check(data) == value


@pytest.mark.parametrize(("check", "value"), OF_NOTHING)
def test_check_of_nothing_is_its_start(check, value):
    assert check(b"") == value


@given(st.binary(max_size=300))
def test_checks_agree_with_long_division(data):
    assert checks.crc16_modbus(data) == divided(data, 16, 0x8005, 0xFFFF, True)
    assert checks.crc16_arc(data) == divided(data, 16, 0x8005, 0, True)
    assert checks.crc16_x25(data) == divided(data, 16, 0x1021, 0xFFFF, True) ^ 0xFFFF
    assert checks.crc16_kermit(data) == divided(data, 16, 0x1021, 0, True)
    assert checks.crc8_sensirion(data) == divided(data, 8, 0x31, 0xFF, False)
    assert checks.crc32(data) == zlib.crc32(data)
    assert checks.sum8(data) == sum(data) % 256


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_checks_go_on_where_an_earlier_one_ended(first, second):
    assert checks.crc16_arc(second, checks.crc16_arc(first)) == checks.crc16_arc(first + second)
    assert checks.crc32(second, checks.crc32(first)) == checks.crc32(first + second)
    assert checks.xor8(first + second) == checks.xor8(first) ^ checks.xor8(second)


@given(st.binary(min_size=1, max_size=100), st.data())
def test_no_single_flipped_bit_passes(data, draw):
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    for check, _ in OF_NOTHING:
        assert check(bytes(flipped)) != check(data)


def test_checks_are_the_same_on_micropython():
    if not MICROPYTHON.exists():
        pytest.skip("no MicroPython for this machine: its wheel is for x86-64 Linux")
    script = "from bega_protocols import checks\n" + "\n".join(
        f"assert checks.{check.__name__}({data!r}) == {value}" for check, data, value in PUBLISHED
    )
    outcome = subprocess.run(
        [MICROPYTHON, "-c", script],
        env={"MICROPYPATH": f"{ROOT / 'protocols'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
