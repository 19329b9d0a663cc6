"""Which profile fits a unit that nobody knows: a few harmless reads, each profile's own signs of its model.

A profile says under `[identify]` what must be so (`fits`: a meter code, a
frequency near 50 Hz at the place where this model has it) and what must not
(`unless`: what tells a relative). No IO, no clock.
"""

from bega_protocols.ask import Ask
from bega_protocols.devices.modbus_meter.codec import registers
from bega_protocols.devices.modbus_meter.spot import (
    SPOT_KEYS,
    can_be,
    in_thousandths,
    is_exactly,
    question_for,
    read_spot,
)
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.settings import attempt

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from bega_protocols.devices.modbus_meter.spot import Spot

WAIT_MS = 1000
PAUSE_MS = 100  # nobody knows yet what rest this unit needs; the longest that a profile asks for
SILENCES = 2  # in a row: then it is silent, and every further question would cost a time-out
EXACT, NEAR = 10, 1  # what a sign weighs: a code of the maker's, a number that lies where it may


class Sign:
    """One thing to look at, and what it must be."""

    def __init__(self, spot: "Spot", values: "tuple[int | str, ...]", low: int, high: int) -> None:
        """values: one of them exactly; where there are none, between `low` and `high` in the meter's unit."""
        self.spot = spot
        self.values = values
        self.low = low
        self.high = high
        self.weight = EXACT if values else NEAR

    def holds(self, octets: bytes) -> bool:
        """Return whether these register bytes are such."""
        if self.values:
            return any(is_exactly(self.spot, octets, value) for value in self.values)
        found = in_thousandths(self.spot, octets)
        return found is not None and 1000 * self.low <= found <= 1000 * self.high


def identification(unit: int, profiles: "Mapping[str, Mapping[str, Any]]") -> "Generator[Ask, bytes | None, list[str]]":
    """Return the names of the `profiles` (parsed tables) that fit what stands at `unit`, best first.

    A profile without `[identify]` fits nothing. Each question is put once, however many profiles want its answer.
    Raises ConfigError if a profile's `[identify]` cannot be.
    """
    signs = {}
    for name in sorted(profiles):
        signs[name] = read_signs(profiles[name])
    said: dict[bytes, bytes | None] = {}  # question: register bytes, None where there was no answer or a refusal
    silences = 0
    found: list[tuple[int, str]] = []
    for name in sorted(signs):
        weight = 0
        for sign, is_wanted in signs[name]:
            asked = question_for(sign.spot)
            if asked not in said and silences < SILENCES:
                answer = yield Ask(asked, WAIT_MS, 2 + 2 * sign.spot.length, unit=unit, pause_ms=PAUSE_MS)
                silences = silences + 1 if answer is None else 0
                said[asked] = _octets(asked, answer)
            octets = said.get(asked)
            if (octets is not None and sign.holds(octets)) != is_wanted:
                weight = 0
                break
            weight += sign.weight if is_wanted else 0
        if weight and silences < SILENCES:
            found.append((-weight, name))
    return [name for _, name in sorted(found)]


def read_signs(table: "Mapping[str, Any]") -> "list[tuple[Sign, bool]]":
    """Return each sign with whether it must hold; none if the profile has no `[identify]`. Raises ConfigError."""
    section = table.get("identify")
    if section is None:
        return []
    if not isinstance(section, dict) or not section.get("fits"):
        raise ConfigError("profile: identify must list at least one sign under fits")
    problems = ["profile: identify: unknown key %s" % key for key in section if key not in ("fits", "unless")]
    signs: list[tuple[Sign, bool]] = []
    for key in ("fits", "unless"):
        entries = section.get(key, [])
        if not isinstance(entries, (list, tuple)):
            problems.append("profile: identify.%s must be a list of tables" % key)
            continue
        for index, entry in enumerate(entries):
            sign = attempt(problems, _read_sign, table, entry, "profile: identify.%s %d" % (key, index + 1))
            if sign:
                signs.append((sign, key == "fits"))
    if problems:
        raise ConfigError("\n".join(problems))
    return signs


def _read_sign(table: "Mapping[str, Any]", entry: "Any", place: str) -> Sign:
    if not isinstance(entry, dict):
        raise ConfigError("%s: must be a table" % place)
    unknown = [str(key) for key in entry if key not in SPOT_KEYS + ("is", "between")]
    if unknown:
        raise ConfigError("%s: unknown key %s" % (place, ", ".join(unknown)))
    spot = read_spot(table, entry, place)
    values: Any = entry.get("is", [])
    limits: Any = entry.get("between")
    if ("is" in entry) == ("between" in entry):
        raise ConfigError("%s: say either is = [values] or between = [low, high]" % place)
    if limits is None:
        if not isinstance(values, (list, tuple)) or not values or not all(can_be(spot, value) for value in values):
            raise ConfigError("%s: is must list values that the register can hold" % place)
        return Sign(spot, tuple(values), 0, 0)
    if not isinstance(limits, (list, tuple)) or len(limits) != 2 or not all(can_be(spot, limit) for limit in limits):
        raise ConfigError("%s: between must be [low, high], whole numbers" % place)
    return Sign(spot, (), limits[0], limits[1])


def _octets(asked: bytes, answer: "bytes | None") -> "bytes | None":
    if answer is None:
        return None
    try:
        return registers(asked, answer)
    except WireError:
        return None
