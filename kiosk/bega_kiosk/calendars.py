"""How each written language names days and months, writes a date, and marks decimals and thousands.

Spec: Unicode CLDR 47, calendars/gregorian (days and months "format", "wide"; dateFormats "long") and numbers (symbols).
The kiosk needs so little of it that it stands here; a test compares all of it with Babel's.
"""

from __future__ import annotations

from typing import NamedTuple


class Calendar(NamedTuple):
    """One language: names as they stand within a date; dates as patterns."""

    days: tuple[str, ...]  # Monday first
    months: tuple[str, ...]
    long: str  # 21 noiembrie 2026
    full: str  # the same with the name of the day before or behind it
    near: str  # without the year
    decimal: str
    group: str  # between thousands


def _calendar(days: str, months: str, long: str, full: str, near: str, marks: str) -> Calendar:
    return Calendar(tuple(days.split()), tuple(months.split()), long, full, near, marks[0], marks[1])


CALENDARS = {
    "ro": _calendar(
        "luni marți miercuri joi vineri sâmbătă duminică",
        "ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie noiembrie decembrie",
        "{day} {month} {year}",
        "{name}, {day} {month} {year}",
        "{name}, {day} {month}",
        ",.",
    ),
    "hu": _calendar(
        "hétfő kedd szerda csütörtök péntek szombat vasárnap",
        "január február március április május június július augusztus szeptember október november december",
        "{year}. {month} {day}.",
        "{year}. {month} {day}., {name}",
        "{month} {day}., {name}",
        ",\xa0",
    ),
    "de": _calendar(
        "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "{day}. {month} {year}",
        "{name}, {day}. {month} {year}",
        "{name}, {day}. {month}",
        ",.",
    ),
    "sr": _calendar(
        "понедељак уторак среда четвртак петак субота недеља",
        "јануар фебруар март април мај јун јул август септембар октобар новембар децембар",
        "{day}. {month} {year}.",
        "{name}, {day}. {month} {year}.",
        "{name}, {day}. {month}",
        ",.",
    ),
    "en": _calendar(
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "January February March April May June July August September October November December",
        "{day} {month} {year}",  # as in Britain: the day with its name has it so, too
        "{name}, {day} {month} {year}",
        "{name}, {day} {month}",
        ".,",
    ),
}  # by the language of its catalogue
