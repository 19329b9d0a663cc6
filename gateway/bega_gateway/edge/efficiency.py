"""What comes out of what is put in: heat produced over heat delivered, or a boiler's fuel over its heat.

Of a heat network: supplied and delivered on the same time basis, as for its loss
(`balance.py`); the quotient is the city's indicator. Of a boiler or a heat pump:
what it gives, in per cent of the fuel or the electricity that it took; fuel by
its calorific value as the bill states it, so that a condensing boiler may exceed
100 % of the lower one, and a heat pump does.

The uncertainty is that of the meters' classes: squares of each side's add up
(their errors are independent), and so do those of the two sides' shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bega_gateway.edge.balance import Metered, root

JOULES_PER_KWH = 3_600_000


@dataclass(frozen=True)
class Efficiency:
    """The result; both amounts in the same unit."""

    produced: Fraction
    delivered: Fraction
    uncertainty_percent: Fraction | None  # of the efficiency, in its own per cent; None where nothing was produced

    @property
    def produced_over_delivered(self) -> Fraction | None:
        """Return how much is produced for one that is delivered; None where nothing was."""
        return self.produced / self.delivered if self.delivered else None

    @property
    def percent(self) -> Fraction | None:
        """Return what was delivered in per cent of what was produced; None where nothing was."""
        return 100 * self.delivered / self.produced if self.produced else None

    @property
    def is_more_than_whole(self) -> bool:
        """Return whether more came out than was put in, by more than the meters' classes can explain."""
        percent, uncertainty = self.percent, self.uncertainty_percent
        if percent is None or uncertainty is None:
            return self.delivered > 0
        return percent - uncertainty > 100


def efficiency(produced: Sequence[Metered], delivered: Sequence[Metered]) -> Efficiency | None:
    """Return the efficiency; None if a single meter is missing, or one side has none."""
    put_in, given = _sum(produced), _sum(delivered)
    if put_in is None or given is None:
        return None
    (whole, whole_square), (part, part_square) = put_in, given
    if not whole:
        return Efficiency(whole, part, None)
    share = part / whole
    return Efficiency(whole, part, 100 * root((part_square + share * share * whole_square) / (whole * whole)))


def joules(amount: Fraction, unit: str, kwh_per_m3: Fraction | None = None) -> Fraction | None:
    """Return an amount of energy, or of gas, in joules; None if it is neither.

    unit: UCUM; kwh_per_m3: what a cubic metre of the gas holds, at the meter's own pressure and temperature.
    """
    if unit == "J":
        return amount
    if unit == "kW.h":
        return amount * JOULES_PER_KWH
    if unit == "m3" and kwh_per_m3 is not None:
        return amount * kwh_per_m3 * JOULES_PER_KWH
    return None


def _sum(meters: Sequence[Metered]) -> tuple[Fraction, Fraction] | None:
    """Return the sum, and the square of its uncertainty; None if one is not known, or there is none."""
    known = [meter.amount for meter in meters if meter.amount is not None]
    if len(known) < len(meters) or not meters:
        return None
    squares = [(amount * meter.class_percent / 100) ** 2 for amount, meter in zip(known, meters, strict=True)]
    return sum(known, Fraction(0)), sum(squares, Fraction(0))
