"""The colours, each with a job, and how far apart two of them are.

look.css gives the same values as custom properties; a test keeps the two equal and every pair of text and ground at
7:1 or more (WCAG 2.2, 1.4.6).
"""

PAPER = "#f5f2ec"  # the page
CARD = "#ffffff"
INK = "#15232d"  # text
QUIET = "#3d4c57"  # text that may wait
EDGE = "#64737e"  # borders of what can be pressed, axes: 3:1 on paper and card
ACCENT = "#0b4a5e"  # what leads on, and the line of a plot
ON_ACCENT = "#ffffff"
FOCUS = "#b3460a"
UNKNOWN = "#e4e2dd"  # the ground of "we do not know"

# The same by night, or for who reads light on dark more easily: yellow on black (the finding's second theme).
DARK = {
    "paper": "#000000",
    "card": "#14171a",
    "ink": "#ffe14d",
    "quiet": "#e8dca8",
    "edge": "#a89a5a",
    "accent": "#ffe14d",
    "on-accent": "#000000",
    "focus": "#ffffff",
    "unknown": "#2b2b26",
}
DARK_AIR_TINTS = ("#06322f", "#0a2f24", "#33300a", "#47120f", "#42101f", "#331038")

# European Air Quality Index, bands 1 to 6: the colours that the European Environment Agency gives them ...
AIR_BANDS = ("#50f0e6", "#50ccaa", "#f0e641", "#ff5050", "#960032", "#7d2181")
# ... and the same mixed with white until ink stays readable on them.
AIR_TINTS = ("#e0fbf9", "#c6eee1", "#f8f3b4", "#ffd3d3", "#e8c0cf", "#dfc8e2")


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two #rrggbb colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """Return the relative luminance, 0 to 1 (WCAG 2.2, "relative luminance")."""
    red, green, blue = (_linear(int(colour[start : start + 2], 16) / 255) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
