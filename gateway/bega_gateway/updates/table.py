"""The table `[updates]` of the configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bega.tables import Name, Table


class Updates(Table, frozen=True, kw_only=True):
    """Updates of our own nodes. Without this table none is taken and none is handed out."""

    public_keys: list[str]  # PEM files, one or two: a bundle that none of them signed is refused here already
    canary: list[Name] = msgspec.field(default_factory=list)  # the nodes that go first; left out: one of them
    at_once: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10  # nodes that load or try at a time
    failures_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10  # of a ring; more stop it. Of the canary: any
