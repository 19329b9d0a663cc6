"""Days of the Gregorian calendar, in whole numbers: MicroPython has no module for the dates that a meter stamps."""


def days(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01, counting years from March so that a leap day ends one."""
    if month < 3:
        year, month = year - 1, month + 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469


def month_days(year: int, month: int) -> int:
    """Return how many days the month has."""
    return days(year + month // 12, month % 12 + 1, 1) - days(year, month, 1)
