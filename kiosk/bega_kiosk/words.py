"""The words of the pages, per language: catalogues, numbers, dates and ages, as a person of that language says them.

Catalogues are gettext's, one file a topic (kiosk/locale/<language>/LC_MESSAGES/<topic>.po), keyed by names as in
"air.title", whose first part is the topic. They are read as they are when the kiosk starts, so that there is nothing to
compile and nothing to forget to compile. A text that is to be heard otherwise than it is read has a second entry of the
same key, with the context "spoken".

Serbian is written in Cyrillic and read in both alphabets: its Latin texts are made from the Cyrillic ones, letter by
letter, so that they can never differ.
"""

from __future__ import annotations

import gettext
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date as CalendarDay
from datetime import datetime, tzinfo
from pathlib import Path

from babel.dates import format_date, get_day_names
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_decimal

from bega_kiosk.latin import to_latin
from bega_protocols.errors import ConfigError


@dataclass(frozen=True)
class Language:
    """How a language is called by those who speak it, and how it is written."""

    name: str
    catalogue: str  # whose texts it has
    locale: str  # Babel's name of it: numbers, names of days
    day: str  # a day in words, as a pattern of Unicode's (CLDR, date format patterns)

    @property
    def is_latin_script_of_another(self) -> bool:
        """Return whether its texts are another's, letter by letter."""
        return self.locale.endswith("_Latn")


LANGUAGES = {
    "ro": Language("Română", "ro", "ro", "EEEE, d MMMM y"),
    "hu": Language("Magyar", "hu", "hu", "y. MMMM d., EEEE"),
    "de": Language("Deutsch", "de", "de", "EEEE, d. MMMM y"),
    "sr": Language("Српски", "sr", "sr", "EEEE, d. MMMM y."),
    "sr-Latn": Language("Srpski", "sr", "sr_Latn", "EEEE, d. MMMM y."),
    "en": Language("English", "en", "en", "EEEE, d MMMM y"),
}  # by the tag that an address and a page's lang take (BCP 47); the first is the default
DEFAULT = "ro"
SPOKEN = "spoken"
REVIEW = re.compile(r'"X-Review:(.*)\\n"')
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


class Words:
    """One language: its texts, and how it writes numbers, dates and ages."""

    def __init__(self, language: str, catalogue: Catalog, zone: tzinfo) -> None:
        self.language = language
        self.locale = LANGUAGES[language].locale
        self._zone = zone
        compiled = io.BytesIO()
        write_mo(compiled, catalogue)
        compiled.seek(0)
        self._texts = gettext.GNUTranslations(compiled)
        self._keys = frozenset(keys(catalogue))
        self._spoken = frozenset(keys(catalogue, SPOKEN))

    def text(self, key: str, **values: str) -> str:
        """Return the text called `key` with its places filled; raises KeyError if the catalogue has none."""
        self._must_have(key)
        return self._texts.gettext(key).format(**values)

    def spoken(self, key: str, **values: str) -> str:
        """Return what is said where `text(key)` is shown: the same, unless the catalogue has it otherwise."""
        self._must_have(key)
        if key not in self._spoken:
            return self.text(key, **values)
        return self._texts.pgettext(SPOKEN, key).format(**values)

    def has(self, key: str) -> bool:
        """Return whether there is a text called `key`."""
        return key in self._keys

    def counted(self, key: str, count: float) -> str:
        """Return the text called `key` in the form that agrees with `count`, which fills the place {n}.

        A number with decimals takes the plural that has no "de" in Romanian: 8,5 micrograme, 23 de micrograme.
        """
        self._must_have(key)
        agrees_with = int(count) if count == int(count) else 2
        return self._texts.ngettext(key, key, agrees_with).format(n=self.number(count))

    def number(self, value: float, places: int = 1) -> str:
        """Return `value` with at most `places` decimals, and the decimal mark of the language."""
        pattern = "#,##0." + "#" * places if places else "#,##0"
        return format_decimal(round(value, places), format=pattern, locale=self.locale)

    def concentration(self, value: float) -> str:
        """Return a value that a person takes in at a glance: from 10 on without decimals."""
        return self.number(value, 0 if value >= 10 else 1)

    def date(self, at_ms: int) -> str:
        """Return the day, as in "sâmbătă, 21 noiembrie 2026"."""
        return format_date(self.local(at_ms), LANGUAGES[self.language].day, locale=self.locale)

    def day(self, day: CalendarDay) -> str:
        """Return a day without the name it has in its week, as in "21 noiembrie 2026"."""
        return format_date(day, "long", locale=self.locale)

    def weekdays(self, first: int, last: int) -> str:
        """Return some days of the week (0 for Monday) that follow each other, as in "luni–vineri"."""
        names = get_day_names("wide", locale=self.locale)
        return str(names[first]) if first == last else f"{names[first]}–{names[last]}"

    def near_date(self, at_ms: int) -> str:
        """Return the day without its year, as in "sâmbătă, 21 noiembrie"."""
        pattern = re.sub(r" y\.?$|^y\. ", "", LANGUAGES[self.language].day)
        return format_date(self.local(at_ms), pattern, locale=self.locale)

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

    def _must_have(self, key: str) -> None:
        if key not in self._keys:
            raise KeyError(f"{self.language}: no text {key!r}")


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
    return [tag for tag, language in LANGUAGES.items() if not language.is_latin_script_of_another]


def topics(language: str, folder: Path) -> list[Path]:
    """Return the catalogues of a language, one a topic."""
    return sorted((folder / language / "LC_MESSAGES").glob("*.po"))


def read_catalogue(language: str, folder: Path) -> Catalog:
    """Return all texts of a language; raises ConfigError if they cannot be read, or one stands in another's topic."""
    whole: Catalog | None = None
    for path in topics(language, folder):
        topic = _read_topic(path, language)
        if whole is None:
            whole = topic
            continue
        for message in topic:
            if message.id:
                whole.add(message.id, message.string, flags=message.flags, context=message.context)
    if whole is None:
        raise ConfigError(f"{folder / language}: there are no texts (LC_MESSAGES/*.po)")
    return whole


def _read_topic(path: Path, language: str) -> Catalog:
    try:
        with path.open("rb") as file:
            topic = read_po(file, locale=language, abort_invalid=True)
    except (OSError, UnicodeDecodeError, PoFileError) as error:
        raise ConfigError(f"{path}: {error}") from None
    strays = [key for key in keys(topic) if key.partition(".")[0] != path.stem]
    if strays:
        raise ConfigError(f"{path}: {strays[0]} is a text of another topic")
    return topic


def reviews(folder: Path | None = None) -> dict[str, dict[str, str]]:
    """Return {language: {topic: who still has to read it, "" where a native reader has signed}}."""
    folder = folder or locale_folder()
    return {
        language: {path.stem: _review(path) for path in topics(language, folder)} for language in written_languages()
    }


def _review(path: Path) -> str:
    found = REVIEW.search(path.read_text(encoding="utf-8"))
    return found[1].strip() if found else "nobody has said who read it"


def _in_script_of(language: Language, catalogue: Catalog) -> Catalog:
    if not language.is_latin_script_of_another:
        return catalogue
    latin = Catalog(locale=catalogue.locale)
    for message in catalogue:
        if message.id:
            forms = message.string if isinstance(message.string, tuple | list) else (message.string,)
            written = tuple(to_latin(form or "") for form in forms)
            plural = isinstance(message.id, tuple | list)
            latin.add(message.id, written if plural else written[0], context=message.context)
    return latin


def catalogue_problems(catalogue: Catalog, every: set[str]) -> list[str]:
    """Return what is missing, empty or only guessed (fuzzy) in `catalogue`, which should have `every` text."""
    problems = [f"{key} is missing" for key in sorted(every - set(keys(catalogue)))]
    for message in catalogue:
        key = _key(message.id)
        forms = message.string if isinstance(message.string, tuple | list) else (message.string,)
        if key and not all(forms):
            problems.append(f"{key} has no words")
        if key and message.fuzzy:
            problems.append(f"{key} is marked fuzzy")
        if key and isinstance(message.id, tuple | list) and len(forms) != catalogue.num_plurals:
            problems.append(f"{key} has {len(forms)} forms, not {catalogue.num_plurals}")
    return problems


def locale_folder() -> Path:
    """Return where the catalogues are: inside the package when installed from a wheel, beside it in the source."""
    here = Path(__file__).parent
    return here / "locale" if (here / "locale").is_dir() else here.parent / "locale"


def keys(catalogue: Catalog, context: str | None = None) -> Iterator[str]:
    """Yield the names of the texts that a catalogue has in this context."""
    for message in catalogue:
        key = _key(message.id)
        if key and message.context == context:
            yield key


def _key(identifier: str | tuple[str, ...] | list[str]) -> str:
    return identifier if isinstance(identifier, str) else identifier[0]
