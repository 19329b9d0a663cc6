"""The label of a node, drawn: a QR code and, for eyes, who it is, where it belongs, and until when it is cared for.

Black and white, in the pixels of the printer that prints it. Text is drawn in the fonts of `bega.look` and never left
to a printer, whose own fonts lack ș and ț.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bega.look import STATIC
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

FONTS = (
    "fonts/atkinson-hyperlegible-next-latin-wght-normal.woff2",
    "fonts/atkinson-hyperlegible-next-latin-ext-wght-normal.woff2",
)
NO_LETTER = "\uffff"  # which no font has: it shows what a font draws in place of what it lacks
PLAIN, BOLD = 500, 750  # weights of the variable font
QUIET_MODULES = 4  # around a QR code (ISO/IEC 18004, 9.1)
EDGE_MM = (1.5, 3.0)  # left and right, above and below: what a Brother QL leaves white of a 62 x 29 mm label (DK-11209)
TALLEST_MM, SMALLEST_MM = 5.6, 2.4  # font sizes; the smaller one has capitals of 1.6 mm, readable at 35 cm
LEAST_TEXT_MM = 18.0  # of width beside the QR code


@dataclass(frozen=True)
class Label:
    """What stands on a label. Nothing of it is a secret."""

    node: str
    firmware: str  # the version with which it left the bench: updates change it, the label does not
    support_until: str  # "2031-11"
    site: str = ""
    board: str = ""

    @property
    def qr_text(self) -> str:
        """What the QR code holds: the id and the version, and nothing else."""
        return f"bega:{self.node}?firmware={self.firmware}"


@dataclass(frozen=True)
class Drawn:
    """A label as pixels, and what could not be drawn as it was asked for."""

    image: Image  # mode "1"
    dpi: int
    complaints: list[str]


def draw(label: Label, width_mm: int, height_mm: int, dpi: int) -> Drawn:
    """Return the label in the pixels of a printer. Raises ConfigError if it is too small for what must be on it."""
    import segno
    from PIL import Image, ImageDraw

    width, height = _px(width_mm, dpi), _px(height_mm, dpi)
    edge_x, edge_y = (_px(edge, dpi) for edge in EDGE_MM)
    image = Image.new("1", (width, height), 1)
    modules = [bytes(row) for row in segno.make(label.qr_text, error="m", micro=False).matrix]
    side = len(modules)
    scale = min((height - 2 * edge_y) // side, height // (side + 2 * QUIET_MODULES))
    left = max(edge_x, QUIET_MODULES * scale) + (side + QUIET_MODULES) * scale
    if scale * 25.4 / dpi < 0.33 or (width - edge_x - left) * 25.4 / dpi < LEAST_TEXT_MM:  # 0.33 mm: a phone's camera
        raise ConfigError(f"{width_mm} x {height_mm} mm is too small for the label of {label.node}: 62x29 is the usual")
    _draw_code(ImageDraw.Draw(image), modules, scale, max(edge_x, QUIET_MODULES * scale), (height - side * scale) // 2)
    complaints = _Text(image, dpi).write(label, left, edge_y, width - edge_x - left, height - 2 * edge_y)
    return Drawn(image, dpi, complaints)


class _Text:
    """The lines beside the QR code."""

    def __init__(self, image: Image, dpi: int) -> None:
        from PIL import ImageDraw

        self.dpi = dpi
        self.pen = ImageDraw.Draw(image)
        self.pen.fontmode = "1"
        self.lacking: list[str] = []

    def write(self, label: Label, x: int, y: int, width: int, height: int) -> list[str]:
        """Draw, from the top down; return what did not fit or has no letters."""
        cut: list[str] = []
        rows = [(row, BOLD, size) for row, size in self._id_rows(label.node, width)]
        for text in (label.site, label.board, f"firmware {label.firmware}", f"support until {label.support_until}"):
            if text:
                size, shown = self._fitted(text, PLAIN, 3.0, width)
                rows.append((shown, PLAIN, size))
                cut += [f"{text!r} is cut on the label: {shown!r}"] if shown != text else []
        leading = min(height / sum(size for _, _, size in rows), 1.35 * self.dpi / 25.4)
        if leading < 1.0 * self.dpi / 25.4:
            raise ConfigError(f"{len(rows)} lines do not fit the label of {label.node}: name a higher one with --size")
        top = y + (height - leading * sum(size for _, _, size in rows)) / 2
        for text, weight, size in rows:
            top += leading * size
            self._draw(text, weight, size, x, round(top - 0.22 * leading * size))
        lacking = "".join(dict.fromkeys(self.lacking))
        return cut + ([f"the label's font has no {' '.join(lacking)}: a box stands for it"] if lacking else [])

    def _id_rows(self, node: str, width: int) -> list[tuple[str, float]]:
        """Return the id, which is never cut, in one line or in two of the same size."""
        size, shown = self._fitted(node, BOLD, TALLEST_MM, width, 3.2)
        if shown == node:
            return [(node, size)]
        breaks = [at + 1 for at, letter in enumerate(node) if letter == "-" and 3 < at < len(node) - 4]
        middle = min(breaks, key=lambda at: abs(2 * at - len(node)), default=(len(node) + 1) // 2)
        halves = [node[:middle], node[middle:]]
        fitted = [self._fitted(half, BOLD, TALLEST_MM, width) for half in halves]
        if [shown for _, shown in fitted] != halves:
            raise ConfigError(f"{node} does not fit beside its QR code: name a wider label with --size")
        return [(half, min(size for size, _ in fitted)) for half in halves]

    def _fitted(
        self, text: str, weight: int, size_mm: float, width: int, least_mm: float = SMALLEST_MM
    ) -> tuple[float, str]:
        """Return the size in which `text` fits, and what of it does: cut, it ends in "…"."""
        while self._length(text, weight, size_mm) > width and size_mm > least_mm:
            size_mm = max(least_mm, size_mm - 0.2)
        shown = text
        while self._length(shown, weight, size_mm) > width and len(shown) > 1:
            shown = shown.rstrip("…")[:-1].rstrip() + "…"
        return size_mm, shown

    def _length(self, text: str, weight: int, size_mm: float) -> float:
        return sum(font.getlength(part) for part, font in self._parts(text, weight, size_mm))

    def _draw(self, text: str, weight: int, size_mm: float, x: float, baseline: int) -> None:
        for part, font in self._parts(text, weight, size_mm):
            self.pen.text((round(x), baseline), part, fill=0, font=font, anchor="ls")
            x += font.getlength(part)

    def _parts(self, text: str, weight: int, size_mm: float) -> list[tuple[str, FreeTypeFont]]:
        """Return `text` in pieces, each with the font that has its letters."""
        fonts = [_font(name, weight, _px(size_mm, self.dpi)) for name in FONTS]
        parts: list[tuple[str, FreeTypeFont]] = []
        for letter in text:
            having = [font for font in fonts if _has(font, letter)]
            if not having:
                self.lacking.append(letter)
            font = (having or fonts)[0]
            if parts and parts[-1][1] is font:
                parts[-1] = (parts[-1][0] + letter, font)
            else:
                parts.append((letter, font))
        return parts


def _font(name: str, weight: int, size_px: int) -> FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.truetype(str(STATIC / name), size_px)
    font.set_variation_by_axes([weight])
    return font


def _has(font: FreeTypeFont, letter: str) -> bool:
    if letter.isspace():
        return True
    return bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))


def _draw_code(pen: ImageDraw, modules: list[bytes], scale: int, left: int, top: int) -> None:
    for row, line in enumerate(modules):
        for column, is_dark in enumerate(line):
            if is_dark:
                x, y = left + column * scale, top + row * scale
                pen.rectangle((x, y, x + scale - 1, y + scale - 1), fill=0)


def _px(length_mm: float, dpi: int) -> int:
    return round(length_mm * dpi / 25.4)
