"""`bega node ports`: which boards hang on this machine, and what a port is able to do."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serial import SerialException, serial_for_url
from serial.tools.list_ports import comports

from bega.clock import mono_s
from bega_firmware.cable_faults import ROM_ANSWERS, no_port, who_holds
from bega_protocols.errors import ConfigError

PURPOSE = "list the boards on USB, each with its port"
EXAMPLES = """examples:
  bega node ports
  bega node ports --json"""
# What is built onto ESP32 boards, by the maker's number and the product's in the USB descriptor.
CONVERTERS = {
    (0x10C4, 0xEA60): "CP210x",
    (0x10C4, 0xEA70): "CP2105",
    (0x1A86, 0x7523): "CH340",
    (0x1A86, 0x7522): "CH340K",
    (0x1A86, 0x55D3): "CH343",
    (0x1A86, 0x55D4): "CH9102",
    (0x0403, 0x6001): "FT232R",
    (0x0403, 0x6010): "FT2232H",
    (0x0403, 0x6014): "FT232H",
    (0x0403, 0x6015): "FT231X",
    (0x303A, 0x1001): "the chip's own USB",
    (0x303A, 0x4001): "the chip's own USB, of a program",
}
NO_BOARD = (
    "no board on USB: plug one in. If one is, its cable may be one that only charges: take another; and this machine"
    " may lack the driver of its converter: `dmesg | tail` says what was plugged in. Any other port is named by --port"
)
# esptool's documentation, "Serial Protocol": SYNC (8) and READ_REG (10), in SLIP; an answer: opcode, length, value.
END = b"\xc0"
SYNC = END + b"\x00\x08\x24\x00\x00\x00\x00\x00\x07\x07\x12\x20" + 32 * b"\x55" + END
SYNC_ANSWER = re.compile(re.escape(ROM_ANSWERS))
READ_ANSWER = re.compile(rb"\xc0\x01\x0a..((?:[^\xc0\xdb]|\xdb.){4})[^\xc0]*\xc0", re.DOTALL)
LONGEST_ANSWER = 256
# A port that no ROM waits at costs this time; a laptop that does ten boards at once needs it.
ANSWERS_WITHIN_S, WORD_WITHIN_S, ASK_AGAIN_S = 2.0, 15.0, 0.2


@dataclass(frozen=True)
class UsbPort:
    """A converter that boards have."""

    port: str
    converter: str
    serial: str  # the converter's own number, '' if it has none: two boards are told apart by it
    held_by: str  # another program that has it open, '' if none is seen


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "ports",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """List them; raises ConfigError if there is none."""
    found = usb_ports()
    if not found:
        raise ConfigError(NO_BOARD)
    for port in found:
        held = f", held by {port.held_by}" if port.held_by else ""
        print(json.dumps(asdict(port)) if args.json else f"{port.port}  {port.converter} {port.serial}{held}")
    return 0


def usb_ports(listed: Iterable[Any] | None = None) -> list[UsbPort]:
    """Return the ports of converters that boards have; listed: what pyserial lists (default: asked of it)."""
    found = []
    for port in comports() if listed is None else listed:
        converter = CONVERTERS.get((port.vid, port.pid))
        if converter:
            found.append(UsbPort(port.device, converter, port.serial_number or "", who_holds(port.device)))
    return sorted(found, key=lambda port: port.port)


def chosen_ports(named: list[str], wants_all: bool, found: list[UsbPort] | None = None) -> list[str]:
    """Return the ports to work at: those named, or all on USB, or the only one. Raises ConfigError."""
    if named:
        return list(dict.fromkeys(named))
    there = usb_ports() if found is None else found
    if not there:
        raise ConfigError(NO_BOARD)
    if len(there) > 1 and not wants_all:
        names = ", ".join(port.port for port in there)
        raise ConfigError(f"{len(there)} boards on USB ({names}): name one with --port, or take --all")
    return [port.port for port in there]


def require_free(port: str) -> None:
    """Raise ConfigError if a port cannot be had: it is not there, not allowed, or another program's."""
    if "://" not in port and who_holds(port):
        raise ConfigError(no_port(port))
    try:
        serial_for_url(port, exclusive=None if "://" in port else True).close()
    except (SerialException, OSError, ValueError):
        raise ConfigError(no_port(port)) from None


def has_lines(port: str) -> bool:
    """Return whether DTR and RTS are there to bring a board into its ROM; a pseudo-terminal and a socket have none."""
    return not (port.startswith("socket://") or str(Path(port).resolve()).startswith("/dev/pts/"))


def rom_answers(port: str) -> bool:
    """Return whether a ROM waits at a port that cannot bring one there. Raises ConfigError if the port fails."""
    return bool(_asked(port, SYNC, SYNC_ANSWER, ANSWERS_WITHIN_S))


def rom_word(port: str, address: int) -> int | None:
    """Return a word of the memory of the chip whose ROM waits at `port`, None if there was no answer."""
    asked = b"\x00\x0a\x04\x00\x00\x00\x00\x00" + address.to_bytes(4, "little")
    answer = _asked(port, END + _escaped(asked) + END, READ_ANSWER, WORD_WITHIN_S)
    return word_of(answer) if answer else None


def word_of(answer: re.Match[bytes]) -> int:
    """Return the value in an answer to READ_REG."""
    return int.from_bytes(answer[1].replace(b"\xdb\xdc", END).replace(b"\xdb\xdd", b"\xdb"), "little")


def _asked(port: str, question: bytes, answer: re.Pattern[bytes], within_s: float) -> re.Match[bytes] | None:
    """Return the answer to a question that is asked again until it comes, and leave the port quiet."""
    try:
        with closing(serial_for_url(port, 115200, timeout=ASK_AGAIN_S)) as wire:
            end_s, heard, found = mono_s() + within_s, b"", None
            while mono_s() < end_s and not found:
                wire.write(question)
                heard = heard[-LONGEST_ANSWER:] + wire.read(LONGEST_ANSWER)
                found = answer.search(heard)
            while wire.read(LONGEST_ANSWER):
                continue  # what is still to come is no answer to who asks next
            return found
    except (SerialException, OSError, ValueError):
        raise ConfigError(no_port(port)) from None


def _escaped(packet: bytes) -> bytes:
    return packet.replace(b"\xdb", b"\xdb\xdd").replace(END, b"\xdb\xdc")
