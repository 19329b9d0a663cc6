"""A history from elsewhere into the public feed: one SenML pack a line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bega_gateway.config import Config
from bega_gateway.feed_store import loading
from bega_protocols import senml
from bega_protocols.errors import ConfigError, WireError


def load_history(config: Config, source: Path, simulated: bool) -> tuple[int, int]:
    """Return (records loaded, records left out). Only what the configuration makes public is taken.

    Raises ConfigError if the gateway has no feed or the file cannot be read.
    """
    if config.feed is None:
        raise ConfigError("this gateway has no [feed] to load a history into")
    state = Path(config.gateway.state_dir)
    loaded = left_out = 0
    try:
        state.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as packs, loading(state / "feed.db") as load:
            for pack in packs:
                try:
                    record = senml.decode(pack)
                except WireError:
                    left_out += 1
                    continue
                if config.audience_of(record.source, record.device) != "public" or record.time_ms is None:
                    left_out += 1
                    continue
                load(record, simulated)
                loaded += 1
    except OSError as error:
        raise ConfigError(f"{error.filename or source}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise ConfigError(f"{state / 'feed.db'}: {error}") from None
    return loaded, left_out
