"""BOOT and EN of the virtual board, pressed by DTR and RTS of its RFC 2217 port as on the bench."""

import asyncio
import contextlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serial.rfc2217 import IAC, SB, SE

from bega_simulators.board import buttons
from bega_simulators.board.buttons import Buttons, Converter
from tests.test_board_serial import COUNTS, bench, flashed, needs_micropython

__all__ = ["bench"]
INTO_ROM = [(False, False), (False, True), (True, True), (True, False), (False, False)]
HARD_RESET = [(False, True), (False, False)]
OPENED, CLOSED = [(True, False), (True, True)], [(False, False)]


def starts_after(*moves: tuple[bool, bool], pause_s: float = 0.0) -> list[bool]:
    """Return how the chip was started, each time with BOOT held or not, by lines that move so (DTR, RTS)."""
    started: list[bool] = []

    async def press() -> None:
        both = Buttons(started.append)
        for move in moves:
            both.move(*move)
            await asyncio.sleep(pause_s)
        await asyncio.sleep(buttons.EN_RISES_S + 0.01)

    asyncio.run(press())
    return started


@pytest.fixture(autouse=True)
def en_rises_fast(monkeypatch):
    monkeypatch.setattr(buttons, "EN_RISES_S", 0.02)


def test_the_tools_sequence_leads_into_the_rom():
    assert starts_after(*INTO_ROM) == [True]
    assert starts_after(*INTO_ROM, *INTO_ROM, pause_s=0.001) == [True, True]


def test_both_lines_changed_at_once_lead_there_too():
    assert starts_after((False, True), (True, False), (False, False)) == [True]


def test_a_pulse_of_rts_alone_starts_the_program():
    assert starts_after(*HARD_RESET) == [False]


def test_opening_and_closing_the_port_presses_nothing():
    assert starts_after(*OPENED, *CLOSED) == []


def test_en_held_keeps_the_chip_from_starting():
    assert starts_after((False, True)) == []
    assert starts_after((False, True), (False, False), (False, True)) == []


def test_boot_that_comes_after_en_has_risen_is_too_late():
    assert starts_after((False, True), (True, True), (True, False), pause_s=0.05) == [False]


@given(moves=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_no_reset_without_en_going_low(moves):
    started: list[bool] = []

    async def press() -> None:
        both = Buttons(started.append)
        for move in moves:
            both.move(*move)

    asyncio.run(press())
    assert len(started) <= moves.count((False, True))


@given(noise=st.binary(max_size=80), cuts=st.lists(st.integers(1, 20), max_size=6))
def test_no_caller_breaks_the_port(noise, cuts):
    async def call() -> None:
        converter = Converter(lambda octets: None, Buttons(lambda held: None))
        rest = noise
        with contextlib.suppress(ConnectionError):
            for size in cuts:
                converter.heard(rest[:size])
                rest = rest[size:]
            converter.heard(rest + IAC + SB + b"\x2c" + IAC + SE)
        converter.unplug()

    asyncio.run(call())


def test_an_order_without_an_end_is_hung_up_on():
    async def call() -> None:
        converter = Converter(lambda octets: None, Buttons(lambda held: None))
        with pytest.raises(ConnectionError):
            converter.heard(IAC + SB + b"x" * 1000)

    asyncio.run(call())


@needs_micropython
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("BEGA_PROFILE") != "nightly", reason="by night: pyserial's client takes its time")
def test_esptool_presses_the_buttons_itself_over_rfc2217(bench):
    flashed(bench, main=COUNTS)
    bench.hears("started, cause 2")
    said = bench.esptool("--no-stub", "read-mac", port="rfc2217")
    assert "24:0a:c4:" in said
    bench.hears("waiting for download")
    bench.hears("started, cause 1")
    stated = bench.mpremote("exec", "import esp32; print(esp32.VIRTUAL_BOARD)")
    assert "brought by the board" in stated


@needs_micropython
def test_a_board_prints_its_ports_where_no_file_is_wanted():
    with subprocess.Popen(
        [sys.executable, "-m", "bega", "sim", "board", "--blank"], stdout=subprocess.PIPE, text=True
    ) as board:
        try:
            assert '"rfc2217": "rfc2217://127.0.0.1:' in board.stdout.readline()
        finally:
            board.terminate()
