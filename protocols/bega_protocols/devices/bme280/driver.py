"""What to ask a BME280, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.bme280.codec import (
    ADDRESSES,
    ASLEEP_ONCE,
    CALIBRATION,
    CALIBRATION_SIZES,
    CHIP_ID,
    CTRL_HUM,
    CTRL_MEAS,
    FORCED_ONCE,
    HUMIDITY_ONCE,
    ID,
    MEASURING_MS,
    RESET,
    RESET_MS,
    RESET_WORD,
    SETTINGS_SIZE,
    VALUES,
    VALUES_SIZE,
    decode,
    decode_calibration,
)
from bega_protocols.doubt import Doubt
from bega_protocols.errors import WireError
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.devices.bme280.codec import Calibration
    from bega_protocols.driver import Aes, Exchange, Settings

    Step = Generator[Ask, "bytes | None", bool]

ENDS = {"temperature": (-4000, 8500), "pressure": (30000, 110000), "humidity": (0, 10000)}
STUCK_MS, STUCK_FRAMES = 60000, 10


class Driver:
    """A BME280 at `address`, woken for one measurement (x1, no filter) and asleep until the next.

    It has no check values, so all that counts is read twice and must agree.
    Its settings are looked at first: what lost its power, or was exchanged,
    has forgotten them, and its calibration is read anew.
    """

    line = "i2c 100000"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "address")
        self._address = whole_number(settings, "address", ADDRESSES[0], ADDRESSES[1], ADDRESSES[0])
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._calibration: "Calibration | None" = None
        self._first_block = b""
        self._offset = 0
        self._doubt = Doubt(stuck_ms=STUCK_MS, stuck_frames=STUCK_FRAMES, ends=ENDS)

    def measure(self, now_ms: int) -> "Exchange":
        """Measure once; return one group, or none if the chip kept silent or what it said cannot be."""
        ready = yield from self._is_ready()
        if not ready:
            ready = yield from self._begin()
        if not ready:
            return []
        if (yield self._write(CTRL_MEAS, FORCED_ONCE, MEASURING_MS)) is None:
            self._calibration = None
            return []  # its registers hold the values of last time
        values = yield self._read(VALUES, VALUES_SIZE)
        again = yield self._read(VALUES, VALUES_SIZE)
        if values is None or again is None:
            self._calibration = None
            return []
        try:
            if values != again:
                raise WireError("read twice, the values differ", values + again)
            readings = self._readings(values)
        except WireError as error:
            self.damaged.append((0, error))
            return []
        if not readings:
            return []
        judged = self._doubt.judge(readings, values, now_ms)
        self.attributes["doubt"] = self._doubt.why
        return [judged]

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of a chunk that holds the values; a chunk is what one transfer read.

        The length tells what it is: 26 and 7 bytes are the calibration, which
        must come first, 8 the values, 1 and 4 the chip's id and settings.
        """
        offset = self._offset
        self._offset += len(chunk)
        try:
            return self._heard(chunk)
        except WireError as error:
            self.damaged.append((offset, error))
            return []

    def _heard(self, chunk: bytes) -> "list[list[Reading]]":
        if len(chunk) == CALIBRATION_SIZES[0]:
            self._first_block = chunk
        elif len(chunk) == CALIBRATION_SIZES[1]:
            self._calibration = decode_calibration(self._first_block, chunk)
        elif len(chunk) == VALUES_SIZE:
            readings = self._readings(chunk)
            return [readings] if readings else []
        elif len(chunk) not in (0, 1, SETTINGS_SIZE):
            raise WireError("no BME280 answers with %d bytes" % len(chunk), chunk)
        return []

    def _is_ready(self) -> "Step":
        """Find out whether this is still the chip whose calibration we have, set as we left it."""
        if self._calibration is None:
            return False
        settings = yield self._read(CTRL_HUM, SETTINGS_SIZE)
        return settings is not None and (settings[0] & 7, settings[2:3]) == (HUMIDITY_ONCE, bytes((ASLEEP_ONCE,)))

    def _begin(self) -> "Step":
        """Reset the chip and read its calibration; return whether it is one, and whole."""
        self._calibration = None
        chip = yield self._read(ID, 1)
        if chip is None:
            return False
        try:
            if chip != bytes((CHIP_ID,)):
                raise WireError("no BME280, whose chip id is 60 (a BMP280 is often sold as one)", chip)
            yield self._write(RESET, RESET_WORD, RESET_MS)
            blocks = []
            for _ in range(2):
                for register, size in zip(CALIBRATION, CALIBRATION_SIZES):
                    block = yield self._read(register, size)
                    if block is None:
                        return False
                    blocks.append(block)
            if blocks[:2] != blocks[2:]:
                raise WireError("read twice, the calibration differs", blocks[0] + blocks[1])
            calibration = decode_calibration(blocks[0], blocks[1])
        except WireError as error:
            self.damaged.append((0, error))
            return False
        yield self._write(CTRL_HUM, HUMIDITY_ONCE, 0)
        self._calibration = calibration
        return True

    def _readings(self, values: bytes) -> "list[Reading]":
        if self._calibration is None:
            raise WireError("values, and no calibration before them", values)
        air = decode(values, self._calibration)
        measured = (
            ("temperature", air.temperature_ccel),
            ("humidity", air.humidity_cpct),
            ("pressure", air.pressure_pa),
        )
        return [Reading(quantity, value, -2) for quantity, value in measured if value is not None]

    def _read(self, register: int, size: int) -> Ask:
        return Ask(bytes((register,)), 0, size, address=self._address)

    def _write(self, register: int, value: int, wait_ms: int) -> Ask:
        return Ask(bytes((register, value)), wait_ms, 0, address=self._address)
