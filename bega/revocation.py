"""The list of certificates that are no longer good: one file that mosquitto reads, and that a gateway can check.

A PEM file (docs/identity.md, "The list"): one revocation list (RFC 5280, section 5) for each issuing key that has not
ended, all with the same number, and the certificates of these keys, which mosquitto passes over. Each list has an
extension of our own with the device id for each of its entries: by its serial number alone nobody could tell whose
session must end. No files and no clock here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bega.identity import require_device_id
from bega_protocols.errors import ConfigError

# From a random UUID (ITU-T X.667), so that nobody had to be asked for a number.
DEVICE_IDS = x509.ObjectIdentifier("2.25.326168666533030381306208481240170254158")
ADMITTED = " +"  # behind the id of a device that has another certificate, a good one
LARGEST_BYTES = 1_000_000  # some 12,000 entries
MOST_ISSUING = 16
CRL = re.compile(rb"-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]+-----END X509 CRL-----")
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
# What cryptography says of what does not parse, or not as a list of ours.
DAMAGED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Revoked(NamedTuple):
    """A certificate that is no longer good."""

    serial: int
    name: str  # the id of its device
    is_barred: bool  # the device has no other certificate: nothing of it is to be believed


@dataclass(frozen=True)
class RevocationList:
    """What an authority says, as far as it was signed by it."""

    number: int  # rises with each
    entries: tuple[Revoked, ...]
    issuing: tuple[x509.Certificate, ...]  # of the keys that signed it
    pem: bytes  # what was understood, and nothing else
    begins: datetime

    @property
    def barred(self) -> frozenset[str]:
        """Return the devices of which nothing is to be believed."""
        return frozenset(entry.name for entry in self.entries if entry.is_barred)

    def require_begun(self, now_ms: int, where: str) -> None:
        """Raise ConfigError if it begins later than `now_ms`: a broker would refuse everybody by it until then."""
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        if self.begins > now:
            raise ConfigError(
                f"{where}: begins on {self.begins:%Y-%m-%d}, and this machine's clock shows {now:%Y-%m-%d}: until then "
                "a broker would refuse everybody; set the clock that is wrong, here or where the authority is"
            )

    def revoked_since(self, earlier: RevocationList | None) -> list[str]:
        """Return the devices whose sessions must end: one of their certificates is here, and was not in `earlier`."""
        known = {entry.serial for entry in earlier.entries} if earlier else set()
        return sorted({entry.name for entry in self.entries if entry.serial not in known})


def device_ids(entries: Iterable[Revoked]) -> x509.UnrecognizedExtension:
    """Return the extension that names the device of each entry, in their order, one a line."""
    lines = (entry.name + ("" if entry.is_barred else ADMITTED) for entry in entries)
    return x509.UnrecognizedExtension(DEVICE_IDS, "\n".join(lines).encode())


def understood(pem: bytes, trusted: Sequence[x509.Certificate], where: str) -> RevocationList:
    """Return the list in `pem`; `trusted` are the certificates of the authority: its root, or issuing keys too.

    Raises ConfigError, with `where` it came from, for what is damaged or signed by nobody whom `trusted` vouches for.
    """
    if len(pem) > LARGEST_BYTES:
        raise ConfigError(f"{where}: is larger than any list of revoked certificates")
    try:
        lists = [x509.load_pem_x509_crl(text) for text in CRL.findall(pem)]
        brought = [x509.load_pem_x509_certificate(text) for text in CERTIFICATE.findall(pem)]
        if not lists or len(lists) > MOST_ISSUING or len(brought) > MOST_ISSUING:
            raise ConfigError(f"{where}: is no list of revoked certificates (`bega ca revoke` writes one)")
        signers = [_signer(each, trusted, brought) for each in lists]
        found = [entry for each in lists for entry in _entries(each)]
        numbers = {each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in lists}
    except DAMAGED:
        raise ConfigError(f"{where}: the list of revoked certificates is damaged: fetch it again") from None
    issuing = [signer for signer in signers if signer]
    if len(issuing) < len(lists):
        raise ConfigError(f"{where}: is not signed by the authority in ca_file: nothing of it is believed")
    if len(numbers) != 1 or len(set(issuing)) != len(issuing):
        raise ConfigError(f"{where}: is put together of several lists: take it as `bega ca revoke` wrote it")
    texts = [each.public_bytes(Encoding.PEM) for each in lists] + [each.public_bytes(Encoding.PEM) for each in issuing]
    begins = max(each.last_update_utc for each in lists)
    return RevocationList(numbers.pop(), tuple(found), tuple(issuing), b"".join(texts), begins)


def _signer(
    one: x509.CertificateRevocationList, trusted: Sequence[x509.Certificate], brought: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    """Return the certificate of the issuing key that signed `one`; None if none is vouched for."""
    for certificate in (*trusted, *brought):
        if certificate.subject != one.issuer or not _may_sign(certificate):
            continue
        if certificate not in trusted and not any(_vouches(root, certificate) for root in trusted):
            continue
        key = certificate.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and one.is_signature_valid(key):
            return certificate
    return None


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return False


def _vouches(root: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Return whether `root` is an authority that signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(root)
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return constraints.ca and constraints.path_length != 0


def _entries(one: x509.CertificateRevocationList) -> list[Revoked]:
    extension = one.extensions.get_extension_for_oid(DEVICE_IDS).value
    octets = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    names = octets.decode("ascii").split("\n") if octets else []  # UnicodeDecodeError is a ValueError
    serials = [revoked.serial_number for revoked in one]
    if len(names) != len(serials):
        raise ValueError("as many device ids as entries")
    entries = []
    for serial, line in zip(serials, names, strict=True):
        name = line.removesuffix(ADMITTED)
        require_device_id(name)
        entries.append(Revoked(serial, name, name == line))
    return entries
