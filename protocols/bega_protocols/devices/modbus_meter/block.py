"""One stretch of registers: the question for it, and the readings in its answer.

What can be reckoned beforehand is reckoned once, since a gateway takes a
hundred thousand numbers a second out of such stretches.
"""

import struct

from bega_protocols.ask import Ask
from bega_protocols.devices.modbus_meter.codec import FLOAT, float32_times, number, question, words_turned
from bega_protocols.devices.modbus_meter.profile import Request
from bega_protocols.reading import Reading

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

LETTERS = {2: "H", 4: "I", 8: "Q"}  # of the module struct, by bytes: the bits as they are


class Block:
    """A request of one unit."""

    def __init__(self, request: Request, unit: int, wait_ms: int, pause_ms: int) -> None:
        self.request = request
        self.is_known = False  # the plan was told that the device answers it
        self.asked = question(request.function, request.address, request.length)
        self.ask = Ask(self.asked, wait_ms, 2 + 2 * request.length, unit=unit, pause_ms=pause_ms)
        self.head = bytes((request.function, 2 * request.length))  # of the answer
        layout, rows = ">", []
        end = request.address
        for row in request.rows:
            size = 2 * row.length
            if row.address > end:
                layout += "%dx" % (2 * (row.address - end))
            layout += LETTERS[size]
            end = row.address + row.length
            absent = [int.from_bytes(octets, "big") for octets in row.absent]
            places = row.scale - row.exponent
            factor = 10**places if row.kind == FLOAT and size == 4 and places >= 0 else 0
            turned = row.low_word_first and size > 2
            rows.append((row, tuple(absent), turned, factor, row.quantity, row.exponent, row.part))
        self._layout = layout
        self._rows = rows

    def readings(self, octets: bytes) -> "list[Reading]":
        """Return the reading of each row in the register bytes `octets`; what means "none", and NaN, give none."""
        readings = []
        raws = struct.unpack_from(self._layout, octets, 0)
        for raw, (row, absent, turned, factor, quantity, exponent, part) in zip(raws, self._rows):
            if raw in absent:
                continue
            if turned:
                raw = _turned(raw, 2 * row.length)
            if factor:
                value = float32_times(raw, factor)
                if value is not None:
                    readings.append(Reading(quantity, value, exponent, part))
                continue
            found = number(raw, 2 * row.length, row.kind, row.scale, row.exponent)
            if found is not None:
                readings.append(Reading(quantity, found[0], found[1], part))
        return readings


def _turned(raw: int, size: int) -> int:
    if size == 4:
        return (raw & 0xFFFF) << 16 | raw >> 16
    return int.from_bytes(words_turned(raw.to_bytes(size, "big")), "big")
