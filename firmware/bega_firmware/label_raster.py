"""A drawn label in the languages of label printers: ZPL II and Brother's raster commands.

ZPL: Zebra "ZPL II Programming Guide" (P1099958), ^GF; spoken by Zebra and by most who are not. Brother: "Raster Command
Reference QL-800/810W/820NWB" V1.01, which older QL printers understand as well.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega_firmware.label_image import Drawn

HEAD_BYTES = 90  # of a QL's print head: 720 pins, 300 to the inch
HEAD_DPI = 300
FORGET = bytes(200)  # ends a command that was cut off (chapter 2)
CONTINUOUS, DIE_CUT = 0x0A, 0x0B
# By paper in mm, of the tables in chapter 3: kind, printable dots across and along (0: any), pins right of the paper.
PAPERS = {
    (62, 29): (DIE_CUT, 696, 271, 12),
    (62, 100): (DIE_CUT, 696, 1109, 12),
    (62, 0): (CONTINUOUS, 696, 0, 12),
}
ROLL_FEED_DOTS = 35  # of continuous paper, above and below
TELLS = 0x80 | 0x40 | 0x02 | 0x04 | 0x08  # valid: recovery always on, print quality, kind, width, length


def zpl(drawn: Drawn) -> bytes:
    """Return the label for a ZPL printer of the same resolution, as one graphic."""
    width, height = drawn.image.size
    rows = _rows(drawn)
    size = len(rows[0]) * height
    graphic = "\n".join(row.hex().upper() for row in rows)
    return (
        f"^XA\n^PW{width}\n^LL{height}\n^LH0,0\n^FO0,0^GFA,{size},{size},{len(rows[0])},\n{graphic}\n^FS\n^PQ1\n^XZ\n"
    ).encode("ascii")


def brother_ql(drawn: Drawn, width_mm: int, height_mm: int) -> bytes:
    """Return the label for a Brother QL at 300 dpi, on die-cut labels of its size, else on the 62 mm roll.

    Raises ConfigError for a label that no such printer takes.
    """
    if drawn.dpi != HEAD_DPI or width_mm > 62:
        raise ConfigError("a Brother QL prints labels up to 62 mm wide, at 300 dpi")
    kind, across, along, right = PAPERS.get((width_mm, height_mm), PAPERS[62, 0])
    rows = _rows(_middle(drawn, across, along))
    size_mm = (width_mm, height_mm) if kind == DIE_CUT else (62, 0)
    head = [
        FORGET,
        b"\x1b@",  # initialise
        b"\x1bia\x01",  # raster commands
        b"\x1biz" + struct.pack("<BBBBIBB", TELLS, kind, *size_mm, len(rows), 0, 0),
        b"\x1biM\x40" + b"\x1biA\x01" + b"\x1biK\x08",  # cut: each, after each label, at the end
        b"\x1bid" + struct.pack("<H", ROLL_FEED_DOTS if kind == CONTINUOUS else 0),
        b"M\x00",  # not compressed
    ]
    return b"".join([*head, *(b"g\x00" + bytes([HEAD_BYTES]) + _pins(row, across, right) for row in rows), b"\x1a"])


def _middle(drawn: Drawn, across: int, along: int) -> Drawn:
    """Return the label on what the printer can reach: white edges cut off, or added."""
    from PIL import Image

    width, height = drawn.image.size
    left, top = (width - across) // 2, (height - along) // 2 if along else 0
    reached = Image.new("1", (across, along or height), 1)
    reached.paste(drawn.image, (-left, -top))
    return replace(drawn, image=reached)


def _rows(drawn: Drawn) -> list[bytes]:
    """Return the label row by row: a bit a dot, 1 is black, the last byte filled up with white."""
    width, height = drawn.image.size
    line = (width + 7) // 8
    spare = (1 << (line * 8 - width)) - 1
    content = drawn.image.tobytes()  # of mode "1": a bit a pixel, 1 is white, rows begin at a byte
    found = []
    for start in range(0, line * height, line):
        white = int.from_bytes(content[start : start + line], "big") | spare
        found.append((~white & ((1 << line * 8) - 1)).to_bytes(line, "big"))
    return found


def _pins(row: bytes, across: int, right: int) -> bytes:
    """Return a row as the head takes it: the first pin is that of the right edge."""
    bits = f"{int.from_bytes(row, 'big'):0{len(row) * 8}b}"[:across]
    return int(("0" * right + bits[::-1]).ljust(HEAD_BYTES * 8, "0"), 2).to_bytes(HEAD_BYTES, "big")
