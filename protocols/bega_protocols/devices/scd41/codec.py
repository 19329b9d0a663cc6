"""Sensirion SCD40, SCD41 CO2, temperature and humidity sensor: bytes <-> numbers.

Spec: SCD4x datasheet version 1.1 (April 2021), chapter 3; what it lacks (calibration target, variant, pressure read
back) from Sensirion's driver embedded-i2c-scd4x 1.2.0. Words and their check values: sensirion_i2c.py.
No IO, no clock, no floats.
"""

from collections import namedtuple

from bega_protocols.sensirion_i2c import WORD_SIZE, words

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

ADDRESS = 0x62
SAMPLE_SIZE = 3 * WORD_SIZE
# command: (code, ms until it is carried out)
STOP = (0x3F86, 500)
READ = (0xEC05, 1)
READY = (0xE4B8, 1)
SHOT = (0x219D, 5000)  # SCD41 only
SERIAL = (0x3682, 1)
VARIANT = (0x202F, 1)
SELF_TEST = (0x3639, 10000)
RECALIBRATE = (0x362F, 400)
PERSIST = (0x3615, 800)
# mode: (command that starts it, ms between samples)
MODES = {"periodic": (0x21B1, 5000), "low_power": (0x21AC, 30000), "single_shot": (0, 0)}
# setting: (command that tells it, command that sets it)
SETTINGS = {
    "temperature_offset_ccel": (0x2318, 0x241D),
    "altitude_m": (0x2322, 0x2427),
    "pressure_hpa": (0xE000, 0xE000),  # with an argument it sets; stronger than the altitude
    "self_calibration": (0x2313, 0x2416),
    "self_calibration_ppm": (0x233F, 0x243A),
}
VARIANTS = {0: "SCD40", 1: "SCD41", 5: "SCD43"}  # the upper four bits
READY_BITS = 0x07FF
FAILED = 0xFFFF  # of a forced recalibration

if TYPE_CHECKING:
    from typing import NamedTuple

    class Sample(NamedTuple):
        """ppm, hundredths of a degree Celsius, hundredths of a percent relative humidity."""

        co2_ppm: int
        temperature_ccel: int
        humidity_cpct: int

else:
    Sample = namedtuple("Sample", ("co2_ppm", "temperature_ccel", "humidity_cpct"))


def decode(answer: bytes) -> Sample:
    """Return the sample that an answer to READ holds, to the nearest hundredth (section 3.5.2).

    T = -45 + 175 w / 65535 and RH = 100 w / 65535; one step of w is 0.0027 degrees or 0.0015 %.
    Raises WireError if this is no sample, ChecksumError if a check value differs.
    """
    co2, temperature, humidity = words(answer, 3)
    return Sample(co2, _scaled(temperature, 17500) - 4500, _scaled(humidity, 10000))


def word_of(setting: str, value: int) -> int:
    """Return `value` of a setting as the sensor holds it: an offset in steps of 175/65535 degrees, else as it is."""
    if setting == "temperature_offset_ccel":
        return (2 * 65535 * value + 17500) // 35000
    return value


def _scaled(word: int, full: int) -> int:
    return (2 * full * word + 65535) // 131070
