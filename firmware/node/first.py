"""What runs first of an application, once main.py has picked its slot."""

import gc
import io
import sys
import time

import machine
import starts
from choice import is_new_there, is_there

REST_S = 3  # before a reset after a defect, so that a loop of them stays readable on the console


def start(is_trial):
    """Run until the power goes. is_trial: this version has still to prove itself."""
    begun = starts.begin()
    try:
        if is_there("/state/asked"):  # an update, for whose check the application had no memory
            import offer

            offer.take_asked()
            begun.worked()
            machine.reset()  # all of it is gone from the heap then
        if is_there("/state/new"):
            import install

            install.run(begun.crashes)  # returns if it is not taken
        why_safe = begun.why_safe()
        # A new configuration may be what helps, or a new version.
        if why_safe and not is_trial and not is_new_there():
            import safe

            safe.start(why_safe, begun)
        else:
            import begin

            begin.start(begun, is_trial)
    except Exception as error:  # a defect of ours, or a flash that fails: say it, and begin anew
        try:
            gc.collect()
            sys.print_exception(error)
            text = io.StringIO()
            sys.print_exception(error, text)
            begun.note_error(text.getvalue())
        finally:  # there may be no memory even for that
            time.sleep(REST_S)
            machine.reset()
