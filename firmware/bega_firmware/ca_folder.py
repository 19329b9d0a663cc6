"""An authority on disk: what lies where, readable by whom, and never half written or written over.

DIR/root.pem  root.key           the root; its key belongs on a medium that is locked away
DIR/issuing-1.pem  issuing-1.key  what signs; the next one is issuing-2
DIR/stolen-1.pem                 one that is in other hands: it signs no more, and its list is no longer written
DIR/issued/ID/SERIAL.pem         every certificate that was ever issued, before anybody has its key
DIR/revoked/ID/SERIAL.json       when and why one of them is no longer good
DIR/revoked.pem                  the list of these, as it is brought to brokers and gateways
DIR/identities/ID/               certificate and key, to be carried to the device
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bega_firmware.authority import Pair, certificate_pem, common_name, key_pem
from bega_protocols.errors import ConfigError

ROOT_CERTIFICATE, ROOT_KEY = "root.pem", "root.key"
ISSUING = re.compile(r"issuing-([1-9][0-9]{0,3})\.pem")
ISSUED, IDENTITIES, REVOKED, LOCK = "issued", "identities", "revoked", "lock"
LIST = "revoked.pem"
ROLE = re.compile(rb"# for ([a-z]+)\n")
PUBLIC, SECRET, SECRET_FOLDER = 0o644, 0o600, 0o700


class Revocation(NamedTuple):
    """When and why a certificate was said to be no longer good."""

    when: datetime
    reason: str


class CaFolder:
    """The folder of an authority."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if there is no authority in it."""
        self.folder = folder
        if not (folder / ROOT_CERTIFICATE).is_file():
            raise ConfigError(f"{folder} holds no authority: `bega ca init --ca {folder} --name NAME` makes one")
        self.root = _read_certificate(folder / ROOT_CERTIFICATE)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time: two who issue for one name at once must not both succeed."""
        with (self.folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def issuing_certificates(self) -> list[x509.Certificate]:
        """Return the certificates of all issuing keys, newest first. Raises ConfigError if there is none."""
        return [self._read_issuing(self.folder / f"issuing-{number}.pem") for number in self.issuing_numbers()]

    def issuing(self, number: int | None = None) -> Pair:
        """Return the newest issuing key, or that of a number. Raises ConfigError if others can read it, or not we."""
        path = self.folder / f"issuing-{number or self.issuing_numbers()[0]}.pem"
        certificate = self._read_issuing(path)
        return Pair(certificate, read_key(path.with_suffix(".key"), certificate))

    def add_issuing(self, number: int, pair: Pair) -> None:
        """Keep a further issuing key: its certificate last, since by that it is there."""
        key = self.folder / f"issuing-{number}.key"
        key.unlink(missing_ok=True)  # of an attempt that came to nothing: without a certificate it signed nothing
        write_new(key, key_pem(pair.key), SECRET)
        _sync_folder(self.folder)
        replace_file(key.with_suffix(".pem"), certificate_pem(pair.certificate), PUBLIC)

    def give_up_issuing(self, number: int) -> None:
        """Trust an issuing key no longer: it is in other hands. One that was given up before stays so."""
        path = self.folder / f"issuing-{number}.pem"
        with suppress(FileNotFoundError):
            path.rename(self.folder / f"stolen-{number}.pem")
        path.with_suffix(".key").unlink(missing_ok=True)
        _sync_folder(self.folder)

    def _read_issuing(self, path: Path) -> x509.Certificate:
        """Raises ConfigError unless the root signed it: brokers are told to trust it, nodes trust the root alone."""
        certificate = _read_certificate(path)
        try:
            certificate.verify_directly_issued_by(self.root)
        except (ValueError, TypeError, InvalidSignature):
            raise ConfigError(f"{path} is not signed by {self.folder / ROOT_CERTIFICATE}") from None
        return certificate

    def issued(self, name: str) -> list[x509.Certificate]:
        """Return every certificate that was issued to a device."""
        return [_read_certificate(path) for path in sorted((self.folder / ISSUED / name).glob("*.pem"))]

    def names(self) -> list[str]:
        """Return the ids of all devices that ever had a certificate."""
        place = self.folder / ISSUED
        return sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []

    def role_of(self, certificate: x509.Certificate) -> str:
        """Return what a certificate was issued for, '' where an older Bega did not write it down."""
        match = ROLE.match(self._noted(certificate).read_bytes())
        return match[1].decode() if match else ""

    def note_issued(self, certificate: x509.Certificate, role: str) -> None:
        """Write down that this certificate is there: what is not written down can never be revoked."""
        place = self._noted(certificate)
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, b"# for %s\n%s" % (role.encode(), certificate_pem(certificate)), PUBLIC)

    def revocation_of(self, certificate: x509.Certificate) -> Revocation | None:
        """Return when and why it was revoked, None if it was not."""
        path = self._revoked(certificate)
        try:
            noted = json.loads(path.read_bytes())
            return Revocation(datetime.fromisoformat(noted["when"]), str(noted["reason"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            raise ConfigError(
                f"{path} is damaged: put it back from a copy, or delete it and revoke once more"
            ) from None

    def note_revoked(self, certificate: x509.Certificate, revocation: Revocation) -> None:
        """Write down that a certificate is no longer good."""
        path = self._revoked(certificate)
        path.parent.mkdir(parents=True, exist_ok=True)
        noted = {"when": revocation.when.isoformat(), "reason": revocation.reason}
        replace_file(path, json.dumps(noted).encode() + b"\n", PUBLIC)

    def _noted(self, certificate: x509.Certificate) -> Path:
        return self.folder / ISSUED / common_name(certificate) / f"{certificate.serial_number:x}.pem"

    def _revoked(self, certificate: x509.Certificate) -> Path:
        return self.folder / REVOKED / common_name(certificate) / f"{certificate.serial_number:x}.json"

    def issuing_numbers(self) -> list[int]:
        """Return the numbers of all issuing keys, newest first. Raises ConfigError if there is none."""
        matches = [ISSUING.fullmatch(path.name) for path in self.folder.iterdir()]
        numbers = sorted((int(match[1]) for match in matches if match), reverse=True)
        if not numbers:
            raise ConfigError(f"{self.folder} holds no issuing key")
        return numbers


def create(folder: Path, root: Pair, issuing: Pair, root_key: Path | None) -> None:
    """Make the folder of a new authority: whole, or not at all.

    root_key: where the root's key goes, if not into the folder. Raises ConfigError if something is there already.
    """
    if not folder.name:  # "." cannot be put in its place in one step
        raise ConfigError(f"{folder} is no name for a new folder: write it as city-ca, from the folder above")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty: an authority begins in a folder of its own, and is never replaced")
    files = {
        ROOT_CERTIFICATE: certificate_pem(root.certificate),
        "issuing-1.pem": certificate_pem(issuing.certificate),
        "issuing-1.key": key_pem(issuing.key),
    }
    if root_key is None:
        write_folder(folder, files | {ROOT_KEY: key_pem(root.key)})
        return
    write_new(root_key, key_pem(root.key), SECRET)
    os.sync()  # its name too, before anything rests on it; not every stick's file system syncs one folder
    try:
        write_folder(folder, files)
    except (ConfigError, OSError):
        root_key.unlink()  # of an authority that is not there
        raise


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` with these files, in one step and only if nothing is there: keys (.key) are the owner's alone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir(SECRET_FOLDER)
    try:
        for name, content in files.items():
            write_new(part / name, content, SECRET if name.endswith(".key") else PUBLIC)
        _sync_folder(part)
        part.rename(folder)  # refused where a folder with anything in it is
    except (OSError, ConfigError) as error:
        shutil.rmtree(part)
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{folder} cannot be written: {why}") from None
    _sync_folder(folder.parent)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that was not there, readable as `mode` says from its first moment. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path} is there already, and is not written over") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step: a power cut leaves the old one or the new one. Raises ConfigError."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    write_new(part, content, mode)
    try:
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path} is no certificate") from None


def read_key(path: Path, certificate: x509.Certificate, on_stick: bool = False) -> ec.EllipticCurvePrivateKey:
    """Return the key of a certificate; never a word of what is in the file.

    on_stick: it may lie where files have no owner (FAT): that others can read it is not refused.
    """
    try:
        if path.stat().st_mode & 0o077 and not on_stick:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}, and ask who had it")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{path} is no private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        whose = "the authority's root" if on_stick else path.with_suffix(".pem")
        raise ConfigError(f"{path} is not the key of {whose}")
    return key


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, not only the files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
