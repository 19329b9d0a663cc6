"""What a telegram without check value is compared with: the telegrams before it.

V2.2 and V3 have no check value (P1 Companion Standard 2.2 and 3.0, section 6.2),
and a digit that was hit on the wire is a digit. A counter never goes back and
moves no faster than a household can draw, so most hits in it are seen. Of any
other value it is known how many places it has (section 6.4): a lost point is seen.
"""

from bega_protocols.reading import SUSPECT, Reading

COUNTERS = ("active_energy_import", "active_energy_export", "gas_volume", "water_volume")
FASTEST_PER_H = 100  # kWh or m3, far more than a household's connection gives: 3 x 80 A are 55 kW
AT_ONCE = 1  # kWh or m3 that always pass: telegrams come every ten seconds, clocks may stand still
HOUR_MS = 3_600_000


class Counters:
    """Believes what follows from what it believed; what does not is suspect until the next telegram agrees with it."""

    def __init__(self) -> None:
        self._believed: "dict[tuple[str, str], tuple[Reading, int]]" = {}  # and when it was heard
        self._doubted: "dict[tuple[str, str], tuple[Reading, int]]" = {}

    def judge(self, readings: "list[Reading]", now_ms: int) -> "list[Reading]":
        """Return the readings of one telegram, heard at `now_ms`; what cannot be is SUSPECT."""
        return [self._judged(one, now_ms) for one in readings]

    def _judged(self, one: Reading, now_ms: int) -> Reading:
        key = one.quantity, one.part
        believed, doubted = self._believed.get(key), self._doubted.pop(key, None)
        if believed is None or any(_follows(one, now_ms, *past) for past in (believed, doubted) if past):
            self._believed[key] = one, now_ms
            return one
        self._doubted[key] = one, now_ms
        return Reading(one.quantity, one.value, one.exp10, one.part, SUSPECT)


def _follows(one: Reading, now_ms: int, before: Reading, before_ms: int) -> bool:
    """Return whether `one` can be what `before` has become since."""
    if one.exp10 != before.exp10:
        return False  # a meter does not change its number of places
    if one.quantity not in COUNTERS:
        return True
    moved = one.value - before.value
    most_ms = AT_ONCE * HOUR_MS + FASTEST_PER_H * max(0, now_ms - before_ms)
    places, thousands = max(0, -one.exp10), max(0, one.exp10)
    passed: bool = 0 <= moved * 10**thousands * HOUR_MS <= most_ms * 10**places
    return passed
