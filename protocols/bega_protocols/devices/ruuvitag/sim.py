"""A RuuviTag (format 5) or a Ruuvi Air (format 6) made of code, written from Ruuvi's pages and never from the codec.

docs.ruuvi.com, "Data format 5 (RAWv2)" and "Data format 6", the tables of
offsets. Each frame is put together as one large number, field by field.
"""

import random
from decimal import ROUND_HALF_EVEN, Decimal

# format: rows of (quantity, part, bits, steps in one unit, offset in units, what stands for "not available")
Row = tuple[str, str, int, str, str, int]
FIELDS: dict[int, list[Row]] = {
    5: [
        ("temperature", "", 16, "200", "0", 0x8000),
        ("humidity", "", 16, "400", "0", 0xFFFF),
        ("pressure", "", 16, "100", "-500", 0xFFFF),
        ("acceleration", "x", 16, "101.9716212977928242570092744", "0", 0x8000),
        ("acceleration", "y", 16, "101.9716212977928242570092744", "0", 0x8000),
        ("acceleration", "z", 16, "101.9716212977928242570092744", "0", 0x8000),
        ("voltage", "", 11, "1000", "-1.6", 2047),
        ("tx power", "", 5, "0.5", "40", 31),
        ("movement_count", "", 8, "1", "0", 0xFF),
    ],
    6: [
        ("temperature", "", 16, "200", "0", 0x8000),
        ("humidity", "", 16, "400", "0", 0xFFFF),
        ("pressure", "", 16, "100", "-500", 0xFFFF),
        ("pm2_5", "", 16, "10", "0", 0xFFFF),
        ("co2", "", 16, "1", "0", 0xFFFF),
    ],
}
SIGNED = ("temperature", "acceleration")
HIGHEST = {"movement_count": 254, "voc_index": 500, "nox_index": 500}
ADVERTISE_MS = 1285
JITTER_MS = 10  # advDelay, Core specification volume 6, part B, section 4.4.2.2
MEASURE_MS = 2570


class Sim:
    """Measures every 2.6 s and says each measurement twice, as the tag's own firmware does.

    settings: `address`; `format` 5 (RuuviTag) or 6 (Ruuvi Air); what is not set is sent as "not available".
    faults: "silent" (nothing is sent), "stuck" (the first measurement for ever), "wrong device" (the payload
    holds another sensor's address), "calibrating" (format 6 only: the flag of an air sensor that is not ready).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._address = bytes.fromhex(str(settings.get("address", "CBB8334C884F")).replace(":", ""))
        self._format = int(str(settings.get("format", 5)))
        self._values: dict[tuple[str, str], Decimal] = {}
        self._chance = random.Random(seed)  # noqa: S311  # jitter, no secret
        self._next_ms: int | None = None
        self._measured_ms: int | None = None
        self._sequence = 0
        self._payload = b""

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the place be `value` in the quantity's unit; the sensor rounds, and clips at what its field can hold."""
        known = {(row[0], row[1]) for row in FIELDS[self._format]}
        if self._format == 6:
            known |= {("voc_index", ""), ("nox_index", "")}
        if (quantity, part) not in known:
            raise KeyError((quantity, part))
        self._values[quantity, part] = Decimal(str(value))

    def tick(self, now_ms: int) -> bytes:
        """Return the advertisement that is due at `now_ms`, whole (flags, manufacturer data), or b"" between two."""
        if self._next_ms is None:
            self._next_ms = now_ms
        if now_ms < self._next_ms:
            return b""
        self._next_ms = now_ms + ADVERTISE_MS + self._chance.randint(0, JITTER_MS)
        if "silent" in self.faults:
            return b""
        due = self._measured_ms is None or now_ms - self._measured_ms >= MEASURE_MS
        if due and not ("stuck" in self.faults and self._payload):
            self._measured_ms = now_ms
            self._sequence += 1
            self._payload = self.payload()
        return bytes.fromhex("020106") + bytes([len(self._payload) + 3]) + bytes.fromhex("FF9904") + self._payload

    def answer(self, request: bytes) -> bytes | None:
        """Return None: what is asked of a tag by connecting to it is left out."""
        return None

    def payload(self) -> bytes:
        """Return the frame of this moment, from its format's number on."""
        number, bits = self._format, 8
        for row in FIELDS[self._format]:
            number, bits = (number << row[2]) | self._steps(row), bits + row[2]
        whole = number.to_bytes(bits // 8, "big")
        return whole + (self._end_of_5() if self._format == 5 else self._end_of_6())

    def _steps(self, row: Row) -> int:
        quantity, part, bits, steps, offset, missing = row
        value = self._values.get((quantity, part))
        if value is None:
            return missing
        exact = ((value + Decimal(offset)) * Decimal(steps)).to_integral_value(ROUND_HALF_EVEN)
        if quantity in SIGNED:
            return max(-0x7FFF, min(0x7FFF, int(exact))) % 0x10000
        return max(0, min(HIGHEST.get(quantity, (1 << bits) - 2), int(exact)))

    def _owner(self) -> bytes:
        return bytes([*self._address[:5], self._address[5] ^ 0xFF]) if "wrong device" in self.faults else self._address

    def _end_of_5(self) -> bytes:
        return (self._sequence % 65535).to_bytes(2, "big") + self._owner()

    def _end_of_6(self) -> bytes:
        """VOC and NOx: eight upper bits in a byte of their own, the lowest in bits 6 and 7 of the flags."""
        flags = 1 if "calibrating" in self.faults else 0
        upper = b""
        for bit, quantity in ((6, "voc_index"), (7, "nox_index")):
            value = self._values.get((quantity, ""))
            index = 0x1FF if value is None else max(0, min(HIGHEST[quantity], int(value)))
            upper += bytes([index >> 1])
            flags |= (index & 1) << bit
        no_light, reserved = b"\xff", b"\xff"
        return upper + no_light + reserved + bytes([self._sequence % 256, flags]) + self._owner()[3:]
