"""What another configuration changes in a gateway that runs. Pure: two configurations in, a plan out.

A gateway runs one part for each line that has something to read, and one for each index. A part is named by its
place in the file and depends on a few tables of it; it goes on untouched as long as these are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from bega_gateway.config import Config, Device, MqttLine, Node, UplinkLine
from bega_gateway.edge.tables import AirIndex, Derived, Means, Treated, inputs_of, sample_ms

# What is put to use without a new start; all else of [gateway], and these tables, are bound at the start.
LIVE_KEYS = ("commit_window_s", "spool_quota_mb", "time_zone")
LOOKED_UP = ("audience", "label", "storage_class")  # for each record, by feed and recorder
BOUND_TABLES = ("uplink", "feed", "metrics", "commands", "page", "home_assistant", "updates", "revocation")
LIVE_OF_BOUND = {"home_assistant": ("audiences", "devices")}  # but for these keys of theirs


class Plan(NamedTuple):
    """What becomes of the parts, in the order of the files. One that changed is ended and begun anew."""

    keep: list[str]
    end: list[str]
    begin: list[str]


def plan(before: Config, after: Config) -> Plan:
    """Return what to do with the parts that run by `before`, so that they run by `after`."""
    old, new = parts(before), parts(after)
    return Plan(
        keep=[place for place in old if place in new and old[place] == new[place]],
        end=[place for place in old if place not in new or old[place] != new[place]],
        begin=[place for place in new if place not in old or old[place] != new[place]],
    )


def parts(config: Config) -> dict[str, Any]:
    """Return every part of a gateway that runs by `config`, each with all that it depends on.

    Audience, label and storage class are no part's affair: feed and recorder look them up for each record.
    """
    found: dict[str, Any] = {}
    for name, line in config.lines.items():
        devices = {key: _unseen(device) for key, device in config.devices.items() if device.line == name}
        nodes = {key: _unseen(node) for key, node in config.nodes.items() if node.line == name}
        if devices or isinstance(line, MqttLine) or (nodes and isinstance(line, UplinkLine)):
            # Not only equal but of one kind: two kinds of line may have the same keys.
            found[f"lines.{name}"] = (type(line), line, devices, list(devices), nodes)
    for section, rows in config.edge.items():
        for name, table in rows.items():
            if not isinstance(table, Treated):
                inputs = [config.input_of(given) for given in inputs_of(table)]
                found[f"{section}.{name}"] = (
                    type(table),
                    msgspec.structs.replace(table, label=""),
                    inputs,
                    config.gateway.time_zone,
                    _samples_ms(config, table),
                )
    return found


def settled(before: Config, after: Config) -> tuple[Config, list[str]]:
    """Return the configuration that can run now: `after`, with what only a restart can change as it was.

    Second: the places of what waits for a restart, as "gateway.name".
    """
    waiting = _changed("gateway", before.gateway, after.gateway, LIVE_KEYS)
    bound: dict[str, Any] = {}
    for table in BOUND_TABLES:
        if hasattr(before, table):
            old, new = getattr(before, table), getattr(after, table)
            keys = LIVE_OF_BOUND.get(table, ())
            waiting += _changed(table, old, new, keys)
            bound[table] = old
            if keys and old and new:
                bound[table] = msgspec.structs.replace(old, **{key: getattr(new, key) for key in keys})
    live = {key: getattr(after.gateway, key) for key in LIVE_KEYS if hasattr(after.gateway, key)}
    gateway = msgspec.structs.replace(before.gateway, **live)
    return msgspec.structs.replace(after, gateway=gateway, **bound), waiting


def _samples_ms(config: Config, table: Derived) -> list[int]:
    """Return how long a sample of each input stands for, where that matters: it begins anew with another pace."""
    if not isinstance(table, Means | AirIndex):
        return []
    return [sample_ms(config, table, given) for given in inputs_of(table)]


def _unseen(row: Device | Node) -> Device | Node:
    return msgspec.structs.replace(row, **{key: "" for key in LOOKED_UP if hasattr(row, key)})


def _changed(place: str, before: Any, after: Any, live: tuple[str, ...] = ()) -> list[str]:
    """Return the keys of a table that differ, those in `live` left out; the table itself if it came or went."""
    if before is None or after is None:
        return [] if before is after else [place]
    keys = [field.name for field in msgspec.structs.fields(before)]
    return [f"{place}.{key}" for key in keys if key not in live and getattr(before, key) != getattr(after, key)]
