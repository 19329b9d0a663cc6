"""What the configuration says of Home Assistant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from bega.tables import Problem, Table, shown

if TYPE_CHECKING:
    from bega_gateway.config import Config

AUDIENCES = ("public", "operator")  # what is a household's is shown by name alone
TOPIC = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class HomeAssistant(Table, frozen=True, kw_only=True):
    """Home Assistant, told over a broker that keeps retained messages."""

    broker: str | None = None  # left out: the first of [uplink], and its certificate
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    user: str | None = None  # of a broker that wants a name and a password, as the add-on of Home Assistant does
    password_file: str | None = None  # its first line; for the gateway's user alone to read
    prefix: str = "homeassistant"  # of discovery, as Home Assistant has it set
    birth_topic: str = "homeassistant/status"  # where Home Assistant says that it has started
    audiences: list[str] = msgspec.field(default_factory=lambda: list(AUDIENCES))  # whose devices are shown
    devices: list[str] = msgspec.field(default_factory=list)  # shown besides, whoever they are for


def is_shown(config: Config, source: str, device: str) -> bool:
    """Return whether Home Assistant is told of `device` of `source`. What the file does not name never is."""
    table = config.home_assistant
    if table is None:
        return False
    ours = source == config.gateway.name
    if not (config.is_known(device) if ours else source in config.nodes):
        return False
    if config.audience_of(source, device) in table.audiences:
        return True
    return device in table.devices if ours else source in table.devices or f"{source}/{device}" in table.devices


def problems(table: HomeAssistant) -> Iterator[Problem]:
    """What makes no sense in the table by itself."""
    if table.broker is None:
        for key in ("ca_file", "cert_file", "key_file", "user", "password_file"):
            if getattr(table, key) is not None:
                yield f"home_assistant.{key}", "goes with home_assistant.broker; without it those of [uplink] are used"
    elif (table.user is None) != (table.password_file is None):
        yield f"home_assistant.{'user' if table.user is None else 'password_file'}", "is missing beside the other"
    for index, audience in enumerate(table.audiences):
        if audience not in AUDIENCES:
            household = "; what is a household's is shown by its name in devices" if audience == "personal" else ""
            why = f"must be one of {', '.join(AUDIENCES)}, not {shown(audience)}{household}"
            yield f"home_assistant.audiences[{index}]", why
    for key in ("prefix", "birth_topic"):
        if not TOPIC.fullmatch(getattr(table, key)):
            yield f"home_assistant.{key}", f"write a topic as homeassistant, not {shown(getattr(table, key))}"


def is_known(config: Config, name: str) -> bool:
    """Return whether `devices` may name somebody so: a device, a node, or node/device."""
    source, device = config.input_of(name)
    if name in config.nodes or (source in config.nodes and device):
        return True
    return source == config.gateway.name and config.is_known(device)
