"""A PMS5003 made of code, written from the data manual V2.3 (Appendix I, II) and never from codec.py.

Byte table of the manual, by position: 1-2 start, 3-4 length 28, 5-10 masses
at CF=1, 11-16 masses in the atmosphere, 17-28 counts per 0.1 L, 29 version,
30 error code, 31-32 sum of bytes 1 to 30.
"""

from decimal import Decimal

ATMOSPHERIC_BYTE = {"pm1": 11, "pm2_5": 13, "pm10": 15}
COUNT_BYTE = {
    "particles_0_3": 17, "particles_0_5": 19, "particles_1": 21,
    "particles_2_5": 23, "particles_5": 25, "particles_10": 27,
}  # fmt: skip
PERIOD_MS = 1000  # the manual: 200 to 800 ms while the air changes, 2.3 s while it is steady
VERSION = 0x97


class Sim:
    """Speaks a frame a second in active mode; sleeps, wakes and answers in passive mode as told.

    faults: "silent" (nothing is sent), "checksum" (the last byte is wrong), "cut" (frames end after 20 bytes).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._table = dict.fromkeys(range(5, 29, 2), 0)
        self._next_ms: int | None = None
        self._awake = True
        self._active = True

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air be `value` in the quantity's unit; the sensor rounds and saturates at 16 bits."""
        exact = Decimal(str(value))
        if quantity in COUNT_BYTE:
            self._table[COUNT_BYTE[quantity]] = _word(exact * 100)
            return
        position = ATMOSPHERIC_BYTE[quantity]
        self._table[position] = _word(exact)
        self._table[position - 6] = _word(exact if exact < 30 else exact * Decimal("1.1"))  # CF=1 parts from it above

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
        if sum(request[0:5]) != request[5] * 256 + request[6]:
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
        frame = [0x42, 0x4D, 0, 28]
        for position in range(5, 29, 2):
            frame += [self._table[position] // 256, self._table[position] % 256]
        whole = _with_sum([*frame, VERSION, 0])
        if "checksum" in self.faults:
            whole = whole[:-1] + bytes([whole[-1] ^ 0xFF])
        return whole[:20] if "cut" in self.faults else whole


def _word(value: Decimal) -> int:
    return max(0, min(65535, int(value.to_integral_value())))


def _with_sum(octets: list[int]) -> bytes:
    total = sum(octets)
    return bytes([*octets, total // 256 % 256, total % 256])
