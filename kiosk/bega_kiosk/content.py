"""What the city tells its people and staff edit: TOML records, each with where it was seen and who checked it.

`kiosk/content/` holds the sample; `kiosk.content_dir` names the city's own. A file is read once, at the start. A
record with a mistake is left out and named with its place; all others are shown. Nobody rings every number each week:
what was checked too long ago counts as not checked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from bega.tables import Name, Table
from bega_kiosk.latin import to_latin

CHECK_LASTS = timedelta(days=365)
MOST_BYTES = 1_000_000  # of one file
MOST_RECORDS = 300  # of one kind
FORMS = "forms"  # the folder of files that can be printed
MOST_FORM_BYTES = 5_000_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Plain = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=300)]
Hour = Annotated[time, msgspec.Meta(tz=False)]  # of the clock of the city
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Days = Annotated[tuple[Day, ...], msgspec.Meta(min_length=1, max_length=7)]
Lei = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Address = Annotated[str, msgspec.Meta(pattern=r"^https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/-]*)?\Z", max_length=120)]
PdfName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,60}\.pdf\Z")]
Drawing = Literal["paper", "card", "family", "coins", "stamp", "flame", "wheelchair", "tramway", "voice", "person"]
Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9][0-9 ]{1,18}[0-9]\Z")]


class Said(Table, frozen=True, kw_only=True):
    """A text in every written language; Serbian in Latin letters is made from the Cyrillic."""

    ro: Plain
    hu: Plain
    de: Plain
    sr: Plain
    en: Plain


Wording = Plain | Said  # a name that is the same in every language is written once
Texts = Annotated[tuple[Wording, ...], msgspec.Meta(max_length=20)]


class Fact(Table, frozen=True, kw_only=True):
    """Where something was seen, and who asked whether it is so."""

    source: Plain
    seen_on: date
    checked_on: date | None = None
    checked_by: str = ""

    def is_checked(self, today: date) -> bool:
        """Return whether a person has checked it, not too long ago; a check in days to come means a wrong clock."""
        return self.checked_on is not None and self.checked_on <= today <= self.checked_on + CHECK_LASTS


class Phone(Fact, frozen=True, kw_only=True):
    """A telephone number, in groups of digits as it is read aloud."""

    number: Number


class Opening(Table, frozen=True, kw_only=True):
    """Hours that are the same on some days."""

    days: Days
    opens: Hour
    closes: Hour


class Hours(Fact, frozen=True, kw_only=True):
    """When somebody is there."""

    open: tuple[Opening, ...]

    def closing(self, moment: datetime) -> time | None:
        """Return when it closes, if it is open at `moment` of the local clock."""
        day, now = DAYS[moment.weekday()], moment.time().replace(tzinfo=None)
        return next((one.closes for one in self.open if day in one.days and one.opens <= now < one.closes), None)


class Record(Fact, frozen=True, kw_only=True):
    """One thing that a screen tells of."""

    id: Name


class Desk(Record, frozen=True, kw_only=True):
    """A place with somebody behind a counter."""

    name: Wording
    address: Wording
    phone: Phone | None = None
    hours: Hours | None = None


class Service(Record, frozen=True, kw_only=True):
    """An act or a service of the city: what for, what to bring, where, and what else to know."""

    title: Wording
    purpose: Texts = ()
    bring: Texts
    desks: tuple[Name, ...] = ()
    where: Texts = ()
    know: Texts = ()
    needs_appointment: bool | None = None  # left out: not known
    icon: Drawing = "paper"


class Form(Record, frozen=True, kw_only=True):
    """A form of a service: where it is opened at home, on which desk it lies, and as a file that can be printed."""

    title: Wording
    service: Name
    purpose: Texts = ()
    address: Address | None = None  # opened at home
    desks: tuple[Name, ...] = ()  # where it is given on paper
    file: PdfName | None = None  # in the folder forms/ beside the records


class Line(Record, frozen=True, kw_only=True):
    """Somebody who can be rung, and what to do besides."""

    name: Wording
    phone: Phone | None = None
    advice: Texts = ()


class Helper(Record, frozen=True, kw_only=True):
    """A person who can be asked at this kiosk."""

    name: Wording
    place: Wording | None = None
    hours: Hours | None = None
    phone: Phone | None = None


class Thing(Record, frozen=True, kw_only=True):
    """A kind of waste, and where it goes."""

    name: Wording
    where: Wording
    advice: Texts = ()


class Point(Record, frozen=True, kw_only=True):
    """Where bulky and electrical waste is taken."""

    address: Wording
    hours: Hours | None = None


class Collection(Record, frozen=True, kw_only=True):
    """On which days the waste of a street is collected."""

    street: Wording
    days: Days


class Job(Record, frozen=True, kw_only=True):
    """A notice of somebody who looks for workers."""

    title: Wording
    about: Texts = ()
    until: date
    pay_lei: Lei | None = None


class Consultation(Record, frozen=True, kw_only=True):
    """What city hall asks people before it decides."""

    title: Wording
    about: Texts
    changes: Texts = ()
    until: date


class Area(Record, frozen=True, kw_only=True):
    """A part of the city: some districts, on the schematic map in the order of the file."""

    name: Wording


class District(Record, frozen=True, kw_only=True):
    """A district, in its place within its area, and what the feed calls the places or devices that measure there."""

    name: Wording
    area: Name
    places: Annotated[tuple[Plain, ...], msgspec.Meta(max_length=20)] = ()


class Event(Record, frozen=True, kw_only=True):
    """Something to go to, by the clock of the city."""

    title: Wording
    place: Wording
    starts: Annotated[datetime, msgspec.Meta(tz=False)]
    price_lei: Lei | None = None  # 0: free
    access: Literal["step-free", "steps", "unknown"] = "unknown"


FILES: Mapping[str, Mapping[str, type[Record]]] = {
    "desks.toml": {"desk": Desk},
    "services.toml": {"service": Service},
    "forms.toml": {"form": Form},
    "numbers.toml": {"number": Line},
    "helpers.toml": {"helper": Helper},
    "waste.toml": {"thing": Thing, "point": Point, "day": Collection},
    "jobs.toml": {"job": Job},
    "consultations.toml": {"consultation": Consultation},
    "events.toml": {"event": Event},
    "districts.toml": {"area": Area, "district": District},
}
Kind = TypeVar("Kind", bound=Record)


class Content(msgspec.Struct, frozen=True):
    """Everything that was good in the files, in their order, and what was not."""

    records: Mapping[type[Record], Mapping[str, Record]]
    problems: list[str]

    def every(self, kind: type[Kind]) -> list[Kind]:
        """Return all records of a kind."""
        return [record for record in self.records.get(kind, {}).values() if isinstance(record, kind)]

    def find(self, kind: type[Kind], name: str) -> Kind | None:
        """Return the record of this name, None if there is none."""
        found = self.records.get(kind, {}).get(name)
        return found if isinstance(found, kind) else None

    def unchecked(self, today: date) -> list[str]:
        """Return what no person has checked yet, or not lately: "desk/dep phone"."""
        told = []
        for kind, records in self.records.items():
            for name, record in records.items():
                facts = {"": record} | {part: getattr(record, part, None) for part in ("phone", "hours")}
                told += [
                    f"{kind.__name__.lower()}/{name} {part}".rstrip()
                    for part, fact in facts.items()
                    if isinstance(fact, Fact) and not fact.is_checked(today)
                ]
        return told


def load_content(folder: Path) -> Content:
    """Return the content of a folder; a file that is not there has no records, one that is no TOML is a problem."""
    records: dict[type[Record], dict[str, Record]] = {}
    problems: list[str] = []
    for name, kinds in FILES.items():
        tables, why = _read(folder / name)
        problems += [f"{folder / name}: {why}"] if why else []
        for key in sorted(tables.keys() - kinds.keys()):
            problems.append(f"{folder / name}: {key}: unknown; known are {', '.join(kinds)}")
        for key, kind in kinds.items():
            good = records.setdefault(kind, {})
            for place, record, mistake in _understood(key, tables.get(key, []), kind):
                if record is not None and record.id in good:
                    mistake = f"there is another {record.id!r}"
                if mistake or record is None:
                    problems.append(f"{folder / name}: {place}: {mistake}")
                else:
                    good[record.id] = record
    problems += _astray(records, folder)
    return Content(records, problems)


def sample_folder() -> Path:
    """Return where the sample is: inside the package when installed from a wheel, beside it in the source."""
    here = Path(__file__).parent
    return here / "sample" if (here / "sample").is_dir() else here.parent / "content"


def said(wording: Wording, language: str) -> str:
    """Return a text in the language of a tag (see words.LANGUAGES)."""
    if isinstance(wording, str):
        return wording
    return to_latin(wording.sr) if language == "sr-Latn" else str(getattr(wording, language))


def texts_of(record: Table) -> Iterator[Wording]:
    """Yield every text of a record that a screen shows."""
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, Said):
                yield one
            elif isinstance(one, Table):
                yield from texts_of(one)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            return {}, f"is larger than {MOST_BYTES} bytes"
        return tomllib.loads(raw.decode("utf-8-sig")), ""
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a nest without end
        return {}, f"no TOML: {error}"


def _understood(key: str, rows: Any, kind: type[Kind]) -> Iterator[tuple[str, Kind | None, str]]:
    """Yield (place, record, "") or (place, None, mistake) for each [[key]] of a file."""
    if not isinstance(rows, list):
        yield key, None, f"write [[{key}]], with two brackets"
        return
    for index, row in enumerate(rows):
        name = row.get("id") if isinstance(row, dict) else None
        place = f"{key} {name}" if isinstance(name, str) else f"{key} number {index + 1}"
        if index >= MOST_RECORDS:
            yield place, None, f"there are more than {MOST_RECORDS}"
            return
        try:
            record = msgspec.convert(row, kind)
        except (msgspec.ValidationError, OverflowError) as error:
            yield place, None, _in_words(str(error))
            continue
        mistake = next(_nonsense(record), "")
        yield place, None if mistake else record, mistake


def _in_words(why: str) -> str:
    what, _, where = why.partition(" - at `$")
    where = re.sub(r"\[\.\.\.\]", "", where).strip("`.")
    return f"{where}: {what}" if where else what


def _nonsense(record: Table) -> Iterator[str]:
    """Yield what the types alone cannot know."""
    if isinstance(record, Fact) and record.checked_on is not None and not record.checked_by.strip():
        yield "checked_on needs checked_by"
    if isinstance(record, Form) and record.address is None and not record.desks:
        yield "give an address or a desk: whoever taps on it must be told where the form is"
    if isinstance(record, Opening) and record.closes <= record.opens:
        yield f"closes at {record.closes}, which is not after {record.opens}"
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, Table) and not isinstance(one, Said):
                yield from (f"{field.name}: {why}" for why in _nonsense(one))


def form_bytes(folder: Path, form: Form) -> bytes | None:
    """Return the file of a form, None where there is none that a printer would understand."""
    return pdf_bytes(folder / FORMS / form.file) if form.file is not None else None


def pdf_bytes(path: Path) -> bytes | None:
    """Return a PDF, None where it is not there, cut in half, too large, or something else."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_FORM_BYTES + 1)
    except OSError:
        return None
    # A PDF begins with "%PDF-" and ends with "%%EOF" (ISO 32000-1, 7.5.2 and 7.5.5; readers look at its last kilobyte).
    is_whole = raw.startswith(b"%PDF-") and b"%%EOF" in raw[-1024:] and len(raw) <= MOST_FORM_BYTES
    return raw if is_whole else None


def _form_problems(records: Mapping[type[Record], Mapping[str, Record]], folder: Path) -> Iterator[str]:
    for form in records.get(Form, {}).values():
        assert isinstance(form, Form)
        place = f"{folder / 'forms.toml'}: form {form.id}"
        if form.service not in records.get(Service, {}):
            yield f"{place}: there is no service {form.service!r}"
        yield from (f"{place}: there is no desk {desk!r}" for desk in form.desks if desk not in records.get(Desk, {}))
        if form.file is not None and form_bytes(folder, form) is None:
            yield f"{place}: {FORMS}/{form.file} is not there, or no whole PDF of at most {MOST_FORM_BYTES} bytes"


def _astray(records: Mapping[type[Record], Mapping[str, Record]], folder: Path) -> Iterator[str]:
    for service in records.get(Service, {}).values():
        for desk in getattr(service, "desks", []):
            if desk not in records.get(Desk, {}):
                yield f"{folder / 'services.toml'}: service {service.id}: there is no desk {desk!r}"
    yield from _form_problems(records, folder)
    for district in records.get(District, {}).values():
        area = getattr(district, "area", "")
        if area not in records.get(Area, {}):
            yield f"{folder / 'districts.toml'}: district {district.id}: there is no area {area!r}"
