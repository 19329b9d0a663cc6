"""Serbian Cyrillic in Latin letters: one alphabet for the other, letter by letter.

Source: Pravopis srpskoga jezika (Matica srpska, 2010), where each Cyrillic letter has one Latin letter or pair; Њ, Љ
and Џ in a word of capitals are NJ, LJ and DŽ.
"""

from __future__ import annotations

import re

_PAIRS = {"љ": "lj", "њ": "nj", "џ": "dž"}
_LETTERS = dict(zip("абвгдђежзијклмнопрстћуфхцчш", "abvgdđežzijklmnoprstćufhcčš", strict=True)) | _PAIRS
_SINGLE = {letter.upper(): latin.upper() for letter, latin in _LETTERS.items() if letter not in _PAIRS}
_ALONE = str.maketrans(_LETTERS | _SINGLE)  # letters that do not look at those beside them
_LARGE_PAIR = re.compile("[ЉЊЏ]")


def to_latin(text: str) -> str:
    """Return `text` with each Cyrillic letter of Serbian in Latin; everything else stays as it is."""
    if _LARGE_PAIR.search(text):
        text = "".join(_letter(text, at) for at in range(len(text)))
    return text.translate(_ALONE)


def _letter(text: str, at: int) -> str:
    letter = text[at]
    latin = _PAIRS.get(letter.lower())
    if latin is None or letter.islower():
        return letter
    beside = [other for other in (text[at + 1 : at + 2], text[at - 1 : at]) if other.lower() in _LETTERS]
    is_shouted = bool(beside) and beside[0].isupper()  # at the end of a word the letter before it tells
    return latin.upper() if is_shouted else latin.capitalize()
