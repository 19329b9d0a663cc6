"""What a network loses: what was fed in, less what its consumers drew, in the same interval.

Water: real and apparent losses together (IWA water balance: system input less
authorised consumption). Heat: what was supplied less what was delivered. The
uncertainty is that of the meters' classes, added as squares, since their errors
are independent; a loss smaller than it is none that can be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

SCALE = 10**12  # of the square root, which is taken of a whole number


@dataclass(frozen=True)
class Metered:
    """One meter's total of the interval."""

    amount: Fraction | None  # None: not known
    class_percent: Fraction  # of its amount, from its accuracy class


@dataclass(frozen=True)
class Balance:
    """The result; `loss` may be negative, which says that a meter or the list of consumers is wrong."""

    supplied: Fraction
    delivered: Fraction
    uncertainty: Fraction  # of the loss, in the same unit

    @property
    def loss(self) -> Fraction:
        return self.supplied - self.delivered

    @property
    def loss_percent(self) -> Fraction | None:
        """Return the loss in per cent of what was supplied; None where nothing was."""
        return 100 * self.loss / self.supplied if self.supplied else None

    @property
    def is_certain(self) -> bool:
        """Return whether the loss is more than the meters' classes can explain."""
        return abs(self.loss) > self.uncertainty


def balance(feeds: Sequence[Metered], consumers: Sequence[Metered]) -> Balance | None:
    """Return the balance; None if a single meter is missing: a network with a hole in it has no loss figure."""
    meters = [*feeds, *consumers]
    known = [meter.amount for meter in meters if meter.amount is not None]
    if len(known) < len(meters) or not feeds:
        return None
    squares = sum(
        ((amount * meter.class_percent / 100) ** 2 for amount, meter in zip(known, meters, strict=True)), Fraction(0)
    )
    return Balance(sum(known[: len(feeds)], Fraction(0)), sum(known[len(feeds) :], Fraction(0)), root(squares))


def root(square: Fraction) -> Fraction:
    """Return the square root, rounded down at the twelfth place."""
    return Fraction(isqrt(square.numerator * SCALE * SCALE // square.denominator), SCALE)
