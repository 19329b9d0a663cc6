"""`--set key=value`: the same words and the same rules wherever Bega takes it."""

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.settings import merge, parse_assignments
from bega_protocols.errors import ConfigError

KEYS = st.text("abc", min_size=1, max_size=2)
TABLES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
).filter(lambda value: isinstance(value, dict))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-12", -12),
        ("999999999", 999_999_999),
        ("1234567890", "1234567890"),  # a serial number is no number
        ("0.5", 0.5),
        ("-3.25", -3.25),
        ("1.", "1."),
        (".5", ".5"),
        ("1e3", "1e3"),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("", ""),
        ("a=b", "a=b"),
        ("/dev/ttyUSB0", "/dev/ttyUSB0"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("1.2.3", "1.2.3"),
        ('"12345678"', "12345678"),  # a text of digits, where the key takes both
        ('"12" and more', '"12" and more'),
        ('["a", 1]', ["a", 1]),
        ("[::1]:80", "[::1]:80"),
        ("[" * 100_000, "[" * 100_000),
        ("١٢", "١٢"),
    ],
)
def test_a_value_is_what_it_looks_like(text, value):
    parsed = parse_assignments([f"key={text}"])["key"]
    assert parsed == value and type(parsed) is type(value)


def test_paths_make_tables_and_later_ones_win():
    assert parse_assignments(["lines.pms.port=/dev/a", "lines.pms.baud=9600", "lines.pms.port=/dev/b", "x=1"]) == {
        "lines": {"pms": {"port": "/dev/b", "baud": 9600}},
        "x": 1,
    }


@pytest.mark.parametrize(
    "assignments", [["key"], ["=value"], [""], ["a=1", "a.b=2"], ["a.b=1", "a=2"], ["a.b=1", "a.b.c=2"]]
)
def test_what_makes_no_sense_is_repeated_with_the_reason(assignments):
    with pytest.raises(ConfigError) as refused:
        parse_assignments(assignments)
    assert str(refused.value).startswith(f"--set {assignments[-1]}: ")
    assert "\n" not in str(refused.value)


@given(assignments=st.lists(st.text(max_size=12), max_size=4))
def test_any_text_gives_tables_or_a_sentence(assignments):
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_assignments(assignments), dict)


@given(below=TABLES, above=TABLES)
def test_merging_lays_one_over_the_other_and_changes_neither(below, above):
    before = copy.deepcopy((below, above))
    merged = merge(below, above)
    assert (below, above) == before
    assert merge(merged, above) == merged
    for key in {*below, *above}:
        if key not in above:
            assert merged[key] == below[key]
        elif not (isinstance(above[key], dict) and isinstance(below.get(key), dict)):
            assert merged[key] == above[key]
        else:
            assert merged[key] == merge(below[key], above[key])
