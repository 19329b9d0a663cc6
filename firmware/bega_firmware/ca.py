"""`bega ca`: who is who. One certificate a device, from an authority of the city's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bega.clock import Clock, wall_ms
from bega.service import carry_out, command_line
from bega_firmware import ca_list, ca_verbs
from bega_firmware.authority import (
    ISSUING_DAYS,
    Role,
    make_issuing,
    make_leaf,
    make_root,
    require_clock,
)
from bega_firmware.ca_folder import IDENTITIES, LIST, ROOT_KEY, CaFolder, create
from bega_protocols.errors import ConfigError

DESCRIPTION = "Certificates: an authority of the city's own, and one certificate for each device."
EXAMPLES = """examples:
  bega ca init --ca city-ca --name 'City of Timisoara' --root-key /media/stick/root.key
  bega ca issue --ca city-ca broker-1 --for broker --host broker.city.example --host 192.168.10.2
  bega ca issue --ca city-ca gw-1 --for gateway
  bega ca issue --ca city-ca air-7
  bega ca list --ca city-ca
  bega ca renew --ca city-ca air-7
  bega ca revoke --ca city-ca air-7 --reason stolen
  bega ca issuing --ca city-ca --root-key /media/stick/root.key

What goes where, and why: docs/identity.md."""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    parser, verbs = command_line("bega ca", DESCRIPTION, EXAMPLES)
    _add_init(verbs)
    _add_issue(verbs)
    ca_verbs.add_to(verbs)
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
    ca_list.write_list(CaFolder(args.ca), now_ms)
    key = args.root_key or args.ca / ROOT_KEY
    print(f"{args.ca}: authority {args.name}")
    print(f"  root      until {ca_verbs.last_day(root.certificate)}, key in {key}")
    print(f"  issuing   until {ca_verbs.last_day(issuing.certificate)}")
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
        was_barred = _require_new(authority, args.name, folder, args.again, now_ms)
        ca_verbs.keep(authority, folder, role, pair, now_ms)
        if was_barred:
            ca_list.write_list(authority, now_ms)
    ca_verbs.tell(args, role, folder, pair.certificate, now_ms)
    if was_barred:
        print(f"{args.name} was revoked, and is let in again once {args.ca / LIST} is where it was brought before")
    return 0


def _require_new(authority: CaFolder, name: str, folder: Path, again: bool, now_ms: int) -> bool:
    """Raise ConfigError if the device has a certificate, or something lies where this one would go.

    Returns whether the device was barred until now: what it had was revoked.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already, and is not written over: name another with --out")
    good = ca_list.good(authority, name, now_ms)
    if good and not again:
        last = max(ca_verbs.last_day(certificate) for certificate in good)
        raise ConfigError(f"{name} has a certificate until {last}; --again issues one more, and the old one stays good")
    revoked = [found for each in authority.issued(name) if (found := authority.revocation_of(each))]
    if revoked and not good and not again:
        last_one = max(revoked)
        raise ConfigError(
            f"{name} was revoked on {last_one.when:%Y-%m-%d} ({last_one.reason}); --again issues it a new one and lets "
            "it in again; a device in its place is better given a name of its own"
        )
    return bool(revoked) and not good


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
