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
    "": 1, "V": 1, "A": 1, "Hz": 1, "W": 1, "VA": 1, "var": 1, "kWh": 1, "kvarh": 1, "kVAh": 1, "deg": 1, "ppm": 1,
    "Cel": 1, "%": 100, "kW": Decimal("0.001"), "kvar": Decimal("0.001"), "kVA": Decimal("0.001"),
    "Wh": 1000, "varh": 1000, "0.1 V": 10, "0.1 A": 10, "0.01 A": 100, "0.001 A": 1000, "0.1 W": 10, "0.01 W": 100,
    "0.1 var": 10, "0.01 var": 100, "0.1 VA": 10, "0.01 VA": 100, "0.1 Hz": 10, "0.01 Hz": 100, "0.001": 1000,
    "0.1 kWh": 10, "0.01 kWh": 100, "0.1 kvarh": 10, "0.01 kvarh": 100, "0.1 Cel": 10,
}  # fmt: skip
FORMS = {
    "float": ">f", "int64": ">q", "uint64": ">Q", "int32": ">i", "uint32": ">I", "int16": ">h", "uint16": ">H",
}  # fmt: skip
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6


class Sim:
    """Answers reads of its registers, PDU for PDU; the host on the wire adds addresses and check values.

    faults: "silent" (no answer), "busy" (exception 6 upon everything), "short" (the answer lacks its last register
    and says so), "not a number" (floats read as NaN), "NAME set wrongly" (a setting that its paper warns of,
    such as "counting mode"), "old" (it refuses to tell its settings and texts, as an older firmware does).
    """

    def __init__(self, settings: dict[str, Any], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        text = files("bega_protocols").joinpath("profiles", f"{settings['profile']['part']}.sim.toml")
        self._take(tomllib.loads(text.read_text(encoding="utf-8")))

    @classmethod
    def of_paper(cls, paper: dict[str, Any]) -> "Sim":
        """Return the meter that the parsed table `paper` describes: one of somebody's own."""
        sim = cls.__new__(cls)
        sim.faults = set()
        sim._take(paper)
        return sim

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the meter measure `value` in the quantity's unit; KeyError if this meter does not measure it."""
        row = self._rows[f"{quantity}:{part}" if part else quantity]
        in_register = Decimal(str(value)) * IN_UNIT[row["unit"]]
        whole = row["form"] != "float"
        octets = struct.pack(FORMS[row["form"]], round(in_register) if whole else float(in_register))
        if self._low_first:
            octets = b"".join(octets[at : at + 2] for at in reversed(range(0, len(octets), 2)))
        self._write(self._function, row["printed"] - self._offset, octets)

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
        if function not in self._functions:
            return bytes([function + 128, ILLEGAL_FUNCTION])
        if len(request) != 5:
            return bytes([function + 128, ILLEGAL_VALUE])
        first = request[1] * 256 + request[2]
        count = request[3] * 256 + request[4]
        if not 1 <= count <= self._paper["most_registers"]:
            return bytes([function + 128, ILLEGAL_VALUE])
        return self._read(function, first, count)

    def _take(self, paper: dict[str, Any]) -> None:
        self._paper = paper
        self._offset = paper["printed_minus_wire"]
        self._function = paper["function"]
        # Some meters do not tell the two reads apart.
        self._same = {paper["same_function"]: self._function} if "same_function" in paper else {}
        self._low_first = paper.get("words") == "low first"
        self._rows = {row["is"]: row for row in paper["registers"]}
        itself = paper.get("itself", [])  # settings, serial number and the like, by their numbers in the frame
        self._own = [row for row in itself if row["tells"] and not row.get("alone")]
        self._functions = {self._function, *self._same, *(row["function"] for row in itself)}
        self._words: dict[tuple[int, int], int] = {}  # by function and number in the frame
        for first, last in paper["readable"]:
            self._words |= {(self._function, number - self._offset): 0 for number in range(first, last + 1)}
        for row in self._rows.values():
            self._write(self._function, row["printed"] - self._offset, bytes.fromhex(row["hex"]))
        for row in itself:
            if not row.get("alone"):
                self._write(row["function"], row["wire"], bytes.fromhex(row["hex"]))
        # Read by themselves these are something else than in a stretch.
        self._alone = {(row["function"], row["wire"]): bytes.fromhex(row["hex"]) for row in itself if row.get("alone")}

    def _read(self, function: int, first: int, count: int) -> bytes:
        function_here = self._same.get(function, function)
        own = [row for row in self._own if row["function"] == function_here and first <= row["wire"] < first + count]
        if own and "old" in self.faults:
            return bytes([function + 128, ILLEGAL_ADDRESS])
        alone = self._alone.get((function_here, first), b"")
        if len(alone) == 2 * count:
            return bytes([function, 2 * count]) + alone
        is_float_area = function_here == self._function and not own
        if is_float_area and self._paper["even"] and (first % 2 or count % 2):
            return bytes([function + 128, ILLEGAL_ADDRESS])
        places = [(function_here, number) for number in range(first, first + count)]
        if not all(place in self._words for place in places):
            return bytes([function + 128, ILLEGAL_ADDRESS])
        words = [self._words[place] for place in places]
        if "not a number" in self.faults:
            words = self._with_nan(places, words)
        words = self._set_wrongly(own, first, words)
        if "short" in self.faults:
            words = words[:-1]
        octets = [octet for word in words for octet in (word // 256, word % 256)]
        return bytes([function, len(octets), *octets])

    def _with_nan(self, places: list[tuple[int, int]], words: list[int]) -> list[int]:
        behind = 1 if self._low_first else 0  # the register in which a float's exponent stands
        heads = {
            (self._function, row["printed"] - self._offset + behind)
            for row in self._rows.values()
            if row["form"] == "float"
        }
        return [0x7FC0 if place in heads else word for place, word in zip(places, words, strict=True)]

    def _set_wrongly(self, own: list[dict[str, Any]], first: int, words: list[int]) -> list[int]:
        for row in own:
            if f"{row['tells']} set wrongly" in self.faults:
                wrong = bytes.fromhex(row["wrong"])
                at = row["wire"] - first
                words[at : at + len(wrong) // 2] = struct.unpack(f">{len(wrong) // 2}H", wrong)
        return words

    def _write(self, function: int, first: int, octets: bytes) -> None:
        for index in range(0, len(octets), 2):
            self._words[function, first + index // 2] = octets[index] * 256 + octets[index + 1]
