"""Whether the gateway's certificate can be shown at all, before a broker is asked: its files, dates, name and key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from bega.clock import CLOCK_FLOOR_MS
from bega_gateway.doctor.finding import UPLINK, WARNING, Finding

SOON = timedelta(days=30)
PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Credentials(Protocol):
    """A table of the configuration that names them."""

    @property
    def ca_file(self) -> str | None: ...
    @property
    def cert_file(self) -> str | None: ...
    @property
    def key_file(self) -> str | None: ...


def of_files(place: str, table: Credentials, name: str, wall_ms: int) -> Iterator[Finding]:
    """Yield what is wrong with the files that `table` names; name: of the gateway, as its certificate must have it."""
    certificates = {}
    for key in ("ca_file", "cert_file"):
        file = getattr(table, key)
        if file is None:
            continue
        try:
            certificates[key] = x509.load_pem_x509_certificates(Path(file).read_bytes())[0]
        except (OSError, ValueError) as error:
            yield _unusable(f"{place}.{key}", file, error)
    if table.key_file:
        try:
            key_octets = Path(table.key_file).read_bytes()
            private = load_pem_private_key(key_octets, None)
        except (OSError, ValueError, TypeError) as error:
            yield _unusable(f"{place}.key_file", table.key_file, error)
        else:
            own = certificates.get("cert_file")
            if own and own.public_key().public_bytes(*PUBLIC) != private.public_key().public_bytes(*PUBLIC):
                yield Finding(
                    "key does not fit",
                    "the key is not that of the certificate: no broker can be shown it",
                    f"{place}.key_file",
                    f"{table.key_file} and {table.cert_file} have different public keys",
                    "install the pair that was made together; openssl x509 -noout -pubkey -in CERT shows one half",
                    True,
                    UPLINK,
                )
    for key, certificate in certificates.items():
        yield from _of_dates(f"{place}.{key}", certificate, wall_ms)
    if own := certificates.get("cert_file"):
        yield from _of_name(place, own, name)


def _of_name(place: str, certificate: x509.Certificate, name: str) -> Iterator[Finding]:
    names = [str(word.value) for word in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name]:
        yield Finding(
            "certificate of another",
            "the certificate is another one's: the broker's access list goes by its name, and denies ours",
            f"{place}.cert_file",
            f"its CN is {', '.join(names) or 'missing'}, and gateway.name is {name}",
            "install this gateway's certificate, or write gateway.name as the certificate has it",
            True,
            UPLINK,
        )


def _of_dates(place: str, certificate: x509.Certificate, wall_ms: int) -> Iterator[Finding]:
    if wall_ms < CLOCK_FLOOR_MS:
        return  # the clock cannot judge
    now = datetime.fromtimestamp(wall_ms / 1000, UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = f"valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, and today is {now:%Y-%m-%d}"
    if now > last:
        remedy = "have a new one issued; timedatectl: if the clock is wrong, set that instead"
        what = "the certificate has expired: the broker refuses it"
        yield Finding("certificate expired", what, place, days, remedy, True, UPLINK)
    elif now < first:
        remedy = "timedatectl: the clock is probably behind; else wait for that day"
        what = "the certificate is not valid yet"
        yield Finding("certificate not valid yet", what, place, days, remedy, True, UPLINK)
    elif now > last - SOON:
        remedy = "have a new one issued before that day; it is put to use at a restart"
        what = "the certificate expires soon"
        yield Finding("certificate expires soon", what, place, days, remedy, False, WARNING)


def _unusable(place: str, file: str, error: Exception) -> Finding:
    why = error.strerror if isinstance(error, OSError) else "no PEM of this kind, or with a password"
    remedy = f"ls -l {file}: the gateway's user must be able to read it; openssl x509 -text -in shows what is in one"
    return Finding("certificate file", "the file cannot be used", place, f"{file}: {why}", remedy, True, UPLINK)
