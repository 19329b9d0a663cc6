"""A BTHome v2 sensor made of code, written from bthome.io/format and /encryption and never from the codec.

Encryption is `cryptography`'s AESCCM; the row of each quantity is the format
page's own: object id, data type, factor.
"""

import random
from decimal import Decimal

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

# quantity: (object id, data type, factor in the quantity's unit), as the page's table has them
OBJECTS = {
    "battery": ("01", "uint8", "1"),
    "temperature": ("02", "sint16", "0.01"),
    "humidity": ("03", "uint16", "0.01"),
    "pressure": ("04", "uint24", "0.01"),
    "illuminance": ("05", "uint24", "0.01"),
    "dew_point": ("08", "sint16", "0.01"),
    "pm2_5": ("0D", "uint16", "1"),
    "pm10": ("0E", "uint16", "1"),
    "co2": ("12", "uint16", "1"),
    "tvoc": ("13", "uint16", "1"),
    "current": ("43", "uint16", "0.001"),
    "voltage": ("4A", "uint16", "0.1"),
    "gas_volume": ("4C", "uint32", "0.001"),
    "active_energy_total": ("4D", "uint32", "0.001"),
    "water_volume": ("4F", "uint32", "0.000001"),  # the page: litres, 0.001
    "active_power": ("5C", "sint32", "0.01"),
    "uv_index": ("46", "uint8", "0.1"),
    "speed": ("44", "uint16", "0.01"),
    "direction": ("5E", "uint16", "0.01"),
    "precipitation": ("5F", "uint16", "0.1"),
    "moisture": ("14", "uint16", "0.01"),
    "conductivity": ("56", "uint16", "0.0001"),  # the page: microsiemens a centimetre, 1
    "mass": ("06", "uint16", "0.01"),
    "distance": ("40", "uint16", "0.001"),  # the page: mm, 1
    "rotation": ("3F", "sint16", "0.1"),
    "duration": ("42", "uint24", "0.001"),
    "count": ("3E", "uint32", "1"),
    "volume": ("4E", "uint32", "0.000001"),  # the page: litres, 0.001
    "stored_volume": ("55", "uint32", "0.000001"),  # the page: litres, 0.001
    "volume_flow": ("49", "uint16", "0.001"),
    "measured_at": ("50", "uint32", "1"),
    "opening": ("11", "bool", "1"),
    "battery_low": ("15", "bool", "1"),
    "battery_charging": ("16", "bool", "1"),
    "co_detected": ("17", "bool", "1"),
    "door_open": ("1A", "bool", "1"),
    "gas_detected": ("1C", "bool", "1"),
    "moisture_detected": ("20", "bool", "1"),
    "motion": ("21", "bool", "1"),
    "occupancy": ("23", "bool", "1"),
    "problem": ("26", "bool", "1"),
    "running": ("27", "bool", "1"),
    "smoke_detected": ("29", "bool", "1"),
    "tamper": ("2B", "bool", "1"),
    "vibration": ("2C", "bool", "1"),
    "window_open": ("2D", "bool", "1"),
}
RANGES = {
    "bool": (0, 1, 1),
    "uint8": (0, 2**8 - 1, 1),
    "uint16": (0, 2**16 - 1, 2),
    "uint24": (0, 2**24 - 1, 3),
    "uint32": (0, 2**32 - 1, 4),
    "sint16": (-(2**15), 2**15 - 1, 2),
    "sint32": (-(2**31), 2**31 - 1, 4),
}  # data type: lowest, highest, bytes
LARGEST_ADVERTISEMENT = 31
JITTER_MS = 10  # advDelay, Core specification volume 6, part B, section 4.4.2.2
ANOTHER_KEY = bytes(16)


class Sim:
    """Measures every 5 s and advertises each measurement about once a second until the next.

    settings: `address`, and with `key` the packets are encrypted and counted; without, they have a packet id.
    The counter begins at the clock's seconds, so that a new start steps past all that was counted before it.
    faults: "silent" (nothing is sent), "replay" (the first packet ever sent is sent again and again),
    "plain" (sent without the encryption that was agreed), "key" (encrypted with another key).
    """

    measure_ms = 5000
    advertise_ms = 1000

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.counter = 0  # of packets made: the encryption counter, or the packet id modulo 256
        self._address = bytes.fromhex(str(settings.get("address", "00" * 6)).replace(":", ""))
        self._key = bytes.fromhex(str(settings["key"])) if "key" in settings else None
        self._values: dict[str, int] = {}
        self._chance = random.Random(seed)  # noqa: S311  # jitter, no secret
        self._next_ms: int | None = None
        self._measured_ms: int | None = None
        self._packet = b""
        self._first = b""

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the place be `value` in the quantity's unit; the sensor rounds, and saturates at its data type.

        Raises ValueError if the quantities that are set no longer fit an advertisement together.
        """
        _, data_type, factor = OBJECTS[quantity]
        low, high, _ = RANGES[data_type]
        steps = int((Decimal(str(value)) / Decimal(factor)).to_integral_value())
        self._values[quantity] = max(low, min(high, steps))
        if len(self._advertisement(0)) > LARGEST_ADVERTISEMENT:
            raise ValueError(f"{', '.join(self._values)} do not fit an advertisement of {LARGEST_ADVERTISEMENT} bytes")

    def tick(self, now_ms: int) -> bytes:
        """Return the advertisement that is due at `now_ms`, whole (flags, service data), or b"" between two."""
        if self._next_ms is None:
            self._next_ms = now_ms
        if now_ms < self._next_ms:
            return b""
        self._next_ms = now_ms + self.advertise_ms + self._chance.randint(0, JITTER_MS)
        if "silent" in self.faults or not self._values:
            return b""
        if "replay" in self.faults and self._first:
            return self._first
        if self._measured_ms is None or now_ms - self._measured_ms >= self.measure_ms:
            if self._measured_ms is None and self._key is not None:
                self.counter = now_ms // 1000 % 2**32
            self._measured_ms = now_ms
            self.counter += 1
            self._packet = self._advertisement(self.counter)
            self._first = self._first or self._packet
        return self._packet

    def answer(self, request: bytes) -> bytes | None:
        """Return None: it never answers."""
        return None

    def _advertisement(self, counter: int) -> bytes:
        encrypted = self._key is not None and "plain" not in self.faults
        rows = {} if encrypted else {"00": bytes([counter % 256])}
        for quantity, number in self._values.items():
            object_id, data_type, _ = OBJECTS[quantity]
            rows[object_id] = number.to_bytes(RANGES[data_type][2], "little", signed=data_type.startswith("sint"))
        body = b"".join(bytes.fromhex(object_id) + rows[object_id] for object_id in sorted(rows))
        service_data = self._sealed(body, counter) if encrypted else bytes.fromhex("40") + body
        return bytes.fromhex("020106") + bytes([len(service_data) + 3]) + bytes.fromhex("16D2FC") + service_data

    def _sealed(self, body: bytes, counter: int) -> bytes:
        """The page: nonce of MAC, UUID, device information and counter; tag of 4 bytes behind the counter."""
        assert self._key is not None
        count = counter.to_bytes(4, "little")
        cipher = AESCCM(ANOTHER_KEY if "key" in self.faults else self._key, tag_length=4)
        sealed = cipher.encrypt(self._address + bytes.fromhex("D2FC41") + count, body, None)
        return b"\x41" + sealed[:-4] + count + sealed[-4:]
