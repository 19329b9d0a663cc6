"""BTHome v2 as a beacon writes it: readings -> objects -> sealed advertisements. bthome.py and devices/bthome read it.

Spec: bthome.io/format and bthome.io/encryption (version 2, November 2022), and
Bluetooth Core Supplement 11, part A, sections 1.3 (flags) and 1.11 (service data).
"""

from bega_protocols.bthome import UUID
from bega_protocols.ccm import seal

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable

    from bega_protocols.reading import Reading

# Bytes of objects in one packet: 31 of an advertisement, less 3 of flags, 4 before the service data, 1 of device
# information, 4 of counter and 4 of tag. The flags stay: bluetoothd makes no device of whom they do not call
# discoverable (adapter.c, update_found_devices), so three bytes more would be heard by nobody.
ROOM = 15

_FLAGS = b"\x02\x01\x06"  # generally discoverable, no classic Bluetooth
_INFO = b"\x41"  # version 2, encrypted, speaks at regular intervals
_TAG_SIZE = 4

# quantity: its objects, each (id, bytes, exponent of its step), the first that holds a value is taken; bytes are
# negative where the object is signed. Left out: steps of 0.35 Cel, litres in 0.1 and 1 mL, which others say finer.
OBJECTS = {
    "battery": ((0x01, 1, 0),),
    # air and weather
    "temperature": ((0x02, -2, -2), (0x45, -2, -1)),
    "humidity": ((0x03, 2, -2),),
    "pressure": ((0x04, 3, -2),),
    "illuminance": ((0x05, 3, -2),),
    "dew_point": ((0x08, -2, -2),),
    "pm2_5": ((0x0D, 2, 0),),
    "pm10": ((0x0E, 2, 0),),
    "co2": ((0x12, 2, 0),),
    "tvoc": ((0x13, 2, 0),),
    "uv_index": ((0x46, 1, -1),),
    "speed": ((0x44, 2, -2),),
    "direction": ((0x5E, 2, -2),),
    "precipitation": ((0x5F, 2, -1),),
    # meters
    "active_energy_total": ((0x4D, 4, -3),),
    "active_energy_import": ((0x4D, 4, -3),),  # the format names no direction: it is read as active_energy_total
    "active_power": ((0x0B, 3, -2), (0x5C, -4, -2)),
    "voltage": ((0x0C, 2, -3), (0x4A, 2, -1)),
    "current": ((0x43, 2, -3), (0x5D, -2, -3)),
    "gas_volume": ((0x4C, 4, -3),),
    "water_volume": ((0x4F, 4, -6),),
    "volume": ((0x4E, 4, -6),),
    "stored_volume": ((0x55, 4, -6),),
    "volume_flow": ((0x49, 2, -3),),
    # soil, bins, machines
    "moisture": ((0x14, 2, -2),),
    "conductivity": ((0x56, 2, -4),),
    "mass": ((0x06, 2, -2),),
    "distance": ((0x40, 2, -3), (0x41, 2, -1)),
    "rotation": ((0x3F, -2, -1),),
    "duration": ((0x42, 3, -3),),
    "count": ((0x3E, 4, 0), (0x5B, -4, 0)),
    "measured_at": ((0x50, 4, 0),),
}
STATES = {
    "opening": 0x11,
    "battery_low": 0x15,
    "battery_charging": 0x16,
    "co_detected": 0x17,
    "door_open": 0x1A,
    "gas_detected": 0x1C,
    "moisture_detected": 0x20,
    "motion": 0x21,
    "occupancy": 0x23,
    "problem": 0x26,
    "running": 0x27,
    "smoke_detected": 0x29,
    "tamper": 0x2B,
    "vibration": 0x2C,
    "window_open": 0x2D,
}  # an object of one byte: 1 is what the name says, 0 is not


def encoded(reading: "Reading") -> "bytes | None":
    """Return the object that says a reading, id and bytes, rounded half up to its step.

    None if the format has none: for its quantity, for its phase or tariff, or for a value as large (or as low) as this.
    """
    if reading.part:
        return None
    if reading.quantity in STATES:
        return bytes((STATES[reading.quantity], int(reading.value != 0)))
    for object_id, size, exp10 in OBJECTS.get(reading.quantity, ()):
        number = _rounded(reading.value, reading.exp10 - exp10)
        low, high = (0, 1 << 8 * size) if size > 0 else (-(1 << -8 * size - 1), 1 << -8 * size - 1)
        if low <= number < high:
            # Two's complement by hand: MicroPython's to_bytes knows no `signed`.
            return bytes((object_id,)) + (number & (1 << 8 * abs(size)) - 1).to_bytes(abs(size), "little")
    return None


def bodies(objects: "list[bytes]") -> "list[bytes]":
    """Return the objects put together into bodies of packets, by rising id, as the format asks for."""
    packed: "list[bytes]" = []
    for one in sorted(objects):
        if not packed or len(packed[-1]) + len(one) > ROOM:
            packed.append(b"")
        packed[-1] += one
    return packed


def advertisement(body: bytes, encipher: "Callable[[bytes], bytes]", address: bytes, counter: int) -> bytes:
    """Return the 31 bytes at most that go on the air: flags, then `body` sealed as service data.

    encipher: the block cipher under the beacon's key; address: the beacon's, in the order in which it is written;
    counter: 0 to 4294967295, never the same twice under one key.
    """
    count = counter.to_bytes(4, "little")
    sealed = seal(encipher, address + UUID + _INFO + count, body, _TAG_SIZE)
    service_data = b"\x16" + UUID + _INFO + sealed[:-_TAG_SIZE] + count + sealed[-_TAG_SIZE:]
    return _FLAGS + bytes((len(service_data),)) + service_data


def _rounded(value: int, power: int) -> int:
    """Return value x 10^power, half up."""
    step: int = 10 ** abs(power)
    return value * step if power >= 0 else (2 * value + step) // (2 * step)
