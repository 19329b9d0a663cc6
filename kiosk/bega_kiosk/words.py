"""The words of the pages, per language: catalogues, numbers, dates and ages, as a person of that language says them.

Catalogues are gettext's (kiosk/locale/<language>/LC_MESSAGES/kiosk.po), keyed by names as in "air.title"; they are read
as they are when the kiosk starts, so that there is nothing to compile and nothing to forget to compile.
"""

from __future__ import annotations

import gettext
import io
from collections.abc import Mapping
from datetime import datetime, tzinfo
from pathlib import Path

from babel.dates import format_date
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_decimal

from bega_protocols.errors import ConfigError

LANGUAGES = {
    "ro": "Română",
    "en": "English",
}  # each by the name that its own speakers give it; the first is the default
DEFAULT = "ro"
DATES = {"ro": "d MMMM y", "en": "d MMMM y"}
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


class Words:
    """One language: its texts, and how it writes numbers, dates and ages."""

    def __init__(self, language: str, catalogue: Catalog, zone: tzinfo) -> None:
        self.language = language
        self._zone = zone
        compiled = io.BytesIO()
        write_mo(compiled, catalogue)
        compiled.seek(0)
        self._texts = gettext.GNUTranslations(compiled)
        self._keys = frozenset(_keys(catalogue))

    def text(self, key: str, **values: str) -> str:
        """Return the text called `key` with its places filled; raises KeyError if the catalogue has none."""
        self._must_have(key)
        return self._texts.gettext(key).format(**values)

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
        return format_decimal(round(value, places), format=pattern, locale=self.language)

    def concentration(self, value: float) -> str:
        """Return a value that a person takes in at a glance: from 10 on without decimals."""
        return self.number(value, 0 if value >= 10 else 1)

    def date(self, at_ms: int) -> str:
        """Return the day, as in "sâmbătă, 21 noiembrie 2026"."""
        moment = self.local(at_ms)
        weekday = format_date(moment, "EEEE", locale=self.language)
        return f"{weekday}, {format_date(moment, DATES[self.language], locale=self.language)}"

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
    catalogues = {language: read_catalogue(language, folder) for language in LANGUAGES}
    every = {key for catalogue in catalogues.values() for key in _keys(catalogue)}
    problems = [
        f"{language}: {problem}"
        for language, catalogue in catalogues.items()
        for problem in catalogue_problems(catalogue, every)
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return {language: Words(language, catalogue, zone) for language, catalogue in catalogues.items()}


def read_catalogue(language: str, folder: Path) -> Catalog:
    """Return one catalogue; raises ConfigError if it cannot be read."""
    path = folder / language / "LC_MESSAGES" / "kiosk.po"
    try:
        with path.open("rb") as file:
            return read_po(file, locale=language, abort_invalid=True)
    except (OSError, UnicodeDecodeError, PoFileError) as error:
        raise ConfigError(f"{path}: {error}") from None


def catalogue_problems(catalogue: Catalog, every: set[str]) -> list[str]:
    """Return what is missing, empty or only guessed (fuzzy) in `catalogue`, which should have `every` text."""
    problems = [f"{key} is missing" for key in sorted(every - set(_keys(catalogue)))]
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


def _keys(catalogue: Catalog) -> list[str]:
    return [key for message in catalogue if (key := _key(message.id))]


def _key(identifier: str | tuple[str, ...] | list[str]) -> str:
    return identifier if isinstance(identifier, str) else identifier[0]
