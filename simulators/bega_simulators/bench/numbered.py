"""A meter whose every answer carries its own number and time, so that a reader far away can tell delay and loss.

Spec: MODBUS Application Protocol V1.1b3, section 6.4; IEEE 754. Its float32 registers hold whole numbers below 2^24,
which a float32 holds exactly: number of the read, second and microsecond of the machine's monotonic clock, the meter's
own name, and from there on numbers that follow from name and read, so that no answer can pass for another.
"""

from __future__ import annotations

import struct
import time
from array import array

FUNCTION = 4
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS = 1, 2
EXACT = 1 << 24  # float32: whole numbers below are exact
SPREAD = 100_000

# What the registers are called, so that the gateway has real quantities to work with; exponents as for a real meter.
PHASES = ("l1", "l2", "l3")
QUANTITIES = [
    *[("voltage", part, -2) for part in PHASES],
    *[("current", part, -3) for part in PHASES],
    *[("active_power", part, -1) for part in (*PHASES, "")],
    *[("apparent_power", part, -1) for part in (*PHASES, "")],
    *[("reactive_power", part, -1) for part in (*PHASES, "")],
    *[("power_factor", part, -3) for part in (*PHASES, "")],
    ("frequency", "", -2),
    *[("active_energy_import", part, -3) for part in (*PHASES, "")],
    *[("active_energy_export", part, -3) for part in PHASES],
]


def content(meter: int, read: int, at_s: float, count: int) -> list[int]:
    """Return the `count` (at least 5) numbers of answer `read` of `meter`, given at monotonic `at_s`."""
    second = int(at_s)
    first = [read % EXACT, second % EXACT, int((at_s - second) * 1e6), meter]
    return first + derived(meter, read, count - len(first))


def derived(meter: int, read: int, count: int) -> list[int]:
    """Return the numbers behind the first four."""
    start = 31 * read + 101 * meter
    return [(start + 1009 * index) % SPREAD for index in range(count)]


def read_at_s(second: int, microsecond: int, now_s: float) -> float:
    """Return the moment that an answer carries, on the clock whose present is `now_s`."""
    age_s = (int(now_s) - second) % EXACT
    return int(now_s) - age_s + microsecond / 1e6


def names(count: int) -> list[str]:
    """Return how SenML calls the first `count` registers."""
    return [f"{quantity}:{part}" if part else quantity for quantity, part, _ in QUANTITIES[:count]]


def register_map(count: int) -> str:
    """Return the profile (TOML) from which a gateway reads the first `count` registers in one question."""
    rows = [
        f'  {{ address = {2 * index}, quantity = "{quantity}", part = "{part}", exponent = {exponent} }},'
        for index, (quantity, part, exponent) in enumerate(QUANTITIES[:count])
    ]
    head = ['part = "numbered"', 'maker = "bench"', 'document = "bega_simulators/bench/numbered.py"', "function = 4"]
    return "\n".join([*head, 'type = "float32"', "max_registers = 60", "registers = [", *rows, "]", ""])


class NumberedMeter:
    """Answers reads of all its registers, PDU for PDU; every other question is refused.

    faults: "silent" (no answer). With `keeps_times` it remembers when each read was answered, from read 1 on.
    """

    def __init__(self, meter: int, count: int = len(QUANTITIES), keeps_times: bool = False) -> None:
        self.faults: set[str] = set()
        self.meter = meter
        self.reads = 0
        self.times_s = array("d")
        self._keeps_times = keeps_times
        self._count = count
        self._pack = struct.Struct(f">BB{count}f").pack
        self._question = struct.pack(">BHH", FUNCTION, 0, 2 * count)

    def answer(self, request: bytes) -> bytes | None:
        """Return the PDU that answers the PDU `request`, None when it stays silent."""
        if "silent" in self.faults:
            return None
        if request != self._question:
            return bytes([request[0] | 0x80, ILLEGAL_ADDRESS if request[0] == FUNCTION else ILLEGAL_FUNCTION])
        now_s = time.monotonic()
        self.reads += 1
        if self._keeps_times:
            self.times_s.append(now_s)
        numbers = content(self.meter, self.reads, now_s, self._count)
        return self._pack(FUNCTION, 4 * self._count, *numbers)
