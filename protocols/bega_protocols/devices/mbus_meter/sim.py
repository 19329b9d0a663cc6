"""An M-Bus meter made of code, written from EN 13757-2 and -3, and never from codec.py, mbus.py or mbus_records.py.

Table of what a slave does (C field of the master, then the answer):
  40        E5, the count bit is forgotten; at FD the selection too
  53 / 73   CI 52 at FD: E5 if the mask fits, else silence and no longer selected; CI 56 at FD: no longer selected;
            other CI: E5
  5B / 7B   data; the same telegram again if the count bit is that of last time, else the next one
Address FE is answered by all, FF by nobody. A telegram is 68 L L 68 C A CI, header, records, the sum from C on, 16.
"""

from datetime import UTC, datetime
from decimal import Decimal
from random import Random

# quantity: (data type, codes of unit, what one step is in the quantity's unit)
WH_J = Decimal(3600)
RECORDS = {
    "heat_energy": (0x0C, [0x06], 1000 * WH_J),
    "cold_energy": (0x0C, [0x06], 1000 * WH_J),
    "active_energy_import": (0x0E, [0x03], Decimal("0.001")),
    "active_energy_export": (0x0E, [0x83, 0x3C], Decimal("0.001")),
    "volume": (0x0C, [0x14], Decimal("0.01")),
    "water_volume": (0x0C, [0x13], Decimal("0.001")),
    "gas_volume": (0x0C, [0x13], Decimal("0.001")),
    "thermal_power": (0x0B, [0x2D], Decimal(100)),
    "active_power": (0x04, [0x2B], Decimal(1)),
    "volume_flow": (0x0B, [0x3B], Decimal("0.001")),
    "flow_temperature": (0x02, [0x5A], Decimal("0.1")),
    "return_temperature": (0x02, [0x5E], Decimal("0.1")),
    "temperature_difference": (0x02, [0x61], Decimal("0.01")),
    "pressure": (0x02, [0x69], Decimal(10)),
    "voltage": (0x02, [0xFD, 0x48], Decimal("0.1")),
    "current": (0x04, [0xFD, 0x59], Decimal("0.001")),
    "allocator_units": (0x04, [0x6E], Decimal(1)),
    "on_time": (0x04, [0x22], Decimal(3600)),
    "operating_time": (0x04, [0x26], Decimal(3600)),
}
BYTES = {0x02: 2, 0x04: 4, 0x0B: 3, 0x0C: 4, 0x0E: 6}
# What a meter of each medium says of itself until it is told otherwise.
USUAL = {
    0x02: ["active_energy_import", "active_power", "voltage", "current"],
    0x03: ["gas_volume"],
    0x07: ["water_volume", "volume_flow"],
    0x04: ["heat_energy", "volume", "thermal_power", "volume_flow", "flow_temperature", "return_temperature"],
    0x08: ["allocator_units"],
}
IDENTIFICATION, MANUFACTURER, VERSION, MEDIUM = "12345678", "PAD", 0x01, 0x04
NOISE = 300  # bytes of a meter that babbles, for each question


class Sim:
    """Answers frames at a primary address, and at FD once it is selected.

    settings: those of the driver (`address` primary, or secondary: then it is that meter, at primary address 1), and
    `identification`, `manufacturer`, `version`, `medium`, `primary`; `telegrams`: frames in hex, which are sent as
    they are, in turn, in place of its own.

    faults: "silent", "checksum" (sums are wrong), "cut" (frames end after 20 bytes), "stuck" (the values of when it
    began), "wrong device" (another identification in its header), "count bit" (the first telegram for ever),
    "temporary error" (a status bit), "busy" (an application error), "babble" (noise in place of data), "mute" (it
    acknowledges and sends no data), "deaf to resets" (it does not answer 40).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.asked = 0  # frames that were for this meter
        self._random = Random(seed)  # noqa: S311 - a simulator's noise
        self._read_settings(settings)
        self._values: dict[tuple[str, str], Decimal] = {}
        for quantity in USUAL.get(self.medium, []):
            self._values[quantity, ""] = Decimal(0)
        self._stamp: int | None = None
        self._access = 0
        self._count_bit: int | None = None
        self._telegram = -1
        self._sent: list[bytes] = []
        self._selected = False
        self._stuck: list[list[int]] | None = None

    def _read_settings(self, settings: dict[str, object]) -> None:
        address = settings.get("address", 0)
        parts = address.split(".") if isinstance(address, str) else [IDENTIFICATION]
        parts += ["FFF", "FF", "FF"][len(parts) - 1 :]
        self.identification = str(settings.get("identification", parts[0].upper().replace("F", "1")))
        self.manufacturer = str(settings.get("manufacturer", MANUFACTURER if parts[1] == "FFF" else parts[1]))
        version = VERSION if parts[2].upper() == "FF" else int(parts[2], 16)
        medium = MEDIUM if parts[3].upper() == "FF" else int(parts[3], 16)
        self.version = int(str(settings.get("version", version)))
        self.medium = int(str(settings.get("medium", medium)))
        self.primary = int(str(settings.get("primary", address if isinstance(address, int) else 1)))
        self._utc_min = int(str(settings.get("normal_time_utc_min", 60)))
        telegrams = settings.get("telegrams", [])
        assert isinstance(telegrams, list)
        self._captured = [bytes.fromhex(telegram) for telegram in telegrams]

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the meter show `value` in the quantity's unit; `measured_at` is when it stored what is in storage 1."""
        if quantity == "measured_at":
            self._stamp = int(value)
        elif quantity in RECORDS:
            self._values[quantity, part] = Decimal(str(value))
        else:
            raise KeyError(quantity)

    def tick(self, now_ms: int) -> bytes:
        """Return nothing: a slave never speaks by itself."""
        return b""

    def answer(self, request: bytes) -> bytes | None:
        """Return what the meter sends upon one frame of the master, None where it keeps silent."""
        parsed = _parse(request)
        if parsed is None or "silent" in self.faults:
            return None
        control, address, ci, data = parsed
        if address == 0xFD and control in (0x53, 0x73) and ci == 0x52:
            return self._select(data)
        if address not in (self.primary, 0xFE, 0xFF) and not (address == 0xFD and self._selected):
            return None
        self.asked += 1
        answer = self._do(control, address, ci)
        return None if address == 0xFF else answer

    def _select(self, mask: bytes) -> bytes | None:
        own = _turned(self.identification) + _letters(self.manufacturer) + bytes([self.version, self.medium])
        self._selected = len(mask) == 8 and all(
            wanted in (mine, 0xFF) if at >= 4 else _digits_fit(wanted, mine)
            for at, (wanted, mine) in enumerate(zip(mask, own, strict=True))
        )
        self.asked += self._selected
        return b"\xe5" if self._selected else None

    def _do(self, control: int, address: int, ci: int | None) -> bytes | None:
        if control == 0x40:
            if "deaf to resets" in self.faults:
                return None
            self._count_bit, self._telegram = None, -1
            if address == 0xFD:
                self._selected = False
            return b"\xe5"
        if control in (0x53, 0x73):
            if ci == 0x56:
                self._selected = False
            if ci == 0x50:
                self._telegram = -1
            return b"\xe5"
        if control in (0x5B, 0x7B):
            return self._data(control >> 5 & 1, address)
        return None

    def _data(self, count_bit: int, address: int) -> bytes | None:
        if "mute" in self.faults:
            return None
        if "babble" in self.faults:
            return bytes(self._random.randrange(1, 255) for _ in range(NOISE))
        if "busy" in self.faults:
            return _frame([0x08, self.primary, 0x70, 8])
        if count_bit != self._count_bit or not self._sent:
            self._count_bit = count_bit
            self._next()
        whole = self._sent[self._telegram]
        if "checksum" in self.faults:
            whole = whole[:-2] + bytes([whole[-2] ^ 0x55]) + whole[-1:]
        return whole[:20] if "cut" in self.faults else whole

    def _next(self) -> None:
        """Go on to the next telegram, behind the last to the first, which is made anew."""
        self._telegram += 1
        if "count bit" in self.faults or self._telegram >= len(self._sent):
            self._telegram = 0
        if self._telegram == 0:
            self._sent = self._captured or self._telegrams()

    def _telegrams(self) -> list[bytes]:
        """Return two telegrams: what holds now, then what is stored; or one, if nothing is stored."""
        bodies = [self._records(stored=False), self._records(stored=True)]
        if "stuck" in self.faults:
            self._stuck = self._stuck or bodies
            bodies = self._stuck
        else:
            self._stuck = None
        if not bodies[1]:
            return [self._telegram_of(bodies[0])]
        return [self._telegram_of([*bodies[0], 0x1F]), self._telegram_of(bodies[1])]

    def _telegram_of(self, body: list[int]) -> bytes:
        identification = self.identification
        if "wrong device" in self.faults:
            identification = f"{(int(identification) + 1) % 10**8:08d}"
        status = 0x10 if "temporary error" in self.faults else 0
        self._access = (self._access + 1) % 256
        header = [*_turned(identification), *_letters(self.manufacturer), self.version, self.medium]
        return _frame([0x08, self.primary, 0x72, *header, self._access, status, 0, 0, *body])

    def _records(self, stored: bool) -> list[int]:
        octets: list[int] = []
        if stored and self._stamp is not None:
            octets += [0x44, 0x6D, *self._moment(self._stamp)]
        for (quantity, part), value in self._values.items():
            storage, tariff, phase = _places(part)
            if bool(storage) == stored:
                octets += _record(quantity, value, storage, tariff, phase)
        if not stored:
            octets += [0x01, 0xFD, 0x17, 0x00]  # error flags: something that nobody makes a reading of
        return octets

    def _moment(self, unix_s: int) -> list[int]:
        """Type F: minute; hour, century; day and low bits of the year; month and its high bits."""
        shown = datetime.fromtimestamp(unix_s + 60 * self._utc_min, UTC)
        year = shown.year - 2000
        return [shown.minute, shown.hour, shown.day | (year % 8) * 32, shown.month | (year // 8) * 16]


def _parse(request: bytes) -> tuple[int, int, int | None, bytes] | None:
    """Return (C, A, CI or None, data) of a frame from a master, None if it is damaged: then a slave is silent."""
    if len(request) == 5 and request[0] == 0x10 and request[4] == 0x16 and sum(request[1:3]) % 256 == request[3]:
        return request[1], request[2], None, b""
    if len(request) < 9 or request[0] != 0x68 or request[3] != 0x68 or request[-1] != 0x16:
        return None
    if not request[1] == request[2] == len(request) - 6 or sum(request[4:-2]) % 256 != request[-2]:
        return None
    return request[4], request[5], request[6], request[7:-2]


def _frame(body: list[int]) -> bytes:
    assert len(body) <= 255
    return bytes([0x68, len(body), len(body), 0x68, *body, sum(body) % 256, 0x16])


def _places(part: str) -> tuple[int, int, int]:
    """Return (storage, tariff, phase) of "s1t2", "l1" or ""."""
    numbers = {"s": 0, "t": 0, "l": 0}
    letter = ""
    for character in part:
        if character.isdigit():
            numbers[letter] = 10 * numbers[letter] + int(character)
        else:
            letter = character
    return numbers["s"], numbers["t"], numbers["l"]


def _record(quantity: str, value: Decimal, storage: int, tariff: int, phase: int) -> list[int]:
    kind, block, step = RECORDS[quantity]
    heads = [kind | (storage & 1) << 6]
    storage >>= 1
    while storage or tariff:
        heads[-1] |= 0x80
        heads.append(storage & 0x0F | (tariff & 3) << 4)
        storage, tariff = storage >> 4, tariff >> 2
    codes = [*block[:-1], block[-1] | 0x80, 0xFC, phase] if phase else block
    count = int((value / step).to_integral_value())
    return heads + codes + (_decimal(count, BYTES[kind]) if kind > 8 else list(_binary(count, BYTES[kind])))


def _binary(count: int, size: int) -> bytes:
    return count.to_bytes(size, "little", signed=True)


def _decimal(count: int, size: int) -> list[int]:
    """Two digits a byte, the lowest first; F in the highest place is a minus sign."""
    digits = f"{abs(count):0{2 * size}d}"[-2 * size :]
    if count < 0:
        digits = "F" + digits[1:]
    return [int(digits[at : at + 2], 16) for at in range(2 * size - 2, -2, -2)]


def _turned(identification: str) -> bytes:
    return bytes.fromhex(identification)[::-1]


def _letters(letters: str) -> bytes:
    first, second, third = (ord(letter) - 64 for letter in letters)
    return (first * 1024 + second * 32 + third).to_bytes(2, "little")


def _digits_fit(wanted: int, mine: int) -> bool:
    return (wanted >> 4 in (15, mine >> 4)) and (wanted & 15 in (15, mine & 15))
