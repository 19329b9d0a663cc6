"""A reading's value as decimal text and back: digit for digit, and nothing that only looks like a number."""

import json
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.reading import (
    EXPONENT,
    GOOD,
    MANTISSA_DIGITS,
    QUANTITIES,
    Reading,
    decimal_text,
    nearest_whole,
    parse_decimal,
)
from bega_protocols.senml import SECONDARY_UNITS

VALUES = st.integers(-(10**20), 10**20)
EXPONENTS = st.integers(-EXPONENT, EXPONENT)

# SenML units registry (IANA, 2025-03-27) and RFC 8798 section 5: those that the table may use
PRIMARY_UNITS = {
    "W", "V", "A", "Hz", "J", "Cel", "m3", "lx", "deg", "VA", "var", "%RH", "%EL", "count", "s", "/",
    "m", "kg", "m/s", "m/s2", "S/m", "K",
}  # fmt: skip


@given(VALUES, EXPONENTS)
def test_text_and_back_keeps_every_digit(value, exp10):
    assert parse_decimal(decimal_text(value, exp10)) == (value, exp10)


@given(VALUES, EXPONENTS)
def test_nearest_whole_is_at_most_half_a_step_away(value, exp10):
    exact = Fraction(value) * Fraction(10) ** exp10
    assert Fraction(-1, 2) < nearest_whole(value, exp10) - exact <= Fraction(1, 2)


@given(VALUES, EXPONENTS)
def test_text_is_the_number_and_a_number_of_json(value, exp10):
    text = decimal_text(value, exp10)
    assert Decimal(text) == Decimal(value).scaleb(exp10)
    assert json.loads(text, parse_float=Decimal) == Decimal(text)


@pytest.mark.parametrize(
    ("value", "exp10", "text"),
    [
        (2500, -2, "25.00"),
        (0, 0, "0"),
        (0, -3, "0.000"),
        (-5, -3, "-0.005"),
        (-1234, -3, "-1.234"),
        (123456789, -3, "123456.789"),
        (12, 3, "12e3"),
        (0, 1, "0e1"),
    ],
)
def test_text_keeps_the_places_that_the_device_resolves(value, exp10, text):
    assert decimal_text(value, exp10) == text
    assert parse_decimal(text) == (value, exp10)


@pytest.mark.parametrize(
    ("text", "value", "exp10"),
    [
        ("007.50", 750, -2),
        ("-0", 0, 0),
        ("-0.0", 0, -1),
        ("1e3", 1, 3),
        ("1E+3", 1, 3),
        ("1.5e-3", 15, -4),
        ("-1.50E2", -150, 0),
        ("9" * MANTISSA_DIGITS, int("9" * MANTISSA_DIGITS), 0),
        (f"1e{EXPONENT}", 1, EXPONENT),
        (f"1e-{EXPONENT}", 1, -EXPONENT),
    ],
)
def test_number_is_read_as_it_was_written(text, value, exp10):
    assert parse_decimal(text) == (value, exp10)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-", "+", ".", "e", "-.", "1.", ".5", "-.5", "+5", "--5", "-+5", "- 5", " 5", "5 ", "5\n", "1_0",
        "1,5", "1.2.3", "1.-2", "1.+2", "1._2", "1. 2", "e5", "1e", "1e+", "1e-", "1e1.5", "1e1e1", "1e 5", "1e_5",
        "1e--5", "0x10", "0b1", "1f", "nan", "NaN", "inf", "-Infinity", "True", "１", "1１", "1.１", "1e１",
        "٣", "²", "½", "1\x00", "1e400", "1e-400", f"1e{EXPONENT + 1}", "1e999999999999", "9" * (MANTISSA_DIGITS + 1),
        "0." + "0" * 100,
        "1e" + "0" * 5000 + "1", "9" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_number_of_a_device_is_refused(text):
    with pytest.raises(ValueError, match=r"no (decimal )?number"):
        parse_decimal(text)


@given(st.text(st.sampled_from("0123456789+-.eE_ x１"), max_size=12))
def test_whatever_is_taken_is_a_plain_number(text):
    try:
        value, exp10 = parse_decimal(text)
    except ValueError:
        return
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text)
    assert Decimal(value).scaleb(exp10) == Decimal(text)
    assert abs(exp10) <= EXPONENT


def test_reading_has_its_defaults_and_is_a_tuple():
    assert Reading("pm2_5", 8) == ("pm2_5", 8, 0, "", GOOD)
    assert Reading("voltage", 2301, -1, "l1").part == "l1"


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_quantity_has_a_name_for_topics_and_registered_units(quantity):
    ucum, senml = QUANTITIES[quantity]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", quantity)
    assert senml is None or senml in PRIMARY_UNITS | set(SECONDARY_UNITS)
    assert not re.search(r"\bvar|\bkWh\b|kvar", ucum), "no code of UCUM"
