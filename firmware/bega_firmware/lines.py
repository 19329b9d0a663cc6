"""The numbers of lines in a .mpy: few of them, since each takes a byte of flash and of heap.

The compiler notes for each statement at which octet of its function it begins, 7 % of an air node's bytecode. Here a
function with a name keeps the line of its first statement: a traceback names file, line and function, and these are
short.

Spec: MicroPython 1.29, py/persistentcode.c (load_raw_code) and py/bc.h (prelude, mp_bytecode_get_source_line).
"""

from __future__ import annotations

SMALL_OBJECTS = 4  # kinds of constants up to this one are only a kind: None, True, False, Ellipsis and a table of it
TEXT, OCTETS, TUPLE = 5, 6, 10
HAS_CHILDREN = 4


class _Reader:
    def __init__(self, octets: bytes, at: int) -> None:
        self.octets = octets
        self.at = at

    def take(self, size: int) -> bytes:
        self.at += size
        return self.octets[self.at - size : self.at]

    def number(self) -> int:
        found = 0
        while True:
            octet = self.take(1)[0]
            found = found << 7 | octet & 127
            if octet < 128:
                return found


def with_few_lines(code: bytes) -> bytes:
    """Return a .mpy of bytecode in which each function has the line of its first statement, and no other."""
    reader = _Reader(code, 4)
    names, constants = reader.number(), reader.number()
    nameless = set()  # <lambda>, <listcomp> ...: who calls them stands beside them in a traceback, with its line
    for number in range(names):
        size = reader.number()
        if not size & 1 and reader.take((size >> 1) + 1)[:1] == b"<":  # an odd one is the number of a known name
            nameless.add(number)
    for _ in range(constants):
        _pass_constant(reader)
    whole = code[: reader.at] + _function(reader, nameless)
    if reader.at != len(code):
        raise ValueError("behind the bytecode there is more")
    return whole


def _pass_constant(reader: _Reader) -> None:
    kind = reader.take(1)[0]
    if kind <= SMALL_OBJECTS:
        return
    size = reader.number()
    if kind != TUPLE:
        reader.take(size + (kind in (TEXT, OCTETS)))
        return
    for _ in range(size):
        _pass_constant(reader)


def _function(reader: _Reader, nameless: set[int]) -> bytes:
    """Return the next function, and those within it."""
    head = reader.number()
    body = _with_one_line(reader.take(head >> 3), nameless)
    found = _number(len(body) << 3 | head & 7) + body
    if head & HAS_CHILDREN:
        count = reader.number()
        found += _number(count) + b"".join([_function(reader, nameless) for _ in range(count)])
    return found


def _with_one_line(body: bytes, nameless: set[int]) -> bytes:
    reader = _Reader(body, 0)
    octet = reader.take(1)[0]
    arguments, by_name, shift = octet & 3, 0, 0
    while octet & 128:
        octet = reader.take(1)[0]
        arguments |= (octet & 4) << shift
        by_name |= (octet & 8) >> 3 << shift
        shift += 1
    signature = body[: reader.at]
    told, cells = _sizes(reader)
    rest = body[reader.at + told :]
    information = _Reader(reader.take(told), 0)
    name = information.number()
    for _ in range(arguments + by_name):
        information.number()
    names, lines = information.octets[: information.at], information.octets[information.at :]
    kept = names + (b"" if name in nameless else _first_line(lines))
    return signature + _size_octets(len(kept), cells) + kept + rest


def _sizes(reader: _Reader) -> tuple[int, int]:
    """Return how many octets of information there are, and how many cells."""
    told = cells = shift = 0
    while True:
        octet = reader.take(1)[0]
        cells |= (octet & 1) << shift
        told |= (octet >> 1 & 63) << 6 * shift
        shift += 1
        if octet < 128:
            return told, cells


def _size_octets(told: int, cells: int) -> bytes:
    found = bytearray()
    while True:
        octet = cells & 1 | (told & 63) << 1
        cells, told = cells >> 1, told >> 6
        if not (cells or told):
            return bytes([*found, octet])
        found.append(octet | 128)


def _first_line(lines: bytes) -> bytes:
    """Return what says only the first line: that of the statement which no octet of the function is before."""
    line, at = 0, 0  # counted from the file's first
    while at < len(lines):
        octet = lines[at]
        if octet & (15 if octet & 128 else 31):
            break
        if octet & 128:
            line += octet << 4 & 0x700 | lines[at + 1]
            at += 2
        else:
            line += octet >> 5
            at += 1
    found = bytearray()
    while line:
        step = min(line, 3 if line <= 6 else 2047)
        found += bytes([step << 5]) if line <= 6 else bytes([128 | step >> 4 & 0x70, step & 255])
        line -= step
    return bytes(found)


def _number(value: int) -> bytes:
    found = [value & 127]
    while value := value >> 7:
        found.insert(0, value & 127 | 128)
    return bytes(found)
