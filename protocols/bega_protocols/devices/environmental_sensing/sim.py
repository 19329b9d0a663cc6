"""A sensor with Bluetooth's Environmental Sensing Service made of code, never from the codec.

Written from the Bluetooth GATT Specification Supplement, sections of the four
characteristics (data type and unit of each), and the Assigned Numbers for
their UUIDs.
"""

from decimal import ROUND_HALF_EVEN, Decimal

# quantity: (UUID of the characteristic, data type, steps in one unit, lowest, highest)
CHARACTERISTICS = {
    "temperature": ("2A6E", "sint16", 100, -27315, 32767),
    "humidity": ("2A6F", "uint16", 100, 0, 10000),
    "pressure": ("2A6D", "uint32", 1000, 0, 2**32 - 1),  # 0.1 Pa, which is 0.001 hPa
    "battery": ("2A19", "uint8", 1, 0, 100),
}
UNKNOWN = {"2A6E": "0080", "2A6F": "FFFF"}  # "value is not known", as it is sent
SERVICES = {"181A": ("2A6E", "2A6F", "2A6D"), "180F": ("2A19",)}
ADVERTISE_MS = 1000


class Sim:
    """Advertises about once a second that it can be connected to, and answers each read.

    settings: `address`. What is not set is a characteristic that this sensor does not have.
    faults: "silent" (it neither advertises nor answers), "unknown" (temperature and humidity are "not known"),
    "short" (each value lacks its last byte), "out of range" (values that the specification prohibits),
    "wrong device" (it has the battery and none of the others), "stuck" (the values of the moment when it began).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._values: dict[str, bytes] = {}
        self._stuck: dict[str, bytes] | None = None
        self._next_ms: int | None = None

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the place be `value` in the quantity's unit; the sensor rounds, and stays within its range."""
        uuid, data_type, steps, low, high = CHARACTERISTICS[quantity]
        exact = int((Decimal(str(value)) * steps).to_integral_value(ROUND_HALF_EVEN))
        size = int(data_type[4:]) // 8
        self._values[uuid] = max(low, min(high, exact)).to_bytes(size, "little", signed=data_type.startswith("sint"))

    def tick(self, now_ms: int) -> bytes:
        """Return the advertisement that is due at `now_ms`: flags and the services that it has, no value."""
        if self._next_ms is None:
            self._next_ms = now_ms
        if now_ms < self._next_ms or "silent" in self.faults:
            return b""
        self._next_ms = now_ms + ADVERTISE_MS
        return bytes.fromhex("020106" + "0503" + "1A18" + "0F18")

    def answer(self, request: bytes) -> bytes | None:
        """Return the value of the characteristic whose UUID is `request` (as it is written), None if there is none."""
        uuid = request.hex().upper()
        if "silent" in self.faults or ("wrong device" in self.faults and uuid != "2A19"):
            return None
        value = self._kept().get(uuid)
        if value is None:
            return None
        if "unknown" in self.faults and uuid in UNKNOWN:
            return bytes.fromhex(UNKNOWN[uuid])
        if "out of range" in self.faults and len(value) < 4:
            return b"\xfe" * (len(value) - 1) + b"\x88"  # below absolute zero, or above 100 %
        return value[:-1] if "short" in self.faults else value

    def _kept(self) -> dict[str, bytes]:
        if "stuck" not in self.faults:
            self._stuck = None
        elif self._stuck is None:
            self._stuck = dict(self._values)
        return self._values if self._stuck is None else self._stuck
