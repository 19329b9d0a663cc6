"""What MicroPython runs when the board starts."""

import gc

# Compiling takes more room than running: the largest parts first, while the heap is in one piece.
for part in ("bega_protocols.ring", "bega_protocols.senml", "config", "mqtt", "link", "bega_protocols.checks"):
    __import__(part)
    gc.collect()

import app  # noqa: E402

app.start()
