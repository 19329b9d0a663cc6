"""Bosch BME280 temperature, humidity and pressure sensor: bytes <-> numbers.

Spec: BME280 datasheet BST-BME280-DS001, section 5 (memory map) and 4.2.3 (compensation, in whole numbers; pressure
in the variant of 64 bits). Names of the calibration are the datasheet's. All shifts floor, as its C does on the
compilers it names. No IO, no clock, no floats.
"""

import struct
from collections import namedtuple

from bega_protocols.errors import WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

ADDRESSES = (0x76, 0x77)  # SDO low, SDO high
CHIP_ID = 0x60
ID, RESET, CTRL_HUM, CTRL_MEAS, VALUES = 0xD0, 0xE0, 0xF2, 0xF4, 0xF7
CALIBRATION = (0x88, 0xE1)  # where its two blocks begin
CALIBRATION_SIZES = (26, 7)
SETTINGS_SIZE = 4  # ctrl_hum, status, ctrl_meas, config
VALUES_SIZE = 8
RESET_WORD, RESET_MS = 0xB6, 3  # ready 2 ms after power
HUMIDITY_ONCE = 0x01  # osrs_h x1; takes effect with the next write to ctrl_meas
FORCED_ONCE = 0x25  # osrs_t x1, osrs_p x1, one measurement, then sleep
ASLEEP_ONCE = 0x24  # what ctrl_meas reads when it is over
MEASURING_MS = 10  # 1.25 + 2.3 + (2.3 + 0.575) + (2.3 + 0.575) = 9.3 at most
SKIPPED_20, SKIPPED_16 = 0x80000, 0x8000  # after a reset, or where the channel is switched off

if TYPE_CHECKING:
    from typing import NamedTuple

    class Air(NamedTuple):
        """Hundredths of a degree Celsius, pascal, hundredths of a percent; None where nothing was measured."""

        temperature_ccel: int | None
        pressure_pa: int | None
        humidity_cpct: int | None

    class Calibration(NamedTuple):
        """The chip's own numbers, T1 to T3, P1 to P9, H1 to H6."""

        t: tuple[int, ...]
        p: tuple[int, ...]
        h: tuple[int, ...]

else:
    Air = namedtuple("Air", ("temperature_ccel", "pressure_pa", "humidity_cpct"))
    Calibration = namedtuple("Calibration", ("t", "p", "h"))


def decode_calibration(first: bytes, second: bytes) -> Calibration:
    """Return the calibration of its two blocks, 88..A1 and E1..E7; raises WireError if they cannot be a chip's."""
    if (len(first), len(second)) != CALIBRATION_SIZES:
        raise WireError("calibration of a BME280 has 26 and 7 bytes", first + second)
    low = struct.unpack("<HhhHhhhhhhhhxB", first)
    if low[0] in (0, 0xFFFF) or low[3] in (0, 0xFFFF):
        raise WireError("no calibration of a BME280", first + second)
    h2, h3, e4, e5, e6, h6 = struct.unpack("<hBbBbb", second)
    h4 = e4 * 16 + (e5 & 0x0F)  # two numbers of 12 bits share the byte between them
    h5 = e6 * 16 + (e5 >> 4)
    return Calibration(low[:3], low[3:12], (low[12], h2, h3, h4, h5, h6))


def decode(values: bytes, calibration: Calibration) -> Air:
    """Return what the registers F7..FE mean for the chip with this calibration.

    Raises WireError if these are no eight bytes, or all alike: a bus that
    somebody holds, since there is no check value to tell.
    """
    if len(values) != VALUES_SIZE:
        raise WireError("values of a BME280 have 8 bytes", values)
    if values in (b"\x00" * VALUES_SIZE, b"\xff" * VALUES_SIZE):
        raise WireError("the bus is held, or nobody drives it", values)
    raw_p = values[0] << 12 | values[1] << 4 | values[2] >> 4
    raw_t = values[3] << 12 | values[4] << 4 | values[5] >> 4
    raw_h = values[6] << 8 | values[7]
    if raw_t == SKIPPED_20:
        return Air(None, None, None)  # the other two need the temperature
    t_fine = heat(raw_t, calibration.t)
    pressure = None if raw_p == SKIPPED_20 else pressure_256(raw_p, t_fine, calibration.p)
    humidity = None if raw_h == SKIPPED_16 else humidity_1024(raw_h, t_fine, calibration.h)
    return Air(
        t_fine * 5 + 128 >> 8,
        None if pressure is None else pressure + 128 >> 8,
        None if humidity is None else humidity * 100 + 512 >> 10,
    )


def heat(raw: int, t: "tuple[int, ...]") -> int:
    """Return t_fine, which the other two channels need: 5120 times the temperature in degrees Celsius."""
    first = ((raw >> 3) - (t[0] << 1)) * t[1] >> 11
    offset = (raw >> 4) - t[0]
    return first + ((offset * offset >> 12) * t[2] >> 14)


def pressure_256(raw: int, t_fine: int, p: "tuple[int, ...]") -> "int | None":
    """Return 256 times the pressure in Pa; None where the chip's numbers would divide by zero."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = p
    v1 = t_fine - 128000
    v2 = v1 * v1 * p6 + (v1 * p5 << 17) + (p4 << 35)
    v1 = (v1 * v1 * p3 >> 8) + (v1 * p2 << 12)
    v1 = ((1 << 47) + v1) * p1 >> 33
    if v1 == 0:
        return None
    pressure = (((1048576 - raw) << 31) - v2) * 3125 // v1  # both are positive wherever there is air
    high = pressure >> 13
    return (pressure + (p9 * high * high >> 25) + (p8 * pressure >> 19) >> 8) + (p7 << 4)


def humidity_1024(raw: int, t_fine: int, h: "tuple[int, ...]") -> int:
    """Return 1024 times the relative humidity in percent, 0 to 100."""
    h1, h2, h3, h4, h5, h6 = h
    x = t_fine - 76800
    slope = ((x * h6 >> 10) * ((x * h3 >> 11) + 32768) >> 10) + 2097152
    x = ((raw << 14) - (h4 << 20) - h5 * x + 16384 >> 15) * (slope * h2 + 8192 >> 14)
    high = x >> 15
    x -= (high * high >> 7) * h1 >> 4
    return max(0, min(419430400, x)) >> 12
