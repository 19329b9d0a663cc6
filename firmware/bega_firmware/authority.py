"""Bega's own small certificate authority: an offline root, an issuing key below it, a certificate for each device.

RFC 5280 says what the extensions mean; docs/identity.md why there are just these. No files here, and no clock: the time
is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bega.clock import CLOCK_FLOOR_MS
from bega.identity import require_device_id
from bega.revocation import Revoked, device_ids
from bega_protocols.errors import ConfigError

AUTHORITY_NAME = re.compile(r"[^\W_](?:[\w .,'-]{0,46}[\w.])?")  # 64 characters are X.520's limit, and we add some
HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")  # RFC 1123, section 2.1
LONGEST_HOST = 253

ROOT_DAYS = 3653
ISSUING_DAYS = 730
# A node sets its clock by the moment it was configured, which another machine may have done whose clock is behind.
BACKDATED = timedelta(days=1)


class Role(Enum):
    """What a certificate is good for."""

    NODE = "node"
    GATEWAY = "gateway"  # or a kiosk: who connects to brokers from a Linux machine
    BROKER = "broker"  # who is connected to


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_root(name: str, now_ms: int) -> Pair:
    """Return the root of a new authority. Raises ConfigError for a name or a clock that cannot be."""
    if not AUTHORITY_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for an authority: 1 to 48 letters, digits, spaces and . , ' -")
    key = _new_key()
    subject = _named(f"{name} root")
    first = _moment(now_ms) - BACKDATED
    return Pair(_certificate(subject, key, subject, key, first, now_ms, ROOT_DAYS, path_length=1), key)


def make_issuing(name: str, number: int, root: Pair, now_ms: int) -> Pair:
    """Return the issuing key of that number. It signs devices and no further authority (path length 0).

    It is good from the root's first day on, and so are the brokers' certificates below it: a node that comes back from
    a power cut has no later clock than the day on which it was configured, and must know every broker of that day on.
    It ends with the root at the latest. Raises ConfigError if that has ended.
    """
    require_valid(root.certificate, "the root", now_ms, "the city needs a new authority: `bega ca init`")
    key = _new_key()
    subject = _named(f"{name} issuing {number}")
    issuer, first = root.certificate.subject, root.certificate.not_valid_before_utc
    last = root.certificate.not_valid_after_utc
    return Pair(_certificate(subject, key, issuer, root.key, first, now_ms, ISSUING_DAYS, 0, last), key)


def make_leaf(name: str, role: Role, hosts: Sequence[str], issuing: Pair, now_ms: int, days: int) -> Pair:
    """Return the certificate of a device, valid for `days`, and no longer than the issuing key is.

    hosts: names and addresses at which a broker is reached; none for the others. Raises ConfigError.
    """
    require_device_id(name)
    if (role is Role.BROKER) != bool(hosts):
        raise ConfigError("a broker's certificate names its hosts (--host), and no other certificate does")
    require_valid(issuing.certificate, "the issuing key", now_ms)
    key = _new_key()
    is_broker = role is Role.BROKER
    first = issuing.certificate.not_valid_before_utc if is_broker else _moment(now_ms) - BACKDATED
    builder = _builder(_named(name), key, issuing.certificate.subject, issuing.key, first, now_ms, days)
    last = min(_moment(now_ms) + timedelta(days=days), issuing.certificate.not_valid_after_utc)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if is_broker else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        builder.not_valid_after(last)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return Pair(builder.sign(issuing.key, hashes.SHA256()), key)


def make_list(
    issuing: Pair, number: int, revoked: Sequence[tuple[Revoked, datetime]], after: datetime | None, now_ms: int
) -> x509.CertificateRevocationList:
    """Return the list of the certificates below `issuing` that are no longer good, each with when that was said.

    after: the beginning of the list before it. OpenSSL holds all that mosquitto was ever given and goes by the one that
    begins last, so each begins a second later than the one before, if not more. It begins a day ago, like a device's
    certificate: a broker whose clock is behind refuses everybody while its list is "not yet valid". For the same
    reason it ends with the issuing key and not before. Raises ConfigError if it would have to begin in the future.
    """
    require_clock(now_ms)
    if after is not None and after >= _moment(now_ms):
        raise ConfigError(
            f"the list before this one begins on {after:%Y-%m-%d}, and this machine's clock shows "
            f"{_moment(now_ms):%Y-%m-%d}: set the clock; if it is right now, it was wrong then: delete revoked.pem in "
            "the authority's folder, and run the same command again"
        )
    first = max(_moment(now_ms) - BACKDATED, issuing.certificate.not_valid_before_utc)
    if after is not None:
        first = max(first, after + timedelta(seconds=1))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuing.certificate.subject)
        .last_update(first)
        .next_update(issuing.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing.key.public_key()), critical=False)
        .add_extension(device_ids(each for each, _ in revoked), critical=False)
    )
    for each, when in revoked:  # why is no affair of a broker: the reason stays with the authority
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuing.key, hashes.SHA256())


def require_valid(
    certificate: x509.Certificate,
    what: str,
    now_ms: int,
    remedy: str = "the authority needs a new one: `bega ca issuing`",
) -> None:
    """Raise ConfigError, with a sentence that says what to do, if `certificate` is not valid now."""
    now = _moment(now_ms)
    if now < certificate.not_valid_before_utc:
        raise ConfigError(
            f"{what} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on, and this machine's clock shows "
            f"{now:%Y-%m-%d}: set the clock"
        )
    if now > certificate.not_valid_after_utc:
        raise ConfigError(
            f"{what} ended on {certificate.not_valid_after_utc:%Y-%m-%d}, and this machine's clock shows "
            f"{now:%Y-%m-%d}: if the clock is right, {remedy}"
        )


def require_clock(now_ms: int) -> None:
    """Raise ConfigError if the clock cannot be right: certificates from before this release would be refused later."""
    if now_ms < CLOCK_FLOOR_MS:
        raise ConfigError(f"this machine's clock shows {_moment(now_ms):%Y-%m-%d}: set it, certificates carry its time")


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as text, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Return a certificate as bytes, as MicroPython reads it: it takes one, and no text."""
    return certificate.public_bytes(Encoding.DER)


def list_pem(one: x509.CertificateRevocationList) -> bytes:
    """Return a list of revoked certificates as text."""
    return one.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as text (PKCS#8), without a password: a gateway starts with nobody there to type one."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as bytes (RFC 5915: 121 of them), as MicroPython reads it."""
    return key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def common_name(certificate: x509.Certificate) -> str:
    """Return the name of whom a certificate is about."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    first: datetime,
    now_ms: int,
    days: int,
    path_length: int,
    latest: datetime | None = None,
) -> x509.Certificate:
    """Return the certificate of an authority. latest: the end of the one that signs it."""
    last = _moment(now_ms) + timedelta(days=days)
    builder = (
        _builder(subject, key, issuer, signer, first, now_ms, days)
        .not_valid_after(min(last, latest or last))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return builder.sign(signer, hashes.SHA256())


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    first: datetime,
    now_ms: int,
    days: int,
) -> x509.CertificateBuilder:
    require_clock(now_ms)
    if not 1 <= days <= ROOT_DAYS:
        raise ConfigError(f"a certificate is valid for 1 to {ROOT_DAYS} days, not {days}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())  # 159 random bits, of nothing that the device has
        .not_valid_before(first)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    if not HOST_NAME.fullmatch(text) or len(text) > LONGEST_HOST or text.rpartition(".")[2].isdigit():
        raise ConfigError(f"{text!r} is no host: write a name in small letters (broker.city.example) or an address")
    return x509.DNSName(text)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms // 1000, UTC)
