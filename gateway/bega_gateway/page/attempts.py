"""How often a password may be tried: after five failures a pause that grows, for the address and for all together.

Pure: the time is passed in. While a pause lasts nothing is tried, not even the right password, and asking does not make
it longer. The pause for all is short: it bounds who guesses from many addresses, and keeps no technician out for long.
Who comes from this machine, by a tunnel that has asked for a key of its own, waits for nobody's failures but his own.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from bega.listen import is_this_machine

FREE = 5  # failures without a pause
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 30_000, 3_600_000  # for one address
FIRST_PAUSE_OF_ALL_MS, LONGEST_PAUSE_OF_ALL_MS = 2_000, 60_000
FORGOTTEN_AFTER_MS = 6 * 3_600_000  # since the last failure
MOST_ADDRESSES = 1_000
NETWORK_BITS = 64  # the least that an IPv6 network has (RFC 4291, section 2.5.1)


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
        whose = _whose(address)
        own = self._of.get(whose)
        of_all_ms = 0 if is_this_machine(whose) else self._of_all.until_ms
        return max(0, max(of_all_ms, own.until_ms if own else 0) - now_ms)

    def failed(self, address: str, now_ms: int) -> None:
        """Count a wrong password."""
        whose = _whose(address)
        own = self._of.pop(whose, None) or _Failures()
        own.add(now_ms, FIRST_PAUSE_MS, LONGEST_PAUSE_MS)
        self._of_all.add(now_ms, FIRST_PAUSE_OF_ALL_MS, LONGEST_PAUSE_OF_ALL_MS)
        self._of[whose] = own
        if len(self._of) > MOST_ADDRESSES:
            del self._of[next(iter(self._of))]

    def succeeded(self, address: str) -> None:
        """Forget the failures of `address`, and those of all."""
        self._of.pop(_whose(address), None)
        self._of_all = _Failures()


def _whose(address: str) -> str:
    """Return what stands for whoever asks from `address`: of IPv6 its network, of which one host has every address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address) or found.is_loopback:
        return str(found)
    return str(found.ipv4_mapped or ip_network((found, NETWORK_BITS), strict=False))
