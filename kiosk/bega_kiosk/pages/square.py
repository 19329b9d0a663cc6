"""A QR code (ISO/IEC 18004) as the path of a drawing: for a telephone that keeps a code better than paper does."""

from __future__ import annotations

QUIET = 4  # modules of white around it (ISO/IEC 18004:2015, 6.3.8)


def square_path(text: str) -> tuple[str, int]:
    """Return (path, size in modules with the quiet zone) of a square that holds `text`."""
    import segno  # here: only a slip needs it

    rows = segno.make(text, error="m", micro=False).matrix
    dark = [(x + QUIET, y + QUIET) for y, row in enumerate(rows) for x, is_dark in enumerate(row) if is_dark]
    return "".join(f"M{x} {y}h1v1h-1z" for x, y in dark), len(rows) + 2 * QUIET
