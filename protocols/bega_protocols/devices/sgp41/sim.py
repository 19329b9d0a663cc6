"""An SGP41 made of code, written from Sensirion's embedded-i2c-sgp41 (its command table), never from codec.py.

Commands: 2612 conditioning and 2619 measurement with two arguments (humidity, temperature), 280E self test, 3615
heater off, 3682 serial number. Words carry a CRC (generator x^8 + x^5 + x^4 + 1, register starting at ones).
"""

from decimal import Decimal

CONDITION, MEASURE, SELF_TEST, HEATER_OFF, SERIAL = 0x2612, 0x2619, 0x280E, 0x3615, 0x3682
DURATIONS_MS = {CONDITION: 50, MEASURE: 50, SELF_TEST: 320}  # others 1 ms
CONDITIONING_LIMIT_MS = 10_000
PASSED, FAILED = 0xD400, 0x4B00


class Sim:
    """Obeys commands. Time passes by `tick`; while nobody ticks, it stands still.

    `burnt` tells whether it was ever conditioned for longer than ten seconds: a real one would be damaged.
    faults: "silent" (does not acknowledge), "checksum" (the last CRC is wrong), "stuck" (the signals of the moment
    when it began are given for ever), "saturated" (both signals at their upper end), "broken" (fails its self test),
    "wrong device" (an SGP40 at its address: it measures by another command and knows no NOx).
    """

    address = 0x59

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.burnt = False
        self.arguments: tuple[int, int] | None = None  # humidity and temperature of the last command that had them
        self._serial = seed * 2654435761 % 2**48
        self._voc = 31_000
        self._nox = 16_000
        self._now_ms: int | None = None
        self._conditioned_since_ms: int | None = None
        self._conditioned = False
        self._measurements = 0
        self._stuck_at: list[int] | None = None

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the next signal of VOC or NOx be this many ticks; later ones tremble around it."""
        before = self._voc, self._nox
        if quantity == "voc_raw":
            self._voc = int(value)
        elif quantity == "nox_raw":
            self._nox = int(value)
        else:
            raise KeyError(quantity)
        if (self._voc, self._nox) != before:
            self._measurements = 0

    def tick(self, now_ms: int) -> bytes:
        """Let it be `now_ms`; an SGP41 never speaks by itself."""
        self._now_ms = now_ms
        if self._conditioned_since_ms is not None:
            self.burnt |= now_ms - self._conditioned_since_ms > CONDITIONING_LIMIT_MS
        return b""

    def busy_us(self, request: bytes) -> int:
        """Return how many microseconds after `request` the sensor does not acknowledge a read."""
        return 1000 * DURATIONS_MS.get(_code(request), 1)

    def answer(self, request: bytes) -> bytes | None:
        """Return what can be read after `request`, b"" where nothing can, None if it is not acknowledged."""
        if {"silent", "wrong device"} & self.faults or len(request) not in (2, 8):
            return None
        code = _code(request)
        if (code in (CONDITION, MEASURE)) != (len(request) == 8) or not self._takes(request[2:]):
            return b""
        answer = b"".join(_with_crc(word) for word in self._obey(code))
        return answer[:-1] + bytes([answer[-1] ^ 0x55]) if answer and "checksum" in self.faults else answer

    def _takes(self, arguments: bytes) -> bool:
        if not arguments:
            return True
        humidity, temperature = int.from_bytes(arguments[:2], "big"), int.from_bytes(arguments[3:5], "big")
        if arguments != _with_crc(humidity) + _with_crc(temperature):
            return False
        self.arguments = humidity, temperature
        return True

    def _obey(self, code: int) -> list[int]:
        if code == SERIAL:
            return [self._serial >> 32, self._serial >> 16 & 0xFFFF, self._serial & 0xFFFF]
        if code == CONDITION:
            if self._conditioned_since_ms is None:
                self._conditioned_since_ms = self._now_ms
            self._conditioned = True
            return [self._voc]
        self._conditioned_since_ms = None
        if code == SELF_TEST:
            return [FAILED | 1 if "broken" in self.faults else PASSED]
        return self._signals() if code == MEASURE else []

    def _signals(self) -> list[int]:
        trembling = self._measurements % 4
        self._measurements += 1
        # The NOx signal of a sensor that was never conditioned after power-on means nothing.
        nox = self._nox if self._conditioned else 0
        fresh = [_clamped(self._voc + trembling), _clamped(nox + trembling)]
        if "saturated" in self.faults:
            return [65535, 65535]
        if "stuck" not in self.faults:
            self._stuck_at = None
            return fresh
        self._stuck_at = self._stuck_at or fresh
        return self._stuck_at


def _code(request: bytes) -> int:
    return int.from_bytes(request[:2], "big")


def _clamped(word: int) -> int:
    return max(0, min(65535, word))


def _with_crc(word: int) -> bytes:
    """Append the remainder of word x^8 divided by the generator, the register starting at ones: as a polynomial."""
    register = (word << 8) ^ 0xFF0000
    for shift in range(15, -1, -1):
        if register >> (shift + 8) & 1:
            register ^= 0x131 << shift
    return bytes([word >> 8, word & 0xFF, register & 0xFF])
