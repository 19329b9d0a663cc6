"""A timetable as a city publishes it: the files of a GTFS feed, zipped or in a folder, read a row at a time.

Spec: GTFS Schedule reference (gtfs.org/documentation/schedule/reference), sections Dataset Files and Field Types.
No row, no field and no file is longer than a bound, so that a zip of a few bytes cannot fill the memory.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bega_protocols.errors import WireError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MOST_UNPACKED = 2 << 30  # of one file: the stop times of all Germany are 2 GB
LONGEST_LINE = 100_000  # letters
LONGEST_REASON = 120
MOST_HOURS = 72  # of a service day: a night bus ends at 29:30, a train may travel for two days
TIME = re.compile(r"(\d{1,2}):([0-5]\d):([0-5]\d)")


class Feed:
    """One feed, opened."""

    def __init__(self, path: Path) -> None:
        """Open a zip or a folder; raises WireError if it is none."""
        self.path = path
        self._zip: ZipFile | None = None
        self._members: dict[str, ZipInfo] = {}
        if path.is_dir():
            return
        from zipfile import ZipFile  # a kiosk without a feed reads only the example, which is a folder

        try:
            self._zip = ZipFile(path)
            self._members = _members(self._zip)
        except FileNotFoundError:
            raise WireError(f"{path} is not there") from None
        except _broken() as error:
            raise WireError(f"{path.name} is no whole zip file: {_short(error)}") from None

    def close(self) -> None:
        """Let the file go."""
        if self._zip is not None:
            self._zip.close()

    def has(self, name: str) -> bool:
        """Return whether the feed has this file."""
        return name in self._members if self._zip is not None else (self.path / name).is_file()

    def rows(self, name: str, needed: str, also: str = "") -> Iterator[list[str]]:
        """Yield each row of a file: the fields `needed` (all must be columns) and `also`, "" where there are none.

        Raises WireError if the file is missing, cut, packed wrongly, or lacks a column.
        """
        if not self.has(name):
            raise WireError(f"{name} is missing")
        at = 1
        try:
            with self._text(name) as text:
                lines = csv.reader(_lines(text, name), skipinitialspace=True)
                header = [field.strip().lower() for field in next(lines, [])]
                missing = [field for field in needed.split() if field not in header]
                if missing:
                    raise WireError(f"{name} has no column {', '.join(missing)}")
                places = [header.index(field) if field in header else -1 for field in f"{needed} {also}".split()]
                width = len(header)
                for row in lines:
                    at += 1
                    if not row:
                        continue
                    if len(row) != width:
                        row = [*row, *[""] * (width - len(row))][:width]
                    row.append("")  # what a column that is not there says
                    yield [row[place].strip() for place in places]
        except _broken() as error:
            raise WireError(f"{name} cannot be read beyond row {at}: {_short(error)}") from None

    @contextmanager
    def _text(self, name: str) -> Iterator[io.TextIOWrapper]:
        raw: IO[bytes]
        if self._zip is None:
            raw = (self.path / name).open("rb")
        else:
            info = self._members[name]
            if info.file_size > MOST_UNPACKED:
                raise WireError(f"{name} says that it is {info.file_size >> 20} MB long")
            raw = self._zip.open(info)  # it gives no more bytes than it says there are
        with raw, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as text:
            yield text


def _members(packed: ZipFile) -> dict[str, ZipInfo]:
    """Return the files of a feed; many are zipped with their folder around them, some with an old feed in another."""
    folders: dict[str, dict[str, ZipInfo]] = {}
    for info in packed.infolist():
        folder, _, name = info.filename.replace("\\", "/").rpartition("/")
        folders.setdefault(folder, {})[name] = info
    feeds = [folder for folder, members in folders.items() if "stops.txt" in members]
    nearest = min(feeds or folders, key=lambda folder: (folder.count("/") + bool(folder), folder), default="")
    return folders.get(nearest, {})


def _broken() -> tuple[type[Exception], ...]:
    """Return what reading a file that somebody cut, damaged or made up may raise."""
    from zipfile import BadZipFile
    from zlib import error

    # The last two: a password, a way of packing that nobody knows.
    return (BadZipFile, error, EOFError, OSError, csv.Error, UnicodeError, RuntimeError, NotImplementedError)


def _short(error: Exception) -> str:
    """Return what is wrong, without the bytes that some errors carry."""
    return str(error)[:LONGEST_REASON] or type(error).__name__


def _lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise WireError(f"{name} has a line without end")
        if "\0" in line:
            raise WireError(f"{name} has bytes that are no text")
        yield line


def seconds_of(text: str) -> int:
    """Return a time of a service day in seconds: 25:10:00 is ten past one at night; raises ValueError."""
    found = TIME.fullmatch(text)
    if not found or int(found[1]) >= MOST_HOURS:
        raise ValueError(f"{text[:20]!r} is no time")
    return int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])


def day_of(text: str) -> date:
    """Return a day as in 20261122; raises ValueError."""
    if not re.fullmatch(r"[12]\d{7}", text):
        raise ValueError(f"{text[:20]!r} is no day")
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))
