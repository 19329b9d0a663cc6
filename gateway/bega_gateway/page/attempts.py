"""How often a password may be tried: after five failures a pause that grows, for the address and for all together.

Pure: the time is passed in. While a pause lasts nothing is tried, not even the right password, and asking does not make
it longer. The pause for all is short: it bounds who guesses from many addresses, and keeps no technician out for long.
"""

from __future__ import annotations

from dataclasses import dataclass

FREE = 5  # failures without a pause
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 30_000, 3_600_000  # for one address
FIRST_PAUSE_OF_ALL_MS, LONGEST_PAUSE_OF_ALL_MS = 2_000, 60_000
FORGOTTEN_AFTER_MS = 6 * 3_600_000  # since the last failure
MOST_ADDRESSES = 1_000


@dataclass
class _Failures:
    count: int = 0
    last_ms: int = 0
    until_ms: int = 0  # nothing is tried before

    def add(self, now_ms: int, first_ms: int, longest_ms: int) -> None:
        if now_ms - self.last_ms > FORGOTTEN_AFTER_MS:
            self.count = 0
        self.count += 1
        self.last_ms = now_ms
        if self.count >= FREE:
            self.until_ms = now_ms + min(longest_ms, first_ms << min(self.count - FREE, 20))


class Attempts:
    """Counts failures by address, the latest thousand of them."""

    def __init__(self) -> None:
        self._of: dict[str, _Failures] = {}
        self._of_all = _Failures()

    def wait_ms(self, address: str, now_ms: int) -> int:
        """Return how long `address` must wait before it may try; 0 if it may now. now_ms: a clock that only rises."""
        own = self._of.get(address)
        until_ms = max(self._of_all.until_ms, own.until_ms if own else 0)
        return max(0, until_ms - now_ms)

    def failed(self, address: str, now_ms: int) -> None:
        """Count a wrong password."""
        own = self._of.pop(address, None) or _Failures()
        own.add(now_ms, FIRST_PAUSE_MS, LONGEST_PAUSE_MS)
        self._of_all.add(now_ms, FIRST_PAUSE_OF_ALL_MS, LONGEST_PAUSE_OF_ALL_MS)
        self._of[address] = own
        if len(self._of) > MOST_ADDRESSES:
            del self._of[next(iter(self._of))]

    def succeeded(self, address: str) -> None:
        """Forget the failures of `address`, and those of all."""
        self._of.pop(address, None)
        self._of_all = _Failures()
