"""The table `[commands]` of the configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bega.tables import Table


class Commands(Table, frozen=True, kw_only=True):
    """Commands from the uplink's broker. Without this table none is heard."""

    public_key: str | None = None  # a PEM file with an Ed25519 key: each command must be signed with its private one
    led: str | None = None  # /sys/class/leds/ACT: what `blink` lets blink
    per_second: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 10.0  # commands, at most
