"""`bega site`: where nodes will hang, said once and used for each of them."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any

from bega.service import carry_out, command_line
from bega_firmware.site import (
    TLS_PORT,
    Ask,
    Beacon,
    Broker,
    Site,
    Uplink,
    Wifi,
    checked_wifi_key,
    read_site,
    read_wifi_key_file,
    save_site,
    save_wifi_key,
    site_names,
    site_path,
)
from bega_protocols.errors import ConfigError

DESCRIPTION = "Sites: city, gateway, broker, Wi-Fi and authority of the nodes that will hang there."
EXAMPLES = """examples:
  bega site new timisoara --city timisoara --gateway gw-hall --broker 192.168.10.2 --ssid city-iot \\
      --wifi-key-file wifi.key --ca city-ca
  bega site new cellar --city timisoara --gateway gw-cellar --uplink --uplink-baud 9600
  bega site show timisoara

What is not given is asked for on a terminal. A name stands for a file in the user's data folder, sites/NAME.toml; a
path is taken as it is. The password lies beside it in NAME.secrets, or is asked for at each use: never given here."""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    parser, verbs = command_line("bega site", DESCRIPTION, EXAMPLES)
    _add_new(verbs)
    _add_show(verbs)
    try:
        return carry_out(parser, argv)
    except EOFError:  # Ctrl-D
        print("\nbega site: an answer is missing: the same command again", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bega site: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 1


def new(args: argparse.Namespace, ask: Ask | None = None, ask_secret: Ask = getpass.getpass) -> int:
    """Make a site, unless it is there and says the same."""
    if ask is None and sys.stdin.isatty():
        ask = input
    site = _asked_site(args, ask)
    if args.wifi_key_file and site.wifi is None:
        raise ConfigError("--wifi-key-file is for a Wi-Fi: name it with --ssid")
    key = read_wifi_key_file(args.wifi_key_file) if args.wifi_key_file else None
    is_new = save_site(site)
    if site.wifi is not None and key is None and not site.secrets_path.exists() and ask is not None:
        key = checked_wifi_key(ask_secret(f"Wi-Fi password of {site.wifi.ssid} (empty: open, or asked for later): "))
        key = key or None
    is_kept = save_wifi_key(site, key) if key is not None and site.wifi is not None else False
    print(f"{site.path}: site {site.name}{'' if is_new else ', there already and the same'}")
    if is_kept:
        print(f"{site.secrets_path}: the Wi-Fi password, readable by you alone")
    elif site.wifi is not None and not site.secrets_path.exists():
        print("the Wi-Fi password is asked for at each use")
    return 0


def show(args: argparse.Namespace) -> int:
    """Print a site, or the names of all: no secret."""
    if args.name is None:
        names = site_names()
        print(json.dumps(names) if args.json else "\n".join(names) or "no sites yet: `bega site new NAME`")
        return 0
    site = read_site(args.name)
    print(json.dumps(_facts(site)) if args.json else _words(site))
    return 0


def _asked_site(args: argparse.Namespace, ask: Ask | None) -> Site:
    """Return the site that the options say; what they leave out is asked for, or missing."""
    path = site_path(args.name)
    if path.suffix != ".toml":
        raise ConfigError(f"{path}: a site's file ends in .toml")

    def wanted(given: str | None, option: str, question: str) -> str:
        if given is not None:
            return given
        if ask is None:
            raise ConfigError(f"{option} is missing, and nobody is here to ask")
        return ask(f"{question}: ").strip()

    city = wanted(args.city, "--city", "City, as in topics (timisoara)")
    gateway = wanted(args.gateway, "--gateway", "Gateway, its name in its certificate (gw-hall)")
    is_without = args.ssid is None and (args.uplink or args.beacon)
    ssid = None if is_without else wanted(args.ssid, "--ssid", "Wi-Fi name (empty: none)") or None
    brokers: list[str] = args.broker
    if ssid is not None and not brokers:
        brokers = [wanted(None, "--broker", "Broker, HOST or HOST:PORT")]
    tables = tuple(_broker(text, args.plain) for text in brokers)
    ca = args.ca
    if ssid is not None and ca is None and not args.plain:
        ca = Path(wanted(None, "--ca", "Authority's folder (city-ca)"))
    return Site(
        name=path.stem,
        path=path,
        city=city,
        gateway=gateway,
        brokers=tables,
        wifi=Wifi(ssid=ssid) if ssid else None,
        uplink=Uplink(line=args.uplink_line, bus=args.uplink_bus, baud=args.uplink_baud) if args.uplink else None,
        beacon=Beacon(line=args.beacon_line) if args.beacon else None,
        ca=Path(os.path.normpath(ca.expanduser().absolute())) if ca is not None else None,  # as it will be read
    )


def _broker(text: str, is_plain: bool) -> Broker:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (text.count(":") > 1 and not text.startswith("[")):
        host, port = text, str(1883 if is_plain else TLS_PORT)
    if not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ConfigError(f"--broker {text}: write it as HOST or HOST:PORT")
    return Broker(host=host.strip("[]"), port=int(port), tls=not is_plain)


def _facts(site: Site) -> dict[str, Any]:
    ways = {way: getattr(site, way) for way in ("wifi", "uplink", "beacon")}
    return {
        "name": site.name,
        "file": str(site.path),
        "city": site.city,
        "gateway": site.gateway,
        "brokers": [{"host": row.host, "port": row.port, "tls": row.tls} for row in site.brokers],
        "ca": str(site.ca) if site.ca else None,
        **{way: {key: getattr(row, key) for key in row.__struct_fields__} for way, row in ways.items() if row},
        "wifi_key": site.secrets_path.exists(),  # whether it is kept, not what it is
    }


def _words(site: Site) -> str:
    rows = [f"{site.name} ({site.path})", f"  city       {site.city}", f"  gateway    {site.gateway}"]
    for number, broker in enumerate(site.brokers):
        remarks = ["" if broker.tls else ", plain", "" if number == 0 else ", not used by nodes: they know one broker"]
        rows.append(f"  broker     {broker.host}:{broker.port}{''.join(remarks)}")
    if site.wifi is not None:
        kept = str(site.secrets_path) if site.secrets_path.exists() else "asked for at each use"
        rows += [f"  Wi-Fi      {site.wifi.ssid}", f"  password   {kept}"]
    if site.uplink is not None:
        rows.append(f"  serial     {site.uplink.bus}, {site.uplink.baud} baud, line {site.uplink.line} of the gateway")
    if site.beacon is not None:
        rows.append(f"  Bluetooth  each {site.beacon.interval_ms} ms, line {site.beacon.line} of the gateway")
    if site.ca is not None:
        rows.append(f"  authority  {site.ca}")
    return "\n".join(rows)


def _add_new(verbs: Any) -> None:
    purpose = "make a site; one that is there is never written over"
    parser = verbs.add_parser("new", help=purpose, description=purpose)
    parser.add_argument("name", metavar="NAME", help="its name, or a path that ends in .toml")
    parser.add_argument("--city", help="part of topics, as timisoara")
    parser.add_argument("--gateway", help="the gateway's name, as in its certificate")
    parser.add_argument(
        "--broker", action="append", default=[], metavar="HOST[:PORT]", help="may come again; nodes use the first"
    )
    parser.add_argument("--plain", action="store_true", help="a broker without TLS: for a bench alone")
    parser.add_argument("--ssid", help="name of the Wi-Fi")
    parser.add_argument("--wifi-key-file", type=Path, metavar="FILE", help="its password, in a file of 0600")
    parser.add_argument("--ca", type=Path, metavar="DIR", help="the authority's folder (`bega ca init`)")
    parser.add_argument("--uplink", action="store_true", help="nodes on a serial line of the gateway")
    parser.add_argument("--uplink-line", default="nodes", metavar="NAME", help="the gateway's name for it (nodes)")
    parser.add_argument("--uplink-bus", default="uart1", metavar="BUS", help="the node's UART (uart1)")
    parser.add_argument("--uplink-baud", type=int, default=115_200, metavar="N", help="its rate (115200)")
    parser.add_argument("--beacon", action="store_true", help="nodes that advertise by Bluetooth")
    parser.add_argument("--beacon-line", default="air", metavar="NAME", help="the gateway's Bluetooth line (air)")
    parser.set_defaults(command=new)


def _add_show(verbs: Any) -> None:
    purpose = "print a site, or the names of all; no secret"
    parser = verbs.add_parser("show", help=purpose, description=purpose)
    parser.add_argument("name", metavar="NAME", nargs="?", help="its name, or a path")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(command=show)
