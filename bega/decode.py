"""`bega decode`: the readings in a capture, without a gateway and without hardware."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, QUANTITIES, Reading, decimal_text

from bega.devices import device_names, load_driver
from bega.settings import parse_assignments

if TYPE_CHECKING:
    from bega_protocols.driver import Driver

DESCRIPTION = "Print the readings in a capture, one JSON object per line. Damaged frames are named on standard error."
EXAMPLE = """examples:
  bega decode pms5003 capture.bin
  cat telegram.txt | bega decode dsmr_p1
  echo 40 02 c4 09 03 bf 13 | bega decode bthome --hex
  bega decode modbus_meter capture.bin --set profile=sdm630 --set address=1
  bega decode --list"""


def main(argv: list[str]) -> int:
    """Return 0 if anything was decoded, 1 if nothing was or the command could not be carried out."""
    args = _parser().parse_args(argv)
    if args.list:
        print("\n".join(device_names()))
        return 0
    if args.device is None:
        print("bega decode: name a device; `bega decode --list` shows them", file=sys.stderr)
        return 2
    try:
        driver = load_driver(args.device, parse_assignments(args.set))
        chunks = _chunks(args.file, args.hex)
    except (ConfigError, OSError) as error:
        print(f"bega decode: {error}", file=sys.stderr)
        return 1
    decoded = sum(_print_readings(driver, chunk) for chunk in chunks)
    for name, text in driver.attributes.items():
        if args.attributes:
            print(json.dumps({"attribute": name, "text": text}, ensure_ascii=False))
    for offset, damage in driver.damaged:
        print(f"damaged at byte {offset}: {damage}", file=sys.stderr)
    if driver.damaged:
        print(f"{len(driver.damaged)} damaged", file=sys.stderr)
    return 0 if decoded else 1


def reading_json(reading: Reading) -> str:
    """Return {"quantity", "part", "value", "unit", "quality"} as JSON, part and quality only where they say something.

    The value is written as decimal text from value and exp10, never through a float.
    """
    fields = {"quantity": f'"{reading.quantity}"'}
    if reading.part:
        fields["part"] = f'"{reading.part}"'
    fields["value"] = decimal_text(reading.value, reading.exp10)
    fields["unit"] = f'"{QUANTITIES[reading.quantity][0]}"'
    if reading.quality != GOOD:
        fields["quality"] = str(reading.quality)
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega decode",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("device", nargs="?", help="a device's name, as in a gateway's configuration")
    parser.add_argument(
        "file", nargs="?", type=Path, help="the capture (a .json is read as vectors); or standard input"
    )
    parser.add_argument("--hex", action="store_true", help="the capture is hex text; each line is one chunk")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the device")
    parser.add_argument("--attributes", action="store_true", help="also print the texts that a device tells of itself")
    parser.add_argument("--list", action="store_true", help="print the names of all devices")
    return parser


def _chunks(file: Path | None, is_hex: bool) -> list[bytes]:
    """Return the capture as the chunks that it was heard in; raises ConfigError if it is not what it is said to be."""
    if file is not None and file.suffix == ".json":
        return _vector_frames(file)
    raw = sys.stdin.buffer.read() if file is None else file.read_bytes()
    if not is_hex:
        return [raw]
    chunks = []
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            chunks.append(bytes.fromhex(line.decode("ascii")))
        except ValueError:
            raise ConfigError(f"line {number} is not hex text: {line[:40]!r}") from None
    return chunks


def _vector_frames(file: Path) -> list[bytes]:
    try:
        return [bytes.fromhex(vector["frame"]) for vector in json.loads(file.read_bytes())["vectors"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} holds no vectors ({error!r})") from None


def _print_readings(driver: Driver, chunk: bytes) -> int:
    """Print what `chunk` holds and return how many readings that were."""
    readings = [reading for group in driver.feed(chunk, now_ms=0) for reading in group]
    for reading in readings:
        print(reading_json(reading))
    return len(readings)
