"""An I2C bus: which of our sensors answers at which of its addresses. No other address is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bega.devices import must_be_asked
from bega_gateway.lines.wire_i2c import I2cWire
from bega_gateway.scan.attempt import drivers_on, loaded, measured
from bega_gateway.scan.search import note_of
from bega_protocols.errors import LineError

if TYPE_CHECKING:
    from bega_gateway.scan.search import Search

ADDRESSES = range(0x08, 0x78)  # of seven bits; the others have a meaning of their own (I2C specification, table 4)


async def scan_bus(search: Search, number: int) -> None:
    """Measure once with every driver at each address that it may have."""
    place = f"i2c-{number}"
    wire = I2cWire(number, search.mono_ms)
    try:
        await wire.open()
    except LineError as error:
        search.findings.notes.append(note_of(error))
        search.progress.say(search.findings.notes[-1])
        return
    line = search.findings.line(place, "i2c", f"I2C bus /dev/i2c-{number}", {"bus": number})
    try:
        for name in drivers_on("i2c"):
            for settings in _choices(name):
                driver = loaded(name, settings)
                if driver is None or not must_be_asked(driver):
                    continue
                search.progress.step(place, f"asking {name}")
                outcome = await measured(wire, driver, search.mono_ms)
                if outcome.readings:
                    where = f" at 0x{settings['address']:02x}" if settings else ""
                    facts = {"readings": outcome.readings, "attributes": outcome.attributes}
                    search.findings.add(line, name, name, settings, heard=f"answered{where}", **facts)
                    search.progress.say(f"{place}: {name}{where}")
    except LineError as error:
        search.findings.notes.append(note_of(error))
    finally:
        wire.close()


def _choices(name: str) -> list[dict[str, Any]]:
    """Return the settings to try: each address that the driver takes, or none where it has but one."""
    choices: list[dict[str, Any]] = [{"address": address} for address in ADDRESSES]
    return [settings for settings in choices if loaded(name, settings)] or [{}]
