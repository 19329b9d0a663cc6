"""What MicroPython runs when the board starts."""

import gc
import io
import sys
import time

import machine
import starts

REST_S = 3  # before a reset after a defect, so that a loop of them stays readable on the console

begun = starts.begin()
try:
    why_safe = begun.why_safe()
    if why_safe:
        import safe

        safe.start(why_safe, begun)
    else:
        import app

        app.start(begun)
except Exception as error:  # a defect of ours, or a flash that fails: say it, and begin anew
    gc.collect()
    text = io.StringIO()
    sys.print_exception(error, text)
    print(text.getvalue())
    begun.note_error(text.getvalue())
    time.sleep(REST_S)
    machine.reset()
