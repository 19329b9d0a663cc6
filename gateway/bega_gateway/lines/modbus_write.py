"""What a command may write on a Modbus line: a table of the configuration <-> the PDU on the wire.

Spec: MODBUS Application Protocol V1.1b3, sections 6.1 (read coils), 6.3 (read
holding registers), 6.5, 6.6, 6.11 and 6.12 (write one coil, one register,
several coils, several registers). The answer to each write repeats the first
five bytes of the question. No IO.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from bega.tables import Problem, Table, table_problems

ONE_COIL, ONE_REGISTER, COILS, REGISTERS = 5, 6, 15, 16
WRITES = (ONE_COIL, ONE_REGISTER, COILS, REGISTERS)
READ_COILS, READ_HOLDING = 1, 3
REPEATED = 5  # bytes of a write that its answer repeats
ON = 0xFF00  # section 6.5
LAST_ADDRESS = 0xFFFF
BOUNDS = {
    "bool": (0, 1),
    "uint16": (0, 0xFFFF),
    "int16": (-0x8000, 0x7FFF),
    "uint32": (0, 0xFFFF_FFFF),
    "int32": (-0x8000_0000, 0x7FFF_FFFF),
}
LONG = ("uint32", "int32")
DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")  # no exponent: 1e999999999 would take all memory


class Write(Table, frozen=True, kw_only=True):
    """One register or coil that commands may set, and how far."""

    function: Literal[5, 6, 15, 16]  # 5 one coil, 6 one register, 15 coils, 16 registers: what the device takes
    address: Annotated[int, msgspec.Meta(ge=0, le=LAST_ADDRESS)]  # as in the message, from 0
    type: Literal["bool", "uint16", "int16", "uint32", "int32"]
    least: float | None = None  # in the unit of the command's value; a coil may do without
    most: float | None = None
    scale: Annotated[int, msgspec.Meta(ge=-18, le=18)] = 0  # value = register x 10^scale, as in a profile
    words: Literal["high first", "low first"] = "high first"  # of 32 bits
    read_back: bool = True  # false: the device does not let it be read


class Permit(NamedTuple):
    """A write that a device of the line allows."""

    unit: int
    write: Write


def problems(place: str, row: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with a table of `[devices.X.writes.NAME]`."""
    wrong = list(table_problems(place, row, Write))
    yield from wrong
    if wrong:
        return
    write = msgspec.convert(row, Write)
    is_coil = write.function in (ONE_COIL, COILS)
    if is_coil != (write.type == "bool"):
        yield f"{place}.type", "is bool for functions 5 and 15, and a number for 6 and 16"
        return
    if write.type in LONG and (write.function != REGISTERS or write.address == LAST_ADDRESS):
        yield f"{place}.type", "has two registers: that is function 16, and not at the last address"
    if is_coil and write.scale:
        yield f"{place}.scale", "makes no sense for a coil"
        return
    for key in ("least", "most"):
        bound = getattr(write, key)
        if bound is None and not is_coil:
            yield f"{place}.{key}", "is missing; whoever may write must know how far"
        elif bound is not None and not math.isfinite(bound):
            yield f"{place}.{key}", "is no number"
            return
        elif bound is not None and (why := _why_not_held(write, Fraction(str(bound)))):
            yield f"{place}.{key}", why
    if write.least is not None and write.most is not None and write.least > write.most:
        yield f"{place}.least", "is above `most`"


def writes_of(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Write]:
    """Return the writes of a device whose tables have no problems, by name."""
    return {name: msgspec.convert(row, Write) for name, row in rows.items()}


def raw_of(write: Write, value: Any) -> int:
    """Return what stands in the register for `value`, a whole number, a decimal text, or true and false for a coil.

    Raises ValueError, with the reason in words, for what the table does not allow.
    """
    if write.type == "bool":
        if type(value) is not bool and value not in (0, 1):
            raise ValueError("value must be true or false")
    elif type(value) is bool or not isinstance(value, int | str):
        raise ValueError("value must be a number; one with decimals is written as text")
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError("value is no number")
    number = Fraction(value)
    least, most = _bounds(write)
    if not least <= number <= most:
        raise ValueError(f"value must be from {float(least):g} to {float(most):g}")
    if why := _why_not_held(write, number):
        raise ValueError(f"value {why}")
    return int(number / _step(write))


def value_of(write: Write, raw: int) -> str:
    """Return what a command calls `raw`, as decimal text."""
    if write.type == "bool":
        return "true" if raw else "false"
    number = raw * _step(write)
    places = 0
    while (number * 10**places).denominator != 1:
        places += 1
    digits = f"{abs(int(number * 10**places)):0{places + 1}d}"
    sign = "-" if number < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def question_of(write: Write, raw: int) -> bytes:
    """Return the PDU that writes `raw`."""
    if write.function == ONE_COIL:
        return struct.pack(">BHH", ONE_COIL, write.address, ON if raw else 0)
    if write.function == COILS:
        return struct.pack(">BHHBB", COILS, write.address, 1, 1, raw)
    if write.function == ONE_REGISTER:
        return struct.pack(">BHH", ONE_REGISTER, write.address, raw & 0xFFFF)
    words = _words(write, raw)
    return struct.pack(">BHHB", REGISTERS, write.address, len(words) // 2, len(words)) + words


def reading_back(write: Write) -> bytes:
    """Return the PDU that reads what was written."""
    if write.type == "bool":
        return struct.pack(">BHH", READ_COILS, write.address, 1)
    return struct.pack(">BHH", READ_HOLDING, write.address, 2 if write.type in LONG else 1)


def raw_in(write: Write, answer: bytes) -> int:
    """Return what stands there, of an answer to `reading_back` that is no refusal."""
    octets = answer[2:]
    if write.type == "bool":
        return octets[0] & 1
    if write.type in LONG and write.words == "low first":
        octets = octets[2:] + octets[:2]
    return int.from_bytes(octets, "big", signed=write.type.startswith("int"))


def is_permitted(permits: tuple[Permit, ...], unit: int, question: bytes) -> bool:
    """Return whether `question` writes what a table allows, within its bounds, or reads that back; nothing else is."""
    return any(permit.unit == unit and _allows(permit.write, question) for permit in permits)


def _allows(write: Write, question: bytes) -> bool:
    if write.read_back and question == reading_back(write):
        return True
    raw = _raw_written(write, question)
    if raw is None or question != question_of(write, raw):
        return False
    least, most = _bounds(write)
    return least <= raw * _step(write) <= most


def _raw_written(write: Write, question: bytes) -> int | None:
    """Return what a PDU writes, taken as one of this table; None if it cannot be."""
    if len(question) < REPEATED or question[0] != write.function:
        return None
    if write.function == ONE_COIL:
        return int(question[3:5] == ON.to_bytes(2, "big"))
    if write.function == ONE_REGISTER:
        return int.from_bytes(question[3:5], "big", signed=write.type == "int16")
    if len(question) < REPEATED + 2:
        return None
    return raw_in(write, b"\0" + question[REPEATED:])


def _step(write: Write) -> Fraction:
    return Fraction(10) ** write.scale


def _bounds(write: Write) -> tuple[Fraction, Fraction]:
    least, most = BOUNDS[write.type]
    scale = _step(write)
    return (
        least * scale if write.least is None else Fraction(str(write.least)),
        most * scale if write.most is None else Fraction(str(write.most)),
    )


def _why_not_held(write: Write, number: Fraction) -> str:
    """Return why the register cannot hold `number`, '' if it can."""
    raw = number / _step(write)
    if raw.denominator != 1:
        return f"is no whole multiple of {float(_step(write)):g}"
    least, most = BOUNDS[write.type]
    return "" if least <= raw <= most else f"is more than {write.type} holds"


def _words(write: Write, raw: int) -> bytes:
    size = 4 if write.type in LONG else 2
    octets = (raw & (1 << 8 * size) - 1).to_bytes(size, "big")
    return octets[2:] + octets[:2] if size == 4 and write.words == "low first" else octets
