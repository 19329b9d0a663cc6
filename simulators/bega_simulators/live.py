"""What the demo shows: the newest reading of each quantity of each device, and what the corner still misses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bega_protocols.reading import STALE, Reading, decimal_text, ucum
from bega_protocols.record import Record

# UCUM codes as people write them.
WRITTEN = {"ug/m3": "µg/m³", "1/cm3": "1/cm³", "Cel": "°C", "kW.h": "kWh", "[ppm]": "ppm", "V.A": "VA", "m3": "m³"}
WRITTEN |= {"V.A{reactive}": "var", "kV.A.h{reactive}": "kvarh", "kV.A.h": "kVAh", "dB[mW]": "dBm", "{count}": ""}
WRITTEN |= {"1": "", "deg": "°"}
# What a visitor looks for first; where the terminal is low, only these are shown.
FIRST = (
    "pm_index", "pm2_5", "pm10", "temperature", "humidity", "active_power", "active_power_import",
    "active_energy_import", "gas_volume", "voltage", "current", "pm1",
)  # fmt: skip
LINES_AROUND = 6  # of a terminal: the table's borders and names, and the line that says how to end


class Key(NamedTuple):
    """One row: a quantity of a device."""

    source: str
    device: str
    quantity: str
    part: str


class Cell(NamedTuple):
    reading: Reading
    at_ms: int


@dataclass
class Live:
    """Takes records as they arrive; draws them. `lines` says on which line a device or a node hangs."""

    gateway: str
    lines: dict[str, str]
    rows: dict[Key, Cell] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    records: int = 0

    def take(self, record: Record, arrival_ms: int) -> None:
        """Take a record; one without a time stands at its arrival. An older one never hides a newer one."""
        self.records += 1
        at_ms = arrival_ms if record.time_ms is None else record.time_ms
        for reading in record.readings:
            key = Key(record.source, record.device, reading.quantity, reading.part)
            if key not in self.rows or self.rows[key].at_ms <= at_ms:
                self.rows[key] = Cell(reading, at_ms)

    @property
    def devices(self) -> list[tuple[str, str]]:
        """Return (source, device) of all that spoke, in the order of their lines."""
        spoke = {(key.source, key.device) for key in self.rows}
        return sorted(spoke, key=lambda who: (self._line(*who), who))

    def table(self, heading: list[str], height: int, now_ms: int) -> RenderableType:
        """Draw all devices in `height` lines of a terminal: each gets its share of rows, the first ones first."""
        table = Table(expand=True)
        for name in ("device", "line", "quantity"):
            table.add_column(name, no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("age", justify="right", no_wrap=True)
        above = [Text(line, style="bold" if number == 0 else "dim") for number, line in enumerate(heading)]
        room = height - LINES_AROUND - len(heading) - len(self.missing)
        share = max(1, room // max(1, len(self.devices)))
        for who in self.devices:
            keys = self._keys(who)
            for number, key in enumerate(keys[:share]):
                more = f"  (+{len(keys) - share})" if number == share - 1 and len(keys) > share else ""
                name, line = (self._name(*who), self._line(*who)) if number == 0 else ("", "")
                cell = self.rows[key]
                table.add_row(name, line, _quantity(key) + more, _value(cell.reading), _age(cell, now_ms))
        notes = [Text(f"{what}: {why}", style="yellow") for what, why in self.missing.items()]
        return Group(*above, table, *notes, Text("Ctrl-C ends it all.", style="dim"))

    def log_line(self, second: int, now_ms: int) -> str:
        """Return one line for a log: how much has come, and one device in turn with its first values."""
        text = f"{second:4d} s  {self.records} records from {len(self.devices)} devices"
        if self.devices:
            who = self.devices[second % len(self.devices)]
            keys = self._keys(who)[:3]
            values = ", ".join(f"{_quantity(key)} {_value(self.rows[key].reading)}" for key in keys)
            text += f"; {self._name(*who)} on {self._line(*who)}: {values} ({_age(self.rows[keys[0]], now_ms)} old)"
        return text

    def _keys(self, who: tuple[str, str]) -> list[Key]:
        keys = [key for key in self.rows if (key.source, key.device) == who]
        return sorted(keys, key=lambda key: (bool(key.part), _rank(key.quantity), key.part, key.quantity))

    def _line(self, source: str, device: str) -> str:
        """Return the line of a device that the gateway reads, or of a node; an index is the gateway's own."""
        return self.lines.get(device if source == self.gateway else source, "gateway")

    def _name(self, source: str, device: str) -> str:
        return device if source == self.gateway else f"{source}/{device}"


def _rank(quantity: str) -> int:
    return FIRST.index(quantity) if quantity in FIRST else len(FIRST)


def _quantity(key: Key) -> str:
    return f"{key.quantity} {key.part}" if key.part else key.quantity


def _value(reading: Reading) -> str:
    if reading.quality == STALE:
        return "stale"
    unit = ucum(reading.quantity)
    return f"{decimal_text(reading.value, reading.exp10)} {WRITTEN.get(unit, unit)}".strip()


def _age(cell: Cell, now_ms: int) -> str:
    age_s = max(0, now_ms - cell.at_ms) / 1000
    return f"{age_s:.1f} s" if age_s < 100 else f"{age_s / 60:.0f} min"
