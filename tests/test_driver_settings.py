"""What a driver makes of its table of the configuration: a sentence for each thing that cannot be."""

import pytest

from bega_protocols.errors import ConfigError
from bega_protocols.settings import hex_bytes, only, whole_number


def test_known_settings_pass():
    only({})
    only({"address": 1}, "address", "key")
    assert whole_number({"address": 247}, "address", 1, 247) == 247
    assert whole_number({}, "address", 1, 247, 5) == 5
    assert hex_bytes({"key": "a4:C1:38:00:00:01"}, "key", 6) == bytes.fromhex("a4c138000001")


def test_unknown_setting_is_named_with_those_that_exist():
    with pytest.raises(ConfigError, match="unknown setting adress; known here: address, key"):
        only({"adress": 1}, "address", "key")
    with pytest.raises(ConfigError, match="known here: none"):
        only({"adress": 1})


@pytest.mark.parametrize("value", [0, 248, -1, 1.0, "1", True, None, [1]])
def test_number_out_of_range_or_of_another_kind_is_refused(value):
    with pytest.raises(ConfigError, match="address must be a whole number from 1 to 247"):
        whole_number({"address": value}, "address", 1, 247)


def test_missing_number_without_default_is_refused():
    with pytest.raises(ConfigError, match="address"):
        whole_number({}, "address", 1, 247)


@pytest.mark.parametrize("value", ["", "00", "0g" * 6, "00" * 7, "é" * 12, "１２" * 6, 123456789012, None, b"\0" * 6])
def test_bytes_of_another_length_or_kind_are_refused_without_being_shown(value):
    with pytest.raises(ConfigError) as caught:
        hex_bytes({"key": value}, "key", 6)
    assert str(caught.value).startswith("key must be 6 bytes in hex")
    assert not value or str(value) not in str(caught.value).removeprefix("key must be 6 bytes in hex")


def test_missing_bytes_are_refused():
    with pytest.raises(ConfigError, match="key must be 6 bytes"):
        hex_bytes({}, "key", 6)
