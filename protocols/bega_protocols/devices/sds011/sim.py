"""An SDS011 made of code, written from the specification V1.3 and the control protocol V1.3, never from codec.py.

Control protocol, by position from 1: a command has 19 bytes, 1 AA, 2 B4, 3
command, 4 to 15 data, 16-17 the id it is for (FF FF: whoever hears it), 18 sum
of bytes 3 to 17, 19 AB. An answer has 10: 1 AA, 2 C5 (C0: measurement), 3 to 6
data, 7-8 the sensor's id, 9 sum of bytes 3 to 8, 10 AB.
"""

from decimal import Decimal

FIRMWARE_DATE = (18, 11, 16)  # year, month, day
TOP_TENTHS = 9999
WORKING_MS, REPORT_MS = 30_000, 1000


class Sim:
    """Measures once a second; in query mode it speaks when asked, asleep it takes only the command to work.

    faults: "silent", "checksum" (a wrong check byte), "cut" (answers end after 6 bytes), "stuck" (the air of the
    moment when it began, for ever), "another device" (answers carry another sensor's id), "saturated" (999.9).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        """settings: those of the driver; `id` is the sensor's own, else it comes from the seed."""
        self.faults: set[str] = set()
        ident = settings.get("id")
        self._id = int(ident, 16) if isinstance(ident, str) else 0xA000 + seed % 0x1000
        self._tenths = {"pm2_5": 0, "pm10": 0}
        self._query_mode = settings.get("mode") == "query"
        self._awake = True
        self._period_min = 0
        self._next_ms: int | None = None
        self._stuck_at: list[int] | None = None
        self.commands: list[int] = []  # the command byte of each command that was for this sensor

    @property
    def awake(self) -> bool:
        """Whether fan and laser run."""
        return self._awake

    @property
    def query_mode(self) -> bool:
        """Whether it waits to be asked."""
        return self._query_mode

    @property
    def period_min(self) -> int:
        """The working period."""
        return self._period_min

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air hold this much dust in µg/m³; the sensor resolves tenths, and ends at 999.9."""
        if quantity not in self._tenths:
            raise KeyError(quantity)
        self._tenths[quantity] = max(0, min(TOP_TENTHS, int((Decimal(str(value)) * 10).to_integral_value())))

    def tick(self, now_ms: int) -> bytes:
        """Return what it has reported by itself up to `now_ms`."""
        if self._next_ms is None:
            self._next_ms = now_ms
        if self._query_mode or not self._awake or "silent" in self.faults:
            self._next_ms = max(self._next_ms, now_ms)
            return b""
        said = b""
        while self._next_ms <= now_ms:
            said += self._measurement()
            self._next_ms += self._period_min * 60_000 if self._period_min else REPORT_MS
        return said

    def answer(self, request: bytes) -> bytes | None:
        """Return the answer to a command, None where there is none."""
        if len(request) != 19 or request[:2] != b"\xaa\xb4" or request[18] != 0xAB or "silent" in self.faults:
            return None
        if sum(request[2:17]) % 256 != request[17]:
            return None
        if (request[15] << 8) + request[16] not in (0xFFFF, self._id):
            return None
        command, writes, value = request[2:5]
        if not self._awake and not (command == 6 and writes == 1 and value == 1):
            return None
        self.commands.append(command)
        return self._obey(command, writes, value, request[13:15])

    def _obey(self, command: int, writes: int, value: int, new_id: bytes) -> bytes | None:
        if command == 2:
            self._query_mode = bool(value) if writes else self._query_mode
            return self._frame(0xC5, [2, writes, int(self._query_mode), 0])
        if command == 4:
            return self._measurement()
        if command == 5:
            self._id = new_id[0] * 256 + new_id[1]
            return self._frame(0xC5, [5, 0, 0, 0])
        if command == 6:
            self._awake = bool(value) if writes else self._awake
            return self._frame(0xC5, [6, writes, int(self._awake), 0])
        if command == 7:
            return self._frame(0xC5, [7, *FIRMWARE_DATE])
        if command == 8:
            self._period_min = value if writes and value <= 30 else self._period_min
            return self._frame(0xC5, [8, writes, self._period_min, 0])
        return None

    def _measurement(self) -> bytes:
        fine, coarse = self._tenths["pm2_5"], self._tenths["pm10"]
        if "saturated" in self.faults:
            fine = coarse = TOP_TENTHS
        fresh = [fine % 256, fine // 256, coarse % 256, coarse // 256]
        if "stuck" not in self.faults:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = fresh
        return self._frame(0xC0, self._stuck_at or fresh)

    def _frame(self, kind: int, data: list[int]) -> bytes:
        ident = self._id ^ 0x0101 if "another device" in self.faults else self._id
        body = [*data, ident // 256, ident % 256]
        check = sum(body) % 256
        if "checksum" in self.faults:
            check ^= 0x55
        whole = bytes([0xAA, kind, *body, check, 0xAB])
        return whole[:6] if "cut" in self.faults else whole
