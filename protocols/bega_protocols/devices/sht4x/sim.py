"""An SHT4x made of code, written from the datasheet version 1 (October 2020) and never from codec.py.

Table of section 4.5: FD, F6, E0 measure with high, medium, low repeatability
in 8.3, 4.5 and 1.6 ms; 89 reads the serial number; 94 resets. Section 4.4:
each 16-bit word is followed by a CRC with generator x^8 + x^5 + x^4 + 1.
"""

from decimal import ROUND_HALF_EVEN, Decimal

MEASUREMENTS_US = {0xFD: 8300, 0xF6: 4500, 0xE0: 1600}
SERIAL, RESET = 0x89, 0x94
RESET_US = 1000


class Sim:
    """Answers each command once; `busy_us` is how long it refuses to be read after a command.

    faults: "silent" (does not acknowledge its address), "checksum" (the last CRC is wrong),
    "stuck" (the climate of the moment when it began is measured for ever), "wet" (100 % for ever).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._serial = seed * 2654435761 % 2**32
        self._cel = Decimal(25)
        self._percent = Decimal(50)
        self._stuck_at: bytes | None = None
        self._measurements = 0
        self.address = int(str(settings.get("address", 0x44)))

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air have this temperature in degrees Celsius or this humidity in percent."""
        exact = Decimal(str(value))
        if quantity == "temperature":
            self._cel = exact
        elif quantity == "humidity":
            self._percent = exact
        else:
            raise KeyError(quantity)

    def tick(self, now_ms: int) -> bytes:
        """Return nothing: an SHT4x never speaks by itself."""
        return b""

    def busy_us(self, request: bytes) -> int:
        """Return how many microseconds after `request` the sensor does not acknowledge a read."""
        if request[:1] == bytes([RESET]):
            return RESET_US
        return MEASUREMENTS_US.get(request[0], 0) if request else 0

    def answer(self, request: bytes) -> bytes | None:
        """Return what can be read after `request` (a command byte), b"" where nothing can, None if nobody is there."""
        if "silent" in self.faults or len(request) != 1:
            return None
        if request[0] in MEASUREMENTS_US:
            return self._measured()
        if request[0] == SERIAL:
            return _with_crc(self._serial >> 16) + _with_crc(self._serial & 0xFFFF)
        return b""

    def _measured(self) -> bytes:
        """Both words tremble inside the hundredth that was set: no two measurements in a row are alike."""
        self._measurements += 1
        percent = Decimal(119) if "wet" in self.faults else self._percent
        cel_word = _clamped(_ticks((self._cel + 45) / 175) + self._measurements % 3 - 1)
        percent_word = _clamped(_ticks((percent + 6) / 125) + self._measurements % 5 - 2)
        fresh = _with_crc(cel_word) + _with_crc(percent_word)
        if "stuck" not in self.faults:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = fresh
        answer = self._stuck_at or fresh
        return answer[:-1] + bytes([answer[-1] ^ 0x55]) if "checksum" in self.faults else answer


def _ticks(share: Decimal) -> int:
    return int((share * 65535).to_integral_value(ROUND_HALF_EVEN))


def _clamped(word: int) -> int:
    return max(0, min(65535, word))


def _with_crc(word: int) -> bytes:
    """Append the remainder of word x^8 divided by the generator, the register starting at ones: as a polynomial."""
    register = (word << 8) ^ 0xFF0000
    for shift in range(15, -1, -1):
        if register >> (shift + 8) & 1:
            register ^= 0x131 << shift
    return bytes([word >> 8, word & 0xFF, register & 0xFF])
