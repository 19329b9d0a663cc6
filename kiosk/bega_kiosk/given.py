"""A kiosk's settings as a command line gives them: a file, single values laid over it, or a few values and no file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bega.look.panels import PANELS
from bega.settings import merge, parse_assignments
from bega_kiosk import config
from bega_kiosk.config import Config
from bega_protocols.errors import ConfigError

WITHOUT_FILE = {"kiosk": {"name": "kiosk", "city": "timisoara"}}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a verb take the settings of a kiosk."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (TOML), or --data alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lay a value over the file's")
    parser.add_argument("--data", metavar="DIR", help="what it keeps (kiosk.state_dir)")
    parser.add_argument("--port", type=int, metavar="N", help="where its pages are, on this machine; 0: any free port")
    parser.add_argument("--feed", metavar="URL", help="the public feed that it shows (feed.url)")
    parser.add_argument("--mqtt", metavar="URL", help="the broker that its reports go to (reports.mqtt)")
    parser.add_argument("--panel", choices=PANELS, help="the screen that it is drawn for (kiosk.panel)")


def given_config(args: argparse.Namespace) -> Config:
    """Return what was asked for; raises ConfigError that lists every problem, one a line."""
    values = given_values(args)
    if args.config is not None:
        return config.load(args.config, values)
    if "state_dir" not in values.get("kiosk", {}):
        raise ConfigError("say where the kiosk keeps what it heard, with --data DIR, or give its --config FILE")
    return config.make(merge(WITHOUT_FILE, values))


def given_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the tables that are laid over the file's."""
    options = {
        "kiosk.state_dir": args.data,
        "kiosk.panel": args.panel,
        "feed.url": args.feed,
        "reports.mqtt": args.mqtt,
        "server.listen": None if args.port is None else f"127.0.0.1:{args.port}",
    }
    tables: dict[str, Any] = parse_assignments(args.set)
    for place, value in options.items():
        section, _, key = place.partition(".")
        if value is not None:
            tables = merge(tables, {section: {key: value}})
    return tables
