"""Where nodes will hang, S.toml: city, gateway, broker, Wi-Fi, authority. Its secrets lie beside it, or are asked for.

S.toml       read by anybody who may read the folder: no secret
S.secrets    0600: the Wi-Fi password
S.keys/ID.*  0600 in a folder of 0700: what gateway and node share, for a node without Wi-Fi (node_keys.py)
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bega.tables import Name, Problem, Table, Tables, examine, is_host, salvage, table_problems
from bega_firmware.ca_folder import SECRET, write_new
from bega_firmware.data_folder import data_folder
from bega_protocols.errors import ConfigError

SITES, NAME = "sites", re.compile("[A-Za-z0-9_-]{1,64}")
TLS_PORT = 8883
LONGEST_SSID, SHORTEST_KEY, LONGEST_KEY = 32, 8, 63  # bytes; IEEE 802.11-2020, 9.4.2.2 and J.4.1 (passphrase)
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Ask = Callable[[str], str]


class Place(Table, frozen=True):
    """[site]"""

    city: Name
    gateway: Name


class Broker(Table, frozen=True):
    """[[brokers]]: where nodes connect to; tls = false is for a bench."""

    host: str
    port: Port = TLS_PORT
    tls: bool = True


class Wifi(Table, frozen=True):
    """[wifi]: the network's name. Its password is a secret."""

    ssid: str


class Uplink(Table, frozen=True):
    """[uplink]: nodes on a serial line of the gateway (docs/uplink.md)."""

    line: Name = "nodes"  # what the gateway's configuration calls it
    bus: Name = "uart1"
    baud: Annotated[int, msgspec.Meta(ge=300, le=921_600)] = 115_200


class Beacon(Table, frozen=True):
    """[beacon]: nodes that only advertise (docs/beacon.md)."""

    line: Name = "air"
    interval_ms: Annotated[int, msgspec.Meta(ge=100, le=10_240)] = 1000


@dataclass(frozen=True)
class Site:
    """What S.toml says."""

    name: str
    path: Path
    city: str
    gateway: str
    brokers: tuple[Broker, ...] = ()
    wifi: Wifi | None = None
    uplink: Uplink | None = None
    beacon: Beacon | None = None
    ca: Path | None = None  # the authority's folder

    @property
    def secrets_path(self) -> Path:
        """Where the Wi-Fi password lies."""
        return self.path.with_suffix(".secrets")

    @property
    def keys_path(self) -> Path:
        """Where the keys of nodes without Wi-Fi lie."""
        return self.path.with_suffix(".keys")

    def wifi_key(self, ask: Ask | None = None) -> str:
        """Return the Wi-Fi password, "" for an open network: from S.secrets, else asked for on a terminal.

        Raises ConfigError, never with a word of what is in the file.
        """
        if self.secrets_path.exists():
            return _read_secrets(self.secrets_path)
        if ask is None and not sys.stdin.isatty():
            raise ConfigError(
                f"the Wi-Fi password of site {self.name} is not in {self.secrets_path}, and nobody is here to type it: "
                f"`bega site new {self.name} --wifi-key-file FILE` keeps it there"
            )
        assert self.wifi is not None
        try:
            return checked_wifi_key((ask or getpass.getpass)(f"Wi-Fi password of {self.wifi.ssid} (empty: open): "))
        except EOFError:
            raise ConfigError(f"the Wi-Fi password of site {self.name} was not typed: the same command again") from None


def site_path(name_or_path: str) -> Path:
    """Return where a site lies: a path as it is, a name in the user's data folder."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if not NAME.fullmatch(name_or_path):
        raise ConfigError(f"{name_or_path!r} is no site's name (letters, digits, - and _), nor a path to its .toml")
    return data_folder() / SITES / f"{name_or_path}.toml"


def site_names() -> list[str]:
    """Return the names of the sites in the user's data folder."""
    return sorted(path.stem for path in (data_folder() / SITES).glob("*.toml"))


def read_site(name_or_path: str) -> Site:
    """Return a site. Raises ConfigError naming all that is wrong in its file, each with its line."""
    path = site_path(name_or_path)
    if not path.exists():
        known = ", ".join(site_names())
        raise ConfigError(
            f"there is no site {name_or_path}: `bega site new {name_or_path}` makes it"
            + (f"; there are {known}" if known else "")
        )
    site, problems = examine(path, None, lambda tables: _understand(path, tables))
    if site is None:
        raise ConfigError("\n".join(problems))
    return site


def site_text(site: Site) -> str:
    """Return a site as its file says it; paths are written as they are."""
    rows = [f"# Bega site {site.name}: docs/bench-technician.md"]
    if site.ca is not None:
        rows.append(f"ca = {_quoted(str(site.ca))}  # the authority's folder (`bega ca`)")
    rows += ["", "[site]", f"city = {_quoted(site.city)}", f"gateway = {_quoted(site.gateway)}"]
    for broker in site.brokers:
        rows += ["", "[[brokers]]", f"host = {_quoted(broker.host)}", f"port = {broker.port}"]
        rows += [] if broker.tls else ["tls = false  # plain: for a bench alone"]
    if site.wifi is not None:
        rows += ["", "[wifi]", f"ssid = {_quoted(site.wifi.ssid)}"]
    if site.uplink is not None:
        row = site.uplink
        rows += ["", "[uplink]", f"line = {_quoted(row.line)}", f"bus = {_quoted(row.bus)}", f"baud = {row.baud}"]
    if site.beacon is not None:
        rows += ["", "[beacon]", f"line = {_quoted(site.beacon.line)}", f"interval_ms = {site.beacon.interval_ms}"]
    return "\n".join(rows) + "\n"


def save_site(site: Site) -> bool:
    """Write a site that was not there; return False if it is there and says the same. Raises ConfigError."""
    problems = list(_understand(site.path, tomllib.loads(site_text(site)))[1])
    if problems:
        raise ConfigError("\n".join(f"{place}: {why}" for place, why in problems))
    if site.path.exists():
        if read_site(str(site.path)) != site:
            raise ConfigError(f"{site.path} is there and says something else: it is not written over; edit it")
        return False
    site.path.parent.mkdir(parents=True, exist_ok=True)
    write_new(site.path, site_text(site).encode(), 0o644)
    return True


def save_wifi_key(site: Site, key: str) -> bool:
    """Keep the password beside the site, readable by its owner alone; False if it is there and the same."""
    checked_wifi_key(key)
    if site.secrets_path.exists():
        if _read_secrets(site.secrets_path) != key:
            raise ConfigError(f"{site.secrets_path} holds another Wi-Fi password: edit it, it is not written over")
        return False
    write_new(site.secrets_path, f"wifi_key = {_quoted(key)}\n".encode(), SECRET)
    return True


def read_wifi_key_file(path: Path) -> str:
    """Return the password in a file of 0600: its only line. Raises ConfigError."""
    return checked_wifi_key(_read_secret(path).rstrip("\r\n"))


def checked_wifi_key(key: str) -> str:
    """Return `key` if a WPA network can have it, or "" for an open one. Raises ConfigError without it."""
    size = len(key.encode())
    if key and (not SHORTEST_KEY <= size <= LONGEST_KEY or not key.isprintable()):
        raise ConfigError(
            f"a Wi-Fi password has {SHORTEST_KEY} to {LONGEST_KEY} characters in one line; this one has {size} bytes"
        )
    return key


def _understand(path: Path, tables: Tables) -> tuple[Site, Iterator[Problem]]:
    one: dict[str, type[Table]] = {"site": Place, "wifi": Wifi, "uplink": Uplink, "beacon": Beacon}
    rows = tables.get("brokers", [])
    problems: list[Problem] = []
    made: dict[str, Any] = {}
    for key in tables:
        if key not in (*one, "brokers", "ca"):
            problems.append((key, f"unknown; known are {', '.join((*one, 'brokers', 'ca'))}"))
    for key, kind in one.items():
        if key in tables or key == "site":
            problems += table_problems(key, tables.get(key, {}), kind)
            made[key] = salvage(key, tables.get(key, {}), kind)[0]
    if not isinstance(rows, list):
        problems.append(("brokers", "must be a list of tables: [[brokers]]"))
        rows = []
    for number, row in enumerate(rows):
        problems += table_problems(f"brokers[{number}]", row, Broker)
    brokers = tuple(salvage(f"brokers[{number}]", row, Broker)[0] for number, row in enumerate(rows))
    ca = tables.get("ca")
    if ca is not None and (not isinstance(ca, str) or not ca):
        problems.append(("ca", 'must be a folder, as "city-ca"'))
        ca = None
    folder = None if ca is None else Path(os.path.normpath(path.absolute().parent / Path(ca).expanduser()))
    site = Site(
        path.stem, path, made["site"].city, made["site"].gateway, brokers,
        made.get("wifi"), made.get("uplink"), made.get("beacon"), folder,
    )  # fmt: skip
    return site, iter([*problems, *([] if problems else _senseless(site))])


def _senseless(site: Site) -> Iterator[Problem]:
    for number, broker in enumerate(site.brokers):
        if not is_host(broker.host):
            yield f"brokers[{number}].host", "is no host: a name or an address, without mqtt:// and port"
    if site.wifi is not None and not 1 <= len(site.wifi.ssid.encode()) <= LONGEST_SSID:
        yield "wifi.ssid", f"has 1 to {LONGEST_SSID} bytes"
    if site.wifi is not None and not site.brokers:
        yield "brokers", "is missing: who joins the Wi-Fi speaks to a broker"
    if site.wifi is not None and site.ca is None and any(broker.tls for broker in site.brokers):
        yield "ca", "is missing: nodes show the broker a certificate (`bega ca init`)"
    if site.wifi is None and site.uplink is None and site.beacon is None:
        yield "site", "names no way out of a node: [wifi] with [[brokers]], [uplink] or [beacon]"


def _read_secrets(path: Path) -> str:
    try:
        found = tomllib.loads(_read_secret(path))
    except ValueError:
        raise ConfigError(f'{path} is no TOML: its only line is wifi_key = "..."') from None
    key = found.get("wifi_key")
    if not isinstance(key, str) or len(found) != 1:
        raise ConfigError(f'{path} holds wifi_key = "..." and nothing else')
    return checked_wifi_key(key)


def _read_secret(path: Path) -> str:
    """Return the text of a file that its owner alone may read. Raises ConfigError."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text") from None


def _quoted(text: str) -> str:
    """Return `text` as TOML's basic string, which JSON's is one of."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
