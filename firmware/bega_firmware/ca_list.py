"""Which certificates are good: the list that brokers and gateways go by, and the table for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from bega.revocation import CRL, RevocationList, Revoked, understood
from bega_firmware.authority import Role, certificate_pem, common_name, list_pem, make_list
from bega_firmware.ca_folder import LIST, PUBLIC, CaFolder, Revocation, replace_file
from bega_protocols.errors import ConfigError

SOON = timedelta(days=60)


class Row(NamedTuple):
    """A certificate, as `bega ca list` shows it."""

    name: str
    role: str
    until: datetime
    state: str  # good, ends soon, ended, revoked
    why: str  # of what is revoked
    serial: str


def write_list(authority: CaFolder, now_ms: int) -> RevocationList:
    """Write the list anew, its number higher than any before, and return it. Raises ConfigError.

    The number is the time: it rises even where the file was lost, or the authority came back from an older copy. An
    issuing key that has ended needs no list, whatever it signed has ended too.
    """
    now = _moment(now_ms)
    try:
        before = published(authority)
    except ConfigError:  # damaged: it is written anew from what was noted of each certificate
        before = None
    number = max(now_ms // 1000, before.number + 1 if before else 1)
    begun = _begun(authority)
    texts, certificates = [], []
    for issuing_number in authority.issuing_numbers():
        pair = authority.issuing(issuing_number)
        if pair.certificate.not_valid_after_utc <= now:
            continue
        subject = pair.certificate.subject
        rows = [row for row in _revoked(authority, now) if row[2].issuer == subject]
        found = [(revoked, revocation.when) for revoked, revocation, _ in rows]
        texts.append(list_pem(make_list(pair, number, found, begun.get(subject), now_ms)))
        certificates.append(pair.certificate)
    if not texts:
        raise ConfigError("every issuing key has ended: `bega ca issuing` makes the next one, with the root's key")
    replace_file(authority.folder / LIST, b"".join(texts) + certificate_pem(*certificates), PUBLIC)
    written = published(authority)
    assert written
    return written


def published(authority: CaFolder) -> RevocationList | None:
    """Return the list as it was last written; None if there is none yet."""
    path = authority.folder / LIST
    try:
        return understood(path.read_bytes(), [authority.root], str(path))
    except FileNotFoundError:
        return None


def rows(authority: CaFolder, now_ms: int) -> list[Row]:
    """Return every certificate that was issued: what is good first, and of that what ends first."""
    now, signers = _moment(now_ms), _signers(authority)
    found = [_row(authority, each, now, signers) for name in authority.names() for each in authority.issued(name)]
    return sorted(found, key=lambda row: (row.state == "ended", row.state == "revoked", row.until, row.name))


def role_of(authority: CaFolder, certificate: x509.Certificate) -> str:
    """Return what a certificate was issued for; '' where an older Bega left that open: a node, or a gateway."""
    noted = authority.role_of(certificate)
    if noted:
        return noted
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return Role.BROKER.value if ExtendedKeyUsageOID.SERVER_AUTH in usage else ""


def good(authority: CaFolder, name: str, now_ms: int) -> list[x509.Certificate]:
    """Return the certificates of a device that are good."""
    return [each for each in authority.issued(name) if is_good(authority, each, now_ms)]


def is_good(authority: CaFolder, certificate: x509.Certificate, now_ms: int) -> bool:
    """Return whether a certificate has not ended, was not revoked, and its issuing key is in nobody else's hands."""
    if certificate.not_valid_after_utc <= _moment(now_ms) or authority.revocation_of(certificate):
        return False
    return certificate.issuer in _signers(authority)


def _signers(authority: CaFolder) -> set[x509.Name]:
    return {each.subject for each in authority.issuing_certificates()}


def _row(authority: CaFolder, certificate: x509.Certificate, now: datetime, signers: set[x509.Name]) -> Row:
    revocation = authority.revocation_of(certificate)
    until = certificate.not_valid_after_utc
    state = "revoked" if revocation else "ended" if until <= now else "ends soon" if until - now < SOON else "good"
    why = f"{revocation.reason}, {revocation.when:%Y-%m-%d}" if revocation else ""
    if state in ("good", "ends soon") and certificate.issuer not in signers:
        state, why = "revoked", "its issuing key was stolen"
    return Row(
        common_name(certificate), role_of(authority, certificate), until, state, why, f"{certificate.serial_number:x}"
    )


def _revoked(authority: CaFolder, now: datetime) -> list[tuple[Revoked, Revocation, x509.Certificate]]:
    """Return what was revoked, oldest first."""
    found, signers = [], _signers(authority)
    for name in authority.names():
        issued = [(each, authority.revocation_of(each)) for each in authority.issued(name)]
        is_barred = all(
            revocation or each.not_valid_after_utc <= now or each.issuer not in signers for each, revocation in issued
        )
        found += [
            (Revoked(each.serial_number, name, is_barred), revocation, each)
            for each, revocation in issued
            if revocation
        ]
    return sorted(found, key=lambda row: (row[1].when, row[0].serial))


def _begun(authority: CaFolder) -> dict[x509.Name, datetime]:
    """Return when the last list of each issuing key began."""
    try:
        texts = CRL.findall((authority.folder / LIST).read_bytes())
        return {each.issuer: each.last_update_utc for each in map(x509.load_pem_x509_crl, texts)}
    except (FileNotFoundError, ValueError):
        return {}


def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms // 1000, UTC)
