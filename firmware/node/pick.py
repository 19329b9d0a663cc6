"""Picks the slot, /a or /b, whose application runs. No update changes this file, so it imports nothing of ours.

/state/slot is "b 2 1.2.3 1.2.2 <CRC-32>": the slot; how many starts its trial has left, or -; the version on trial,
or -; the highest version that failed here, or - (bega_protocols/slots.py writes it too).
"""

import binascii
import os
import sys
import time

import machine

PATH = "/state/slot"
WATCHDOG_MS = 120000  # of a trial, until the application has set its own: it may hang before that
REST_S = 3


def application():
    """Return the module `first` of the application that is to run, and whether that is on trial."""
    state = _count(_read())
    if state[1] != "-":
        machine.WDT(timeout=WATCHDOG_MS)
    sys.path[:] = ["/" + state[0], "/%s/lib" % state[0], ".frozen"]
    try:
        import first

        return first, state[1] != "-"
    except Exception as error:  # its files rot, or are none of this interpreter's
        print("bega: the application in /%s cannot be loaded: %r" % (state[0], error))
        try:
            state = _back(state)
            if _is_whole(state[0]):
                _write(state)
        finally:
            time.sleep(REST_S)
            machine.reset()


def _read():
    """Return what is written; for a board that was never updated, or whose flash rots, a slot that is whole."""
    try:
        with open(PATH, "rb") as file:
            text, _, check = file.read().rpartition(b" ")
        if int(check, 16) == binascii.crc32(text):
            return text.decode().split(" ")
        print("bega: %s is damaged" % PATH)
    except (OSError, ValueError):
        pass
    return ["a" if _is_whole("a") else "b", "-", "-", "-"]


def _write(state):
    text = " ".join(state).encode()
    with open(PATH + "~", "wb") as file:
        file.write(b"%s %08x" % (text, binascii.crc32(text)))
    os.rename(PATH + "~", PATH)


def _is_whole(slot):
    try:
        os.stat("/%s/facts.json" % slot)  # the last that is put there
        return True
    except OSError:
        return False


def _back(state):
    """Return the state by which the other slot runs, for good."""
    slot, _, version, failed = state
    return ["b" if slot == "a" else "a", "-", "-", failed if version == "-" else version]


def _count(state):
    """Return the state after one more start. One after a power cut, or by a technician's hand, proves nothing."""
    if state[1] == "-" or machine.reset_cause() not in (machine.HARD_RESET, machine.WDT_RESET):
        return state
    state = _back(state) if state[1] == "0" else [state[0], str(int(state[1]) - 1)] + state[2:]
    try:
        _write(state)
        return state
    except OSError:
        return _back(state)  # what cannot be counted is not tried
