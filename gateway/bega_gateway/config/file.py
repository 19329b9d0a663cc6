"""From a file to a configuration: what is good in it is taken even beside what is not, so that all is told at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bega import tables
from bega.devices import driver_class, with_profile
from bega.settings import merge
from bega.tables import NAME_RULE, Name, Problem, Table, Tables, is_within, salvage, shown, table_problems
from bega_gateway.commands.table import Commands
from bega_gateway.config.sense import missing_files, sense_problems
from bega_gateway.config.tables import (
    LINES,
    Config,
    Device,
    Feed,
    Gateway,
    Line,
    Metrics,
    Node,
    Page,
    Revocation,
    Uplink,
)
from bega_gateway.edge.tables import EDGE
from bega_gateway.home_assistant.table import HomeAssistant
from bega_gateway.updates.table import Updates
from bega_protocols.errors import ConfigError

SECTIONS: dict[str, type[Table]] = {
    "gateway": Gateway,
    "uplink": Uplink,
    "feed": Feed,
    "metrics": Metrics,
    "commands": Commands,
    "page": Page,
    "home_assistant": HomeAssistant,
    "updates": Updates,
    "revocation": Revocation,
}
NAMED: dict[str, type[Table]] = {"devices": Device, "nodes": Node, **EDGE}


def load(path: Path, assignments: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration in `path` with `assignments` (from --set) laid over it.

    Raises ConfigError whose text lists every problem, one a line, each with its place.
    """
    config, problems = examine(path, assignments)
    if config is None:
        raise ConfigError("\n".join(problems))
    return config


def examine(path: Path, assignments: Mapping[str, Any] | None = None) -> tuple[Config | None, list[str]]:
    """Return (configuration, []) or (None, every problem with its place)."""
    given = _with_texts(assignments or {})
    return tables.examine(path, given, lambda whole: _understood(whole, path.parent))


def check(path: Path, assignments: Mapping[str, Any] | None = None) -> tuple[Config | None, list[str]]:
    """Return what `examine` does, and as a problem also a file of the uplink or of a line that is not there.

    A gateway starts without it, as it starts without a serial port: it measures, and says what the uplink lacks.
    """

    def understood(whole: Tables) -> tuple[Config, list[Problem]]:
        config, found = _understood(whole, path.parent)
        return config, found + list(missing_files(config))

    return tables.examine(path, _with_texts(assignments or {}), understood)


def _shape_problems(whole: Tables) -> Iterator[Problem]:
    for key in whole.keys() - {*SECTIONS, *NAMED, "lines"}:
        yield key, f"unknown table; known are {', '.join([*SECTIONS, 'lines', *NAMED])}"
    for section in ("gateway", "uplink"):
        if section not in whole:
            yield section, "this table is missing"
    for section, kind in SECTIONS.items():
        if section in whole:
            yield from table_problems(section, whole[section], kind)
    for section in (*NAMED, "lines"):
        rows = whole.get(section, {})
        if not isinstance(rows, dict):
            yield section, f"write [{section}.NAME]"
            continue
        for name, row in rows.items():
            yield from _row_problems(section, name, row)


def _row_problems(section: str, name: str, row: Any) -> Iterator[Problem]:
    place = f"{section}.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        yield place, NAME_RULE
    if not isinstance(row, dict):
        yield place, f"write [{place}]"
        return
    if section != "lines":
        yield from table_problems(place, row, NAMED[section])
        return
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in LINES:
        yield f"{place}.kind", f"must be one of {', '.join(LINES)}, not {shown(kind)}"
        return
    yield from table_problems(place, {key: value for key, value in row.items() if key != "kind"}, LINES[kind])


def _accept_single_broker(whole: Tables) -> Tables:
    """`--set uplink.brokers=mqtt://...` gives one text where the file has a list."""
    uplink = whole.get("uplink")
    if isinstance(uplink, dict) and isinstance(uplink.get("brokers"), str):
        return {**whole, "uplink": {**uplink, "brokers": [uplink["brokers"]]}}
    return whole


def _with_texts(assignments: Mapping[str, Any]) -> dict[str, Any]:
    """`--set gateway.name=12345` is a text where the key wants one; only a file can tell 12345 from "12345"."""
    kinds: dict[tuple[str, ...], type[Table]] = {(section,): kind for section, kind in SECTIONS.items()}
    for section, kind in NAMED.items():
        rows = assignments.get(section)
        kinds.update({(section, name): kind for name in (rows if isinstance(rows, dict) else ())})
    overlay: dict[str, Any] = dict(assignments)
    for place, kind in kinds.items():
        row: Any = assignments
        for part in place:
            row = row.get(part) if isinstance(row, dict) else None
        if isinstance(row, dict):
            words = {key: str(row[key]) for key in _text_keys(kind) if type(row.get(key)) in (int, float)}
            laid: dict[str, Any] = {**row, **words}
            for part in reversed(place):
                laid = {part: laid}
            overlay = merge(overlay, laid)
    return overlay


def _text_keys(kind: type[Table]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.type in (str, str | None, Name)]


def _understood(whole: Tables, folder: Path) -> tuple[Config, list[Problem]]:
    """Return the configuration and every problem in it; what is good is looked at even beside what is not."""
    whole = _accept_single_broker(whole)
    found = list(_shape_problems(whole))
    config, stand_ins = _salvaged(whole, folder)
    sense = (problem for problem in sense_problems(config, stand_ins) if not is_within(problem[0], stand_ins))
    return config, found + list(sense)


def _salvaged(whole: Tables, folder: Path) -> tuple[Config, set[str]]:
    """Return a configuration of what is good in `whole`, and the places in it that are no more than stand-ins."""
    stand_ins: set[str] = set()

    def taken(place: str, table: Any, kind: type[Any]) -> Any:
        row, bad = salvage(place, table, kind)
        stand_ins.update(bad)
        return row

    lines: dict[str, Line] = {}
    for name, row in _rows(whole, "lines", stand_ins).items():
        kind = row.get("kind") if isinstance(row, dict) else None
        if isinstance(kind, str) and kind in LINES:
            plain = {key: value for key, value in row.items() if key != "kind"}
            lines[name] = taken(f"lines.{name}", plain, LINES[kind])
        else:
            stand_ins.add(f"lines.{name}")
    rows = {section: _rows(whole, section, stand_ins) for section in NAMED}
    rows["devices"] = {name: _with_audience(row) for name, row in rows["devices"].items()}
    named = {
        section: {name: taken(f"{section}.{name}", row, kind) for name, row in rows[section].items()}
        for section, kind in NAMED.items()
    }
    profiles: dict[str, Any] = {}
    config = Config(
        gateway=taken("gateway", whole.get("gateway"), Gateway),
        uplink=taken("uplink", whole.get("uplink"), Uplink),
        feed=taken("feed", whole["feed"], Feed) if "feed" in whole else None,
        metrics=taken("metrics", whole["metrics"], Metrics) if "metrics" in whole else None,
        commands=taken("commands", whole["commands"], Commands) if "commands" in whole else None,
        page=taken("page", whole["page"], Page) if "page" in whole else None,
        home_assistant=(
            taken("home_assistant", whole["home_assistant"], HomeAssistant) if "home_assistant" in whole else None
        ),
        updates=taken("updates", whole["updates"], Updates) if "updates" in whole else None,
        revocation=taken("revocation", whole["revocation"], Revocation) if "revocation" in whole else None,
        lines=lines,
        devices={name: _with_profile(device, folder, profiles) for name, device in named["devices"].items()},
        nodes=named["nodes"],
        edge={section: named[section] for section in EDGE},
    )
    return config, stand_ins


def _rows(whole: Tables, section: str, stand_ins: set[str]) -> dict[str, Any]:
    rows = whole.get(section, {})
    if isinstance(rows, dict):
        return rows
    stand_ins.add(section)
    return {}


def _with_audience(row: Any) -> Any:
    """Return a device's table, with the audience of a household's meter where it says none."""
    if not isinstance(row, dict) or "audience" in row or not isinstance(row.get("driver"), str):
        return row
    try:
        is_households = getattr(driver_class(row["driver"]), "is_households", False)
    except ConfigError:
        return row
    return {**row, "audience": "personal"} if is_households else row


def _with_profile(device: Device, folder: Path, profiles: dict[str, Any]) -> Device:
    """Put the register map in the place of its name. One of one's own lies beside the configuration.

    Devices of one kind share it (`profiles`), and a reload sees what changed in it. Where it cannot be read its name
    stays, and whoever loads the driver says why.
    """
    if device.tags:
        return msgspec.structs.replace(device, settings={**device.settings, "tags": device.tags})
    name = device.settings.get("profile")
    if not isinstance(name, str):
        return device
    place = str(folder / name) if name.endswith(".toml") else name
    if place not in profiles:
        try:
            profiles[place] = with_profile({"profile": place})["profile"]
        except ConfigError:
            profiles[place] = place
    return msgspec.structs.replace(device, settings={**device.settings, "profile": profiles[place]})
