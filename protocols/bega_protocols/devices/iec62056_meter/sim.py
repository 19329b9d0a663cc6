"""An electricity meter with an optical head, made of code, from what three open readers agree on, never from codec.py.

IEC 62056-21: a request at 300 baud, an identification that names a rate by one
character (0 = 300 ... 6 = 19200), an acknowledgement ACK V Z Y, then STX, lines
of code(value*unit), "!" CR LF, ETX and a block check character, the exclusive
or of all that stands behind STX. Characters have seven bits; what a parity bit
makes of them on a wire is the wire's affair. A battery meter sleeps until it
has heard NULs for more than two seconds.
"""

from decimal import ROUND_HALF_UP, Decimal

RATES = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
NULS_THAT_WAKE = 60  # two seconds at 300 baud, ten bits a character

# (quantity, part): (code, digits in all, digits behind the point, unit)
REGISTERS = {
    ("active_energy_import", ""): ("1.8.0", 10, 3, "kWh"),
    ("active_energy_import", "t1"): ("1.8.1", 10, 3, "kWh"),
    ("active_energy_import", "t2"): ("1.8.2", 10, 3, "kWh"),
    ("active_energy_export", ""): ("2.8.0", 10, 3, "kWh"),
    ("reactive_energy_import", ""): ("3.8.0", 10, 3, "kvarh"),
    ("reactive_energy_export", ""): ("4.8.0", 10, 3, "kvarh"),
    ("active_power_import", ""): ("1.7.0", 6, 3, "kW"),
    ("active_power_import", "l1"): ("21.7.0", 6, 3, "kW"),
    ("active_power_export", ""): ("2.7.0", 6, 3, "kW"),
    ("voltage", "l1"): ("32.7.0", 4, 1, "V"),
    ("voltage", "l2"): ("52.7.0", 4, 1, "V"),
    ("voltage", "l3"): ("72.7.0", 4, 1, "V"),
    ("current", "l1"): ("31.7.0", 5, 2, "A"),
    ("current", "l2"): ("51.7.0", 5, 2, "A"),
    ("current", "l3"): ("71.7.0", 5, 2, "A"),
    ("power_factor", ""): ("13.7.0", 4, 3, ""),
    ("frequency", ""): ("14.7.0", 4, 2, "Hz"),
}


class Sim:
    """Answers a request, then an acknowledgement; a register is shown once it was set.

    Attributes that make it another meter: `announced` (its baud rate character: a digit is mode C, a letter A to I
    mode B, anything else mode A), `texts` (lines without a reading), `has_check` (mode A only: STX, ETX and check
    character), `sleeps` (until woken by NULs), `stays` (a rate that it keeps whatever is acknowledged), `longest`
    (how often the readout is repeated as history, for a meter that takes minutes).

    For the wire that it hangs on: `answer_baud` and `answer_after_ms`, the rate and the delay of the last answer.

    faults: "silent", "no_readout" (identifies itself, and nothing follows), "bcc" (the check character is wrong),
    "cut" (half of the readout), "noise" (a character of it is another), "endless" (the readout never ends),
    "wrong device" (what answers speaks no IEC 62056-21).
    """

    def __init__(self, settings: dict[str, object], seed: int, aes: object = None) -> None:
        self.faults: set[str] = set()
        self.announced = "5"
        self.has_check = True
        self.sleeps = False
        self.stays = 0
        self.longest = 0
        self.texts = [
            "F.F(00000000)",
            f"0.0.0({seed:08d})",
            "0.9.1(120000)",
            "0.9.2(261122)",
            "1.8.1*01(00001.000*kWh)",
        ]
        self.answer_baud = RATES["0"]
        self.answer_after_ms = 300
        self._address = str(settings.get("address", ""))
        self._values: dict[tuple[str, str], Decimal] = {}
        self._is_awake = False
        self._is_named = False
        self._babbling = False

    def set(self, quantity: str, part: str, value: int | float | Decimal) -> None:
        """Let the register show this, in the quantity's unit; raises KeyError for what this meter does not tell."""
        if (quantity, part) not in REGISTERS:
            raise KeyError((quantity, part))
        exact = Decimal(str(value))
        self._values[quantity, part] = exact / 1000 if "_power_" in quantity else exact

    def tick(self, now_ms: int) -> bytes:
        """Return nothing, unless a readout has begun that never ends."""
        if "endless" in self.faults and self._babbling:
            return b"1.8.0*07(0000123.456*kWh)\r\n" * 4
        return b""

    def answer(self, request: bytes) -> bytes | None:
        """Return what the meter says to `request`, None where it says nothing."""
        woken = request.lstrip(b"\0")
        if len(request) - len(woken) >= NULS_THAT_WAKE:
            self._is_awake = True
        if "silent" in self.faults or not woken or (self.sleeps and not self._is_awake):
            return None
        if "wrong device" in self.faults:
            return bytes.fromhex("01830283f1")  # a Modbus device that refuses what it did not understand
        self.answer_baud = RATES["0"]
        self._babbling = False
        if woken in (b"/?!\r\n", b"/?%s!\r\n" % self._address.encode()):
            return self._identify()
        if self._is_named and woken[:2] == b"\x060" and woken[3:] == b"0\r\n":
            return self._acknowledged(woken[2:3].decode())
        return None

    def _identify(self) -> bytes:
        name = f"/BGA{self.announced}SIM-METER 1.0\r\n".encode()
        self._is_named = self.announced in RATES
        if self.announced in RATES or "no_readout" in self.faults:
            return name
        if "A" <= self.announced <= "I":  # the speed changes by itself, and which letter means which is disputed
            return name + bytes(40)
        return name + self._readout()

    def _acknowledged(self, rate: str) -> bytes | None:
        self._is_named = False
        if rate not in RATES or rate > self.announced or "no_readout" in self.faults:
            return None
        self.answer_baud = self.stays or RATES[rate]
        self._is_awake = False
        return self._readout()

    def _readout(self) -> bytes:
        lines = [*self.texts, *[self._line(key) for key in REGISTERS if key in self._values]]
        lines += [f"{line.partition('(')[0]}*{month:02d}({line.partition('(')[2]}"
                  for month in range(1, self.longest + 1) for line in lines]  # fmt: skip
        text = "\r\n".join([*lines, "!", ""]).encode()
        whole = text
        if self.has_check:
            checked = text + b"\x03"
            whole = b"\x02" + checked + bytes([_block_check(b"" if "bcc" in self.faults else checked)])
        if "endless" in self.faults:
            self._babbling = True
            return whole[: -len("!\r\n??") if self.has_check else -len("!\r\n")]
        if "noise" in self.faults:
            whole = bytes(octet ^ 5 if at == 28 else octet for at, octet in enumerate(whole))
        return whole[: len(whole) // 2] if "cut" in self.faults else whole

    def _line(self, key: tuple[str, str]) -> str:
        code, digits, places, unit = REGISTERS[key]
        steps = int(self._values[key].scaleb(places).to_integral_value(ROUND_HALF_UP)) % 10**digits
        text = f"{steps:0{digits}d}"
        return f"{code}({text[:-places]}.{text[-places:]}{'*' + unit if unit else ''})"


def _block_check(text: bytes) -> int:
    """Even parity of each of the seven columns: bit n of it says whether an odd number of characters has bit n."""
    return sum((sum(octet >> bit & 1 for octet in text) % 2) << bit for bit in range(7))
