"""Plain language, as far as a program can tell: short sentences, no abbreviations, letters that the fonts have.

Fifteen words a sentence: what guidelines for easy texts have in common. Abbreviations are spelled out by a voice and
stop a slow reader. The rest is for the readers whose names the catalogues wait for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST_WORDS = 15
SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+(?=[^a-zăâîșț\d])|(?<=[!?])\s+")
WORD = re.compile(r"[^\s–-]+")
# By language: words that are none, or none that a person who is not online has met.
ABBREVIATIONS = {
    "ro": r"nr\.|str\.|bd\.|bl\.|sc\.|ap\.|tel\.|etc\.|dvs\.?|d-voastră|jud\.|min\.|km/h|ex\.",
    "hu": r"pl\.|stb\.|kb\.|u\.|tel\.|ill\.|db\.|hsz\.|ún\.",
    "de": r"z\. ?B\.|usw\.|bzw\.|ca\.|Nr\.|Str\.|Tel\.|Std\.|Min\.|ggf\.|d\. ?h\.",
    "sr": r"нпр\.|итд\.|тзв\.|бр\.|ул\.|тел\.|мин\.?|сек\.|ч\.|др\.|тј\.",
    "en": r"e\.g\.|i\.e\.|etc\.|no\.|tel\.|min\.|approx\.|St\.|Ave\.",
}
FOREIGN = re.compile(r"\b(click|clic|link|log ?in|log ?out|logare|user|app|online|website|browser)\b", re.IGNORECASE)
CYRILLIC = range(0x400, 0x460)
BEYOND_LATIN = "șțȘȚ„”“’–…"


def findings(language: str, text: str) -> Iterator[str]:
    """Yield what is not plain in a text of a written language (see words.written_languages)."""
    for sentence in SENTENCE_END.split(text):
        words = len(WORD.findall(sentence))
        if words > MOST_WORDS:
            yield f"{words} words: {sentence}"
    for found in re.findall(rf"(?<!\w)(?:{ABBREVIATIONS[language]})(?!\w)", text):
        yield f"an abbreviation: {found}"
    if foreign := FOREIGN.search(text):
        yield f"a word from elsewhere: {foreign[0]}"
    if re.search("[şţŞŢ]", text):
        yield "ș and ț have a comma below, not a cedilla"
    if text != text.strip() or "  " in text:
        yield "spaces at an end, or two in a row"
    strays = sorted({letter for letter in text if not _has_glyph(language, letter)})
    if strays:
        yield f"letters that no font here has: {' '.join(strays)}"


def _has_glyph(language: str, letter: str) -> bool:
    """Return whether our fonts have it: Atkinson Hyperlegible Next lacks the micro sign, arrows and all Cyrillic."""
    if letter == "µ":
        return False
    return ord(letter) < 0x180 or letter in BEYOND_LATIN or (language == "sr" and ord(letter) in CYRILLIC)
