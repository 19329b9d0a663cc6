"""`bega ca renew`, `revoke`, `list` and `issuing`: what happens to certificates after they were issued."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from bega.clock import Clock, wall_ms
from bega.identity import require_device_id
from bega.revocation import RevocationList
from bega_firmware import ca_list
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
    require_clock,
)
from bega_firmware.ca_folder import IDENTITIES, LIST, ROOT_KEY, CaFolder, Revocation, read_key, write_folder
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.service import Verbs

SHORT_DAYS = 365
REASONS = ("stolen", "lost", "replaced", "retired", "unsaid")
SUFFIX = " root"  # of the root's name, behind the authority's


def keep(authority: CaFolder, folder: Path, role: Role, pair: Pair, now_ms: int) -> None:
    """Note a new certificate, then lay it down with its key, to be carried to its device."""
    if role is Role.BROKER and ca_list.published(authority) is None:  # an authority of an older Bega
        ca_list.write_list(authority, now_ms)
    authority.note_issued(pair.certificate, role.value)
    write_folder(folder, identity_files(role, pair, authority))


def identity_files(role: Role, pair: Pair, authority: CaFolder) -> dict[str, bytes]:
    """Return {file name: content} of what is carried to a device.

    MicroPython takes one certificate of its own and sends no chain; so the broker is who knows the issuing keys, by its
    `ca.pem`, and sends its own as a chain. A node trusts the root alone: a new issuing key is no visit to it.
    """
    issuing = authority.issuing_certificates()
    name = common_name(pair.certificate)
    if role is Role.NODE:
        return {
            "ca.der": certificate_der(authority.root),
            "node.der": certificate_der(pair.certificate),
            "node.key": key_der(pair.key),
        }
    files = {f"{name}.pem": certificate_pem(pair.certificate, issuing[0]), f"{name}.key": key_pem(pair.key)}
    if role is Role.GATEWAY:
        return {"ca.pem": certificate_pem(authority.root), **files}
    revoked = (authority.folder / LIST).read_bytes()
    return {"ca.pem": certificate_pem(authority.root, *issuing), LIST: revoked, **files}


def tell(args: argparse.Namespace, role: Role, folder: Path, certificate: x509.Certificate, now_ms: int) -> None:
    """Say where a new certificate lies and how long it is good; and why, if that is short."""
    facts = {
        "name": common_name(certificate),
        "for": role.value,
        "folder": str(folder),
        "serial": f"{certificate.serial_number:x}",
        "until": last_day(certificate),
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print(f"{folder}: {role.value} {facts['name']}, valid until {facts['until']}, serial {facts['serial']}")
    if (certificate.not_valid_after_utc.timestamp() - now_ms / 1000) < min(args.days, SHORT_DAYS) * 86400 - 60:
        print(
            f"bega ca {args.verb}: valid only until {last_day(certificate)}: the issuing key ends then, "
            "and the authority needs a new one before: `bega ca issuing`",
            file=sys.stderr,
        )


def renew(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Issue a device its next certificate: the same id, part and hosts, a key of its own."""
    now_ms = clock()
    require_clock(now_ms)
    require_device_id(args.name)
    authority = CaFolder(args.ca)
    with authority.locked():
        old = _to_renew(authority, args.name, now_ms)
        role = Role(args.role or ca_list.role_of(authority, old) or _unknown_role(args.name))
        pair = make_leaf(args.name, role, _hosts(old), authority.issuing(), now_ms, args.days)
        folder = args.out or args.ca / IDENTITIES / args.name
        if folder.exists():
            raise ConfigError(f"{folder} is there already, and is not written over: name another with --out")
        keep(authority, folder, role, pair, now_ms)
    tell(args, role, folder, pair.certificate, now_ms)
    if not args.json and ca_list.is_good(authority, old, now_ms):
        print(f"the one before stays good until {last_day(old)}: revoke --serial {old.serial_number:x} if it was lost")
    return 0


def revoke(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Say that a device's certificates are no longer good, and write the list that brokers go by."""
    now_ms = clock()
    require_clock(now_ms)
    require_device_id(args.name)
    authority = CaFolder(args.ca)
    with authority.locked():
        meant = _to_revoke(authority, args.name, args.serial, now_ms)
        revocation = Revocation(datetime.fromtimestamp(now_ms // 1000, UTC), args.reason)
        new = [each for each in meant if authority.revocation_of(each) is None]
        for certificate in new:
            authority.note_revoked(certificate, revocation)
        written = ca_list.write_list(authority, now_ms)
    _tell_revoked(args, meant, len(new), written)
    if Role.BROKER.value in [ca_list.role_of(authority, each) for each in meant]:
        print(
            f"bega ca revoke: {args.name} is a broker's: nodes and gateways look at no list, and take it for their "
            f"broker until {max(map(last_day, meant))} wherever it can stand in the broker's place",
            file=sys.stderr,
        )
    return 0


def show(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Show every certificate: what ends first is first."""
    now_ms = clock()
    authority = CaFolder(args.ca)
    rows = ca_list.rows(authority, now_ms)
    if args.json:
        facts = [{**row._asdict(), "for": row.role, "until": f"{row.until:%Y-%m-%d}"} for row in rows]
        print(json.dumps([{key: value for key, value in fact.items() if key != "role"} for fact in facts]))
        return 0
    for row in rows:
        state = f"{row.state} ({row.why})" if row.why else row.state
        print(f"{row.name:<32} {row.role or 'node or gateway':<15} {row.until:%Y-%m-%d}  {state}")
    for number in reversed(authority.issuing_numbers()):
        certificate = authority.issuing_certificates()[authority.issuing_numbers().index(number)]
        print(f"{f'issuing key {number}':<48} {last_day(certificate)}  {_state(certificate, now_ms)}")
    print(f"{'root':<48} {last_day(authority.root)}  {_state(authority.root, now_ms)}")
    return 0


def issuing(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Make the next issuing key, signed with the root's; what the older ones signed stays good."""
    now_ms = clock()
    require_clock(now_ms)
    authority = CaFolder(args.ca)
    path = args.root_key or args.ca / ROOT_KEY
    root = Pair(authority.root, read_key(path, authority.root, on_stick=True))
    if path.stat().st_mode & 0o077:
        print(f"bega ca issuing: others can read {path} while it is here: put it away again", file=sys.stderr)
    with authority.locked():
        for stolen in args.stolen:
            if not any((args.ca / f"{word}-{stolen}.pem").exists() for word in ("issuing", "stolen")):
                raise ConfigError(f"{args.ca} has no issuing key {stolen}: `bega ca list` shows them; nothing was done")
        number = authority.issuing_numbers()[0] + 1
        pair = make_issuing(common_name(authority.root).removesuffix(SUFFIX), number, root, now_ms)
        authority.add_issuing(number, pair)
        for stolen in args.stolen:
            authority.give_up_issuing(stolen)
        ca_list.write_list(authority, now_ms)
    print(f"{args.ca}: issuing key {number}, until {last_day(pair.certificate)}; it signs from now on")
    print(f"Before anything that it signs: bring {args.ca / LIST} to every broker, by it they know the new key.")
    if args.stolen:
        print("What the stolen key signed is good no more where that list is, once mosquitto was restarted there:")
        print("issue gateways and brokers their next certificates first (docs/identity.md).")
    if pair.certificate.not_valid_after_utc == authority.root.not_valid_after_utc:
        print(
            f"bega ca issuing: valid only until {last_day(pair.certificate)}: the root ends then, and the city needs a "
            "new authority before: `bega ca init`",
            file=sys.stderr,
        )
    return 0


def last_day(certificate: x509.Certificate) -> str:
    """Return the last day on which a certificate is good."""
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"


def _to_renew(authority: CaFolder, name: str, now_ms: int) -> x509.Certificate:
    """Return the certificate that ends last of those that were not revoked.

    Raises ConfigError if there is none, or none but ended ones beside one that was revoked: the list bars the device.
    """
    issued = authority.issued(name)
    if not issued:
        raise ConfigError(f"{name} has no certificate of this authority: `bega ca issue {name}` makes its first")
    left = [each for each in issued if authority.revocation_of(each) is None]
    if len(left) < len(issued) and not ca_list.good(authority, name, now_ms):
        raise ConfigError(f"{name} was revoked: `bega ca issue --again {name}` lets it in again, if that is meant")
    return max(left, key=lambda each: each.not_valid_after_utc)


def _to_revoke(authority: CaFolder, name: str, serial: str | None, now_ms: int) -> list[x509.Certificate]:
    """Return what is meant by a device's id: all that has not ended, or the one with that serial number."""
    issued = authority.issued(name)
    if serial is not None:
        issued = [each for each in issued if f"{each.serial_number:x}" == serial.lower()]
    if not issued:
        which = f"{name} has no certificate {serial}" if serial else f"{name} has no certificate of this authority"
        raise ConfigError(f"{which}: `bega ca list` shows what was issued; nothing was revoked")
    meant = [each for each in issued if each.not_valid_after_utc.timestamp() > now_ms / 1000]
    if not meant:
        raise ConfigError(
            f"the certificate of {name} ended on {max(map(last_day, issued))}: there is nothing to revoke"
        )
    return meant


def _tell_revoked(args: argparse.Namespace, meant: list[x509.Certificate], new: int, written: RevocationList) -> None:
    path = args.ca / LIST
    if args.json:
        serials = [f"{each.serial_number:x}" for each in meant]
        print(json.dumps({"name": args.name, "serials": serials, "list": str(path), "number": written.number}))
        return
    print(f"{args.name}: {new} revoked now" if new else f"{args.name}: was revoked before")
    print(f"{path}: list {written.number}, {len(written.entries)} revoked")
    print("Nobody heeds it before it is there: on each machine with a broker `bega broker revoke --crl revoked.pem`,")
    print("or from afar `bega gateway command ... revoke revoked.pem` (docs/broker.md).")


def _hosts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return names.get_values_for_type(x509.DNSName) + addresses


def _unknown_role(name: str) -> str:
    raise ConfigError(f"an older Bega did not write down what {name} is: say --for node or --for gateway")


def _state(certificate: x509.Certificate, now_ms: int) -> str:
    left_s = certificate.not_valid_after_utc.timestamp() - now_ms / 1000
    if left_s <= 0:
        return "ended"
    return "good" if left_s > SHORT_DAYS * 86400 else "ends soon: what it signs ends with it"


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    renewer = _add(verbs, "renew", renew, "issue a device its next certificate, before the one it has ends")
    renewer.add_argument("name", metavar="ID", help="its id")
    renewer.add_argument("--for", dest="role", choices=[role.value for role in Role], help="default: as before")
    renewer.add_argument("--out", type=Path, metavar="DIR", help="a new folder for it (default: identities/ID)")
    renewer.add_argument("--days", type=int, default=ISSUING_DAYS, help=f"how long it is good (default {ISSUING_DAYS})")
    renewer.add_argument("--json", action="store_true", help="print what was issued as JSON")
    revoker = _add(verbs, "revoke", revoke, "say that a device's certificates are no longer good")
    revoker.add_argument("name", metavar="ID", help="its id")
    revoker.add_argument("--serial", metavar="HEX", help="this one alone (default: all that the device has)")
    revoker.add_argument("--reason", choices=REASONS, default="unsaid", help="kept with the authority")
    revoker.add_argument("--json", action="store_true", help="print what was revoked as JSON")
    teller = _add(verbs, "list", show, "show every certificate, what ends first is first")
    teller.add_argument("--json", action="store_true", help="print it as JSON")
    maker = _add(verbs, "issuing", issuing, "make the next issuing key, with the root's from its stick")
    maker.add_argument("--root-key", type=Path, metavar="FILE", help="the root's key (default: root.key in DIR)")
    stolen = "the issuing key of this number is in other hands: nothing that it signed is good any more; may come again"
    maker.add_argument("--stolen", type=int, action="append", default=[], metavar="N", help=stolen)


def _add(verbs: Verbs, name: str, verb: object, purpose: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=purpose, description=purpose)
    parser.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority's folder")
    parser.set_defaults(command=verb)
    return parser
