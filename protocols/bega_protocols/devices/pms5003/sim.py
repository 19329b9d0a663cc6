"""A Plantower dust sensor made of code, written from the data manual V2.3 (Appendix I, II) and never from codec.py.

Byte table of the manual, by position: 1-2 start, 3-4 length, 5-10 masses at
CF=1, 11-16 masses in the atmosphere, 17-28 counts per 0.1 L, 29 version,
30 error code, 31-32 sum of bytes 1 to 30. The relatives, by position:
PMS3003 ends after 24 bytes, without counts; T has temperature at 25 and
humidity at 27 in place of two counts; S has formaldehyde at 29; ST has it
there too, temperature at 31, humidity at 33, and ends after 40 bytes.
"""

from decimal import Decimal

ATMOSPHERIC_BYTE = {"pm1": 11, "pm2_5": 13, "pm10": 15}
COUNT_BYTE = {
    "particles_0_3": 17, "particles_0_5": 19, "particles_1": 21,
    "particles_2_5": 23, "particles_5": 25, "particles_10": 27,
}  # fmt: skip
LENGTH = {"pms3003": 24, "pms5003st": 40}  # all others 32
TENTHS_BYTE = {
    "pms5003t": {"temperature": 25, "humidity": 27},
    "pms5003st": {"temperature": 31, "humidity": 33},
}
FORMALDEHYDE_BYTE = {"pms5003s": 29, "pms5003st": 29}
PERIOD_MS = 1000  # the manual: 200 to 800 ms while the air changes, 2.3 s while it is steady
VERSION = 0x97


class Sim:
    """Speaks a frame a second in active mode; sleeps, wakes and answers in passive mode as told.

    Air stays possible whatever is set: PM2.5 holds PM1, what is counted above 1 µm is counted above 0.5 µm too.

    faults: "silent" (nothing is sent), "checksum" (the last byte is wrong), "cut" (frames end after 20 bytes),
    "stuck" (the air of the moment when it began, for ever), "blind" (zeros, as in warm-up or with a dead laser),
    "saturated" (the largest values), "impossible" (more PM2.5 than PM10).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._model = str(settings.get("model", "pms5003"))
        self._air: dict[str, Decimal] = {}
        self._next_ms: int | None = None
        self._awake = True
        self._active = True
        self._stuck_at: bytes | None = None

    @property
    def awake(self) -> bool:
        """Whether fan and laser run."""
        return self._awake

    @property
    def active(self) -> bool:
        """Whether it speaks by itself."""
        return self._active

    def power_cut(self) -> None:
        """Begin anew: awake, and speaking."""
        self._awake = self._active = True

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air be `value` in the quantity's unit; the sensor rounds and saturates at 16 bits."""
        measured = ATMOSPHERIC_BYTE | COUNT_BYTE | TENTHS_BYTE.get(self._model, {})
        if quantity not in measured and not (quantity == "formaldehyde" and self._model in FORMALDEHYDE_BYTE):
            raise KeyError(quantity)
        self._air[quantity] = Decimal(str(value))

    def tick(self, now_ms: int) -> bytes:
        """Return what the sensor has sent by itself up to `now_ms`."""
        if self._next_ms is None:
            self._next_ms = now_ms
        if not (self._awake and self._active) or "silent" in self.faults:
            self._next_ms = max(self._next_ms, now_ms)
            return b""
        sent = b""
        while self._next_ms <= now_ms:
            sent += self._frame()
            self._next_ms += PERIOD_MS
        return sent

    def answer(self, request: bytes) -> bytes | None:
        """Return the answer to a command of 7 bytes (Appendix II), None where there is none."""
        if len(request) != 7 or request[0] != 0x42 or request[1] != 0x4D or "silent" in self.faults:
            return None
        if sum(request[0:5]) != request[5] * 256 + request[6] or self._model == "pms3003":
            return None
        verb, argument = request[2], request[4]
        if verb == 0xE2:
            return self._frame() if self._awake and not self._active else None
        if verb == 0xE1:
            self._active = argument == 1
        elif verb == 0xE4:
            self._awake = argument == 1
        else:
            return None
        return _with_sum([0x42, 0x4D, 0, 4, verb, argument])

    def _frame(self) -> bytes:
        fresh = self._measured()
        if "stuck" not in self.faults:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = fresh
        whole = self._stuck_at or fresh
        if "checksum" in self.faults:
            whole = whole[:-1] + bytes([whole[-1] ^ 0xFF])
        return whole[:20] if "cut" in self.faults else whole

    def _measured(self) -> bytes:
        words: dict[int, int] = {}
        mass = 0
        for quantity, position in ATMOSPHERIC_BYTE.items():
            mass = max(mass, self._word(quantity, 1))
            words[position] = mass
            words[position - 6] = mass if mass < 30 else mass * 11 // 10 % 65536  # CF=1 parts from it above
        count = 0
        for quantity, position in reversed(COUNT_BYTE.items()):
            count = max(count, self._word(quantity, 100))
            words[position] = count
        words[17] = max(words[17], 1 if mass else 0)
        if "blind" in self.faults:
            words = dict.fromkeys(words, 0)
        if "saturated" in self.faults:
            words = dict.fromkeys(words, 65535)
        if "impossible" in self.faults:
            words[13], words[15] = 21, 20
        if self._model != "pms3003":
            words[29] = VERSION * 256
        if self._model in FORMALDEHYDE_BYTE:
            words[29] = self._word("formaldehyde", 1)
        for quantity, position in TENTHS_BYTE.get(self._model, {}).items():
            words[position] = self._tenths(quantity)
        length = LENGTH.get(self._model, 32)
        frame = [0x42, 0x4D, 0, length - 4]
        for position in range(5, length - 1, 2):
            word = words.get(position, 0) if position < 17 or self._model != "pms3003" else 0
            frame += [word // 256, word % 256]
        return _with_sum(frame)

    def _word(self, quantity: str, steps: int) -> int:
        return max(0, min(65535, int((self._air.get(quantity, Decimal(0)) * steps).to_integral_value())))

    def _tenths(self, quantity: str) -> int:
        return int((self._air.get(quantity, Decimal(0)) * 10).to_integral_value()) % 65536


def _with_sum(octets: list[int]) -> bytes:
    total = sum(octets)
    return bytes([*octets, total // 256 % 256, total % 256])
