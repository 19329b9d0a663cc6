"""What became of every read: what the meters gave away, held against what arrived. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

COMMIT_TAKES_S = 0.3  # an fsync on a busy machine, beside the window itself


class Fate(NamedTuple):
    """Of all reads up to a moment."""

    read: int
    lost: int  # committed, by the time that had passed, and never arrived
    in_open_window: int  # read so shortly before a kill that no commit had been promised
    not_read: int  # polls that were due, and did not come: the gateway was away, or the bus was busy


def fate(
    times_s: Sequence[Sequence[float]],
    missing: Sequence[Sequence[int]],
    kills_s: Sequence[float],
    window_s: float,
    every_s: float,
    until_s: float,
) -> Fate:
    """Return what became of each meter's reads up to `until_s`.

    times_s: of each meter, when its read 1, 2, ... was answered; missing: the numbers that did not arrive
    kills_s: when the gateway was killed
    """
    read = lost = in_open_window = not_read = 0
    for times, absent in zip(times_s, missing, strict=True):
        counted = [at_s for at_s in times if at_s <= until_s]
        read += len(counted)
        not_read += left_out(counted, every_s)
        for number in absent:
            at_s = times[number - 1]
            if at_s > until_s:
                continue
            if any(kill_s - window_s - COMMIT_TAKES_S < at_s <= kill_s for kill_s in kills_s):
                in_open_window += 1
            else:
                lost += 1
    return Fate(read, lost, in_open_window, not_read)


def absent(times_s: Sequence[Sequence[float]], totals: dict[str, Any]) -> list[list[int]]:
    """Return for each meter the numbers of the reads that the reader has not seen."""
    found = []
    for meter, times in enumerate(times_s):
        highest = totals["highest"].get(str(meter), 0)
        missing = [number for number in totals["missing"].get(str(meter), []) if number <= len(times)]
        found.append([*missing, *range(highest + 1, len(times) + 1)])
    return found


def left_out(times_s: Sequence[float], every_s: float) -> int:
    """Return how many polls are missing between the first and the last.

    One that came late is not missing: the gap before it is longer by what the one behind it is shorter.
    """
    if len(times_s) < 2:
        return 0
    return max(0, round((times_s[-1] - times_s[0]) / every_s) + 1 - len(times_s))


def stale(
    stamps: Sequence[tuple[int, float]], times_s: Sequence[float], wall_minus_mono_s: float, slack_s: float = 0.005
) -> int:
    """Return how many records carry a read that was no longer the latest: a late answer, taken for the next one's.

    stamps: (number of the read, time that the record says, in Unix seconds)
    """
    count = 0
    for number, stamp_s in stamps:
        is_newer = number < len(times_s) and times_s[number] < stamp_s - wall_minus_mono_s - slack_s
        count += is_newer
    return count
