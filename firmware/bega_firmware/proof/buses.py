"""The node's wires, worked from here: drivers run on this machine, and the node's chip only carries their bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from bega_firmware.proof.found import Device, Prompt
from bega_firmware.proof.on_node import FILES, WIRES, call
from bega_protocols import modbus_rtu
from bega_protocols.ask import Ask

PARITIES = {"N": None, "E": 0, "O": 1}
INBOX = 2048  # octets that the chip keeps while we are elsewhere: two seconds of a talker at 9600 baud
LARGEST = 4096
TOTAL_MS = 60_000  # of an answer that a driver allows to go on
MARGIN_S = 8.0  # of a call, beyond what is waited for on the wire
MODBUS_LINE = "9600 8N1"  # as most meters leave the factory (firmware/node/meter_bus.py)
HERE_MS = 60  # a wait that the chip does itself: less than what the way there and back takes
ROUNDED_MS = 1  # MicroPython's clock has whole ms: a wait of 10 may end after 9.1
QUIET_MS = 150  # behind the last octet of an answer whose end only its driver knows

Sleep = Callable[[float], None]


def form(wiring: Mapping[str, Any], line: str) -> dict[str, Any]:
    """Return the arguments of machine.UART for "9600 8N1" on these pins."""
    baud, bits = line.split()
    return {
        "baudrate": int(baud),
        "bits": int(bits[0]),
        "parity": PARITIES[bits[1]],
        "stop": int(bits[2]),
        "tx": wiring["tx"],
        "rx": wiring["rx"],
        "rxbuf": INBOX,
        "timeout": 0,
    }


def usual_line(driver_line: str) -> str:
    """Return "9600 8N1" of a driver's line, "serial 9600 8N1" or "modbus"."""
    return driver_line.partition(" ")[2] or MODBUS_LINE


class Wires:
    """The buses of a node whose program is stopped."""

    def __init__(self, cable: Prompt, sleep: Sleep = time.sleep) -> None:
        self._cable = cable
        self._sleep = sleep
        self._lines: dict[str, str] = {}  # of the UARTs, by bus
        cable.run(FILES, MARGIN_S)
        cable.run(WIRES, MARGIN_S)

    def supply(self, pin: int) -> None:
        """Switch on what a pin switches."""
        self._call("supply", pin)

    def levels(self, wiring: Mapping[str, Any]) -> tuple[bool, bool]:
        """Return whether SCL and SDA are high though the chip pulls them down a little: the bus's own pull-ups do it.

        To be asked before the bus is opened.
        """
        said = self._call("levels", [wiring["scl"], wiring["sda"]])
        return said[:1] == "1", said[1:2] == "1"

    def open_i2c(self, bus: str, wiring: Mapping[str, Any]) -> list[int]:
        """Open an I2C bus; return the addresses that acknowledge."""
        found: list[int] = json.loads(self._call("i2c", bus, wiring["id"], wiring["scl"], wiring["sda"]))
        return found

    def open_uart(self, bus: str, wiring: Mapping[str, Any], line: str) -> None:
        """Set a UART to "9600 8N1"; what came before is thrown away."""
        self._call("uart", bus, wiring["id"], form(wiring, line))
        self._lines[bus] = line

    def said(self, buses: list[str]) -> dict[str, bytes]:
        """Return what came on these UARTs since they were last asked for."""
        if not buses:
            return {}
        pieces = self._call("said", buses).split()
        return {bus: octets(piece) or b"" for bus, piece in zip(buses, pieces, strict=False)}

    def write_i2c(self, bus: str, ask: Ask) -> bytes | None:
        """Do what `ask` says if its wait is short; else only write, and return b"": the rest is `read_i2c`'s."""
        wait_ms = ask.wait_ms + ROUNDED_MS if self.is_short(ask) else 0
        read = ask.read if self.is_short(ask) else 0
        return octets(self._call("talk", bus, ask.line["address"], ask.write.hex(), wait_ms, read))

    def read_i2c(self, bus: str, ask: Ask) -> bytes | None:
        """Return what is to be read after the wait of `ask`, None if nobody acknowledges."""
        return octets(self._call("talk", bus, ask.line["address"], "", 0, ask.read)) if ask.read else b""

    @staticmethod
    def is_short(ask: Ask) -> bool:
        """Return whether the chip does the wait of `ask` itself."""
        return ask.wait_ms <= HERE_MS

    def ask(self, device: Device, ask: Ask, kind: str) -> bytes | None:
        """Do one exchange on a UART, as firmware/node/wires.py and meter_bus.py do; None if nothing came."""
        answer = self._ask_modbus(device, ask) if kind == "modbus" else self._ask_serial(device, ask)
        if "pause_ms" in ask.line:
            self._sleep(ask.line["pause_ms"] / 1000)
        return answer

    def closings(self, pin: int, for_s: float) -> tuple[int, int]:
        """Return (level now, how often a contact closed in that time)."""
        _, count, last = self._call("closings", pin, round(for_s * 1000), within_s=for_s + MARGIN_S).split()
        return int(last), int(count)

    def _ask_serial(self, device: Device, ask: Ask) -> bytes | None:
        if not ask.write and ask.read == 0:
            self._sleep(ask.wait_ms / 1000)
            return b""
        gap_ms = ask.line.get("gap_ms", 0) or QUIET_MS
        total_ms = ask.line.get("total_ms", TOTAL_MS) if "gap_ms" in ask.line else ask.wait_ms
        most = ask.read if isinstance(ask.read, int) and ask.read else LARGEST
        if ask.read == 0:
            most = 0
        heard = self._exchange(device, ask.write, self._turned(device, ask), (ask.wait_ms, gap_ms, total_ms, most))
        while heard and ask.read and not ask.complete(heard) and len(heard) < most:
            # It paused in the middle, or its driver waits for more.
            rest = octets(self._call("more", device.bus, *_times(ask, gap_ms, total_ms), most - len(heard))) or b""
            if not rest:
                break
            heard += rest
        if ask.read == 0:
            self._sleep(ask.wait_ms / 1000)
            return b""
        return heard or None

    def _turned(self, device: Device, ask: Ask) -> dict[str, Any] | None:
        """Return the form that the line takes once the question has left: an optical head changes its rate."""
        if "baud" not in ask.line:
            return None
        bits = self._lines[device.bus].split()[1]
        return form(device.wiring, f"{ask.line['baud']} {bits}")

    def _ask_modbus(self, device: Device, ask: Ask) -> bytes | None:
        unit = ask.line["unit"]
        heard = self._exchange(device, modbus_rtu.frame(unit, ask.write), None, (ask.wait_ms + 300, 100, 2000, LARGEST))
        answer: bytes | None = modbus_rtu.answer_in(heard, unit, ask.write)
        return answer

    def _exchange(
        self, device: Device, write: bytes, turned: dict[str, Any] | None, times: tuple[int, int, int, int]
    ) -> bytes:
        drive = device.wiring.get("de")
        within_s = (times[0] + times[2]) / 1000 + MARGIN_S
        said = self._call("ask", device.bus, write.hex(), drive, turned, *times, within_s=within_s)
        return octets(said) or b""

    def _call(self, name: str, *arguments: object, within_s: float = MARGIN_S) -> str:
        said = self._cable.run(call(name, *arguments), within_s).strip().splitlines()
        return said[-1] if said else ""


def octets(said: str) -> bytes | None:
    """Return the bytes of an answer, None for "!19": nobody acknowledged."""
    return None if said.startswith("!") else b"" if said == "-" else bytes.fromhex(said)


def _times(ask: Ask, gap_ms: int, total_ms: int) -> tuple[int, int, int]:
    return max(gap_ms, min(ask.wait_ms, 1000)), gap_ms, total_ms
