"""Home Assistant's device discovery: names in, topics and one JSON object a device out. Pure.

Home Assistant 2026.9, integration `mqtt`, "MQTT Discovery": a retained message on
`<prefix>/device/<node_id>/<object_id>/config` describes a device with all of its entities ("components"); an empty
one takes it away. Device discovery is there since 2024.11.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from bega import __version__
from bega_gateway.home_assistant.kinds import BINARY, Kind, kind_of, part_words, words
from bega_protocols.senml import is_name

ORIGIN = {"name": "Bega", "sw_version": __version__}
MOST_COMPONENTS = 500  # that are taken from a configuration that we left on the broker
GATEWAY = "_gateway"  # the segment of the gateway itself; no name gives a single `_` before a letter
ONLINE, OFFLINE = b"online", b"offline"
ON, OFF = b"ON", b"OFF"
Key = tuple[str, str]  # a quantity and a part


class Topics(NamedTuple):
    """Every topic of one gateway."""

    prefix: str
    gateway: str

    @property
    def status(self) -> str:
        """Where the gateway says that it is there, and its broker that it is gone."""
        return f"bega/{self.gateway}/status"

    @property
    def probe(self) -> str:
        """Where the gateway speaks to itself."""
        return f"bega/{self.gateway}/probe"

    @property
    def configs(self) -> str:
        """A filter for the descriptions of all of our devices."""
        return f"{self.prefix}/device/{self.gateway}/+/config"

    def config(self, source: str, device: str) -> str:
        """Where a device is described; with neither, the gateway itself."""
        segment = object_id(source, device) if device else GATEWAY
        return f"{self.prefix}/device/{self.gateway}/{segment}/config"

    def state(self, source: str, device: str, key: Key) -> str:
        """Where the value of an entity goes."""
        return self._of("state", source, device, key)

    def attributes(self, source: str, device: str, key: Key) -> str:
        """Where its attributes go."""
        return self._of("attributes", source, device, key)

    def available(self, source: str, device: str, key: Key) -> str:
        """Where it is said whether that value still holds."""
        return self._of("available", source, device, key)

    def _of(self, what: str, source: str, device: str, key: Key) -> str:
        return "/".join(word for word in ("bega", self.gateway, what, source, device, *key) if word)


class Described(NamedTuple):
    """What one entity needs said of it, apart from what follows from its quantity."""

    kind: Kind
    expire_after_s: int | None


def object_id(source: str, device: str) -> str:
    """Return a device's own segment of the topic; two names never give the same.

    Names have `_` and `-` in them, and only these may be in a segment: so a `_` of a name is doubled, and `_-` stands
    between the two.
    """
    return "_-".join(name.replace("_", "__") for name in (source, device))


def names_in(config_topic: str) -> tuple[str, str] | None:
    """Return source and device that `config` made a topic of, two '' for the gateway; None for no such topic."""
    segments = config_topic.split("/")
    segment = segments[-2] if len(segments) > 1 else ""
    if segment == GATEWAY:
        return "", ""
    names = [piece.replace("/", "_") for piece in segment.replace("__", "/").split("_-")]
    return (names[0], names[1]) if len(names) == 2 and all(is_name(name) for name in names) else None


def component_key(key: Key) -> str:
    """Return what an entity is called in its device's description. No quantity has a `-` in its name."""
    quantity, part = key
    return f"{quantity}-{part}" if part else quantity


def keys_in(payload: bytes) -> list[Key]:
    """Return the entities in a description that we left on the broker; of what is none of ours, none."""
    try:
        components = msgspec.json.decode(payload)["components"]
        named = [str(name).partition("-") for name in list(components)[:MOST_COMPONENTS]]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        return []
    return [
        (quantity, part)
        for quantity, dash, part in named
        if kind_of(quantity) and (is_name(part) if dash else not part)
    ]


def of_gateway(topics: Topics) -> bytes:
    """Return the description of the gateway itself: whether it is there."""
    link = {
        "platform": BINARY,
        "name": "Connection",
        "unique_id": f"{_id(topics, '', '')}/status",
        "state_topic": topics.status,
        "payload_on": ONLINE.decode(),
        "payload_off": OFFLINE.decode(),
        "device_class": "connectivity",
        "entity_category": "diagnostic",
    }
    device = {
        "identifiers": [_id(topics, "", "")],
        "name": words(topics.gateway),
        "manufacturer": "Bega",
        "model": "Gateway",
    }
    return _encoded(device, {"status": link})


def of_device(
    topics: Topics, source: str, device: str, label: str, model: str, entities: Iterable[tuple[Key, Described]]
) -> bytes:
    """Return the description of a device with the entities that are known of it.

    label: where it stands, in words; '' if nobody said so. model: what it is, '' if nobody knows
    """
    name = words(device) if source == topics.gateway else f"{words(source)}, {words(device)}"
    described = {
        "identifiers": [_id(topics, source, device)],
        "name": label or name,
        "via_device": _id(topics, "", ""),
        **({"model": model} if model else {}),
    }
    components = {
        component_key(key): _component(topics, source, device, key, entity) for key, entity in sorted(entities)
    }
    return _encoded(described, components)


def _component(topics: Topics, source: str, device: str, key: Key, entity: Described) -> dict[str, Any]:
    kind = entity.kind
    part = key[1]
    known = {
        "platform": kind.platform,
        "name": f"{kind.name}, {part_words(part)}" if part else kind.name,
        "unique_id": f"{_id(topics, source, device)}/{component_key(key)}",
        "state_topic": topics.state(source, device, key),
        "json_attributes_topic": topics.attributes(source, device, key),
        "availability": [{"topic": topics.status}, {"topic": topics.available(source, device, key)}],
        "availability_mode": "all",
        "device_class": kind.device_class,
        "unit_of_measurement": kind.unit,
        "state_class": kind.state_class,
        "expire_after": entity.expire_after_s,
        "entity_category": kind.category,
        "enabled_by_default": None if kind.is_enabled else False,
    }
    return {field: value for field, value in known.items() if value is not None}


def _id(topics: Topics, source: str, device: str) -> str:
    return "/".join(name for name in ("bega", topics.gateway, source, device) if name)


def _encoded(device: dict[str, Any], components: dict[str, Any]) -> bytes:
    whole = {"device": device, "origin": ORIGIN, "components": components}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
