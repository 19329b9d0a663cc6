"""A device's id: the name in its certificate, its client id, and a segment of its topics."""

from __future__ import annotations

import re

from bega_protocols.errors import ConfigError

DEVICE_ID = re.compile(r"[a-z0-9-]{4,32}")


def require_device_id(name: str) -> None:
    """Raise ConfigError unless `name` can be a device's id: it becomes part of topics and file names."""
    if not DEVICE_ID.fullmatch(name):
        raise ConfigError(f"{name!r} is no device id: 4 to 32 small letters, digits and - (it becomes part of topics)")
