"""How long a laser or a fan has run, as far as somebody watched: it wears out, and tells nobody."""

from bega_protocols.reading import Reading

MOST_S = 0xFFFFFFFF


class OnTime:
    """Counts; what was not seen is not counted, so the device has run for at least this long.

    state: what `state()` gave at the last stop; anything else counts as none.
    """

    def __init__(self, state: bytes = b"") -> None:
        self._ms = 1000 * int.from_bytes(state, "big") if len(state) == 4 else 0

    def add(self, on_ms: int) -> None:
        """Count `on_ms` more."""
        self._ms += on_ms

    def state(self) -> bytes:
        """Return what to give back at the next start."""
        return min(self._ms // 1000, MOST_S).to_bytes(4, "big")

    def readings(self) -> "list[Reading]":
        """Return the quantity `laser_time` in whole seconds, nothing before the first."""
        seconds = self._ms // 1000
        return [Reading("laser_time", seconds)] if seconds else []
