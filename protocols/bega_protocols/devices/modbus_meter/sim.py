"""A Modbus meter made of code, written from MODBUS Application Protocol V1.1b3 and the makers' tables.

Its registers come from profiles/<part>.sim.toml, typed from the maker's
document. Of the profile that the driver reads it takes one word, `part`: which
meter to be. Codec and profile check this file and this file checks them.
"""

import struct
import tomllib
from decimal import Decimal
from importlib.resources import files
from typing import Any

# What the maker's unit is, counted in the unit of our quantity (W, kW.h, V and so on).
IN_UNIT: dict[str, int | Decimal] = {
    "": 1, "V": 1, "A": 1, "Hz": 1, "W": 1, "VA": 1, "var": 1, "kWh": 1, "kvarh": 1, "kVAh": 1,
    "kW": Decimal("0.001"), "kvar": Decimal("0.001"), "kVA": Decimal("0.001"), "Wh": 1000, "varh": 1000,
}  # fmt: skip
FORMS = {"float": ">f", "int64": ">q"}
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6


class Sim:
    """Answers reads of its registers, PDU for PDU; the host on the wire adds addresses and check values.

    faults: "silent" (no answer), "busy" (exception 6 upon everything), "short" (the answer lacks its last register
    and says so), "not a number" (floats read as NaN).
    """

    def __init__(self, settings: dict[str, Any], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        text = files("bega_protocols").joinpath("profiles", f"{settings['profile']['part']}.sim.toml")
        self._paper = tomllib.loads(text.read_text(encoding="utf-8"))
        self._rows = {row["is"]: row for row in self._paper["registers"]}
        self._words: dict[int, int] = {}  # by printed number
        for first, last in self._paper["readable"]:
            self._words |= dict.fromkeys(range(first, last + 1), 0)
        for row in self._rows.values():
            self._write(row, bytes.fromhex(row["hex"]))

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the meter measure `value` in the quantity's unit; KeyError if this meter does not measure it."""
        row = self._rows[f"{quantity}:{part}" if part else quantity]
        in_register = Decimal(str(value)) * IN_UNIT[row["unit"]]
        whole = row["form"] == "int64"
        self._write(row, struct.pack(FORMS[row["form"]], round(in_register) if whole else float(in_register)))

    def tick(self, now_ms: int) -> bytes:
        """Return nothing: a slave never speaks first."""
        return b""

    def answer(self, request: bytes) -> bytes | None:
        """Return the PDU that answers the PDU `request`, None when it stays silent."""
        if "silent" in self.faults or not request:
            return None
        function = request[0]
        if function >= 128:
            return None  # another's refusal, overheard: no question has this bit
        if "busy" in self.faults:
            return bytes([function + 128, BUSY])
        if function != self._paper["function"]:
            return bytes([function + 128, ILLEGAL_FUNCTION])
        if len(request) != 5:
            return bytes([function + 128, ILLEGAL_VALUE])
        first = request[1] * 256 + request[2]
        count = request[3] * 256 + request[4]
        if not 1 <= count <= self._paper["most_registers"]:
            return bytes([function + 128, ILLEGAL_VALUE])
        return self._read(function, first, count)

    def _read(self, function: int, first: int, count: int) -> bytes:
        printed = range(first + self._paper["printed_minus_wire"], first + self._paper["printed_minus_wire"] + count)
        if self._paper["even"] and (first % 2 or count % 2):
            return bytes([function + 128, ILLEGAL_ADDRESS])
        if not all(number in self._words for number in printed):
            return bytes([function + 128, ILLEGAL_ADDRESS])
        words = [self._words[number] for number in printed]
        if "not a number" in self.faults:
            words = self._with_nan(list(printed), words)
        if "short" in self.faults:
            words = words[:-1]
        octets = [octet for word in words for octet in (word // 256, word % 256)]
        return bytes([function, len(octets), *octets])

    def _with_nan(self, printed: list[int], words: list[int]) -> list[int]:
        starts = {row["printed"] for row in self._rows.values() if row["form"] == "float"}
        return [0x7FC0 if number in starts else word for number, word in zip(printed, words, strict=True)]

    def _write(self, row: dict[str, Any], octets: bytes) -> None:
        for index in range(0, len(octets), 2):
            self._words[row["printed"] + index // 2] = octets[index] * 256 + octets[index + 1]
