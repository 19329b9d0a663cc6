"""The 24 hours before now in the town, as its public devices would have recorded them: one SenML pack a line.

For `bega gateway backfill --simulated`: the kiosk's day is then full from the first minute on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record
from bega_simulators.town import Town

DAY_S = 86_400
STEP_S = 300
# The particulates' index asks for 45 minutes with data in the last hour: there, a value each minute.
LAST_S, LAST_STEP_S = 3_900, 60

DUST = {"pm1": 0, "pm2_5": 0, "pm10": 0}
COUNTS = dict.fromkeys(
    ("particles_0_3", "particles_0_5", "particles_1", "particles_2_5", "particles_5", "particles_10"), -2
)
CLIMATE = {"temperature": -2, "humidity": -2}


class Diary(NamedTuple):
    """One device: who allots its numbers, its name there, its site, and each quantity with the exponent it resolves."""

    source: str
    device: str
    site: str
    resolves: dict[str, int]


def corner_diaries(gateway: str, node: str) -> list[Diary]:
    """Return the public devices of the demo's corner, by the names in gateway/examples/corner.toml."""
    park = CLIMATE | {"pm2_5": 0, "pm10": 0}
    return [
        Diary(gateway, "roadside-air", "roadside", DUST | COUNTS),
        Diary(gateway, "park-1", "park-1", park),
        Diary(gateway, "park-2", "park-2", park),
        Diary(node, "pms", "pole", DUST | COUNTS),
        Diary(node, "sht", "pole", CLIMATE),
    ]


def records(town: Town, diaries: list[Diary], until_s: int) -> Iterator[Record]:
    """Yield a record of each device every five minutes (every minute in the last hour), oldest first."""
    boot = until_s - DAY_S
    given: Counter[str] = Counter()  # who allots numbers gives each only once, whatever the device
    for at_s in _moments(until_s):
        for diary in diaries:
            values = town.readings(diary.site, at_s)
            readings = [
                Reading(quantity, round(values[quantity, ""] * 10**-exp10), exp10)
                for quantity, exp10 in diary.resolves.items()
            ]
            given[diary.source] += 1
            yield Record(diary.source, boot, given[diary.source], diary.device, at_s * 1000, SYNCHRONISED, readings)


def write_history(path: Path, town: Town, diaries: list[Diary], until_s: int) -> int:
    """Write the day before `until_s` to `path`; return the number of records."""
    packs = [senml.encode(record) for record in records(town, diaries, until_s)]
    path.write_bytes(b"\n".join(packs) + b"\n")
    return len(packs)


def _moments(until_s: int) -> list[int]:
    last_from_s = until_s - LAST_S
    return [*range(until_s - DAY_S, last_from_s, STEP_S), *range(last_from_s, until_s, LAST_STEP_S)]
