"""One look for the kiosk and the technician's page: colours, sizes in millimetres, type, and the plot of a day.

`STATIC` holds look.css and the fonts (Atkinson Hyperlegible Next 5.3.0 as packed by Fontsource, SIL Open Font
License 1.1, fonts/OFL.txt); `panels.css` gives the figures that look.css builds on.
"""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
