"""A BME280 made of code, written from the datasheet BST-BME280-DS001 and never from codec.py.

Memory map: 88..A1 and E1..E7 calibration, D0 chip id 60, E0 reset by B6, F2 ctrl_hum, F3 status (bit 3 measuring),
F4 ctrl_meas (mode 1 or 2: one forced measurement, then sleep), F5 config, F7..FE pressure, temperature, humidity.
Pressure, temperature and humidity are computed from raw values by the datasheet's formulas in double precision, and
the raw value is searched whose result is nearest to what was set: the codec's are the formulas in whole numbers.
Raw values have 20 bits here at any oversampling.
"""

from collections.abc import Callable
from decimal import Decimal

RESET_WORD = 0xB6
MEASURING_MS = 9.3  # one of each, at most
SKIPPED = bytes.fromhex("800000 800000 8000")
TREMBLING = 7  # the lowest bits of the temperature: 0.0025 degrees, and no two measurements in a row are alike
WRITABLE = (0xF2, 0xF4, 0xF5)
READABLE = ((0x88, 0xA2), (0xD0, 0xD1), (0xE1, 0xE8), (0xF2, 0xF6), (0xF7, 0xFF))  # runs without reserved registers
# T and P: the example that Bosch printed for the BMP280; H: made up, of the size that chips have.
T1, T2, T3 = 27504, 26435, -1000
P1, P2, P3, P4, P5, P6, P7, P8, P9 = 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000
H1, H2, H3, H4, H5, H6 = 75, 362, 4, 333, 50, 30


class Sim:
    """A memory of registers behind an address. Time passes by `tick`; while nobody ticks, a measurement takes none.

    faults: "silent" (does not acknowledge), "stuck" (raw values of the moment when it began), "wet" (100 % for ever),
    "brown-out" (loses its registers now, once), "noise" (each second read of the values has one bit flipped, as on a
    long lead: there is no check value), "wrong device" (chip id 58), "bus held" (all ones are read).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.address = int(str(settings.get("address", 0x76)))
        self._cel = Decimal(22)
        self._percent = Decimal(45)
        self._hpa = Decimal(1009)
        self._now_ms: int | None = None
        self._done_ms = 0.0
        self._measurements = 0
        self._value_reads = 0
        self._stuck_at: bytes | None = None
        self._registers: dict[int, int] = {}
        self._power_on()

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the air have this temperature in degrees Celsius, humidity in percent or pressure in hPa."""
        exact = Decimal(str(value))
        if quantity == "temperature":
            self._cel = exact
        elif quantity == "humidity":
            self._percent = exact
        elif quantity == "pressure":
            self._hpa = exact
        else:
            raise KeyError(quantity)

    def tick(self, now_ms: int) -> bytes:
        """Let it be `now_ms`; a BME280 never speaks by itself."""
        self._now_ms = now_ms
        return b""

    def busy_us(self, request: bytes) -> int:
        """Return 0: it acknowledges also while it measures, and then gives the values before."""
        return 0

    def answer(self, request: bytes) -> bytes | None:
        """Write a register (two bytes: b""), or return registers from one on (one byte), up to the next reserved one.

        None if the sensor does not acknowledge.
        """
        if "brown-out" in self.faults:
            self.faults.discard("brown-out")
            self._power_on()
        if "silent" in self.faults or not request:
            return None
        if len(request) > 1:
            for register, value in zip(request[::2], request[1::2], strict=False):
                self._write(register, value)
            return b""
        self._finish()
        for first, end in READABLE:
            if first <= request[0] < end:
                return self._read(request[0], end)
        return b"\0"

    def _read(self, first: int, end: int) -> bytes:
        if "bus held" in self.faults:
            return b"\xff" * (end - first)
        if "wrong device" in self.faults and first == 0xD0:
            return b"\x58"
        octets = bytes(self._registers.get(register, 0) for register in range(first, end))
        if "noise" in self.faults and first == 0xF7:
            self._value_reads += 1
            if self._value_reads % 2 == 0:
                return octets[:1] + bytes([octets[1] ^ 0x10]) + octets[2:]
        return octets

    def _write(self, register: int, value: int) -> None:
        if register == 0xE0 and value == RESET_WORD:
            self._power_on()
        if register in WRITABLE:
            self._registers[register] = value
        if register == 0xF4 and value & 3 in (1, 2):
            self._registers[0xF3] = 8
            self._done_ms = 0.0 if self._now_ms is None else self._now_ms + MEASURING_MS
            self._finish()

    def _finish(self) -> None:
        """Let a measurement end whose time has come."""
        if self._registers[0xF3] != 8 or (self._now_ms or 0) < self._done_ms:
            return
        self._registers[0xF3] = 0
        self._registers[0xF4] &= 0xFC
        self._registers.update(enumerate(self._values(), 0xF7))

    def _power_on(self) -> None:
        self._registers = {0xD0: 0x60, 0xF2: 0, 0xF3: 0, 0xF4: 0, 0xF5: 0}
        self._registers.update(enumerate(SKIPPED, 0xF7))
        trimming = (T1, T2, T3, P1, P2, P3, P4, P5, P6, P7, P8, P9)
        for at, number in enumerate(trimming):
            self._registers[0x88 + 2 * at] = number % 65536 % 256
            self._registers[0x89 + 2 * at] = number % 65536 // 256
        self._registers[0xA1] = H1
        humidity = (H2 % 256, H2 // 256, H3, H4 >> 4, H4 % 16 | H5 % 16 << 4, H5 >> 4, H6)
        self._registers.update((0xE1 + at, number) for at, number in enumerate(humidity))

    def _values(self) -> bytes:
        if "stuck" in self.faults and self._stuck_at:
            return self._stuck_at
        cel, pascal = float(self._cel), 100 * float(self._hpa)
        percent = 100.0 if "wet" in self.faults else float(self._percent)
        self._measurements += 1
        raw_t = _search(20, cel, lambda raw: _t_fine(raw) / 5120.0) & ~TREMBLING
        fine = _t_fine(raw_t)
        raw_p = _search(20, -pascal, lambda raw: -_pascal(raw, fine))
        raw_h = _search(16, percent, lambda raw: _percent(raw, fine))
        values = raw_p << 44 | (raw_t | self._measurements & TREMBLING) << 20 | raw_h
        self._stuck_at = values.to_bytes(8, "big")
        oversampling = self._registers[0xF4] >> 2 & 7, self._registers[0xF4] >> 5, self._registers[0xF2] & 7
        octets = bytearray(self._stuck_at)
        for samples, channel in zip(oversampling, (slice(0, 3), slice(3, 6), slice(6, 8)), strict=True):
            if not samples:
                octets[channel] = SKIPPED[channel]
        return bytes(octets)


def _search(bits: int, wanted: float, computed: Callable[[int], float]) -> int:
    """Return the raw value whose result is nearest to `wanted`; `computed` rises with it."""
    low, high = 0, 2**bits - 1
    while low < high:
        middle = (low + high) // 2
        if computed(middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low and wanted - computed(low - 1) < computed(low) - wanted else low


def _t_fine(raw: int) -> float:
    first = (raw / 16384.0 - T1 / 1024.0) * T2
    return first + (raw / 131072.0 - T1 / 8192.0) ** 2 * T3


def _pascal(raw: int, t_fine: float) -> float:
    first = t_fine / 2.0 - 64000.0
    second = first * first * P6 / 32768.0 + first * P5 * 2.0
    second = second / 4.0 + P4 * 65536.0
    first = (P3 * first * first / 524288.0 + P2 * first) / 524288.0
    first = (1.0 + first / 32768.0) * P1
    pressure = (1048576.0 - raw - second / 4096.0) * 6250.0 / first
    return pressure + (P9 * pressure * pressure / 2147483648.0 + pressure * P8 / 32768.0 + P7) / 16.0


def _percent(raw: int, t_fine: float) -> float:
    heat = t_fine - 76800.0
    humidity = raw - (H4 * 64.0 + H5 / 16384.0 * heat)
    humidity *= H2 / 65536.0 * (1.0 + H6 / 67108864.0 * heat * (1.0 + H3 / 67108864.0 * heat))
    return min(100.0, max(0.0, humidity * (1.0 - H1 * humidity / 524288.0)))
