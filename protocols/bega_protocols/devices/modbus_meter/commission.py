"""What a meter says of itself, and how a technician has set it, read before its numbers are believed.

Some settings change what registers mean: a prefix makes MWh of kWh, a word
order swaps every float. They are read at the first measurement, after a
silence (the meter may be another one), and each hour. What a wrong one spoils
is left out, or handed on as suspect where it is right for most sites, and the
technician is told what to set. Texts such as the serial number are read along.
So are the signs of the model: what another device answers is suspect as a
whole. No IO, no clock.
"""

from collections import namedtuple

from bega_protocols.ask import Ask
from bega_protocols.devices.modbus_meter.codec import registers
from bega_protocols.devices.modbus_meter.identify import read_signs
from bega_protocols.devices.modbus_meter.spot import (
    SPOT_KEYS,
    TEXT,
    can_be,
    is_exactly,
    question_for,
    read_spot,
    text_of,
)
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.modbus_rtu import EXCEPTION
from bega_protocols.reading import QUANTITIES, SUSPECT, Reading
from bega_protocols.settings import attempt

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any, NamedTuple

    from bega_protocols.devices.modbus_meter.identify import Sign
    from bega_protocols.devices.modbus_meter.profile import Profile
    from bega_protocols.devices.modbus_meter.spot import Spot

    class Setting(NamedTuple):
        """A setting, a text of the meter, on which nothing hangs, or a sign of its model."""

        name: str
        spot: Spot
        must_be: tuple[int | str, ...]  # empty for a text
        absent: tuple[bytes, ...]  # register bytes of a meter that has no such setting
        otherwise: str  # what any other value means, and what to set
        leaves_out: tuple[str, ...]  # quantities, or EVERYTHING, that are given only while the setting is right
        makes_suspect: tuple[str, ...]
        sign: tuple[Sign, bool] | None  # what tells the model, and whether it must be so

else:
    Setting = namedtuple(
        "Setting",
        ("name", "spot", "must_be", "absent", "otherwise", "leaves_out", "makes_suspect", "sign"),
    )

EVERY_MS = 3600000
WRONG_EVERY_MS = 60000  # a technician who stands there wants to see that it helped
PATIENCE = 3  # measurements that end at a question before it is put last
UNKNOWN, RIGHT, WRONG, UNTOLD = 0, 1, 2, 3
SETTING_KEYS = ("name", "must_be", "absent", "otherwise", "leaves_out", "makes_suspect")
NO_ANSWER = "no answer"
EVERYTHING = "*"


def read_settings(table: "Mapping[str, Any]") -> "tuple[Setting, ...]":
    """Return signs, `settings` and `attributes` of a profile; raises ConfigError that names each problem's place."""
    problems: list[str] = []
    found: list[Setting] = []
    advice = "this is no %s; check address and profile" % table.get("maker")
    for sign, is_wanted in attempt(problems, read_signs, table) or []:
        name = "model (function %d, register 0x%04X)" % (sign.spot.function, sign.spot.address)
        found.append(Setting(name, sign.spot, (), (), advice, (), (EVERYTHING,), (sign, is_wanted)))
    for key in ("settings", "attributes"):
        entries = table.get(key, [])
        if not isinstance(entries, (list, tuple)):
            problems.append("profile: %s must be a list of tables" % key)
            continue
        for index, entry in enumerate(entries):
            place = "profile: %s %d" % (key, index + 1)
            setting = attempt(problems, _read_setting, table, entry, place, key == "settings")
            if setting and setting.name in [other.name for other in found]:
                problems.append("%s: repeats %s" % (place, setting.name))
            elif setting:
                found.append(setting)
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(found)


class Commission:
    """What is known of one meter, its model and its settings, and what that leaves of its readings."""

    def __init__(self, settings: "tuple[Setting, ...]", unit: int, profile: "Profile") -> None:
        self._settings = settings
        self._line = (unit, profile.wait_ms, profile.pause_ms)
        self._left = list(settings)  # to ask still
        self._verdicts = dict.fromkeys([setting.name for setting in settings], UNKNOWN)
        self._wrong: dict[str, str] = {}  # setting: what to do
        self._read_ms = 0
        self._silences = 0
        self._left_out: set[str] = set()
        self._suspect: set[str] = set()
        self._reckon()

    def comes_first(self, now_ms: int) -> bool:
        """Return whether to ask before the numbers; what was answered is asked again after an hour."""
        if self._settings and not self._left:
            pause_ms = WRONG_EVERY_MS if self._wrong else EVERY_MS
            if not 0 <= now_ms - self._read_ms < pause_ms:  # a clock that steps brings a question early: no harm
                self._left = [setting for setting in self._settings if not self._is_settled(setting)]
        return bool(self._left) and self._silences < PATIENCE

    def comes_last(self) -> bool:
        """Return whether to ask behind the numbers: they show that the meter lives, and is silent upon this alone."""
        return bool(self._left) and self._silences >= PATIENCE

    def forget(self) -> None:
        """Note that the meter was silent: the one that answers next may be another, or set otherwise."""
        self._left = list(self._settings)
        for name in self._verdicts:
            self._verdicts[name] = UNKNOWN
        self._reckon()

    def ask(
        self, now_ms: int, attributes: "dict[str, str]", damaged: "list[tuple[int, WireError]]"
    ) -> "Generator[Ask, bytes | None, bool]":
        """Ask for what is left, note it in `attributes` and `damaged`, and return whether all was answered.

        A refusal is an answer: the meter has no such setting. So is a silence where others are answered. Who refuses
        what its model has is another model.
        """
        unit, wait_ms, pause_ms = self._line
        while self._left:
            setting = self._left[0]
            asked = question_for(setting.spot)
            answer = yield Ask(asked, wait_ms, 2 + 2 * setting.spot.length, unit=unit, pause_ms=pause_ms)
            if answer is None and self._silences < PATIENCE:
                self._silences += 1
                if self._silences == 2:
                    self.forget()
                return False
            del self._left[0]
            if answer is None:  # the numbers were answered; the next of these is put behind those of next time
                self._untold(setting, NO_ANSWER, attributes)
                break
            try:
                octets = registers(asked, answer)
            except WireError as error:
                if len(answer) != 2 or not answer[0] & EXCEPTION:
                    damaged.append((0, error))
                    self._left.insert(0, setting)
                    return False  # out of step: nothing that follows can be trusted
                if setting.sign and setting.sign[1]:
                    self._is_wrong(setting, error.why, answer, attributes, damaged)
                else:
                    self._untold(setting, error.why, attributes)
                continue
            self._told(setting, octets, attributes, damaged)
        if not self._left:
            self._silences = 0
        self._read_ms = now_ms
        self._reckon()
        return not self._left

    def fit(self, readings: "list[Reading]") -> "list[Reading]":
        """Return the readings that the meter's settings let stand, the doubtful ones marked."""
        if not self._left_out and not self._suspect:
            return readings
        if EVERYTHING in self._left_out:
            return []
        fitting = []
        for reading in readings:
            if reading.quantity in self._left_out:
                continue
            if reading.quantity in self._suspect or EVERYTHING in self._suspect:
                reading = Reading(reading.quantity, reading.value, reading.exp10, reading.part, SUSPECT)
            fitting.append(reading)
        return fitting

    def to_set(self) -> "list[str]":
        """Return what a technician has to set on the meter, in words."""
        return [self._wrong[name] for name in sorted(self._wrong)]

    def _is_settled(self, setting: Setting) -> bool:
        """A meter does not become another one without a silence: its model is looked at once."""
        return setting.sign is not None and self._verdicts[setting.name] != WRONG

    def _told(
        self,
        setting: Setting,
        octets: bytes,
        attributes: "dict[str, str]",
        damaged: "list[tuple[int, WireError]]",
    ) -> None:
        if octets in setting.absent:
            self._untold(setting, "no such setting", attributes)
            return
        text = text_of(setting.spot, octets)
        if _is_right(setting, octets):
            self._verdicts[setting.name] = RIGHT
            self._wrong.pop(setting.name, None)
            if setting.sign:
                attributes.pop(setting.name, None)
            else:
                attributes[setting.name] = text
            return
        self._is_wrong(setting, text, octets, attributes, damaged)

    def _is_wrong(
        self,
        setting: Setting,
        text: str,
        octets: bytes,
        attributes: "dict[str, str]",
        damaged: "list[tuple[int, WireError]]",
    ) -> None:
        advice = "%s is %s: %s" % (setting.name, text, setting.otherwise)
        if self._wrong.get(setting.name) != advice:
            damaged.append((0, WireError(advice, octets)))
        self._verdicts[setting.name] = WRONG
        self._wrong[setting.name] = advice
        attributes[setting.name] = "%s: %s" % (text, setting.otherwise)

    def _untold(self, setting: Setting, why: str, attributes: "dict[str, str]") -> None:
        self._verdicts[setting.name] = UNTOLD
        self._wrong.pop(setting.name, None)
        attributes.pop(setting.name, None)
        if setting.must_be:
            wanted = " or ".join([str(value) for value in setting.must_be])
            attributes[setting.name] = "not told (%s): make sure on the meter that it is %s, if it has it" % (
                why,
                wanted,
            )

    def _reckon(self) -> None:
        self._left_out = set()
        self._suspect = set()
        for setting in self._settings:
            if self._verdicts[setting.name] in (UNKNOWN, WRONG):
                self._left_out.update(setting.leaves_out)
                self._suspect.update(setting.makes_suspect)


def _is_right(setting: Setting, octets: bytes) -> bool:
    if setting.sign:
        sign, is_wanted = setting.sign
        return sign.holds(octets) == is_wanted
    return not setting.must_be or any(is_exactly(setting.spot, octets, value) for value in setting.must_be)


def _read_setting(table: "Mapping[str, Any]", entry: "Any", place: str, is_setting: bool) -> Setting:
    """Return one setting, or one text of the meter; raises ConfigError with a line for each problem."""
    if not isinstance(entry, dict):
        raise ConfigError("%s: must be a table" % place)
    problems: list[str] = []
    name: Any = entry.get("name")
    if not isinstance(name, str) or not name:
        problems.append("%s: name must be a text" % place)
    else:
        place = "%s (%s)" % (place, name)
    known = SPOT_KEYS + (SETTING_KEYS if is_setting else ("name",))
    unknown = [str(key) for key in entry if key not in known]
    if unknown:
        problems.append("%s: unknown key %s" % (place, ", ".join(unknown)))
    spot = attempt(problems, read_spot, table, entry, place)
    if problems or not is_setting:
        if problems:
            raise ConfigError("\n".join(problems))
        return Setting(name, spot, (), (), "", (), (), None)
    must_be: Any = entry.get("must_be")
    if spot.kind == TEXT:
        problems.append("%s: a text has no right value" % place)
    elif not isinstance(must_be, (list, tuple)) or not must_be or not all(can_be(spot, value) for value in must_be):
        problems.append("%s: must_be must list whole numbers that the register can hold" % place)
    otherwise: Any = entry.get("otherwise")
    if not isinstance(otherwise, str) or not otherwise:
        problems.append("%s: otherwise must say what another value means and what to set" % place)
    absent = attempt(problems, _absent, entry.get("absent", ()), spot.length, place)
    lists = []
    for key in ("leaves_out", "makes_suspect"):
        lists.append(attempt(problems, _quantities, entry.get(key, ()), "%s: %s" % (place, key)))
    if problems:
        raise ConfigError("\n".join(problems))
    leaves_out, makes_suspect = lists
    if not leaves_out and not makes_suspect:  # nothing said: it spoils everything
        leaves_out = (EVERYTHING,)
    return Setting(name, spot, tuple(must_be), absent, otherwise, leaves_out, makes_suspect, None)


def _absent(texts: "Any", length: int, place: str) -> "tuple[bytes, ...]":
    found = []
    for text in texts if isinstance(texts, (list, tuple)) else [texts]:
        try:
            octets = bytes.fromhex(text)
        except (ValueError, TypeError):
            octets = b""
        if len(octets) != 2 * length:
            raise ConfigError("%s: absent must be a list of hex texts of %d registers" % (place, length))
        found.append(octets)
    return tuple(found)


def _quantities(names: "Any", place: str) -> "tuple[str, ...]":
    """Return the quantities that a setting spoils; whether the profile reads them is for `bega profile check`."""
    if not isinstance(names, (list, tuple)):
        raise ConfigError("%s must list quantities" % place)
    for name in names:
        if not isinstance(name, str) or name not in QUANTITIES:
            raise ConfigError("%s: there is no quantity %r" % (place, name))
    return tuple(names)
