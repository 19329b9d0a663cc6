"""An SPS30 on its serial interface, made of code from the datasheet version 1.0 (March 2020), never from codec.py.

Section 5.1: 7E, address 0, command, (reply: state,) length, data, check, 7E;
the check value is the sum of all between the flags, its low byte inverted,
before stuffing. Table 10: 7E, 7D, 11, 13 become 7D 5E, 7D 5D, 7D 31, 7D 33.
"""

import struct
from decimal import Decimal

STUFFING = {b"\x7d": b"\x7d\x5d", b"\x7e": b"\x7d\x5e", b"\x11": b"\x7d\x31", b"\x13": b"\x7d\x33"}  # 7D goes first
ORDER = (
    "pm1", "pm2_5", "pm4", "pm10", "particles_to_0_5", "particles_to_1", "particles_to_2_5", "particles_to_4",
    "particles_to_10", "particle_size",
)  # fmt: skip
SERIAL = b"7C1F80CB1C9C5A2E\0"


class Sim:
    """Measures while it is told to; asleep it needs a pulse and the command to wake.

    faults: "silent", "checksum", "cut" (replies end after 9 bytes), "stuck" (the air of the moment when it began, for
    ever), "fan", "laser", "speed" (bits of the status register), "saturated" (1000 µg/m³), "not a number",
    "wrong device" (replies to other commands), "nothing new" (it never has a measurement).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.version = (2, 2)
        self.measures = False
        self.asleep = False
        self.cleanings = 0
        self._as_floats = True
        self._pulse = False
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
        self.measures = self.asleep = self._pulse = False

    def tick(self, now_ms: int) -> bytes:
        """Return nothing: it never speaks by itself."""
        return b""

    def answer(self, request: bytes) -> bytes | None:
        """Return the reply to a frame, None where there is none."""
        if "silent" in self.faults:
            return None
        if request[:1] == b"\xff":
            self._pulse = True
            request = request[1:]  # the command may follow at once
        inner = request.strip(b"\x7e")
        for plain, stuffed in reversed(STUFFING.items()):
            inner = inner.replace(stuffed, plain)
        if len(inner) < 4 or inner[2] != len(inner) - 4 or sum(inner) % 256 != 255:
            return None
        command, data = inner[1], inner[3:-1]
        if self.asleep and not (command == 0x11 and self._pulse):
            return None
        self._pulse = False
        state, reply = self._obey(command, data)
        return self._framed(command, state, reply)

    def _obey(self, command: int, data: bytes) -> tuple[int, bytes]:
        if command in (0x10, 0x11) and self.version < (2, 0):
            return 0x02, b""
        if command == 0xD2 and self.version < (2, 0):
            return 0x02, b""
        if command == 0x00:
            if self.measures or data[:1] != b"\x01" or data[1:] not in (b"\x03", b"\x05"):
                return 0x43 if self.measures else 0x04, b""
            self.measures, self._as_floats = True, data[1:] == b"\x03"
            return 0, b""
        if command == 0x01:
            was, self.measures = self.measures, False
            return (0 if was else 0x43), b""
        if command == 0x03:
            return self._measured()
        if command == 0x10:
            if self.measures:
                return 0x43, b""
            self.asleep = True
            return 0, b""
        if command == 0x11:
            was, self.asleep = self.asleep, False
            return (0 if was else 0x43), b""
        if command == 0x56:
            self.cleanings += self.measures
            return (0 if self.measures else 0x43), b""
        if command == 0xD0:
            return (0, SERIAL) if data == b"\x03" else (0, b"00080000\0") if data == b"\0" else (0x04, b"")
        if command == 0xD1:
            return 0, bytes([*self.version, 0, 7, 0, 2, 0])
        if command == 0xD2:
            bits = {"fan": 1 << 4, "laser": 1 << 5, "speed": 1 << 21}
            return 0, struct.pack(">IB", sum(bits[name] for name in bits if name in self.faults), 0)
        if command == 0xD3:
            self.power_cut()
            return 0, b""
        return 0x02, b""

    def _measured(self) -> tuple[int, bytes]:
        if not self.measures:
            return 0x43, b""
        if "nothing new" in self.faults:
            return 0, b""
        if not self._as_floats:
            return 0, struct.pack(">10H", *(int(self._air[name]) for name in ORDER))
        fresh = struct.pack(">10f", *self._values())
        if "stuck" not in self.faults:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = fresh
        return 0, self._stuck_at or fresh

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

    def _framed(self, command: int, state: int, data: bytes) -> bytes:
        if "wrong device" in self.faults:
            command ^= 0x08
        error = 0x80 if self.faults & {"fan", "laser", "speed"} else 0
        inner = bytes([0, command, state | error, len(data)]) + data
        check = 255 - sum(inner) % 256
        if "checksum" in self.faults:
            check ^= 0x21
        inner += bytes([check])
        for plain, stuffed in STUFFING.items():
            inner = inner.replace(plain, stuffed)
        whole = b"\x7e" + inner + b"\x7e"
        return whole[:9] if "cut" in self.faults else whole
