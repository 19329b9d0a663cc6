"""What MicroPython runs when the board starts."""

import app

app.start()
