"""A sensor's value made better: calibration by slope and offset, and particulate matter freed of its water.

The raw value is never touched: what comes out is a further reading. Whole numbers and fractions, never floats.

Humidity corrections, of which a value gets one at most (each counts the humidity already):
- `barkjohn_2021`: K. Barkjohn et al., Atmos. Meas. Tech. 14, 4617 (2021): PM2.5 of Plantower sensors, the mean of two,
  "CF=1" field, humidity inside the sensor; fitted on 24 h means in 16 states of the USA.
- `kappa_koehler`: L. Crilley et al., Atmos. Meas. Tech. 11, 709 (2018): hygroscopic growth; derived for sensors that
  tell sizes apart, so an approximation for all others.
"""

from __future__ import annotations

from fractions import Fraction

HUMIDITY_LIMIT = 95  # % above it the growth formula runs away, and drops are fog
BARKJOHN_LIMIT_UGM3 = 570  # smoke: above it the relation is another one


def calibrated(value: Fraction, slope: Fraction, offset: Fraction) -> Fraction:
    """Return slope x value + offset; offset in the value's unit."""
    return slope * value + offset


def barkjohn_2021(pm2_5_ugm3: Fraction, humidity_percent: Fraction) -> Fraction | None:
    """Return PM2.5 in µg/m³, not below 0; None outside what the relation was fitted on."""
    if not (0 <= pm2_5_ugm3 < BARKJOHN_LIMIT_UGM3 and 0 <= humidity_percent <= 100):
        return None
    return max(Fraction(0), (524 * pm2_5_ugm3 - Fraction(862, 10) * humidity_percent + 5750) / 1000)


def kappa_koehler(mass_ugm3: Fraction, humidity_percent: Fraction, kappa: Fraction) -> Fraction | None:
    """Return the dry mass in µg/m³; None above 95 % humidity, where the formula says nothing.

    kappa: how much water the particles take up, 0.3 to 0.4 for city air. Density of the dry particle 1.65 g/cm³.
    """
    if not (0 <= humidity_percent <= HUMIDITY_LIMIT and mass_ugm3 >= 0):
        return None
    growth = 1 + kappa / Fraction(165, 100) * humidity_percent / (100 - humidity_percent)
    return mass_ugm3 / growth
