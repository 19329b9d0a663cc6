"""What a setup decides by itself: board, devices, and an id that says nothing of the chip."""

import random

import pytest

from bega.identity import DEVICE_ID
from bega_firmware.board import board_names, read_board
from bega_firmware.book import TESTED, WIPED, Event
from bega_firmware.setup_plan import (
    KINDS,
    board_for,
    devices_of,
    drivers_of,
    new_id,
    remember_id,
    remembered_id,
)
from bega_protocols.errors import ConfigError

MAC = "24:0A:C4:00:00:07"


@pytest.mark.parametrize(
    ("kind", "chip", "board"),
    [("air", "esp32", "esp32_devkitc"), ("air", "ESP32-C3", "esp32_c3"), ("meter", "esp32", "meter_carrier")],
)
def test_board_is_the_usual_one_of_kind_and_chip(kind, chip, board):
    assert board_for(kind, chip).key == board


def test_a_chip_that_no_board_has_is_said_with_what_to_do():
    with pytest.raises(ConfigError, match=r"chip esp32c6 .*--board"):
        board_for("air", "esp32c6")


@pytest.mark.parametrize("kind", KINDS)
def test_each_usual_board_has_the_usual_devices(kind):
    for key in KINDS[kind].boards.values():
        assert key in board_names()
        assert devices_of(kind, read_board(key), []) == list(KINDS[kind].devices)


def test_devices_are_those_asked_for_and_a_strange_one_is_refused():
    board = read_board("esp32_devkitc")
    assert devices_of("air", board, ["co2", "pms"]) == ["co2", "pms"]
    assert drivers_of(board, ["co2", "pms", "co2"]) == ["pms5003", "scd41"]
    with pytest.raises(ConfigError, match="no device radon; its board file has bme, co2"):
        devices_of("air", board, ["radon", "pms"])
    with pytest.raises(ConfigError, match="of a meter node"):
        devices_of("meter", board, [])


def test_a_thousand_ids_are_a_thousand():
    taken = set()
    for _ in range(1000):
        taken.add(new_id("air", taken.__contains__))
    assert len(taken) == 1000 and all(DEVICE_ID.fullmatch(name) for name in taken)


def test_an_id_that_is_taken_is_not_given_again():
    """Two laptops with copies of one authority, say: the second draw is another one."""
    drawn = iter("bbbbbccccc")
    assert new_id("air", {"air-bbbbb"}.__contains__, lambda letters: next(drawn)) == "air-ccccc"
    with pytest.raises(ConfigError, match="--id"):
        new_id("air", lambda name: True, random.Random(1).choice)


def test_a_second_run_goes_on_with_the_id_of_the_first(tmp_path):
    assert remembered_id(tmp_path, MAC, "timisoara", []) == ""
    remember_id(tmp_path, MAC, "timisoara", "air-bcdfg", lambda: 1000)
    assert remembered_id(tmp_path, MAC.lower(), "timisoara", [Event(2000, TESTED, True, "")]) == "air-bcdfg"
    assert remembered_id(tmp_path, MAC, "arad", []) == ""  # another site's authority
    assert remembered_id(tmp_path, "24:0a:c4:00:00:08", "timisoara", []) == ""


def test_a_board_that_was_wiped_gets_another_id(tmp_path):
    remember_id(tmp_path, MAC, "timisoara", "air-bcdfg", lambda: 1000)
    wiped = Event(2000, WIPED, True, "", node="air-bcdfg")
    assert remembered_id(tmp_path, MAC, "timisoara", [wiped]) == ""
    remember_id(tmp_path, MAC, "timisoara", "air-hjkmn", lambda: 3000)
    assert remembered_id(tmp_path, MAC, "timisoara", [wiped]) == "air-hjkmn"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"node": "../x", "at_ms": 1, "site": "timisoara"}', '{"node": 1}'])
def test_a_damaged_memory_is_none(tmp_path, damage):
    remember_id(tmp_path, MAC, "timisoara", "air-bcdfg")
    (tmp_path / "setups" / "240ac4000007.json").write_text(damage)
    assert remembered_id(tmp_path, MAC, "timisoara", []) == ""
