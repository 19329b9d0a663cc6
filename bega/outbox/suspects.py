"""Which message is it that a broker cannot bear? Pure: no session, no clock.

MQTT 3.1.1 has no way to refuse a message but to end the connection: one that is too large for the broker, say, would
hold up all behind it for ever. What was under way at such an end is sent again one by one, and what ends the
connection by itself three times, while others pass, is set aside.
"""

from __future__ import annotations

STRIKES = 3


class Suspects:
    """The messages that were under way when a connection ended, by id."""

    def __init__(self) -> None:
        self._strikes: dict[int, int] = {}
        self._struck_at: dict[int, int] = {}  # how many messages had been acknowledged at the first strike

    def __len__(self) -> int:
        return len(self._strikes)

    def __contains__(self, id_: int) -> bool:
        return id_ in self._strikes

    def next(self) -> int | None:
        """Return the suspect to send next, alone: those with the fewest strikes first; None if there is none."""
        return min(self._strikes, key=lambda id_: (self._strikes[id_], id_), default=None)

    def needs_another(self, id_: int, acknowledged: int) -> bool:
        """Return whether some other message must pass before `id_` may be blamed.

        A broker that ends the connection at every message has something against us, not against this one.
        """
        return self._strikes[id_] > 0 and acknowledged == self._struck_at[id_]

    def clear(self, id_: int) -> None:
        """Message `id_` has passed, or is gone."""
        self._strikes.pop(id_, None)
        self._struck_at.pop(id_, None)

    def note_loss(self, under_way: list[int], acknowledged: int) -> int | None:
        """A connection ended; return the message that is to be set aside, if that is now certain."""
        if len(under_way) != 1:
            for id_ in under_way:
                self._strikes.setdefault(id_, 0)
            return None
        (alone,) = under_way
        self._strikes[alone] = self._strikes.get(alone, 0) + 1
        self._struck_at.setdefault(alone, acknowledged)
        if self._strikes[alone] >= STRIKES and acknowledged > self._struck_at[alone]:
            return alone
        return None
