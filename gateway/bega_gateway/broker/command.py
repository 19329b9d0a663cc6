"""`bega broker`: a mosquitto that knows everybody by certificate, and lets each at his own topics only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bega.clock import Clock, wall_ms
from bega.identity import require_device_id
from bega.service import carry_out, command_line
from bega.tables import NAME_RULE
from bega_gateway.broker import configuration
from bega_gateway.broker.configuration import CITY, GATEWAY, Members, Ports
from bega_gateway.broker.identity import AUTHORITIES, LIST, Identity, read_identity, with_what_is_there
from bega_gateway.broker.place import contradictions, is_foreign, put, sealed
from bega_gateway.broker.revoke import FOLDER, OURS, add_revoke
from bega_gateway.install import config_of, quoted, shipped, state_dir_of
from bega_protocols.errors import ConfigError
from bega_protocols.senml import is_name

if TYPE_CHECKING:
    from bega.service import Verbs

UNIT_FOLDER = "/etc/systemd/system"
UNITS = ("bega-broker-revoke.path", "bega-broker-revoke.service")
OWN_RULES = "access.own"
Files = dict[Path, tuple[bytes, bool, int]]  # content, whether it is a text that others may have changed, mode
EXAMPLES = """examples:
  bega broker configure --identity broker-1 --gateway gw-1 --dry-run
  sudo bega broker configure --identity broker-1 --gateway gw-1
  sudo bega broker configure --for city --city arad --identity broker-2 --gateway gw-1 gw-2 \\
      --kiosk kiosk-1 --desk desk-1 --operator op-1
  sudo bega broker revoke --crl revoked.pem

What it writes, and why: docs/broker.md."""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    parser, verbs = command_line("bega broker", __doc__, EXAMPLES)
    _add_configure(verbs)
    add_revoke(verbs)
    return carry_out(parser, argv)


def configure(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Write configuration, access list, certificates and list; say what to do next."""
    members = _members(args)
    is_local = args.kind == GATEWAY
    identity = read_identity(args.identity, clock(), is_local)
    files = _files(args, members, identity)
    _require_free(args, files)
    if args.dry_run:
        for path, (content, is_text, _) in files.items():
            print(f"would write {path}" + (":" if is_text else ""))
            if is_text:
                print("".join(f"    {line}\n" for line in content.decode().splitlines()))
        return 0
    for path, (content, _, mode) in files.items():
        print(put(path, content, mode))
    print("\n".join(_next_steps(args)))
    return 0


def _files(args: argparse.Namespace, members: Members, identity: Identity) -> Files:
    """Return what is written, in that order: the configuration after all that it names."""
    place = args.folder / "bega"
    says_where = "persistence_location" in _text(args.folder / "mosquitto.conf")
    ports = Ports(args.listen, args.port, args.local_port)
    conf = configuration.mosquitto_conf(args.kind, str(place), ports, not says_where)
    rules = configuration.access_list(args.kind, members)
    if own := _text(place / OWN_RULES):
        rules += f"\n# {OWN_RULES}\n{own.rstrip()}\n"
    authorities, listed = with_what_is_there(identity, place / LIST)
    files: Files = {
        place / AUTHORITIES: (authorities, False, 0o644),
        place / LIST: (listed, False, 0o644),
        place / "broker.pem": (identity.certificate, False, 0o644),
        place / "broker.key": (identity.key, False, 0o600),
        place / "access": (sealed(args.kind, rules).encode(), True, 0o640),
        args.folder / OURS: (sealed(args.kind, conf).encode(), True, 0o644),
    }
    for name in UNITS if args.kind == GATEWAY else ():
        files[args.units / name] = (sealed(args.kind, _unit(args, name)).encode(), True, 0o644)
    return files


def _unit(args: argparse.Namespace, name: str) -> str:
    """Return a unit that brings to the broker the list that the gateway was sent."""
    text = (shipped("systemd") / name).read_text(encoding="utf-8")
    config = args.config or Path(config_of(Path("/"), None))
    state = args.state or state_dir_of(config)
    words = {
        "python": quoted(sys.executable),
        "config": quoted(str(config)),
        "folder": quoted(str(args.folder.absolute())),
        "list": quoted(f"{state}/{LIST}"),
        "watched": f"{state}/{LIST}".replace("%", "%%"),  # systemd.path(5) takes the rest of the line, quotes and all
    }
    for key, word in words.items():
        text = text.replace(f"{{{key}}}", word)
    return text


def _require_free(args: argparse.Namespace, files: Files) -> None:
    """Raise ConfigError for what others wrote, or for a mosquitto that would not read what we write."""
    main = args.folder / "mosquitto.conf"
    wanted = f"include_dir {args.folder / 'conf.d'}"
    if wanted not in _text(main).splitlines():
        raise ConfigError(f"{main} lacks the line `{wanted}`: is mosquitto installed (apt install mosquitto)?")
    strangers = [str(path) for path, (_, is_text, _) in files.items() if is_text and is_foreign(path)]
    if strangers and not args.replace:
        who = "was written or changed by somebody else"
        raise ConfigError(
            f"{', '.join(strangers)} {who}: --replace writes it anew; access rules of your own belong into "
            f"{args.folder / 'bega' / OWN_RULES}"
        )
    others = contradictions(args.folder, args.folder / OURS)
    if others and not args.keep_others:
        raise ConfigError(
            "\n  ".join(["other lines decide who gets in, take them away or say --keep-others:", *others])
        )


def _members(args: argparse.Namespace) -> Members:
    """Return who has a place; raises ConfigError for names that cannot be, or nobody."""
    groups = (args.gateway, args.kiosk, args.operator, args.reader, args.desk)
    for name in (name for group in groups for name in group):
        require_device_id(name)
    if not args.gateway:
        raise ConfigError("nobody would have a place: name the gateway (--gateway gw-1)")
    if args.kind == GATEWAY and any(groups[1:]):
        raise ConfigError("kiosks, desks, operators and readers have their place on the city's broker (--for city)")
    if args.desk and not args.kiosk:
        raise ConfigError("a desk answers kiosks: name them (--kiosk kiosk-1)")
    if args.kind == CITY and not (args.city and is_name(args.city)):
        raise ConfigError(f"say which city, as its topics have it (--city arad): {NAME_RULE}")
    names = [name for group in groups for name in group]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)}: named twice; one certificate has one part")
    return Members(args.city or "", *groups)


def _next_steps(args: argparse.Namespace) -> list[str]:
    said = ["next:", "  systemctl restart mosquitto"]
    if args.kind == GATEWAY:
        said.append("  systemctl daemon-reload && systemctl enable --now bega-broker-revoke.path")
        said.append(f'  in the gateway\'s configuration: broker = "mqtts://localhost:{args.local_port}", [revocation]')
    return [*said, "  delete the identity's folder: its key is in its place"]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _add_configure(verbs: Verbs) -> None:
    purpose = "write mosquitto's configuration and access list"
    parser = verbs.add_parser("configure", help=purpose, description=purpose)
    parser.add_argument("--for", dest="kind", choices=[GATEWAY, CITY], default=GATEWAY, help="default: gateway")
    parser.add_argument(
        "--identity", type=Path, required=True, metavar="DIR", help="as `bega ca issue --for broker` made it"
    )
    who = [
        ("gateway", "gateways"),
        ("kiosk", "kiosks"),
        ("operator", "who commands"),
        ("reader", "who reads all"),
        ("desk", "where the kiosks' reports go"),
    ]
    for key, words in who:
        parser.add_argument(f"--{key}", nargs="+", default=[], metavar="ID", help=f"{words}, by certificate name")
    parser.add_argument("--city", metavar="NAME", help="with --for city: the city in its topics")
    parser.add_argument("--listen", default="", metavar="ADDRESS", help="default: every address of this machine")
    parser.add_argument("--port", type=int, default=Ports().port, help="default: %(default)s")
    parser.add_argument(
        "--local-port", type=int, default=Ports().local_port, help="where its gateway connects (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), metavar="DIR", help=f"mosquitto's ({FOLDER})")
    parser.add_argument("--units", type=Path, default=Path(UNIT_FOLDER), metavar="DIR", help=f"({UNIT_FOLDER})")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the gateway's configuration, for the unit")
    parser.add_argument("--state", metavar="DIR", help="the gateway's state, for the unit (as its file says)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and do nothing")
    parser.add_argument("--replace", action="store_true", help="write anew what somebody else wrote or changed")
    parser.add_argument("--keep-others", action="store_true", help="leave other ways into the broker as they are")
    parser.set_defaults(command=configure)
