"""A node's identity, brought over its cable: one certificate, kept where it is good, resumed where it was cut off.

What is issued lies in the authority's identities/ID, with the number of the chip that it is for, until the node has
the whole of it; then that folder goes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_der_private_key

from bega.identity import DEVICE_ID
from bega_firmware import ca_list
from bega_firmware.authority import ISSUING_DAYS, Role, certificate_der, common_name, make_leaf, require_clock
from bega_firmware.ca_folder import IDENTITIES, PUBLIC, CaFolder, replace_file
from bega_firmware.ca_verbs import keep
from bega_firmware.cable import Cable
from bega_protocols.errors import ConfigError

TLS = {"ca.der": "/tls/ca.der", "node.der": "/tls/node.der", "node.key": "/tls/node.key"}
CHIP = "chip"  # beside what was issued: the chip that it is for


@dataclass(frozen=True)
class Identity:
    """The certificate that a node has now."""

    name: str
    serial: str
    until: str
    is_new: bool
    left_over: Path | None = None  # its folder here, to be cleared once all else is done


def name_on(cable: Cable) -> str:
    """Return the name in the certificate that the node has, "" if it has none."""
    if TLS["node.der"] not in cable.listing():
        return ""
    try:
        return common_name(x509.load_der_x509_certificate(cable.get(TLS["node.der"])))
    except (ValueError, IndexError):
        return ""


def bring(cable: Cable, authority: CaFolder, node: str, chip: str, again: bool, now_ms: int) -> Identity:
    """Have the node hold a good identity of this name, its own if it has one. Raises ConfigError."""
    require_clock(now_ms)
    held = _held(cable, authority, node, now_ms)
    folder = authority.folder / IDENTITIES / node
    if held is not None and not again:
        return _told(held, False, folder if _is_for(folder, chip) else None)
    with authority.locked():
        if folder.exists() and _is_over(authority, folder, now_ms):
            shutil.rmtree(folder)  # no broker would let it in
        if not folder.exists():
            _issue(authority, folder, node, again, now_ms)
        _claim(folder, node, chip)
    files = {name: (folder / name).read_bytes() for name in TLS}
    certificate = x509.load_der_x509_certificate(files["node.der"])
    if common_name(certificate) != node:
        raise ConfigError(f"{folder} holds the certificate of {common_name(certificate)}: take it away")
    if files["ca.der"] != certificate_der(authority.root):
        raise ConfigError(f"{folder} is of another authority: take it away")
    for name, path in TLS.items():
        cable.put(path, files[name])
    return _told(certificate, True, folder)


def clear(identity: Identity) -> None:
    """Remove what lies here of an identity that its node has: nobody else needs it."""
    if identity.left_over is not None:
        shutil.rmtree(identity.left_over, ignore_errors=True)


def _held(cable: Cable, authority: CaFolder, node: str, now_ms: int) -> x509.Certificate | None:
    """Return the certificate on the node, if all of it is there and good; raise ConfigError if it is another one's."""
    files = cable.listing()
    if TLS["node.der"] not in files:
        return None
    try:
        certificate = x509.load_der_x509_certificate(cable.get(TLS["node.der"]))
        name = common_name(certificate)
    except (ValueError, IndexError):
        return None
    if not _is_of(certificate, authority):
        raise ConfigError(
            f"the board at {cable.port} is {name} of another authority: `bega node wipe --port {cable.port}` first, "
            "if that is over"
        )
    if name != node:
        raise ConfigError(f"the board at {cable.port} is {name}: `bega node wipe` first, or --id {name}")
    if not ca_list.is_good(authority, certificate, now_ms) or not {*TLS.values()} <= {*files}:
        return None
    is_whole = cable.get(TLS["ca.der"]) == certificate_der(authority.root)
    try:
        key = load_der_private_key(cable.get(TLS["node.key"], is_secret=True), password=None)
    except (ValueError, TypeError):
        return None
    return certificate if is_whole and key.public_key() == certificate.public_key() else None


def _is_over(authority: CaFolder, folder: Path, now_ms: int) -> bool:
    """Return whether what was issued into `folder` has ended or was revoked. Raises ConfigError if it is no node's."""
    try:
        certificate = x509.load_der_x509_certificate((folder / "node.der").read_bytes())
        common_name(certificate)
    except (OSError, ValueError, IndexError):
        raise ConfigError(f"{folder} holds no node's identity: give this board another id, or take it away") from None
    return _is_of(certificate, authority) and not ca_list.is_good(authority, certificate, now_ms)


def _is_of(certificate: x509.Certificate, authority: CaFolder) -> bool:
    name = common_name(certificate)
    if DEVICE_ID.fullmatch(name) and certificate in authority.issued(name):
        return True  # by a stolen key too
    for issuing in authority.issuing_certificates():
        try:
            certificate.verify_directly_issued_by(issuing)
            return True
        except (ValueError, TypeError, InvalidSignature):
            continue
    return False


def _issue(authority: CaFolder, folder: Path, node: str, again: bool, now_ms: int) -> None:
    """Issue a certificate, unless another board may have one: two of one name take each other's place at the broker."""
    good = ca_list.good(authority, node, now_ms)
    if good and not again:
        until = max(certificate.not_valid_after_utc for certificate in good)
        raise ConfigError(
            f"{node} has a certificate until {until:%Y-%m-%d}, and this board does not have it: is it another board? "
            f"Then it needs an id of its own. If it takes the place of the first: `bega ca revoke {node}`, and --again"
        )
    was_barred = not good and any(authority.revocation_of(each) for each in authority.issued(node))
    if was_barred and not again:
        raise ConfigError(f"{node} was revoked: --again lets it in again; a board in its place is better named anew")
    pair = make_leaf(node, Role.NODE, [], authority.issuing(), now_ms, ISSUING_DAYS)
    keep(authority, folder, Role.NODE, pair, now_ms)
    if was_barred:
        ca_list.write_list(authority, now_ms)


def _claim(folder: Path, node: str, chip: str) -> None:
    """Note for which chip this is; raise ConfigError if another one was begun with it."""
    if not (folder / CHIP).exists():
        replace_file(folder / CHIP, f"{chip}\n".encode(), PUBLIC)
    elif not _is_for(folder, chip):
        raise ConfigError(
            f"{node} was begun on another board (chip {(folder / CHIP).read_text().strip()}) and not ended there: "
            f"end it there, or give this one another id. If that board is lost: `bega ca revoke {node}`, "
            f"and delete {folder}"
        )


def _is_for(folder: Path, chip: str) -> bool:
    try:
        return (folder / CHIP).read_text(encoding="utf-8").strip() == chip
    except OSError:
        return False


def _told(certificate: x509.Certificate, is_new: bool, left_over: Path | None) -> Identity:
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return Identity(common_name(certificate), f"{certificate.serial_number:x}", until, is_new, left_over)
