"""A P1 meter made of code, written from the P1 Companion Standard 5.0.2 and never from codec.py.

Section 5 (one telegram a second, 115200 8N1), 6.2 (layout, CRC16 over "/" to
"!"), 6.4 (Fn(x,y): n digits without the point, x to y of them behind it) and
the list of objects in 6.12. A gas meter on M-Bus channel 1 is read every five minutes.
Version 3 (3.0, sections 5 and 6): a telegram each ten seconds, no check value, no
clock, stamps without a letter, the gas on the line behind its stamp. Belgium
(e-MUCS H 1.3): demand of the running quarter of an hour and the month's highest.
"""

import calendar
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

PERIOD_MS = 1000
PERIOD_V3_MS = 10_000
GAS_PERIOD_MS = 300_000

# (quantity, part): (OBIS code, digits in all, digits behind the point, unit)
OBJECTS = {
    ("active_energy_import", "t1"): ("1-0:1.8.1", 9, 3, "kWh"),
    ("active_energy_import", "t2"): ("1-0:1.8.2", 9, 3, "kWh"),
    ("active_energy_export", "t1"): ("1-0:2.8.1", 9, 3, "kWh"),
    ("active_energy_export", "t2"): ("1-0:2.8.2", 9, 3, "kWh"),
    ("active_tariff", ""): ("0-0:96.14.0", 4, 0, ""),
    ("active_power_import", ""): ("1-0:1.7.0", 5, 3, "kW"),
    ("active_power_export", ""): ("1-0:2.7.0", 5, 3, "kW"),
    ("voltage", "l1"): ("1-0:32.7.0", 4, 1, "V"),
    ("voltage", "l2"): ("1-0:52.7.0", 4, 1, "V"),
    ("voltage", "l3"): ("1-0:72.7.0", 4, 1, "V"),
    ("current", "l1"): ("1-0:31.7.0", 3, 0, "A"),
    ("current", "l2"): ("1-0:51.7.0", 3, 0, "A"),
    ("current", "l3"): ("1-0:71.7.0", 3, 0, "A"),
    ("active_power_import", "l1"): ("1-0:21.7.0", 5, 3, "kW"),
    ("active_power_import", "l2"): ("1-0:41.7.0", 5, 3, "kW"),
    ("active_power_import", "l3"): ("1-0:61.7.0", 5, 3, "kW"),
    ("active_power_export", "l1"): ("1-0:22.7.0", 5, 3, "kW"),
    ("active_power_export", "l2"): ("1-0:42.7.0", 5, 3, "kW"),
    ("active_power_export", "l3"): ("1-0:62.7.0", 5, 3, "kW"),
    ("gas_volume", ""): ("0-1:24.2.1", 8, 3, "m3"),
}
BELGIAN = {
    ("active_demand_import", ""): ("1-0:1.4.0", 5, 3, "kW"),
    ("active_demand_import_max", ""): ("1-0:1.6.0", 5, 3, "kW"),
}
V3_FORMATS = {"kWh": (8, 3), "kW": (6, 2)}  # as printed by a meter of that time
COUNTERS = ("active_energy_import", "active_energy_export", "gas_volume")  # they begin again at zero, others saturate
FAILURES = (
    "0-0:96.7.21(00004)", "0-0:96.7.9(00002)",
    "1-0:99.97.0(2)(0-0:96.7.19)(101208152415W)(0000000240*s)(101208151004W)(0000000301*s)",
    "1-0:32.32.0(00002)", "1-0:52.32.0(00001)", "1-0:72.32.0(00000)",
    "1-0:32.36.0(00000)", "1-0:52.36.0(00003)", "1-0:72.36.0(00000)",
)  # fmt: skip


class Sim:
    """Sends a telegram a second, stamped in Dutch time; three phases, two tariffs, gas.

    `version` makes it another meter: "5", "3", or "belgium", which alone tells demand.

    faults: "silent" (nothing is sent), "crc" (the check value is wrong), "cut" (telegrams end after 400 bytes),
    "long_line" (the message to the consumer has all the 1024 characters that it may have).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self._meter_id = f"E00470{seed % 10**11:011d}"
        self._gas_id = f"G00390{seed * 7919 % 10**11:011d}"
        self.version = "5"
        self._peak: tuple[Decimal, int] | None = None  # the highest demand, and when it was measured
        self._values = dict.fromkeys(OBJECTS | BELGIAN, Decimal(0)) | {("active_tariff", ""): Decimal(2)}
        self._values |= {("voltage", phase): Decimal(230) for phase in ("l1", "l2", "l3")}
        self._gas_read: tuple[int, Decimal] | None = None  # the five minutes it was read at, and what it showed
        self._next_ms: int | None = None

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the house be so, in the quantity's unit; raises KeyError for what this meter does not tell.

        `active_power`, positive for import, sets both directions of a phase ('' is the sum of them).
        """
        exact = Decimal(str(value))
        if quantity == "active_power":
            self.set("active_power_import", part, max(exact, Decimal(0)))
            self.set("active_power_export", part, max(-exact, Decimal(0)))
            return
        if (quantity, part) not in OBJECTS | (BELGIAN if self.version == "belgium" else {}):
            raise KeyError((quantity, part))
        self._values[quantity, part] = exact / 1000 if quantity.startswith(("active_power", "active_demand")) else exact

    def tick(self, now_ms: int) -> bytes:
        """Return what the meter has sent by itself up to `now_ms`, Unix time."""
        if self._next_ms is None:
            self._next_ms = now_ms
        if "silent" in self.faults:
            self._next_ms = max(self._next_ms, now_ms)
            return b""
        sent = b""
        while self._next_ms <= now_ms:
            sent += self._telegram(self._next_ms)
            self._next_ms += PERIOD_V3_MS if self.version == "3" else PERIOD_MS
        return sent

    def answer(self, request: bytes) -> bytes | None:
        """The port has no receiving wire: a request line of five volts is all that it listens to."""
        return None

    def _telegram(self, at_ms: int) -> bytes:
        lines = {"5": self._dutch, "3": self._old, "belgium": self._belgian}[self.version](at_ms)
        body = "\r\n".join([*lines, "!"]).encode()
        check = _crc16(body) ^ (0x5A5A if "crc" in self.faults else 0)
        whole = body + (b"\r\n" if self.version == "3" else b"%04X\r\n" % check)
        return whole[:400] if "cut" in self.faults else whole

    def _dutch(self, at_ms: int) -> list[str]:
        lines = [r"/BGA5\2SIM-1000", "", "1-3:0.2.8(50)", f"0-0:1.0.0({_stamp(at_ms)})"]
        lines.append(f"0-0:96.1.1({_hex(self._meter_id)})")
        lines += [self._object(*key) for key in list(OBJECTS)[:7]]
        lines += FAILURES
        lines.append(f"0-0:96.13.0({_hex(self._message())})")
        lines += [self._object(*key) for key in list(OBJECTS)[7:-1]]
        return lines + self._gas(at_ms)

    def _old(self, at_ms: int) -> list[str]:
        """Version 3.0: totals alone, and nothing that tells a phase or the time."""
        lines = [r"/BGA5\2SIM-300", "", f"0-0:96.1.1({_hex(self._meter_id)})"]
        lines += [self._object(*key) for key in list(OBJECTS)[:7]]
        lines += ["0-0:17.0.0(016*A)", "0-0:96.3.10(1)", f"0-0:96.13.0({_hex(self._message())})"]
        return lines + self._gas(at_ms)

    def _belgian(self, at_ms: int) -> list[str]:
        highest = self._values["active_demand_import_max", ""]
        if self._peak is None or self._peak[0] != highest:
            self._peak = highest, at_ms
        peak = self._object("active_demand_import_max", "").replace("(", f"({_stamp(self._peak[1])})(")
        lines = [r"/BGA5\253SIM_A", "", "0-0:96.1.4(50217)", f"0-0:96.1.1({_hex(self._meter_id)})"]
        lines.append(f"0-0:1.0.0({_stamp(at_ms)})")
        lines += [self._object(*key) for key in list(OBJECTS)[:5]]
        lines += [self._object("active_demand_import", ""), peak]
        lines += [self._object(*key) for key in list(OBJECTS)[5:-1]]
        lines += ["0-0:96.3.10(1)", "0-0:17.0.0(999.9*kW)", "1-0:31.4.0(999*A)", "0-0:96.13.0()"]
        return lines + self._gas(at_ms)

    def _object(self, quantity: str, part: str) -> str:
        code, digits, places, unit = (OBJECTS | BELGIAN)[quantity, part]
        if self.version == "3":
            digits, places = V3_FORMATS.get(unit, (digits, places))
        number = _digits(self._values[quantity, part], digits, places, quantity in COUNTERS)
        return f"{code}({number}*{unit})" if unit else f"{code}({number})"

    def _gas(self, at_ms: int) -> list[str]:
        read_ms = at_ms // GAS_PERIOD_MS * GAS_PERIOD_MS
        if self._gas_read is None or self._gas_read[0] != read_ms:
            self._gas_read = read_ms, self._values["gas_volume", ""]
        code, digits, places, unit = OBJECTS["gas_volume", ""]
        number = _digits(self._gas_read[1], digits, places, True)
        gas_id, stamp = _hex(self._gas_id), _stamp(read_ms)
        if self.version == "3":
            value = [f"0-1:24.3.0({stamp[:-1]})(00)(60)(1)({code})({unit})", f"({number})", "0-1:24.4.0(1)"]
            return ["0-1:24.1.0(03)", f"0-1:96.1.0({gas_id})", *value]
        if self.version == "belgium":  # not corrected for temperature
            return ["0-1:24.1.0(003)", f"0-1:96.1.1({gas_id})", f"0-1:24.2.3({stamp})({number}*{unit})"]
        return ["0-1:24.1.0(003)", f"0-1:96.1.0({gas_id})", f"{code}({stamp})({number}*{unit})"]

    def _message(self) -> str:
        return ("Bega " * 205)[:1024] if "long_line" in self.faults else ""


def _hex(text: str) -> str:
    """Ids and messages are printed as hex of their characters (section 6.4, tag 9)."""
    return text.encode().hex().upper()


def _digits(value: Decimal, digits: int, places: int, counts: bool) -> str:
    """Return Fn(x,x) of section 6.4: `digits` digits, `places` of them behind the point."""
    steps = int(value.scaleb(places).to_integral_value(ROUND_HALF_UP))
    full = 10**digits
    text = f"{steps % full if counts else max(0, min(full - 1, steps)):0{digits}d}"
    return f"{text[:-places]}.{text[-places:]}" if places else text


def _stamp(at_ms: int) -> str:
    """Return the tag TST of section 6.4: YYMMDDhhmmss and S in summer time, W otherwise."""
    utc = datetime.fromtimestamp(at_ms // 1000, UTC)
    summer = _change(utc.year, 3) <= utc < _change(utc.year, 10)
    return (utc + timedelta(hours=2 if summer else 1)).strftime("%y%m%d%H%M%S") + ("S" if summer else "W")


def _change(year: int, month: int) -> datetime:
    """European summer time begins and ends at 01:00 UTC on the last Sunday of March and of October."""
    sunday = max(week[calendar.SUNDAY] for week in calendar.monthcalendar(year, month))
    return datetime(year, month, sunday, 1, tzinfo=UTC)


def _crc16(data: bytes) -> int:
    """Section 6.2: polynomial x16 + x15 + x2 + 1, least significant bit first: long division, bit by bit."""
    bits = "".join(f"{octet:08b}"[::-1] for octet in data) + "0" * 16
    remainder = 0
    for bit in bits:
        remainder = remainder << 1 | (bit == "1")
        if remainder & 0x10000:
            remainder ^= 0x18005
    return int(f"{remainder:016b}"[::-1], 2)
