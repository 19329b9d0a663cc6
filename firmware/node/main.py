"""What MicroPython runs when the board starts. This file and pick.mpy beside it are all that no update changes."""

import sys

import pick

first, is_trial = pick.application()
del pick, sys.modules["pick"]  # it lies on the heap
first.start(is_trial)
