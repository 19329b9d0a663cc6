"""What the tests of all devices share: the book of each folder, frames captured elsewhere, and a line made of code."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import bega_protocols.devices
from bega.devices import aes_block_cipher, device_names, driver_class, load_driver, must_be_asked, with_profile
from bega_protocols.ask import Ask
from bega_protocols.reading import Reading

ROOT = Path(__file__).parent.parent
FOLDER = Path(bega_protocols.devices.__file__).parent
MICROPYTHON = Path(sys.executable).with_name("micropython")
CAPTURED = Path(os.environ.get("BEGA_VECTORS", ROOT.parent / "shared" / "vectors"))
NO_CAPTURED = f"no captured frames in {CAPTURED}: set BEGA_VECTORS to the folder that holds them"

NOW_MS = 1_790_000_000_000
MINUTE_MS = 60_000
MOST_QUESTIONS = 2000  # of one measurement; a driver that asks for ever holds its line for ever


def read_book(device: str) -> dict[str, Any]:
    """Return the device's vectors.json, an empty one where it cannot be read: that folder fails its own tests alone."""
    try:
        return json.loads((FOLDER / device / "vectors.json").read_text())
    except (OSError, ValueError):
        return {"sim": {"settings": {}, "set": []}, "vectors": []}


BOOKS = {name: read_book(name) for name in device_names()}


class Captured(NamedTuple):
    """Frames that a real device sent, kept outside the repository, and what its `outside` entry says of them."""

    device: str
    name: str
    settings: dict[str, Any]
    chunks: list[bytes]
    reads: list[tuple[str, str, Decimal, Decimal]]  # quantity, part, value, and by how much it may differ
    groups: int | None  # how many come out, where the entry says


def chunks_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(chunk) for chunk in vector.get("chunks", [vector.get("frame", "")])]


def groups_of(vector: dict[str, Any]) -> list[list[Reading]]:
    rows = vector["groups"] if "groups" in vector else [vector["readings"]]
    return [[Reading(*row) for row in group] for group in rows]


def exact(reading: Reading) -> Decimal:
    return Decimal(reading.value).scaleb(reading.exp10)


def hear(driver: Any, chunks: list[bytes]) -> list[list[Reading]]:
    return [group for chunk in chunks for group in driver.feed(chunk, NOW_MS)]


def wire_of(device: str) -> str:
    return driver_class(device).line.split()[0]


def who_offers(method: str) -> list[str]:
    """Return the devices whose driver, set up as its book says, has this method.

    What cannot be set up fails elsewhere, by itself.
    """
    found = []
    for name in device_names():
        with contextlib.suppress(Exception):
            found += [name] if hasattr(sim_driver(name), method) else []
    return found


def is_stream(device: str) -> bool:
    """Return whether frames follow each other without a border that the line keeps.

    An advertisement comes whole, and so does what one transfer on an I2C bus reads.
    """
    return wire_of(device) not in ("ble", "i2c")


def make_sim(device: str, seed: int = 1) -> Any:
    sim = import_module(f"bega_protocols.devices.{device}.sim").Sim
    return sim(with_profile(BOOKS[device]["sim"]["settings"]), seed, aes_block_cipher)


def set_as_booked(device: str, sim: Any) -> Any:
    for quantity, part, value in BOOKS[device]["sim"]["set"]:
        sim.set(quantity, part, Decimal(value))
    return sim


def sim_driver(device: str) -> Any:
    return load_driver(device, BOOKS[device]["sim"]["settings"])


def question_of(ask: Ask) -> bytes:
    """Return what the simulator is asked: the bytes, behind the characteristic where the line has such."""
    characteristic = ask.line.get("characteristic")
    if characteristic is None:
        return ask.write
    return characteristic.to_bytes(2 if characteristic < 1 << 16 else 16, "big") + ask.write


def drive(measurement: Any, answer: Callable[[Ask], bytes | None]) -> list[list[Reading]]:
    """Carry one measurement or action to its end, `answer` being the line; return what it gives."""
    try:
        ask = next(measurement)
        for _ in range(MOST_QUESTIONS):
            ask = measurement.send(answer(ask))
    except StopIteration as stop:
        return stop.value or []
    raise AssertionError(f"asks more than {MOST_QUESTIONS} questions at a stretch")


def through(ask: Ask, said: bytes | None, wire: str, pieces: Callable[[int], int] = lambda left: left) -> bytes | None:
    """Return what a line of this kind makes of what was `said` (see ask.py); `pieces(left)` is how much comes at once.

    A serial line stops when the answer is complete and gives what there is; I2C clocks out as many bytes as were
    asked for, ones where nobody drives the bus; elsewhere an answer comes whole or not at all.
    """
    if ask.read == 0:
        return None if wire == "i2c" and said is None else b""
    if not said:
        return None
    if wire == "i2c":
        return (said + b"\xff" * ask.read)[: ask.read]
    if wire not in ("serial", "mbus"):
        return said
    so_far = b""
    while said and not (so_far and ask.complete(so_far)):
        size = max(1, pieces(len(said)))
        so_far, said = so_far + said[:size], said[size:]
    return so_far


def converse(driver: Any, sim: Any) -> list[list[Reading]]:
    """Carry each Ask of one measurement to the simulator and its answer back."""
    wire = driver.line.split()[0]
    return drive(driver.measure(NOW_MS), lambda ask: through(ask, sim.answer(question_of(ask)), wire))


def listen(driver: Any, sim: Any) -> list[list[Reading]]:
    """Let the device speak for a minute."""
    return hear(driver, [sim.tick(NOW_MS + ms) for ms in range(0, MINUTE_MS, 250)])


def exchange(driver: Any, sim: Any) -> list[list[Reading]]:
    return converse(driver, sim) if must_be_asked(driver) else listen(driver, sim)


def captured() -> list[Captured]:
    """Return every captured frame that a folder calls its own; nothing where the folder of them is missing."""
    if not CAPTURED.is_dir():
        return []
    return [case for device in BOOKS for entry in BOOKS[device].get("outside", []) for case in _read(device, entry)]


def claimed_files() -> set[Path]:
    """Return the captured files that some device reads."""
    return {
        file for book in BOOKS.values() for entry in book.get("outside", []) for file in CAPTURED.glob(entry["file"])
    }


def _read(device: str, entry: dict[str, Any]) -> Iterator[Captured]:
    settings = entry.get("settings", {})
    stated = [
        (row.quantity, row.part, exact(row), Decimal(0)) for row in (Reading(*row) for row in entry.get("readings", []))
    ]
    for file in sorted(CAPTURED.glob(entry["file"])):
        if file.suffix != ".json":
            octets = file.read_bytes()
            chunks = [bytes.fromhex(octets.decode()) if file.suffix == ".hex" else octets]
            yield Captured(device, file.name, settings, chunks, stated, entry.get("groups"))
            continue
        for number, vector in enumerate(json.loads(file.read_text())["vectors"]):
            reads = [
                (quantity, part, Decimal(str(vector["reads"][name])), _half_step(vector["reads"][name]))
                for name, (quantity, part) in entry["reads"].items()
            ]
            name = f"{file.name} {number}"
            yield Captured(device, name, settings, [bytes.fromhex(vector["frame"])], reads, entry.get("groups", 1))


def _half_step(shown: float) -> Decimal:
    """Return how much a figure that was rounded for show may differ from the device's own."""
    return Decimal(5).scaleb(Decimal(str(shown)).as_tuple().exponent - 1)
