"""Which of a node's two slots runs, and how a new version proves itself or gives way. Whoever keeps it passes it in.

Spec: docs/firmware.md, "Slots". firmware/node/pick.py reads the same line and counts starts by the same rule: no update
can change that file, so none may change this form.
"""

from collections import namedtuple

from bega_protocols.checks import crc32

STARTS = 2  # of a trial; at the next one it is over
NONE = "-"

# slot: "a" or "b"; left: how many starts its trial has left, "-" if it is on none; version: what is on trial;
# failed: the highest version that failed here
State = namedtuple("State", ("slot", "left", "version", "failed"))


def read(octets: bytes) -> "State | None":
    """Return what is written, None if that is damaged, or nothing."""
    text, _, check = octets.rpartition(b" ")
    try:
        if int(check, 16) == crc32(text):
            return State(*text.decode().split(" "))
    except (ValueError, TypeError):
        pass
    return None


def written(state: State) -> bytes:
    """Return what `read` reads."""
    text = " ".join(state).encode()
    return text + b" %08x" % crc32(text)


def other(slot: str) -> str:
    return "b" if slot == "a" else "a"


def tried(state: State, version: str) -> State:
    """Return the state in which the other slot, with this version, is on trial."""
    return State(other(state.slot), str(STARTS), version, state.failed)


def confirmed(state: State) -> State:
    """Return the state in which the slot that runs stays."""
    return State(state.slot, NONE, NONE, state.failed)


def back(state: State) -> State:
    """Return the state in which the other slot runs; a version that was on trial has failed, and is not tried again."""
    return State(other(state.slot), NONE, NONE, state.failed if state.version == NONE else state.version)


def started(state: State, is_fault: bool) -> State:
    """Return the state after one more start, is_fault: after a defect or the watchdog, and no power cut."""
    if state.left == NONE or not is_fault:
        return state
    if state.left == "0":
        return back(state)
    return State(state.slot, str(int(state.left) - 1), state.version, state.failed)
