"""From a configuration to the link to Home Assistant. Nothing is connected here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from bega import mqtt
from bega_gateway.home_assistant.discovery import OFFLINE, Topics
from bega_gateway.home_assistant.link import Link

if TYPE_CHECKING:
    from bega_gateway.build import Ground
    from bega_gateway.config import Config
    from bega_gateway.edge.derive import ThresholdAlarm
    from bega_gateway.health import Health
    from bega_gateway.home_assistant.picture import Device
    from bega_gateway.home_assistant.table import HomeAssistant


def opened(
    config: Config, table: HomeAssistant, ground: Ground, alarms: Callable[[], Mapping[str, ThresholdAlarm]]
) -> Link:
    """Return the link, which hears every record from now on."""
    name = config.gateway.name
    files = config.uplink if table.broker is None else table
    broker = table.broker or config.uplink.brokers[0]
    credentials = mqtt.Credentials(files.ca_file, files.cert_file, files.key_file)
    will = mqtt.Will(Topics(table.prefix, name).status, OFFLINE)

    def connect() -> AbstractAsyncContextManager[mqtt.Session]:
        # A name of its own: the uplink's session on the same broker has the plain one, and is kept; this one is not.
        login = (table.user, _password(table.password_file)) if table.user and table.password_file else None
        return mqtt.connect(broker, f"{name}-home-assistant", credentials, keep=False, will=will, login=login)

    clocks = ground.clocks.wall_ms, ground.clocks.mono_ms
    link = Link(config, broker, connect, clocks, lambda: _quiet_s_of(name, ground.health), alarms)
    ground.recorder.listen(link.take)
    return link


def _password(file: str) -> str:
    """Return the first line of a file, read at each connect; SessionLost if it cannot be read."""
    try:
        return Path(file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or "it is no text"
        raise mqtt.SessionLost(f"home_assistant.password_file {file} cannot be used ({why})") from None


def _quiet_s_of(gateway: str, health: Health) -> Callable[[Device], float]:
    """Return what says after how many seconds without a record a device is silent: 0 for who is not heard now.

    Of a device of ours its line knows. That a node is heard says nothing of a sensor of it that is dead.
    """
    devices = {who.name: 0.0 if who.silent else inf for who in health.watched if who.kind == "device"}
    nodes = {who.name: 0.0 if who.silent else who.quiet_after_s for who in health.watched if who.kind == "node"}
    return lambda device: devices.get(device[1], inf) if device[0] == gateway else nodes.get(device[0], inf)
