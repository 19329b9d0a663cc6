"""Days of the calendar, against Python's own."""

from calendar import monthrange
from datetime import date

from bega_protocols.dates import days, month_days


def test_days_of_four_hundred_years_are_pythons():
    first = date(1900, 1, 1).toordinal()
    epoch = date(1970, 1, 1).toordinal()
    for ordinal in range(first, first + 146_097):
        day = date.fromordinal(ordinal)
        assert days(day.year, day.month, day.day) == ordinal - epoch


def test_month_is_as_long_as_pythons():
    for year in range(1900, 2300):
        for month in range(1, 13):
            assert month_days(year, month) == monthrange(year, month)[1]
