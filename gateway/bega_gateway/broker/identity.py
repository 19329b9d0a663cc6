"""The folder that `bega ca issue --for broker` made: is it what a broker on this machine can show?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from bega.revocation import RevocationList, understood
from bega_protocols.errors import ConfigError

AUTHORITIES, LIST = "ca.pem", "revoked.pem"
ADVICE = "`bega ca issue NAME --for broker --host localhost --host ...` makes one"


class Identity(NamedTuple):
    """What a broker shows, and whom it believes."""

    authorities: bytes  # root and issuing keys, PEM
    certificate: bytes  # its own and the issuing key's, PEM
    key: bytes
    revoked: RevocationList


def read_identity(folder: Path, now_ms: int, is_local: bool) -> Identity:
    """Return what lies in `folder`. Raises ConfigError.

    is_local: it must name localhost, where the gateway on the same machine reaches it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder: `bega ca issue` says where it put the identity")
    keys = sorted(folder.glob("*.key"))
    if len(keys) != 1:
        raise ConfigError(f"{folder}: is no broker's identity, one .key file is: {ADVICE}")
    own = keys[0].with_suffix(".pem")
    authorities, certificate, key = (read(path) for path in (folder / AUTHORITIES, own, keys[0]))
    leaf, trusted = _certificates(certificate, own)[0], _certificates(authorities, folder / AUTHORITIES)
    _require_broker(own, leaf, now_ms, is_local)
    try:
        fits = load_pem_private_key(key, None).public_key() == leaf.public_key()
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise ConfigError(f"{keys[0]}: is not the key of {own}: take both as they were issued")
    if not (folder / LIST).exists():
        raise ConfigError(f"{folder / LIST} is missing: copy it from the authority's folder, an older Bega left it out")
    revoked = understood(read(folder / LIST), trusted, str(folder / LIST))
    revoked.require_begun(now_ms, str(folder / LIST))
    return Identity(authorities, certificate, key, revoked)


def with_what_is_there(identity: Identity, place: Path) -> tuple[bytes, bytes]:
    """Return authorities and list to write: an identity of months ago must not undo the list that lies at `place`."""
    trusted = _certificates(identity.authorities, place)
    listed = identity.revoked
    try:
        there = understood(place.read_bytes(), trusted, str(place)) if place.exists() else listed
    except ConfigError:  # of another authority, or damaged
        there = listed
    newest = max(there, listed, key=lambda each: each.number)
    unknown = [certificate for certificate in newest.issuing if certificate not in trusted]
    texts = [certificate.public_bytes(Encoding.PEM) for certificate in unknown]
    return b"".join([identity.authorities, *texts]), newest.pem


def trusted_in(path: Path) -> list[x509.Certificate]:
    """Return the authorities in a file. Raises ConfigError."""
    return _certificates(read(path), path)


def read(path: Path) -> bytes:
    """Return what is in a file. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(f"{path} holds no certificate") from None


def _require_broker(path: Path, leaf: x509.Certificate, now_ms: int, is_local: bool) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        hosts = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ConfigError(f"{path}: is no broker's certificate: {ADVICE}") from None
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise ConfigError(f"{path}: is no broker's certificate: {ADVICE}")
    if is_local and "localhost" not in hosts.get_values_for_type(x509.DNSName):
        raise ConfigError(f"{path}: does not name localhost, where the gateway on this machine reaches it: {ADVICE}")
    if leaf.not_valid_after_utc.timestamp() * 1000 < now_ms:
        last = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
        raise ConfigError(f"{path}: ended on {last}: `bega ca renew` issues the next one")
