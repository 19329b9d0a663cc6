"""An SCD41 made of code, written from SCD4x datasheet version 1.1 and embedded-i2c-scd4x 1.2.0, never from codec.py.

A command is two bytes, an argument one word and its CRC, an answer words with their CRC (generator
x^8 + x^5 + x^4 + 1, register starting at ones). While it measures in the background the sensor acknowledges four
commands only; while a command is carried out, none.
"""

from decimal import ROUND_HALF_UP, Decimal

PERIODS_MS = {0x21B1: 5000, 0x21AC: 30_000}
STOP, READ, READY, PRESSURE = 0x3F86, 0xEC05, 0xE4B8, 0xE000
SHOT, SELF_TEST, RECALIBRATE, PERSIST, SERIAL, VARIANT = 0x219D, 0x3639, 0x362F, 0x3615, 0x3682, 0x202F
WHILE_MEASURING = {STOP, READ, READY, PRESSURE}
SETTERS = {0x241D: 0x2318, 0x2427: 0x2322, 0x2416: 0x2313, 0x243A: 0x233F}  # command that sets: command that tells
FACTORY = {0x2318: 1498, 0x2322: 0, 0x2313: 1, 0x233F: 400}  # 4 degrees, sea level, self-calibration to 400 ppm
DURATIONS_MS = {STOP: 500, SHOT: 5000, SELF_TEST: 10_000, RECALIBRATE: 400, PERSIST: 800}  # others 1 ms
DEAD_CELL = 196  # what a self test said of cells that measured 0 ppm


class Sim:
    """Obeys commands. Time passes by `tick`; while nobody ticks, each sample and each answer is there at once.

    settings: `variant` 0 (SCD40), 1 (SCD41) or 5 (SCD43); the driver's own settings are not the sensor's business.
    faults: "silent" (does not acknowledge), "checksum" (the last CRC is wrong), "stuck" (the sample of the moment when
    it began is given for ever), "dead cell" (0 ppm), "brown-out" (loses its power now, once, and idles with what it
    has kept), "wrong device" (an SHT4x at its address: it knows no command of two bytes).
    """

    address = 0x62

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.eeprom_writes = 0
        self._variant = settings.get("variant", 1)
        self._serial = seed * 2654435761 % 2**48
        self._co2_ppm = Decimal(612)
        self._cel = Decimal(23)
        self._percent = Decimal(45)
        self._kept = dict(FACTORY)
        self._held = dict(FACTORY)
        self._pressure = 1013
        self._now_ms: int | None = None
        self._busy_until_ms = 0
        self._period_ms = 0  # 0: it idles
        self._due_ms = 0
        self._shot_waits = False
        self._samples = 0
        self._stuck_at: bytes | None = None

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air have this CO2 in ppm, temperature in degrees Celsius or humidity in percent."""
        exact = Decimal(str(value))
        if quantity == "co2":
            self._co2_ppm = exact
        elif quantity == "temperature":
            self._cel = exact
        elif quantity == "humidity":
            self._percent = exact
        else:
            raise KeyError(quantity)

    def tick(self, now_ms: int) -> bytes:
        """Let it be `now_ms`; an SCD41 never speaks by itself."""
        self._now_ms = now_ms
        return b""

    def busy_us(self, request: bytes) -> int:
        """Return how many microseconds after `request` the sensor does not acknowledge a read."""
        return 1000 * DURATIONS_MS.get(_code(request), 1)

    def _refuses(self, request: bytes) -> bool:
        self._brown_out()
        if {"silent", "wrong device"} & self.faults or len(request) not in (2, 5):
            return True
        if self._now_ms is not None and self._now_ms < self._busy_until_ms:
            return True
        return bool(self._period_ms) and _code(request) not in WHILE_MEASURING

    def answer(self, request: bytes) -> bytes | None:
        """Return what can be read after `request`, b"" where nothing can, None if it is not acknowledged."""
        if self._refuses(request):
            return None
        if not _whole(request):
            return b""
        code = _code(request)
        self._busy_until_ms = (self._now_ms or 0) + DURATIONS_MS.get(code, 1)
        words = self._obey(code, int.from_bytes(request[2:4], "big") if len(request) == 5 else None)
        answer = b"".join(_with_crc(word) for word in words)
        return answer[:-1] + bytes([answer[-1] ^ 0x55]) if answer and "checksum" in self.faults else answer

    def _obey(self, code: int, argument: int | None) -> list[int]:
        if code in PERIODS_MS:
            self._period_ms = PERIODS_MS[code]
            self._due_ms = (self._now_ms or 0) + self._period_ms
        elif code == STOP:
            self._period_ms = 0
        elif code in (READ, READY):
            return self._sampled(code)
        elif code in SETTERS and argument is not None:
            self._held[SETTERS[code]] = argument
        elif code in FACTORY:
            return [self._held[code]]
        elif code == PRESSURE:
            return self._pressed(argument)
        elif code == SHOT and self._variant != 0:
            self._shot_waits = True
        return self._serve(code, argument)

    def _serve(self, code: int, argument: int | None) -> list[int]:
        if code == SERIAL:
            return [self._serial >> 32, self._serial >> 16 & 0xFFFF, self._serial & 0xFFFF]
        if code == VARIANT:
            return [int(str(self._variant)) << 12 | 0x0441]
        if code == SELF_TEST:
            return [DEAD_CELL if "dead cell" in self.faults else 0]
        if code == RECALIBRATE and argument is not None:
            return [0xFFFF if "dead cell" in self.faults else 0x8000 + argument - int(self._co2_ppm)]
        if code == PERSIST:
            self.eeprom_writes += 1
            self._kept = dict(self._held)
        return []

    def _pressed(self, argument: int | None) -> list[int]:
        if argument is None:
            return [self._pressure]
        self._pressure = argument
        return []

    def _sampled(self, code: int) -> list[int]:
        due = self._shot_waits or (bool(self._period_ms) and (self._now_ms is None or self._now_ms >= self._due_ms))
        if code == READY:
            return [0x8006 if due else 0x8000]
        if not due:
            return []
        self._shot_waits = False
        if self._now_ms is not None and self._period_ms:
            while self._due_ms <= self._now_ms:
                self._due_ms += self._period_ms
        return self._sample()

    def _sample(self) -> list[int]:
        """Temperature and humidity tremble inside the hundredth that was set: no two samples in a row are alike."""
        if "stuck" not in self.faults or not self._samples:
            self._samples += 1
        trembling = self._samples % 3 - 1, self._samples % 5 - 2
        cel = _clamped(_nearest((self._cel + 45) / 175 * 65535) + trembling[0])
        percent = _clamped(_nearest(self._percent / 100 * 65535) + trembling[1])
        fresh = [0 if "dead cell" in self.faults else _clamped(_nearest(self._co2_ppm)), cel, percent]
        if "stuck" not in self.faults:
            self._stuck_at = None
            return fresh
        self._stuck_at = self._stuck_at or b"".join(word.to_bytes(2, "big") for word in fresh)
        return [int.from_bytes(self._stuck_at[at : at + 2], "big") for at in (0, 2, 4)]

    def _brown_out(self) -> None:
        if "brown-out" in self.faults:
            self.faults.discard("brown-out")
            self._held = dict(self._kept)
            self._period_ms = 0
            self._shot_waits = False


def _code(request: bytes) -> int:
    return int.from_bytes(request[:2], "big")


def _whole(request: bytes) -> bool:
    return len(request) == 2 or _with_crc(int.from_bytes(request[2:4], "big")) == request[2:]


def _nearest(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_HALF_UP))


def _clamped(word: int) -> int:
    return max(0, min(65535, word))


def _with_crc(word: int) -> bytes:
    """Append the remainder of word x^8 divided by the generator, the register starting at ones: as a polynomial."""
    register = (word << 8) ^ 0xFF0000
    for shift in range(15, -1, -1):
        if register >> (shift + 8) & 1:
            register ^= 0x131 << shift
    return bytes([word >> 8, word & 0xFF, register & 0xFF])
