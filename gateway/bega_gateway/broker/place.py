"""Files of mosquitto on this machine: which are ours, and written in one step."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import secrets
import stat
from pathlib import Path

from bega_gateway.broker.configuration import CITY, GATEWAY, head
from bega_protocols.errors import ConfigError

SUM = re.compile(r"# sum ([0-9a-f]{16})\n\Z")
USER = "mosquitto"  # who reads them all: it lets go of root's rights before that
# Ways into the broker beside ours, or a second word on what ours says.
CONTRADICTS = re.compile(
    r"^\s*(listener|port|bind_address|allow_anonymous|acl_file|password_file|plugin|auth_plugin"
    r"|per_listener_settings|max_queued_messages|autosave_interval|autosave_on_changes)\b.*$",
    re.M,
)


def sealed(kind: str, text: str) -> str:
    """Return the text of a file of ours: a head that says so, and a sum that shows whether somebody changed it."""
    whole = f"{head(kind)}\n{text}"
    return f"{whole}# sum {_sum(whole)}\n"


def kind_of(path: Path) -> str:
    """Return whether a file of ours is for a gateway or a city; '' for anything else."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return next((kind for kind in (GATEWAY, CITY) if text.startswith(head(kind))), "")


def is_foreign(path: Path) -> bool:
    """Return whether somebody else wrote a file, or changed it since."""
    if not path.exists():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    found = SUM.search(text)
    return not kind_of(path) or not found or _sum(text[: found.start()]) != found[1]


def contradictions(folder: Path, ours: Path) -> list[str]:
    """Return "FILE: LINE" of what others say in mosquitto's configuration and must not."""
    files = [folder / "mosquitto.conf", *sorted((folder / "conf.d").glob("*.conf"))]
    return [
        f"{path}: {match[0].strip()}"
        for path in files
        if path != ours and path.exists()
        for match in CONTRADICTS.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]


def put(path: Path, content: bytes, mode: int) -> str:
    """Write a file in one step, and return what was done. Raises ConfigError.

    What not everybody may read is given to the broker's user.
    """
    try:
        if path.exists() and path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == mode:
            return f"same     {path}"
        was_there = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            if not mode & 0o004:
                _give(descriptor)  # what all may read stays root's: by ca.pem a list is believed
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError, UnboundLocalError):
            part.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}; are you root?") from None
    return f"{'replaced' if was_there else 'wrote   '} {path}"


def _give(descriptor: int) -> None:
    """Have the broker's user own a file, where there is such a user and we may say so."""
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            os.fchown(descriptor, pwd.getpwnam(USER).pw_uid, -1)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
