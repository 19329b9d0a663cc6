"""What came of something that a line did once because a command asked for it."""

from __future__ import annotations

from typing import NamedTuple


class Done(NamedTuple):
    """The end of an errand."""

    well: bool  # it was done, and nothing says otherwise
    reason: str = ""  # why not, in words without any name
    value: str = ""  # what stands in the device now, where that was read


DOWN = Done(False, "the line is down")
CUT = Done(False, "the line ended while it was done; look whether it was")
SILENT = Done(False, "the device does not answer")
UNANSWERED = Done(False, "no answer came; look whether it was done")
LATE = Done(False, "it expired while it waited for its turn; nothing was done")


def always() -> bool:
    """Whether an errand may still be begun: one that does not expire."""
    return True
