"""`bega node provision`: a flashed board becomes a node of a site, over its cable. Run again, it goes on.

Identity, clock, settings, in this order, each file whole or not at all: a board whose plug was pulled in between has
the former settings, or none, and the same command ends the work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bega.clock import Clock, mono_s, wall_ms
from bega.identity import require_device_id
from bega_firmware import book, node_identity, node_keys
from bega_firmware.authority import require_clock
from bega_firmware.ca_folder import CaFolder
from bega_firmware.cable import Cable
from bega_firmware.data_folder import data_folder
from bega_firmware.node_settings import (
    CONFIG,
    LEFT_OVER,
    WAYS,
    OnBoard,
    look,
    require_way,
    settings,
    way_of,
)
from bega_firmware.outcome import Outcome, all_well, as_facts, lines
from bega_firmware.proof.lent import give_back
from bega_firmware.site import Site, read_site
from bega_protocols.errors import ConfigError

PURPOSE = "give a flashed board its identity, its settings and the time"
EXAMPLES = """examples:
  bega node provision --port /dev/ttyUSB0 --site timisoara --id air-7
  bega node provision --port /dev/ttyUSB0 --site cellar --id heat-2 --device heat --every-s 60
  bega node provision --port /dev/ttyUSB0 --site cellar --id grid-1 --device grid=modbus_meter@meters \\
      --set grid.profile=sdm630 --set grid.address=3
  bega node provision --port socket://127.0.0.1:4000 --site timisoara --id air-7 --device co2=scd41@i2c0 --json

A node that has an identity of the site's authority keeps it. After a pulled plug: the same command again."""
STARTS_WITHIN_S = 25.0
MAC = """
import binascii, bluetooth
radio = bluetooth.BLE()
radio.active(True)
print(binascii.hexlify(radio.config("mac")[1], ":").decode().upper())
radio.active(False)
"""

Tell = Callable[[Outcome], None]


@dataclass(frozen=True)
class Wish:
    """What the technician wants a board to be."""

    node: str | None = None  # None: what it is already
    way: str | None = None  # wifi, serial, ble; None: the site's only one
    devices: tuple[str, ...] = ()
    every_s: float | None = None
    board: str | None = None
    again: bool = False
    own: tuple[str, ...] = ()  # DEVICE.SETTING=VALUE


@dataclass(frozen=True)
class Provisioned:
    """What came of it. No secret."""

    node: str
    way: str
    there: OnBoard = field(repr=False)  # its settings hold secrets
    outcomes: list[Outcome]
    table: str = ""  # for the gateway's configuration
    identity: node_identity.Identity | None = None


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "provision", help=PURPOSE, description=PURPOSE, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--port", required=True, metavar="P", help="/dev/ttyUSB0, socket:// or rfc2217://HOST:PORT")
    parser.add_argument("--site", required=True, metavar="S", help="a site of `bega site new`, or a path to its .toml")
    parser.add_argument("--id", metavar="ID", help="its name: 4 to 32 small letters, digits, - (default: what it is)")
    parser.add_argument("--uplink", choices=tuple(WAYS), help="its way out (default: the site's, if it has only one)")
    parser.add_argument(
        "--device", action="append", default=[], metavar="NAME[=DRIVER@BUS]",
        help="a device of the board file by its name (default: all that the firmware has a driver for)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="DEVICE.SETTING=VALUE",
        help="a setting of its driver, as grid.profile=sdm630; digits that are text in double quotes",
    )  # fmt: skip
    parser.add_argument("--every-s", type=float, metavar="S", help="how often they measure (10)")
    parser.add_argument("--board", metavar="BOARD", help="refuse another one than this")
    parser.add_argument("--again", action="store_true", help="this board takes the place of another one of this name")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Provision one board and say what was done; 1 after a sentence if it could not be."""
    site = read_site(args.site)
    wish = Wish(args.id, args.uplink, tuple(args.device), args.every_s, args.board, args.again, tuple(args.set))

    def tell(outcome: Outcome) -> None:
        if not args.json:
            print("\n".join(lines(outcome)), flush=True)

    with Cable(args.port) as cable:
        done = provision(cable, site, wish, tell)
    if args.json:
        print(json.dumps(facts_of(site, done)))
    elif done.table:
        print(f"\nFor the configuration of {site.gateway}:\n\n{done.table}")
    return 0 if all_well(done.outcomes) else 1


def provision(
    cable: Cable, site: Site, wish: Wish, tell: Tell = lambda outcome: None, clock: Clock = wall_ms
) -> Provisioned:
    """Make the board at an open cable a node of `site`, and see it start. Raises ConfigError."""
    require_clock(clock())
    steps = Steps(tell)
    way = way_of(site, wish.way)
    if give_back(cable):  # else the next test would, in the place of what is written now
        steps.done("configuration", "a test was cut off: the node had a bench's, and has its own and its records back")
    there = look(cable, wish.board)
    require_way(there, way)
    node = wish.node or node_identity.name_on(cable) or str((there.config or {}).get("node", ""))
    if not node:
        raise ConfigError("this board is no node yet: say with --id which it will be (as air-7)")
    require_device_id(node)
    asked = (wish.devices, wish.every_s, clock() // 1000, wish.own)
    settings(there, site, node, way, "", *asked)  # what cannot be is said before anything is done
    identity, secret, address = None, "", ""
    if way == "wifi":
        secret = site.wifi_key()
        if site.brokers[0].tls:
            assert site.ca is not None, "a site with TLS names its authority"
            identity = node_identity.bring(cable, CaFolder(site.ca), node, there.chip, wish.again, clock())
            words = "new" if identity.is_new else "kept"
            steps.done("identity", f"{node}, {words}, until {identity.until}, serial {identity.serial}")
        else:
            steps.open("identity", "none: the broker of this site is plain, which is for a bench alone")
    else:
        secret = node_keys.shared_key(site, node, way, there.chip, wish.again)
        steps.done("key", f"{node} and {site.gateway} share the key in {site.keys_path / node}.key")
    if way == "ble":
        address = cable.run(MAC).strip()
        node_keys.keep_beacon_table(site, node, address, secret)
    cable.set_clock(clock())
    steps.done("clock", "the chip's clock shows this machine's time")
    wanted = settings(there, site, node, way, secret, *asked)
    steps.done("settings", _bring(cable, there, wanted, site, way))
    _start(cable, node, steps)
    if identity is not None:
        node_identity.clear(identity)
    done = Provisioned(node, way, there, steps.outcomes, node_keys.gateway_table(site, node, way, address), identity)
    _note(cable, site, done)
    return done


def facts_of(site: Site, done: Provisioned) -> dict[str, Any]:
    """Return what was done, as JSON takes it; no secret."""
    identity = done.identity
    return {
        "node": done.node,
        "site": site.name,
        "way": done.way,
        "board": done.there.board.key,
        "firmware": done.there.version,
        "chip": done.there.chip,
        "identity": identity and {"serial": identity.serial, "until": identity.until, "new": identity.is_new},
        "gateway": site.gateway,
        "table": done.table,
        "outcomes": as_facts(done.outcomes),
    }


class Steps:
    """The steps of one run, each told when it is done."""

    def __init__(self, tell: Tell) -> None:
        self.outcomes: list[Outcome] = []
        self._tell = tell
        self._began_s = mono_s()

    def done(self, step: str, words: str) -> None:
        """Note a step that did what it should."""
        self._add(Outcome(step, True, words, took_s=self._took_s()))

    def open(self, step: str, words: str) -> None:
        """Note a step that proves nothing here."""
        self._add(Outcome(step, None, words, took_s=self._took_s()))

    def failed(self, step: str, words: str, what_to_do: str) -> None:
        """Note a step that went wrong, and what to do."""
        self._add(Outcome(step, False, words, what_to_do, self._took_s()))

    def _add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._tell(outcome)

    def _took_s(self) -> float:
        began_s, self._began_s = self._began_s, mono_s()
        return self._began_s - began_s


def _bring(cable: Cable, there: OnBoard, wanted: dict[str, Any], site: Site, way: str) -> str:
    """Write the settings unless the board has them; return what it has now, in words without a secret."""
    cable.remove(*LEFT_OVER)  # on trial, or the last good ones: of another site, perhaps, with its password
    is_new = wanted != there.config
    if is_new:
        cable.put(CONFIG, (json.dumps(wanted) + "\n").encode())
    devices = ", ".join(sorted(wanted["devices"]))
    out = {"serial": "serial line", "ble": "Bluetooth"}.get(way) or (
        f"Wi-Fi {site.wifi.ssid if site.wifi else ''}, broker {site.brokers[0].host}"
        + (" (the first of the site's: a node knows one)" if len(site.brokers) > 1 else "")
    )
    return f"{'new' if is_new else 'as they were'}: {devices}; by {out}"


def _start(cable: Cable, node: str, steps: Steps) -> None:
    """Restart the node and hear from its console that it runs."""
    cable.restart()
    for line in cable.lines(STARTS_WITHIN_S):
        if line.startswith(f"bega: node {node} runs"):
            return steps.done("start", line.removeprefix("bega: "))
        if line.startswith(("bega: configuration:", "bega: safe mode:")):
            return steps.failed("start", line.removeprefix("bega: "), f"bega node log --port {cable.port}")
    return steps.failed(
        "start", f"it did not say within {STARTS_WITHIN_S:.0f} s that it runs", f"bega node log --port {cable.port}"
    )


def _note(cable: Cable, site: Site, done: Provisioned) -> None:
    """Note it in the bench book; what is wrong with the book stops nobody."""
    complaint = book.note(
        data_folder(), book.PROVISIONED, all_well(done.outcomes), done.outcomes[-1].words,
        port=cable.port, node=done.node, site=site.name, board=done.there.board.key, chip=done.there.board.chip,
        mac=":".join(done.there.chip[at : at + 2] for at in range(0, 12, 2)), firmware=done.there.version,
    )  # fmt: skip
    if complaint:
        print(f"bega node provision: {complaint}", file=sys.stderr)
