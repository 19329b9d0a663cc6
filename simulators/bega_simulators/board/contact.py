"""A meter with a pulse output (S0) on one of the board's pins: its contact closes so often for each kWh of the town."""

from __future__ import annotations

import asyncio

from bega_protocols.errors import ConfigError
from bega_simulators.board.peripherals import AirPeripherals
from bega_simulators.board.pins import Pulses

CLOSED_MS = OPEN_MS = 30.0  # IEC 62053-31, section 4.1.3.3: each at least
TURN_MS = 1000.0
MOST_A_TURN = int(TURN_MS / (CLOSED_MS + OPEN_MS))  # what is more is left for the next


class EnergyMeter:
    """It counts what the town's meter shows, whether or not the board has power."""

    def __init__(self, text: str, peripherals: AirPeripherals) -> None:
        """Raises ConfigError if `text` is not PIN=PER_KWH."""
        pin, _, per_kwh = text.partition("=")
        if not pin.isdigit() or not per_kwh.isdigit() or not int(per_kwh):
            raise ConfigError(f"pulses {text}: write it as PIN=PER_KWH")
        self._pin = int(pin)
        self._per_kwh = int(per_kwh)
        self._peripherals = peripherals

    async def run(self) -> None:
        """Close and open the contact, until cancelled."""
        pins = self._peripherals.pins
        pins.drive(self._pin, 1)
        given = self._shown()
        while True:
            due = min(self._shown() - given, MOST_A_TURN)
            if due <= 0:
                await asyncio.sleep(TURN_MS / 1000)
                continue
            given += due
            await pins.close_and_open(self._pin, Pulses(due, CLOSED_MS, TURN_MS / due - CLOSED_MS))

    def _shown(self) -> int:
        """Return the pulses that the town's meter has given since it was made."""
        return int(self._peripherals.measured().get(("active_energy_import", ""), 0.0) * self._per_kwh + 0.001)
