"""An SPS30 on I2C made of code, written from the datasheet version 1.0 (March 2020), never from codec.py.

Section 6: a pointer of two bytes, words behind it, each with the remainder of
word x^8 divided by x^8 + x^5 + x^4 + 1, the register starting at ones.
"""

import struct
from decimal import Decimal

ORDER = (
    "pm1", "pm2_5", "pm4", "pm10", "particles_to_0_5", "particles_to_1", "particles_to_2_5", "particles_to_4",
    "particles_to_10", "particle_size",
)  # fmt: skip
SERIAL = b"7C1F80CB1C9C5A2E".ljust(32, b"\0")
BUSY_US = {"0010": 20_000, "0104": 20_000, "1001": 5000, "1103": 5000, "5607": 5000, "d210": 5000, "d304": 100_000}


class Sim:
    """Measures while it is told to; asleep it acknowledges nothing but the second of two wake-ups.

    faults: "silent", "checksum", "stuck" (the air of the moment when it began, for ever), "fan", "laser", "speed"
    (bits of the status register), "saturated", "not a number", "nothing new" (it never has a measurement).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.version = (2, 2)
        self.measures = False
        self.asleep = False
        self.cleanings = 0
        self._wakes = 0
        self._air = {name: Decimal(0) for name in ORDER}
        self._noise = seed
        self._stuck_at: bytes | None = None

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air have this value, in the quantity's unit; what is cumulative carries what lies above it along."""
        if quantity not in self._air:
            raise KeyError(quantity)
        self._air[quantity] = Decimal(str(value))

    def power_cut(self) -> None:
        """Begin anew."""
        self.measures = self.asleep = False

    def tick(self, now_ms: int) -> bytes:
        """Return nothing: it never speaks by itself."""
        return b""

    def busy_us(self, request: bytes) -> int:
        """Return how many microseconds after `request` the sensor does not acknowledge a read."""
        return BUSY_US.get(request[:2].hex(), 0)

    def answer(self, request: bytes) -> bytes | None:
        """Return what can be read after `request`, b"" where nothing can, None if it is not acknowledged."""
        if "silent" in self.faults:
            return None
        if len(request) < 2:
            return b""
        pointer, arguments = request[:2].hex(), request[2:]
        if self.asleep:
            self._wakes = self._wakes + 1 if pointer == "1103" else 0
            self.asleep = self._wakes < 2
            return None
        self._wakes = 0
        if pointer == "0010":
            self.measures = self.measures or arguments == bytes.fromhex("0300ac")
        elif pointer == "0104":
            self.measures = False
        elif pointer == "1001":
            self.asleep = not self.measures
        elif pointer == "5607":
            self.cleanings += self.measures
        elif pointer == "d304":
            self.power_cut()
        return self._held(pointer)

    def _held(self, pointer: str) -> bytes:
        if pointer == "0202":
            return self._words(bytes([0, self.measures and "nothing new" not in self.faults]))
        if pointer == "0300" and self.measures:
            return self._words(self._measured())
        if pointer == "d033":
            return self._words(SERIAL)
        if pointer == "d100":
            return self._words(bytes(self.version))
        if pointer == "d206" and self.version >= (2, 2):
            bits = {"fan": 1 << 4, "laser": 1 << 5, "speed": 1 << 21}
            return self._words(struct.pack(">I", sum(bits[name] for name in bits if name in self.faults)))
        return b""

    def _measured(self) -> bytes:
        fresh = struct.pack(">10f", *self._values())
        if "stuck" not in self.faults:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = fresh
        return self._stuck_at or fresh

    def _values(self) -> list[float]:
        """A float32 holds a hundredth with room below it: there noise lives, that no rounding to 0.01 shows."""
        self._noise = (self._noise * 1103515245 + 12345) % 2**31
        values, least = [], Decimal(0)
        for name in ORDER:
            if name in ("particles_to_0_5", "particle_size"):
                least = Decimal(0)
            least = max(least, self._air[name])
            values.append(float(least))
        if "saturated" in self.faults:
            values[:4] = [1000.0] * 4
        if "not a number" in self.faults:
            values[2] = float("nan")
        values[9] += (self._noise >> 16) % 100 / 100000
        return values

    def _words(self, octets: bytes) -> bytes:
        whole = b"".join(_with_crc(octets[at : at + 2]) for at in range(0, len(octets), 2))
        return whole[:-1] + bytes([whole[-1] ^ 0x55]) if "checksum" in self.faults else whole


def _with_crc(octets: bytes) -> bytes:
    register = int.from_bytes(octets, "big") << 8 ^ 0xFF0000
    for shift in range(15, -1, -1):
        if register >> (shift + 8) & 1:
            register ^= 0x131 << shift
    return octets + bytes([register & 0xFF])
