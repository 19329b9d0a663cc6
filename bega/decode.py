"""`bega decode`: the readings in a capture, without a gateway and without hardware."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bega.devices import device_names, driver_class, load_driver, purpose_of, wire_of
from bega.overheard import Overheard
from bega.settings import parse_assignments
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, Reading, decimal_text, ucum

if TYPE_CHECKING:
    from bega_protocols.driver import Driver

DESCRIPTION = "Print the readings in a capture, one JSON object per line. Damaged frames are named on standard error."
EXAMPLE = """examples:
  bega decode pms5003 capture.bin
  cat telegram.txt | bega decode dsmr_p1
  echo 40 02 c4 09 03 bf 13 | bega decode bthome --hex
  bega decode modbus_meter capture.bin --set profile=sdm630 --set address=1
  cat /dev/ttyUSB0 | bega decode uplink       what our nodes and their gateway say on a serial line (docs/uplink.md)
  bega decode --list"""

PIECE_SIZE = 65536
UPLINK = "uplink"  # no device: the serial line of our own nodes


def main(argv: list[str]) -> int:
    """Return 0 if anything was decoded, 1 if nothing was or the command could not be carried out."""
    args = _parser().parse_intermixed_args(argv)  # else `pms5003 --hex FILE` is refused: both names are optional
    if args.list:
        print("\n".join(_rows()))
        return 0
    if args.device is None:
        print("bega decode: name a device; `bega decode --list` shows them", file=sys.stderr)
        return 2
    try:
        if args.device == UPLINK:
            return 0 if _print_overheard(_chunks(args.file, args.hex, True)) else 1
        driver = load_driver(args.device, parse_assignments(args.set))
        decoded = _print_all(driver, _chunks(args.file, args.hex, wire_of(type(driver)) != "ble"))
    except ConfigError as error:
        print(f"bega decode: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has had enough
            raise
        print(f"bega decode: cannot read {error.filename or 'standard input'}: {error.strerror}", file=sys.stderr)
        return 1
    for name, text in driver.attributes.items():
        if args.attributes:
            print(json.dumps({"attribute": name, "text": text}, ensure_ascii=False))
    sys.stdout.flush()
    return 0 if decoded else 1


def reading_json(reading: Reading) -> str:
    """Return {"quantity", "part", "value", "unit", "quality"} as JSON, part and quality only where they say something.

    The value is written as decimal text from value and exp10, never through a float.
    """
    fields = {"quantity": f'"{reading.quantity}"'}
    if reading.part:
        fields["part"] = f'"{reading.part}"'
    fields["value"] = decimal_text(reading.value, reading.exp10)
    fields["unit"] = f'"{ucum(reading.quantity)}"'
    if reading.quality != GOOD:
        fields["quality"] = str(reading.quality)
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


def _rows() -> list[str]:
    """Return a line for each device: its name, its usual line, and what it is."""
    drivers = [(name, driver_class(name).line, purpose_of(name)) for name in device_names()]
    wide, long = (max(len(row[column]) for row in drivers) for column in (0, 1))
    return [f"{name:{wide}}  {line:{long}}  {purpose}".rstrip() for name, line, purpose in drivers]


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
    parser.add_argument("--list", action="store_true", help="print every device: name, line, what it is")
    return parser


def _chunks(file: Path | None, is_hex: bool, is_stream: bool) -> Iterable[bytes]:
    """Yield the capture as the chunks that it was heard in; raises ConfigError if it is not what it is said to be.

    A stream comes as it comes, so that a port can be piped in; what has borders (BLE) and is not hex text is one chunk.
    """
    if file is not None and file.suffix == ".json":
        return _vector_frames(file)
    if is_hex:
        return _hex_lines(file)
    return _pieces(file) if is_stream else [_whole(file)]


def _pieces(file: Path | None) -> Iterator[bytes]:
    with _opened(file) as capture:
        while piece := capture.read1(PIECE_SIZE):  # type: ignore[attr-defined]  # typeshed keeps it off BinaryIO
            yield piece


def _whole(file: Path | None) -> bytes:
    with _opened(file) as capture:
        return capture.read()


def _opened(file: Path | None) -> BinaryIO:
    return sys.stdin.buffer if file is None else file.open("rb")


def _hex_lines(file: Path | None) -> list[bytes]:
    chunks = []
    for number, line in enumerate(_whole(file).splitlines(), start=1):
        try:
            chunks.append(bytes.fromhex(line.decode("ascii")))
        except ValueError:
            raise ConfigError(f"line {number} is not hex text: {line[:40].decode(errors='replace')!r}") from None
    return chunks


def _vector_frames(file: Path) -> list[bytes]:
    """Return the frames of a file of vectors, ours (`frame` or `chunks`) or captured (`frame`)."""
    try:
        vectors = json.loads(file.read_bytes())["vectors"]
        texts = [text for vector in vectors for text in (vector["chunks"] if "chunks" in vector else [vector["frame"]])]
        return [bytes.fromhex(text) for text in texts]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            f'{file} holds no vectors: {{"vectors": [{{"frame": "<hex text>"}}, ...]}} is wanted'
        ) from None


def _print_overheard(chunks: Iterable[bytes]) -> int:
    """Print what gateway and nodes say in the chunks; return the number of messages."""
    overheard = Overheard()
    heard = damaged = 0
    for chunk in chunks:
        for message in overheard.feed(chunk):
            readings = message.pop("readings", ())
            text = json.dumps(message, ensure_ascii=False)
            if readings:
                text = text[:-1] + ', "readings": [' + ", ".join(map(_known_json, readings)) + "]}"
            print(text)
            heard += 1
        sys.stdout.flush()
        for offset, damage in overheard.damaged:
            print(f"damaged before byte {offset}: {damage}", file=sys.stderr)
        damaged += len(overheard.damaged)
        overheard.damaged.clear()
    if not heard:
        why = f"{damaged} damaged" if damaged else "no session begins in this capture: restart the gateway meanwhile"
        print(f"bega decode: {why}", file=sys.stderr)
    return heard


def _known_json(reading: Reading) -> str:
    """Return `reading_json`; of a quantity that we do not know, as a newer node may have, only what was said."""
    try:
        return reading_json(reading)
    except KeyError:
        return json.dumps({"quantity": reading.quantity, "value": reading.value, "exp10": reading.exp10})


def _print_all(driver: Driver, chunks: Iterable[bytes]) -> int:
    """Print what the chunks hold, and name what is damaged; return the number of readings."""
    decoded = damaged = 0
    for chunk in chunks:
        groups = driver.feed(chunk, now_ms=0)
        for reading in (reading for group in groups for reading in group):
            print(reading_json(reading))
            decoded += 1
        sys.stdout.flush()  # a port that is piped in may be silent for long
        for offset, damage in driver.damaged:
            print(f"damaged at byte {offset}: {damage}", file=sys.stderr)
        damaged += len(driver.damaged)
        driver.damaged.clear()
    if damaged:
        print(f"{damaged} damaged", file=sys.stderr)
    elif not decoded:
        print("bega decode: nothing here that this device would send", file=sys.stderr)
    return decoded
