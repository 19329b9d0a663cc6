"""Letters on the screen: the reader's own alphabet in keys of 20 mm, in parts where a panel has no room for all of it.

Every key is a button of a form that carries the text, so that it works without a script; static/keys.js saves the way
to the server and back. What is typed lies in the draft, never in an address.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

import msgspec

from bega_kiosk.pages.screen import Drawn, Screen

LATIN = "abcdefghijklmnopqrstuvwxyz"
LETTERS = {
    "ro": "aăâbcdefghiîjklmnopqrsștțuvwxyz",
    "hu": "aábcdeéfghiíjklmnoóöőpqrstuúüűvwxyz",
    "de": LATIN + "äöüß",
    "sr": "абвгдђежзијклљмнњопрстћуфхцчџш",
    "sr-Latn": "abcčćdđefghijklmnopqrsštuvwxyzž",
    "en": LATIN,
}
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # Unicode's bidirectional controls (UAX 9, 2)
DIGITS = "1234567890.,?!-/:@+"
ROOM = {"wide": (12, 3), "tall": (10, 4), "small": (9, 2)}  # columns and rows of 20 mm
ROOM_REACH = {"wide": (12, 3), "tall": (10, 4), "small": (9, 1)}  # in the lower half
PAD, PAD_COLUMNS = "123456789", 3  # what the keys of a telephone begin with, and how many stand in a row


class Typed(msgspec.Struct, frozen=True):
    """What a form brought: the text with its last key, and whether to go on or to another part of the letters."""

    text: str
    goes_on: bool = False
    page: int = 0  # 0: the same


def draw(screen: Screen, text: str, intro: str = "", letters: str = "", most: int = 0, lacks: str = "") -> Drawn:
    """Return the screen; `letters`: others than those of the language, for a code.

    `lacks`: what is wrong with what was typed, in words. A small panel has no room for it beside the heading, which
    its reader has just answered.
    """
    pages = parts(screen, letters)
    page = min(screen.page, len(pages))
    rows = math.ceil(len(pages[page - 1]) / _room(screen)[0])
    is_pad = letters.startswith(PAD) and screen.panel.shape == "tall"  # where there is room for four rows
    values = {
        "typed": text,
        "intro": lacks or intro,
        "is_title_spoken": bool(lacks) and not screen.panel.is_large,
        "letters": pages[page - 1],
        "columns": PAD_COLUMNS if is_pad else math.ceil(len(pages[page - 1]) / rows),
        "next_page": page % len(pages) + 1 if len(pages) > 1 else 0,
        "next_name": "type.digits" if not letters and page == len(pages) - 1 else "type.letters",
        "is_code": bool(letters),
        "most": most,
    }
    return Drawn(screen.draw("keyboard.html", values))  # one screen, whichever letters it shows: nothing is missed


def parts(screen: Screen, letters: str = "") -> list[str]:
    """Return the letters of each part, as even as can be; the digits are the last one."""
    columns, rows = _room(screen)
    alphabet = letters or LETTERS[screen.display.language]
    return [*_even(alphabet, columns * rows), *([] if letters else _even(DIGITS, columns * rows))]


def read(sent: Mapping[str, str], most: int) -> Typed:
    """Return what a form brought. Text beyond `most` letters stays one longer than that: whoever reads it sees so."""
    text = _written(sent.get("text", "").replace("\r\n", "\n"))[: most + 1]
    key = sent.get("key", "")
    if key == "erase":
        return Typed(text[:-1])
    if key.startswith("page:"):
        return Typed(text, page=int(key[5:]) if key[5:].isdecimal() and len(key) < 8 else 0)
    if key == "keep":
        return Typed(text)
    if len(key) == 1:
        return Typed(with_letter(text, _written(key))[: most + 1])
    return Typed(text, goes_on=True)


def with_letter(text: str, letter: str) -> str:
    """Return `text` with one more letter, a capital at its beginning and after a full stop (as keys.js does)."""
    return text + (letter.upper() if not text or text.endswith((". ", "? ", "! ")) else letter)


def _written(text: str) -> str:
    """Return what people write: letters of every script, without what no paper shows and what turns others' words."""
    return "".join(
        letter for letter in text if letter == "\n" or (letter not in TURNING and unicodedata.category(letter) != "Cc")
    )


def _room(screen: Screen) -> tuple[int, int]:
    return (ROOM_REACH if screen.display.is_reach else ROOM)[screen.panel.shape]


def _even(letters: str, most: int) -> list[str]:
    count = math.ceil(len(letters) / most)
    size = math.ceil(len(letters) / count)
    return [letters[at : at + size] for at in range(0, len(letters), size)]
