"""`bega node test`: each sensor read and judged, the way out tried, one record seen at a gateway."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bega.clock import mono_s, wall_ms
from bega_firmware.data_folder import data_folder
from bega_firmware.outcome import Outcome, all_well, as_facts, lines
from bega_firmware.proof import account
from bega_firmware.proof import bench as own_bench
from bega_firmware.proof.buses import Wires
from bega_firmware.proof.found import Found, devices, read_node
from bega_firmware.proof.judge import judged
from bega_firmware.proof.lent import for_bench, give_back, lend
from bega_firmware.proof.sensors import Bench
from bega_firmware.proof.way import BROKER, RECORD, WIFI, prove_network, prove_record, record_within_s, way_of
from bega_protocols.errors import ConfigError

PURPOSE = "read each sensor of a node and judge it; try its way out, until a record is seen at a gateway"
EXAMPLES = """examples:
  bega node test --port /dev/ttyUSB0                     the sensors alone
  bega node test --port /dev/ttyUSB0 --bench             with a broker and a gateway on this machine
  bega node test --port /dev/ttyUSB0 --site park --on-site --json

A bench proves the node, not the site: on the pole the same with --on-site. Exit code: 0 all is well, or could only not
be proved; 1 something is wrong. docs/bench-technician.md"""
BENCH, ON_SITE = "bench", "on-site"
ON_BENCH = "proved on the bench, not on site"
AT_SITE = "proved on site"
CONFIGURATION = "configuration"
LONGEST_TAPS_S = 600

NOT_TRIED = Outcome(RECORD, None, "not tried: what stands above comes first")

Told = Callable[[Outcome], None]
Met = Callable[[Found], None]


@dataclass(frozen=True)
class Table:
    """What a technician's table has beside the node: all of it may be left out."""

    host: str = ""  # of this machine, as the node reaches it; '': found out
    wifi: Mapping[str, str] | None = None  # a network there: {"ssid", "key"}; None: the node's own
    uplink_port: str = ""  # of this machine, on the serial line of a node without Wi-Fi
    taps_s: float = 0.0  # for how long pulse contacts are counted


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "test",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", required=True, metavar="PORT", help="where the node is, as /dev/ttyUSB0")
    parser.add_argument(
        "--site", metavar="SITE", help="the site that it is for: it is compared with what the node says"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--bench", action="store_true", help="broker and gateway on this machine, for the time of the test"
    )
    where.add_argument("--on-site", action="store_true", help="its own network, broker and gateway")
    parser.add_argument(
        "--host", default="", metavar="ADDRESS", help="--bench: of this machine, as the node reaches it"
    )
    parser.add_argument("--wifi", metavar="NAME", help="--bench: a network on the table (default: the node's own)")
    parser.add_argument("--wifi-key-file", type=Path, metavar="FILE", help="--bench: its password, in a file of 0600")
    parser.add_argument(
        "--uplink-port", default="", metavar="PORT", help="--bench: of this machine, on the node's serial line"
    )
    parser.add_argument("--taps", type=float, default=0.0, metavar="S", help="count pulse contacts so long: close them")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where its report goes (default: reports/ID/test in the data folder)"
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Test; say each outcome as it comes, write the report, note it in the bench book; 1 if something is wrong."""
    began_s = mono_s()
    where = BENCH if args.bench else ON_SITE if args.on_site else None
    if not 0 <= args.taps <= LONGEST_TAPS_S:
        raise ConfigError(f"--taps is from 0 to {LONGEST_TAPS_S} seconds")
    table = Table(args.host, _wifi(args), args.uplink_port, args.taps)
    site, outcomes = _site(args.site, where)

    def told(outcome: Outcome) -> None:
        if not args.json:
            print("\n".join(lines(outcome)), flush=True)

    for note in outcomes:
        told(note)
    met: list[Found] = []
    outcomes += test(args.port, site, where, told, table, met.append)
    found = met[0] if met else None
    name = site.name if site else ""
    made = account.report_of(found, outcomes, where, args.port, name, wall_ms(), mono_s() - began_s)
    page, complaint = account.keep(made, data_folder(), args.out, found, (table.wifi or {}).get("key", ""))
    if complaint:
        print(f"bega node test: {complaint}", file=sys.stderr)
    if args.json:
        facts = {"well": all_well(outcomes), "where": where, "outcomes": as_facts(outcomes), "report": str(page)}
        print(json.dumps(facts, ensure_ascii=False))
        return 0 if all_well(outcomes) else 1
    if where == BENCH:
        print(f"{ON_BENCH}: on the pole, `bega node test --on-site`")
    print(f"report: {page}")
    return 0 if all_well(outcomes) else 1


def test(
    port: str, site: Any, where: str | None, told: Told, table: Table | None = None, met: Met | None = None
) -> list[Outcome]:
    """Test the node at `port`; return the outcomes, each told as it comes.

    site: a Site to compare with, or None; where: "bench", "on-site", None for the sensors alone.
    met: called with the node when it was read.
    Raises ConfigError where nothing can be tested: no board, no answer, no bench.
    """
    from bega_firmware.cable import Cable

    outcomes: list[Outcome] = []
    with Cable(port) as cable:
        for outcome in tried(cable, site, where, table or Table(), met):
            outcomes.append(outcome)
            told(outcome)
    return outcomes


def tried(cable: Any, site: Any, where: str | None, table: Table, met: Met | None = None) -> Iterator[Outcome]:
    """Yield the outcomes one by one. The site's own configuration is on the node before and after."""
    if give_back(cable):
        words = "an earlier test was cut off: the node has its own configuration and its records back"
        yield Outcome(CONFIGURATION, True, words)
    found = read_node(cable)
    if met:
        met(found)
    wrong = list(unfit(found))
    yield from wrong
    if wrong:
        return
    assert found.board is not None and found.config is not None
    yield from _compared(found, site)
    heard = Bench(Wires(cable), ask=_ask).read(devices(found.board, found.config), table.taps_s)
    yield from (judged(each, heard) for each in heard)
    if where == ON_SITE:
        yield from _on_site(cable, found.config)
    elif where == BENCH:
        yield from _on_bench(cable, found, table)
    else:
        yield Outcome(RECORD, None, "the way out was not tried", "--bench on a table, --on-site on the pole")


def unfit(found: Found) -> Iterator[Outcome]:
    """Yield why a node cannot be tested."""
    if found.board is None:
        yield Outcome("firmware", False, "there is no firmware of Bega on this board", "bega node flash")
    elif found.config is None:
        yield Outcome(CONFIGURATION, False, found.problem, "bega node provision")
    elif found.is_on_trial:
        words = "an update is on trial there, and a test would decide it in the place of its gateway"
        yield Outcome("firmware", False, words, "leave the node running until the update is confirmed, then test")
    else:
        try:
            devices(found.board, found.config)
        except ConfigError as error:
            yield Outcome(CONFIGURATION, False, str(error), "bega node provision")


def _compared(found: Found, site: Any) -> Iterator[Outcome]:
    """Yield whether the node's configuration is that of the site."""
    if site is None or found.config is None:
        return
    words = _unlike(found.name, found.config, site)
    if words:
        yield Outcome(CONFIGURATION, False, words, f"bega node provision --site {site.name}")
    else:
        yield Outcome(CONFIGURATION, True, f"{found.name} is provisioned for site {site.name}")


def _unlike(name: str, config: Mapping[str, Any], site: Any) -> str:
    """Return in what the node's way out is not the site's, '' if nothing is seen; never a key."""
    way = way_of(config)
    row = config.get(way, {})
    if {"broker": site.wifi, "uplink": site.uplink, "beacon": site.beacon}.get(way) is None:
        return f"the node's way out is {way or 'none'}, and site {site.name} has no such"
    if way == "broker":
        tls = "tls" in row
        if (row.get("host"), row.get("port", 8883 if tls else 1883), tls) not in [
            (broker.host, broker.port, broker.tls) for broker in site.brokers
        ]:
            how = "with TLS" if tls else "without TLS"
            return f"the node speaks to {row.get('host')} {how}, which is no broker of site {site.name}"
        if config.get("wifi", {}).get("ssid") != site.wifi.ssid:
            return f"the node joins another network than site {site.name} has"
    elif way == "uplink" and (row.get("bus"), row.get("baud", 115_200)) != (site.uplink.bus, site.uplink.baud):
        return (
            f"the node speaks on {row.get('bus')} at {row.get('baud', 115_200)} baud, and not as site {site.name} says"
        )
    key = site.keys_path / f"{name}.key"
    if way != "broker" and key.exists() and key.read_text(encoding="utf-8").strip() != row.get("key", ""):
        return f"the node's key is not the one that lies in {key}: its gateway would not understand it"
    return ""


def _on_site(cable: Any, config: Mapping[str, Any]) -> Iterator[Outcome]:
    network = []
    for outcome in prove_network(cable, config) if way_of(config) == "broker" else ():
        network.append(outcome)
        yield outcome
    yield prove_record(cable, record_within_s(config), AT_SITE) if all_well(network) else NOT_TRIED


def _on_bench(cable: Any, found: Found, table: Table) -> Iterator[Outcome]:
    """Lend the node to a bench, prove the way, and give it back: whatever happens on this side of the cable."""
    assert found.config is not None
    own, way = found.config, way_of(found.config)
    uplink = None
    if way == "beacon":
        yield prove_record(cable, record_within_s(own), ON_BENCH)
        return
    if way == "uplink":
        if not table.uplink_port:
            words = "the node speaks on a serial line, and none of this machine's ports was named as its other end"
            yield Outcome(RECORD, None, words, "--uplink-port PORT, an adapter on the node's line; or --on-site")
            return
        row = own["uplink"]
        uplink = {"port": table.uplink_port, "baud": row.get("baud", 115_200), "key": row.get("key", "")}
    host = table.host or own_bench.own_address()
    with contextlib.ExitStack() as stack:
        bench = stack.enter_context(own_bench.bench(found.name, host, uplink))
        broker = bench.broker if way == "broker" else None
        config = for_bench(own, broker, bench.is_secured, table.wifi, wall_ms() // 1000)
        stack.callback(_give_back, cable)
        lend(cable, config, bench.files if way == "broker" else {})
        network = []
        for outcome in prove_network(cable, config) if way == "broker" else ():
            network.append(outcome)
            yield _of_bench(outcome, bench)
        if not all_well(network):
            yield NOT_TRIED
            return
        began_s = mono_s()
        outcome = prove_record(cable, record_within_s(config), f"{ON_BENCH} ({bench.software})")
        give_back(cable)
        yield replace(outcome, took_s=mono_s() - began_s)


def _ask(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _give_back(cable: Any) -> None:
    """Whoever raises has said why: a pulled cable cannot be given anything, and the next test repairs it."""
    with contextlib.suppress(ConfigError):
        give_back(cable)


def _of_bench(outcome: Outcome, bench: own_bench.Bench) -> Outcome:
    what_to_do = outcome.what_to_do
    if outcome.passed is False and outcome.step == WIFI:
        what_to_do = f"{what_to_do}; another network on this table: --wifi NAME --wifi-key-file FILE"
    if outcome.passed is False and outcome.step == BROKER:
        what_to_do = f"is this machine {bench.broker[0]} on that network, does its firewall let in? else --host ADDRESS"
    return replace(outcome, what_to_do=what_to_do)


def _site(name: str | None, where: str | None) -> tuple[Any, list[Outcome]]:
    """Return the site of that name and what is to be said of it; a bench does without one. Raises ConfigError."""
    if name is None:
        return None, []
    from bega_firmware.site import read_site, site_path

    if where == BENCH and not site_path(name).exists():
        words = f"there is no site {name} on this machine: the node is compared with none"
        return None, [Outcome(CONFIGURATION, None, words, f"bega site new {name}, before it hangs anywhere")]
    return read_site(name), []


def _wifi(args: argparse.Namespace) -> dict[str, str] | None:
    if args.wifi is None:
        return None
    key = ""
    if args.wifi_key_file is not None:
        from bega_firmware.site import read_wifi_key_file

        key = read_wifi_key_file(args.wifi_key_file)
    return {"ssid": args.wifi, "key": key}
