"""`bega ca`: who is who. One certificate a device, from an authority of the city's own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cryptography import x509

from bega.clock import Clock, wall_ms
from bega.service import carry_out, command_line
from bega_firmware.authority import (
    ISSUING_DAYS,
    Pair,
    Role,
    certificate_der,
    certificate_pem,
    common_name,
    key_der,
    key_pem,
    make_issuing,
    make_leaf,
    make_root,
    require_clock,
)
from bega_firmware.ca_folder import IDENTITIES, ROOT_KEY, CaFolder, create, write_folder
from bega_protocols.errors import ConfigError

DESCRIPTION = "Certificates: an authority of the city's own, and one certificate for each device."
EXAMPLES = """examples:
  bega ca init --ca city-ca --name 'City of Timisoara' --root-key /media/stick/root.key
  bega ca issue --ca city-ca broker-1 --for broker --host broker.city.example --host 192.168.10.2
  bega ca issue --ca city-ca gw-1 --for gateway
  bega ca issue --ca city-ca air-7

What goes where, and why: docs/identity.md."""
SHORT_DAYS = 365


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    parser, verbs = command_line("bega ca", DESCRIPTION, EXAMPLES)
    _add_init(verbs)
    _add_issue(verbs)
    try:
        return carry_out(parser, argv)
    except OSError as error:  # a folder that cannot be made or read
        print(f"bega ca: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 1


def init(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Make an authority; say what to do with the root's key."""
    now_ms = clock()
    require_clock(now_ms)
    root = make_root(args.name, now_ms)
    issuing = make_issuing(args.name, 1, root, now_ms)
    create(args.ca, root, issuing, args.root_key)
    key = args.root_key or args.ca / ROOT_KEY
    print(f"{args.ca}: authority {args.name}")
    print(f"  root      until {_last_day(root.certificate)}, key in {key}")
    print(f"  issuing   until {_last_day(issuing.certificate)}")
    if args.root_key is None:
        print(f"Move {key} to a medium that is locked away: only the next issuing key needs it.")
    return 0


def issue(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Issue one certificate; say where it lies and how long it is good."""
    now_ms = clock()
    require_clock(now_ms)
    authority = CaFolder(args.ca)
    role = Role(args.role)
    with authority.locked():
        pair = make_leaf(args.name, role, args.host, authority.issuing(), now_ms, args.days)
        folder = args.out or args.ca / IDENTITIES / args.name
        _require_new(authority, args.name, folder, args.again, now_ms)
        authority.note_issued(pair.certificate)
        write_folder(folder, identity_files(args.name, role, pair, authority))
    _tell(args, folder, pair.certificate)
    if (pair.certificate.not_valid_after_utc.timestamp() - now_ms / 1000) < min(args.days, SHORT_DAYS) * 86400 - 60:
        print(
            f"bega ca issue: valid only until {_last_day(pair.certificate)}: the issuing key ends then, "
            "and the authority needs a new one before",
            file=sys.stderr,
        )
    return 0


def identity_files(name: str, role: Role, pair: Pair, authority: CaFolder) -> dict[str, bytes]:
    """Return {file name: content} of what is carried to a device.

    MicroPython takes one certificate of its own and sends no chain; so the broker is who knows the issuing keys, by its
    `ca.pem`, and sends its own as a chain. A node trusts the root alone: a new issuing key is no visit to it.
    """
    issuing = authority.issuing_certificates()
    if role is Role.NODE:
        return {
            "ca.der": certificate_der(authority.root),
            "node.der": certificate_der(pair.certificate),
            "node.key": key_der(pair.key),
        }
    trusted = [authority.root, *issuing] if role is Role.BROKER else [authority.root]
    return {
        "ca.pem": certificate_pem(*trusted),
        f"{name}.pem": certificate_pem(pair.certificate, issuing[0]),
        f"{name}.key": key_pem(pair.key),
    }


def _require_new(authority: CaFolder, name: str, folder: Path, again: bool, now_ms: int) -> None:
    """Raise ConfigError if the device has a certificate, or something lies where this one would go."""
    if folder.exists():
        raise ConfigError(f"{folder} is there already, and is not written over: name another with --out")
    good = [one for one in authority.issued(name) if one.not_valid_after_utc.timestamp() * 1000 > now_ms]
    if good and not again:
        last = max(_last_day(certificate) for certificate in good)
        raise ConfigError(f"{name} has a certificate until {last}; --again issues one more, and the old one stays good")


def _tell(args: argparse.Namespace, folder: Path, certificate: x509.Certificate) -> None:
    facts = {
        "name": common_name(certificate),
        "for": args.role,
        "folder": str(folder),
        "serial": f"{certificate.serial_number:x}",
        "until": _last_day(certificate),
    }
    if args.json:
        print(json.dumps(facts))
        return
    print(f"{folder}: {args.role} {facts['name']}, valid until {facts['until']}, serial {facts['serial']}")


def _last_day(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"


def _add_init(verbs: Any) -> None:
    purpose = "make an authority: root (10 years) and issuing key (2 years)"
    parser = verbs.add_parser("init", help=purpose, description=purpose)
    parser.add_argument("--ca", type=Path, required=True, metavar="DIR", help="its folder, not there yet or empty")
    parser.add_argument("--name", required=True, help="whose authority: part of its certificates, for people to read")
    parser.add_argument("--root-key", type=Path, metavar="FILE", help="where the root's key goes (default: into DIR)")
    parser.set_defaults(command=init)


def _add_issue(verbs: Any) -> None:
    purpose = "issue the certificate of one node, gateway, kiosk or broker"
    parser = verbs.add_parser("issue", help=purpose, description=purpose)
    parser.add_argument("name", metavar="ID", help="the device id: 4 to 32 small letters, digits and -")
    parser.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority's folder")
    parser.add_argument(
        "--for", dest="role", choices=[role.value for role in Role], default=Role.NODE.value, help="default: node"
    )
    parser.add_argument(
        "--host", action="append", default=[], help="a name or address at which a broker is reached; may come again"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder for it (default: identities/ID)")
    parser.add_argument("--days", type=int, default=ISSUING_DAYS, help=f"how long it is good (default {ISSUING_DAYS})")
    parser.add_argument("--again", action="store_true", help="one more for a device that has one")
    parser.add_argument("--json", action="store_true", help="print what was issued as JSON")
    parser.set_defaults(command=issue)
