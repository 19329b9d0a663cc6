"""What runs first of an application, once main.py has picked its slot."""

import gc
import io
import sys
import time

import machine
import starts
from choice import is_new_there

REST_S = 3  # before a reset after a defect, so that a loop of them stays readable on the console


def start(is_trial):
    """Run until the power goes. is_trial: this version has still to prove itself."""
    begun = starts.begin()
    try:
        why_safe = begun.why_safe()
        if why_safe and not is_new_there():  # a new configuration may be what helps
            import safe

            safe.start(why_safe, begun)
        else:
            import begin

            begin.start(begun)
    except Exception as error:  # a defect of ours, or a flash that fails: say it, and begin anew
        try:
            gc.collect()
            text = io.StringIO()
            sys.print_exception(error, text)
            print(text.getvalue())
            begun.note_error(text.getvalue())
        finally:  # there may be no memory even for that
            time.sleep(REST_S)
            machine.reset()
