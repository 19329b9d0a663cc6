"""A German electricity meter that pushes SML, made of code: from the layout in README.md, never from codec.py.

Transport version 1: 1B1B1B1B 01010101, messages, zeros up to a multiple of
four, 1B1B1B1B 1A, the number of those zeros, CRC-16/X-25 low byte first. A
push is three messages: an open response, a list of values, a close response.
"""

from decimal import ROUND_HALF_UP, Decimal

PERIOD_MS = 1000

# (quantity, part): (OBIS A-B:C.D.E*F in hex, unit in hex, power of ten that the meter counts in, in that unit)
OBJECTS = {
    ("active_energy_import", ""): ("0100010800FF", "1E", -1),
    ("active_energy_import", "t1"): ("0100010801FF", "1E", -1),
    ("active_energy_import", "t2"): ("0100010802FF", "1E", -1),
    ("active_energy_export", ""): ("0100020800FF", "1E", -1),
    ("active_power", ""): ("0100100700FF", "1B", -2),
    ("voltage", "l1"): ("0100200700FF", "23", -1),
    ("voltage", "l2"): ("0100340700FF", "23", -1),
    ("voltage", "l3"): ("0100480700FF", "23", -1),
    ("current", "l1"): ("01001F0700FF", "21", -2),
    ("current", "l2"): ("0100330700FF", "21", -2),
    ("current", "l3"): ("0100470700FF", "21", -2),
    ("frequency", ""): ("01000E0700FF", "2C", -1),
}
WATT_HOURS = Decimal(1000)  # of the quantity's kW.h


class Sim:
    """Pushes its values once a second, as an IR head on the optical port hears them.

    settings: `crc` "kermit" for a meter that computes its check values so.
    faults: "silent" (nothing is sent), "crc" (the check value is wrong), "cut" (the push ends after 100 bytes and the
    next one follows), "no power" (16.7.0 is not sent: the meter waits for its PIN).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._server = bytes.fromhex("0A014247410000") + (seed * 2654435761 % 2**24).to_bytes(3, "big")
        self._start = 0xFFFF if settings.get("crc", "x25") == "x25" else 0
        self._values = dict.fromkeys(OBJECTS, Decimal(0)) | {
            ("voltage", part): Decimal(230) for part in ("l1", "l2", "l3")
        }
        self._pushed = 0
        self._next_ms: int | None = None

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the house be so, in the quantity's unit; raises KeyError for what this meter does not tell."""
        if (quantity, part) not in OBJECTS:
            raise KeyError((quantity, part))
        exact = Decimal(str(value))
        self._values[quantity, part] = exact * WATT_HOURS if quantity.startswith("active_energy") else exact

    def tick(self, now_ms: int) -> bytes:
        """Return what the meter has sent by itself up to `now_ms`."""
        if self._next_ms is None:
            self._next_ms = now_ms
        sent = b""
        while self._next_ms <= now_ms:
            self._next_ms += PERIOD_MS
            sent += b"" if "silent" in self.faults else self._push()
        return sent

    def answer(self, request: bytes) -> bytes | None:
        """Return None: the port only sends."""
        return None

    def _push(self) -> bytes:
        self._pushed += 1
        opened = _list(b"\x01", b"\x01", _text(self._pushed.to_bytes(3, "big")), _text(self._server), b"\x01", b"\x01")
        entries = [
            _entry("8181C78203FF", "", None, _text(b"BGA")),
            _entry("0100000009FF", "", None, _text(self._server)),
        ]
        for (quantity, part), (obis, unit, power) in OBJECTS.items():
            if quantity == "active_power" and "no power" in self.faults:
                continue
            steps = int(self._values[quantity, part].scaleb(-power).to_integral_value(ROUND_HALF_UP))
            entries.append(_entry(obis, unit, power, _number(steps, signed=quantity == "active_power")))
        time = _list(b"\x62\x01", b"\x65" + self._pushed.to_bytes(4, "big"))
        values = _list(b"\x01", _text(self._server), b"\x01", time, _list(*entries), b"\x01", b"\x01")
        messages = self._message(0, "0101", opened) + self._message(1, "0701", values)
        return self._transported(messages + self._message(2, "0201", _list(b"\x01")))

    def _message(self, number: int, tag: str, body: bytes) -> bytes:
        transaction = _text((self._pushed * 4 + number).to_bytes(4, "big"))
        head = b"\x76" + transaction + b"\x62\x00\x62\x00" + _list(b"\x63" + bytes.fromhex(tag), body)
        return head + b"\x63" + _crc(head, self._start).to_bytes(2, "little") + b"\x00"

    def _transported(self, messages: bytes) -> bytes:
        padding = -len(messages) % 4
        inside = (messages + bytes(padding)).replace(b"\x1b" * 4, b"\x1b" * 8)
        whole = b"\x1b" * 4 + b"\x01" * 4 + inside + b"\x1b" * 4 + bytes([0x1A, padding])
        check = _crc(whole, self._start) ^ (0x0100 if "crc" in self.faults else 0)
        whole += check.to_bytes(2, "little")
        return whole[:100] if "cut" in self.faults else whole


def _entry(obis: str, unit: str, power: int | None, value: bytes) -> bytes:
    """Return one value: OBIS, status, time, unit, scaler, value, signature; what is left out is 01."""
    scaler = b"\x01" if power is None else b"\x52" + (power % 256).to_bytes(1, "big")
    return _list(
        _text(bytes.fromhex(obis)),
        b"\x01",
        b"\x01",
        bytes.fromhex(f"62{unit}" if unit else "01"),
        scaler,
        value,
        b"\x01",
    )


def _list(*items: bytes) -> bytes:
    """Type 7; the length counts the items. From 16 on it needs a second byte, four bits in each."""
    if len(items) < 16:
        return bytes([0x70 + len(items)]) + b"".join(items)
    return bytes([0xF0 + len(items) // 16, len(items) % 16]) + b"".join(items)


def _text(octets: bytes) -> bytes:
    """Type 0; the length counts the bytes of the length too."""
    if len(octets) < 15:
        return bytes([len(octets) + 1]) + octets
    return bytes([0x80 + (len(octets) + 2) // 16, (len(octets) + 2) % 16]) + octets


def _number(value: int, signed: bool) -> bytes:
    """Type 5 or 6, in as few bytes as the value needs."""
    size = 1
    while not (-(1 << 8 * size - 1) <= value < 1 << 8 * size - 1 if signed else value < 1 << 8 * size):
        size += 1
    return bytes([(0x51 if signed else 0x61) + size]) + value.to_bytes(size, "big", signed=signed)


def _crc(data: bytes, start: int) -> int:
    """Generator x16 + x12 + x5 + 1, least significant bit first, the result inverted where the start was all ones."""
    register = start
    for octet in data:
        for bit in range(8):
            carry = (register ^ octet >> bit) & 1
            register >>= 1
            if carry:
                register ^= 0x8408
    return register ^ start
