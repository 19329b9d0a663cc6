"""`bega profile`: register maps of Modbus meters, Bega's and one's own: listed, shown, checked."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

from bega.devices import profile_names
from bega_protocols.devices.modbus_meter.block import Block
from bega_protocols.devices.modbus_meter.codec import FLOAT
from bega_protocols.devices.modbus_meter.commission import EVERYTHING, Setting, read_settings
from bega_protocols.devices.modbus_meter.plan import Plan, request_of
from bega_protocols.devices.modbus_meter.profile import Profile, Row, read_profile
from bega_protocols.errors import ConfigError
from bega_protocols.reading import QUANTITIES, decimal_text

DESCRIPTION = "Register maps of Modbus meters: list those that Bega brings, show one, check one of your own."
EXAMPLE = """examples:
  bega profile list
  bega profile show sdm630             # what it reads, in how many questions, and its file: a copy to begin with
  bega profile check boiler.toml       # with boiler.sim.toml, if it lies beside: registers, and what the display showed
  bega profile check boiler.toml --sim seen-on-site.toml

How to write one, from the maker's PDF to a running meter: docs/profiles.md."""

# What people write as a unit, counted in UCUM's unit of the quantity.
SHOWN = {
    "kW": Decimal(1000), "MW": Decimal(1000000), "kvar": Decimal(1000), "kVA": Decimal(1000), "kV": Decimal(1000),
    "mA": Decimal("0.001"), "kA": Decimal(1000), "Wh": Decimal("0.001"), "varh": Decimal("0.001"),
    "VAh": Decimal("0.001"),
    "MWh": Decimal(1000), "Mvarh": Decimal(1000), "%": Decimal("0.01"), "l": Decimal("0.001"),
}  # fmt: skip
OWN_PER_CENT = {"%"}  # quantities whose own unit is per cent are not divided
NONE_SHOWN = ("", "-", "--", "---", "EEE")
# Of these a register hardly counts whole ones: where no scale is given, it may have been forgotten.
FINE = {"voltage", "current", "frequency", "power_factor", "temperature"}


def main(argv: list[str]) -> int:
    """Return 0 if the command could be carried out and, for `check`, the profile has no problem."""
    args = _parser().parse_args(argv)
    try:
        if args.what == "list":
            return _list()
        if args.what == "show":
            return _show(args.name)
        return _check(args.file, args.sim)
    except (ConfigError, OSError) as error:
        print(f"bega profile: {error}", file=sys.stderr)
        return 1


def examine(text: str) -> tuple[list[str], list[str]]:
    """Return the problems and the warnings of a profile's text, each with its line in the file where it has one."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [str(error)], []
    problems: list[str] = []
    profile = _attempt(problems, read_profile, table)
    settings = _attempt(problems, read_settings, table)
    warnings = list(_doubts(table, profile, settings)) if profile and settings is not None else []
    return [_placed(text, problem) for problem in problems], [_placed(text, warning) for warning in warnings]


def compare(profile: Profile, paper: dict[str, Any]) -> list[str]:
    """Return where `profile` and the `paper` (registers as on the wire, and what the display shows) do not agree."""
    differences = []
    rows = {_name(row): row for row in profile.rows}
    seen = paper.get("registers", [])
    if not isinstance(seen, list) or not all(isinstance(entry, dict) for entry in seen):
        return ["registers must list tables"]
    for number, entry in enumerate(seen, start=1):
        row = rows.pop(str(entry.get("is")), None)
        place = f"register {number} ({entry.get('is')})"
        if row is None:
            differences.append(f"{place}: the profile has no such row, or it stands here twice")
            continue
        try:
            differences += [f"{place}: {difference}" for difference in _differences(row, entry, paper)]
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            differences.append(f"{place}: printed, hex and shows are wanted; {type(error).__name__}: {error}")
    return differences + [f"{name}: a row of the profile that is not listed" for name in rows]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega profile",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="list | show | check")
    commands.add_parser("list", help="the profiles that Bega brings")
    show = commands.add_parser("show", help="what a profile reads, and in how many questions")
    show.add_argument("name", help="a profile's name, or a .toml file")
    check = commands.add_parser("check", help="every problem of a profile of your own, and what it will ask")
    check.add_argument("file", type=Path, help="the .toml file")
    check.add_argument("--sim", type=Path, help="registers and what the display showed (else FILE's .sim.toml)")
    return parser


def _list() -> int:
    for name in profile_names():
        table = tomllib.loads(_file_of(name).read_text(encoding="utf-8"))
        print(f"{name:12}  {table['maker']:28}  {table['document']}")
    return 0


def _show(name: str) -> int:
    file = _file_of(name)
    text = file.read_text(encoding="utf-8-sig")
    problems, _ = examine(text)
    if problems:
        raise ConfigError("\n".join([f"{file}:", *problems]))
    _print_plan(tomllib.loads(text))
    print(f"\nThe file: {file}")
    return 0


def _check(file: Path, sim: Path | None) -> int:
    text = file.read_text(encoding="utf-8-sig")
    problems, warnings = examine(text)
    for line in [*(f"problem: {problem}" for problem in problems), *(f"warning: {warning}" for warning in warnings)]:
        print(f"{file}: {line}")
    if problems:
        return 1
    table = tomllib.loads(text)
    differences = _compared(read_profile(table), file, sim)
    _print_plan(table)
    for difference in differences:
        print(f"problem: {difference}")
    return 1 if differences else 0


def _compared(profile: Profile, file: Path, sim: Path | None) -> list[str]:
    """Return where profile and paper differ; say where there is no paper."""
    beside = file.with_name(f"{file.stem}.sim.toml")
    if sim is None and not beside.exists():
        print(f"Not compared with a display: {beside} is not there.\n")
        return []
    paper = sim or beside
    try:
        differences = compare(profile, tomllib.loads(paper.read_text(encoding="utf-8-sig")))
    except tomllib.TOMLDecodeError as error:
        differences = [str(error)]
    if not differences:
        print(f"Each of the {len(profile.rows)} rows reads as {paper} says that the display shows.\n")
    return [f"{paper}: {difference}" for difference in differences]


def _differences(row: Row, entry: dict[str, Any], paper: dict[str, Any]) -> Iterator[str]:
    address = entry["printed"] - paper.get("printed_minus_wire", 0)
    if (row.function, row.address) != (paper.get("function", row.function), address):
        yield (
            f"the profile reads it at {row.address} by function {row.function}, "
            f"here it is {address} by {paper.get('function')}"
        )
    octets = bytes.fromhex(entry["hex"])
    if len(octets) != 2 * row.length:
        yield f"the profile takes {row.length} registers, here are {len(octets) // 2}"
        return
    readings = Block(request_of([row], False), 1, 1, 0).readings(octets)
    shown, _, unit = str(entry["shows"]).strip().partition(" ")
    if shown in NONE_SHOWN:
        if readings:
            yield f"reads {decimal_text(readings[0].value, readings[0].exp10)}, the display shows nothing"
        return
    if not readings:
        yield f"gives no reading, the display shows {entry['shows']}"
        return
    factor = Decimal(1) if QUANTITIES[row.quantity][0] in OWN_PER_CENT else SHOWN.get(unit, Decimal(1))
    value = Decimal(readings[0].value).scaleb(readings[0].exp10) / factor
    if value.quantize(Decimal(shown)) != Decimal(shown):
        yield f"reads {value.normalize():f} {unit}, the display shows {entry['shows']}"


def _doubts(table: dict[str, Any], profile: Profile, settings: tuple[Setting, ...]) -> Iterator[str]:
    """Yield what may be meant so and rarely is."""
    if not any(character.isdigit() for character in table["document"]):
        yield "profile: document names no edition and no page"
    if "identify" not in table:
        yield "profile: without [identify] `bega gateway scan` does not find this model"
    for number, row in enumerate(profile.rows, start=1):
        place = f"profile: row {number} ({_name(row)})"
        if profile.even and (row.address % 2 or row.length % 2):
            yield f"{place}: even = true, and this row begins or ends at an odd register: its neighbour is read along"
        if row.kind != FLOAT and row.scale == 0 and row.quantity in FINE:
            unit = QUANTITIES[row.quantity][0]
            yield f"{place}: a whole number without scale: does the register really count whole {unit}?"
        if row.kind == FLOAT and row.exponent < -6:
            yield f"{place}: exponent {row.exponent}: a float32 has seven digits in all"
    read = {row.quantity for row in profile.rows} | {EVERYTHING}
    for setting in settings:
        for quantity in (*setting.leaves_out, *setting.makes_suspect):
            if quantity not in read:
                yield f"profile: settings ({setting.name}): {quantity} is not read by this profile"


def _print_plan(table: dict[str, Any]) -> None:
    """Print what is asked, and what each row becomes."""
    profile, settings = read_profile(table), read_settings(table)
    print(f"{profile.part}: {profile.maker}\n{table['document']}\n")
    for setting in settings:
        wanted = f", must be {' or '.join(str(value) for value in setting.must_be)}" if setting.must_be else ""
        spot = setting.spot
        when = "first" if setting.sign else "first and each hour"
        print(f"{when}: function {spot.function}, register {_places(spot)}: {setting.name.partition(' (')[0]}{wanted}")
    requests = Plan(profile.rows, profile.max_registers, profile.gap_registers, profile.even).requests
    print(f"each time: {len(requests)} question{'s' if len(requests) > 1 else ''}, {len(profile.rows)} numbers")
    for request in requests:
        along = request.length - sum(row.length for row in request.rows)
        extra = f", {along} of them read along" if along else ""
        print(f"\nfunction {request.function}, registers {_places(request)}: {request.length}{extra}")
        for row in request.rows:
            print(f"  {_row_line(row)}")


def _row_line(row: Row) -> str:
    unit = QUANTITIES[row.quantity][0]
    form = f"{row.kind} {16 * row.length}" + (", low word first" if row.low_word_first and row.length > 1 else "")
    counts = f"10^{row.scale} {unit}" if row.scale else unit
    rounded = f", rounded to 10^{row.exponent} {unit}" if row.kind == FLOAT else ""
    return f"0x{row.address:04X}  {_name(row):28} {form:32} in {counts}{rounded}"


def _places(stretch: Any) -> str:
    last = stretch.address + stretch.length - 1
    return f"0x{stretch.address:04X}" + (f" to 0x{last:04X}" if last > stretch.address else "")


def _name(row: Row) -> str:
    """Return what a row is called in a .sim.toml and in SenML: `voltage:l1`."""
    return f"{row.quantity}:{row.part}" if row.part else row.quantity


def _file_of(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    if name not in profile_names():
        raise ConfigError(f"there is no profile {name!r}; Bega brings {', '.join(profile_names())}")
    return Path(str(files("bega_protocols").joinpath("profiles", f"{name}.toml")))


def _attempt(problems: list[str], read: Any, table: dict[str, Any]) -> Any:
    try:
        return read(table)
    except ConfigError as error:
        problems += str(error).split("\n")
        return None


ENTRY = re.compile(r"profile: (row|settings|attributes|identify\.fits|identify\.unless) (\d+)")
ARRAYS = {"row": "registers", "identify.fits": "fits", "identify.unless": "unless"}


def _placed(text: str, problem: str) -> str:
    """Return `problem` with the line of the file in front, as far as it can be told."""
    found = ENTRY.match(problem)
    if found:
        lines = _entry_lines(text, ARRAYS.get(found[1], found[1]))
        number = int(found[2])
        if number <= len(lines):
            return f"line {lines[number - 1]}: {problem}"
    key = re.match(r"profile: (?:unknown key )?(\w+)", problem)
    for number, line in enumerate(text.splitlines(), start=1):
        if key and re.match(rf"\s*{key[1]}\s*=", line):
            return f"line {number}: {problem}"
    return problem


def _entry_lines(text: str, array: str) -> list[int]:
    """Return the lines on which the tables of an array begin: `[[array]]`, or `{` within `array = [...]`."""
    lines: list[int] = []
    depth = 0  # of brackets, inside the array
    for number, line in enumerate(text.splitlines(), start=1):
        bare = re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'', '""', line).partition("#")[0]
        if re.match(rf"\s*\[\[\s*{array}\s*\]\]", bare):
            lines.append(number)
            continue
        opening = re.match(rf"\s*{array}\s*=\s*\[", bare)
        if depth == 0 and not opening:
            continue
        rest = bare[opening.end() :] if depth == 0 and opening else bare
        depth = depth or 1
        for character in rest:
            if depth == 1 and character == "{":
                lines.append(number)
            depth += (character in "[{") - (character in "]}")
            if depth == 0:
                break
    return lines
