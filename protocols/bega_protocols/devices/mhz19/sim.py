"""An MH-Z19B made of code, written from Winsen's manual v1.5 and never from codec.py.

Manual, by position: byte 0 FF, byte 1 sensor number 01, byte 2 command, 3 to
7 data, byte 8 check: all of bytes 1 to 7 added, inverted, plus one. The answer
to 86 is FF 86 high low and four bytes of which the manual says nothing.
"""

from decimal import Decimal

RANGES_PPM = (2000, 5000, 10000)
START_PPM = 410  # what it shows until its cell is warm


class Sim:
    """Answers the read command; all others it obeys in silence.

    faults: "silent", "checksum", "cut" (5 bytes), "warming" (410 whatever the air), "stuck" (the air of the moment
    when it began), "saturated" (the top of its range), "another command" (answers as if it had been asked otherwise).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._ppm = 600
        self._stuck_at: int | None = None
        self.abc = True  # the baseline correction of itself: on after power, whatever it was told before
        self.range_ppm = 5000
        self.calibrations: list[str] = []

    def power_cut(self) -> None:
        """Forget what it keeps without power only in some units."""
        self.abc = True

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air hold this much CO2 in ppm."""
        if quantity != "co2":
            raise KeyError(quantity)
        self._ppm = int(Decimal(str(value)).to_integral_value())

    def tick(self, now_ms: int) -> bytes:
        """Return nothing: it never speaks by itself."""
        return b""

    def answer(self, request: bytes) -> bytes | None:
        """Return the answer to a command of 9 bytes, None where there is none."""
        if len(request) != 9 or request[0] != 0xFF or request[1] != 1 or "silent" in self.faults:
            return None
        if (sum(request[1:8]) + request[8]) % 256:
            return None
        command, high, low = request[2:5]
        if command == 0x86:
            return self._measured()
        if command == 0x79:
            self.abc = high == 0xA0
        elif command == 0x87:
            self.calibrations.append("zero")
        elif command == 0x88:
            self.calibrations.append(f"span {high * 256 + low}")
        elif command == 0x99 and (wanted := request[6] * 256 + request[7]) in RANGES_PPM:
            self.range_ppm = wanted
        return None

    def _measured(self) -> bytes:
        ppm = max(400, min(self.range_ppm, self._ppm))
        if "stuck" not in self.faults:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = ppm
        if "stuck" in self.faults and self._stuck_at is not None:
            ppm = self._stuck_at
        if "saturated" in self.faults:
            ppm = self.range_ppm
        if "warming" in self.faults:
            ppm = START_PPM
        command = 0x85 if "another command" in self.faults else 0x86
        body = [command, ppm // 256, ppm % 256, 0x41, 0, 0, 0]
        check = (~sum(body) + 1) % 256
        if "checksum" in self.faults:
            check ^= 0x0F
        whole = bytes([0xFF, *body, check])
        return whole[:5] if "cut" in self.faults else whole
