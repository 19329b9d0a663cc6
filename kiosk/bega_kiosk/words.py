"""The words of the pages, per language: catalogues, numbers, dates and ages, as a person of that language says them.

Catalogues are gettext's, one file a topic (kiosk/locale/<language>/LC_MESSAGES/<topic>.po), keyed by names as in
"air.title", whose first part is the topic. They are read as they are when the kiosk starts, so that there is nothing to
compile and nothing to forget to compile. A text that is to be heard otherwise than it is read has a second entry of the
same key, with the context "spoken".

Serbian is written in Cyrillic and read in both alphabets: its Latin texts are made from the Cyrillic ones, letter by
letter, so that they can never differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as CalendarDay
from datetime import datetime, tzinfo
from pathlib import Path

import msgspec

from bega_kiosk.calendars import CALENDARS
from bega_kiosk.catalogue import Catalogue, Text, read_po
from bega_kiosk.latin import to_latin
from bega_protocols.errors import ConfigError


class Language(msgspec.Struct, frozen=True):
    """How a language is called by those who speak it, and how it is written."""

    name: str
    catalogue: str  # whose texts and calendar it has
    is_in_latin: bool = False  # its texts are those, letter by letter in the other script


LANGUAGES = {
    "ro": Language("Română", "ro"),
    "hu": Language("Magyar", "hu"),
    "de": Language("Deutsch", "de"),
    "sr": Language("Српски", "sr"),
    "sr-Latn": Language("Srpski", "sr", is_in_latin=True),
    "en": Language("English", "en"),
}  # by the tag that an address and a page's lang take (BCP 47); the first is the default
DEFAULT = "ro"
SPOKEN = "spoken"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


class Words:
    """One language: its texts, and how it writes numbers, dates and ages."""

    def __init__(self, language: str, catalogue: Catalogue, zone: tzinfo) -> None:
        self.language = language
        self.is_read_by_a_native = not catalogue.review  # every text of it
        self._texts = catalogue.texts
        self._form_of = catalogue.form_of()
        self._calendar = CALENDARS[LANGUAGES[language].catalogue]
        self._in_script = to_latin if LANGUAGES[language].is_in_latin else str
        self._zone = zone

    def text(self, key: str, **values: str) -> str:
        """Return the text called `key` with its places filled; raises KeyError if the catalogue has none."""
        return self._found(key).forms[0].format(**values)

    def spoken(self, key: str, **values: str) -> str:
        """Return what is said where `text(key)` is shown: the same, unless the catalogue has it otherwise."""
        said = self._texts.get((SPOKEN, key)) or self._found(key)
        return said.forms[0].format(**values)

    def has(self, key: str) -> bool:
        """Return whether there is a text called `key`."""
        return (None, key) in self._texts

    def counted(self, key: str, count: float) -> str:
        """Return the text called `key` in the form that agrees with `count`, which fills the place {n}.

        A number with decimals takes the plural that has no "de" in Romanian: 8,5 micrograme, 23 de micrograme.
        """
        agrees_with = int(count) if count == int(count) else 2
        return self._found(key).forms[self._form_of(agrees_with)].format(n=self.number(count))

    def number(self, value: float, places: int = 1) -> str:
        """Return `value` with at most `places` decimals, and the decimal mark of the language."""
        whole, _, part = f"{round(value, places):,.{places}f}".partition(".")
        part = part.rstrip("0")
        written = whole.replace(",", self._calendar.group)
        return written + self._calendar.decimal + part if part else written

    def concentration(self, value: float) -> str:
        """Return a value that a person takes in at a glance: from 10 on without decimals."""
        return self.number(value, 0 if value >= 10 else 1)

    def date(self, at_ms: int) -> str:
        """Return the day, as in "sâmbătă, 21 noiembrie 2026"."""
        return self._dated(self._calendar.full, self.local(at_ms))

    def day(self, day: CalendarDay) -> str:
        """Return a day without the name it has in its week, as in "21 noiembrie 2026"."""
        return self._dated(self._calendar.long, day)

    def weekdays(self, first: int, last: int) -> str:
        """Return some days of the week (0 for Monday) that follow each other, as in "luni–vineri"."""
        names = self._calendar.days
        return self._in_script(names[first] if first == last else f"{names[first]}–{names[last]}")

    def near_date(self, at_ms: int) -> str:
        """Return the day without its year, as in "sâmbătă, 21 noiembrie"."""
        return self._dated(self._calendar.near, self.local(at_ms))

    def time(self, at_ms: int) -> str:
        """Return the time of day, as in "8:05"."""
        moment = self.local(at_ms)
        return f"{moment.hour}:{moment.minute:02d}"

    def ago(self, age_ms: int) -> str:
        """Return an age, as in "acum 2 minute"."""
        if age_ms < MINUTE_MS:
            return self.text("age.seconds")
        for key, unit_ms in (("age.days", DAY_MS), ("age.hours", HOUR_MS), ("age.minutes", MINUTE_MS)):
            if age_ms >= unit_ms:
                return self.counted(key, age_ms // unit_ms)
        raise AssertionError("an age of a minute has a unit")

    def local(self, at_ms: int) -> datetime:
        """Return a moment as the clock on the wall shows it."""
        return datetime.fromtimestamp(at_ms / 1000, self._zone)

    def _dated(self, pattern: str, day: CalendarDay) -> str:
        names = {"name": self._calendar.days[day.weekday()], "month": self._calendar.months[day.month - 1]}
        return self._in_script(pattern.format(day=day.day, year=day.year, **names))

    def _found(self, key: str) -> Text:
        found = self._texts.get((None, key))
        if found is None:
            raise KeyError(f"{self.language}: no text {key!r}")
        return found


def load_words(zone: tzinfo, folder: Path | None = None) -> Mapping[str, Words]:
    """Return the words of every language; raises ConfigError if a catalogue misses a text that another has."""
    folder = folder or locale_folder()
    catalogues = {language: read_catalogue(language, folder) for language in written_languages()}
    every = {key for catalogue in catalogues.values() for key in keys(catalogue)}
    problems = [
        f"{language}: {problem}"
        for language, catalogue in catalogues.items()
        for problem in catalogue_problems(catalogue, every)
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return {
        tag: Words(tag, _in_script_of(language, catalogues[language.catalogue]), zone)
        for tag, language in LANGUAGES.items()
    }


def written_languages() -> list[str]:
    """Return the languages that have catalogues of their own."""
    return [tag for tag, language in LANGUAGES.items() if not language.is_in_latin]


def topics(language: str, folder: Path) -> list[Path]:
    """Return the catalogues of a language, one a topic."""
    return sorted((folder / language / "LC_MESSAGES").glob("*.po"))


def read_catalogue(language: str, folder: Path) -> Catalogue:
    """Return all texts of a language; raises ConfigError if they cannot be read, or one stands in another's topic."""
    whole: Catalogue | None = None
    for path in topics(language, folder):
        topic = read_topic(path)
        if whole is None:
            whole = topic
            continue
        if topic.plural != whole.plural:
            raise ConfigError(f"{path}: its Plural-Forms are not those of the other topics")
        whole = whole._replace(texts=whole.texts | topic.texts, review=whole.review or topic.review)
    if whole is None:
        raise ConfigError(f"{folder / language}: there are no texts (LC_MESSAGES/*.po)")
    return whole


def read_topic(path: Path) -> Catalogue:
    """Return the texts of one file; raises ConfigError if it cannot be read, or has a text of another topic."""
    try:
        topic = read_po(path.read_text(encoding="utf-8"))
        topic.form_of()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    ours = path.stem + "."
    strays = [key for _, key in topic.texts if not key.startswith(ours)]
    if strays:
        raise ConfigError(f"{path}: {strays[0]} is a text of another topic")
    return topic


def reviews(folder: Path | None = None) -> dict[str, dict[str, str]]:
    """Return {language: {topic: who still has to read it, "" where a native reader has signed}}."""
    folder = folder or locale_folder()
    return {
        language: {path.stem: read_topic(path).review for path in topics(language, folder)}
        for language in written_languages()
    }


def _in_script_of(language: Language, catalogue: Catalogue) -> Catalogue:
    if not language.is_in_latin:
        return catalogue
    texts = {name: text._replace(forms=tuple(map(to_latin, text.forms))) for name, text in catalogue.texts.items()}
    return catalogue._replace(texts=texts)


def catalogue_problems(catalogue: Catalogue, every: set[str]) -> list[str]:
    """Return what is missing, empty or only guessed (fuzzy) in `catalogue`, which should have `every` text."""
    problems = [f"{key} is missing" for key in sorted(every - set(keys(catalogue)))]
    for (_, key), text in catalogue.texts.items():
        if not all(text.forms):
            problems.append(f"{key} has no words")
        if text.is_guessed:
            problems.append(f"{key} is marked fuzzy")
        if text.is_counted and len(text.forms) != catalogue.form_count:
            problems.append(f"{key} has {len(text.forms)} forms, not {catalogue.form_count}")
    return problems


def locale_folder() -> Path:
    """Return where the catalogues are: inside the package when installed from a wheel, beside it in the source."""
    here = Path(__file__).parent
    return here / "locale" if (here / "locale").is_dir() else here.parent / "locale"


def keys(catalogue: Catalogue, context: str | None = None) -> set[str]:
    """Return the names of the texts that a catalogue has in this context."""
    return {key for within, key in catalogue.texts if within == context}
