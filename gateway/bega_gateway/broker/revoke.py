"""`bega broker revoke`: bring the list of revoked certificates to mosquitto, and end the sessions of who is on it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding

from bega.clock import Clock, wall_ms
from bega.revocation import LARGEST_BYTES, RevocationList, understood
from bega_gateway.broker.configuration import CITY
from bega_gateway.broker.identity import AUTHORITIES, LIST, read, trusted_in
from bega_gateway.broker.place import kind_of, put
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.mqtt import Credentials
    from bega.service import Verbs

FOLDER = "/etc/mosquitto"
OURS = "conf.d/bega.conf"
PID_FILE = "/run/mosquitto/mosquitto.pid"
HOLD_S = 10.0
RELOADED_S = 0.5  # mosquitto looks at its signals ten times a second
LOCAL = ("localhost", "127.0.0.1", "::1")


class Outcome(NamedTuple):
    """What became of a list."""

    number: int
    ended: list[str]  # whose sessions were ended, if they had any
    came_back: list[str]  # who was let in again all the same


def add_revoke(verbs: Verbs) -> None:
    """Add the verb."""
    purpose = "bring the list of revoked certificates to the broker, and end the sessions of who is on it"
    parser = verbs.add_parser("revoke", help=purpose, description=purpose)
    parser.add_argument(
        "--crl", type=Path, required=True, metavar="FILE", help="the list, as `bega ca revoke` wrote it"
    )
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), metavar="DIR", help=f"mosquitto's ({FOLDER})")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the gateway's, which says how it reaches the broker"
    )
    parser.add_argument(
        "--pid-file", type=Path, default=Path(PID_FILE), metavar="FILE", help=f"mosquitto's ({PID_FILE})"
    )
    parser.add_argument("--hold-s", type=float, default=HOLD_S, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print what became of it as JSON")
    parser.set_defaults(command=revoke)


def revoke(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Return 0 if the broker heeds the list; 1 too if one that is on it was let in again."""
    kind = kind_of(args.folder / OURS)
    if not kind:
        raise ConfigError(f"{args.folder / OURS} is not there: `bega broker configure` first, then this again")
    revoked, names = place_list(args.folder / "bega", args.crl, clock())
    if kind == CITY:
        _run("systemctl", "restart", "mosquitto")  # a gateway has several sessions, under ids that nobody here knows
        outcome = Outcome(revoked.number, names, [])
    else:
        _reload(args.pid_file)
        time.sleep(RELOADED_S)
        outcome = Outcome(revoked.number, names, _end_sessions(args, names, revoked.barred))
    if args.json:
        print(json.dumps(outcome._asdict()))
    else:
        print("\n".join(_words(outcome, kind)))
    if outcome.came_back:
        who = ", ".join(outcome.came_back)
        print(f"bega broker revoke: {who} was let in again: mosquitto does not heed {args.folder / 'bega' / LIST}; "
              "see its log, then: systemctl restart mosquitto", file=sys.stderr)  # fmt: skip
    return 1 if outcome.came_back else 0


def place_list(folder: Path, crl: Path, now_ms: int) -> tuple[RevocationList, list[str]]:
    """Put a list where mosquitto reads it; return it, and whose sessions must end. Raises ConfigError.

    The same list again is none too many: what came between the first time and the end of its sessions is done then.
    """
    authorities = folder / AUTHORITIES
    trusted = trusted_in(authorities)
    new = understood(_read_list(crl), trusted, str(crl))
    new.require_begun(now_ms, str(crl))
    place = folder / LIST
    try:
        old = understood(_read_list(place), trusted, str(place)) if place.exists() else None
    except ConfigError:  # damaged: nobody is let in by it, and the new one is what mends that
        old = None
    if old and new.number < old.number:
        raise ConfigError(f"{crl}: is list {new.number}, and list {old.number} is here already: fetch the newest")
    # First: whose issuing key mosquitto knows without having its list, is refused.
    put(place, new.pem, 0o644)
    unknown = [certificate for certificate in new.issuing if certificate not in trusted]
    if unknown:  # a new issuing key, which the root vouches for: what it signs is let in from now on
        texts = [certificate.public_bytes(Encoding.PEM) for certificate in unknown]
        put(authorities, read(authorities).rstrip(b"\n") + b"\n" + b"".join(texts), 0o644)
    is_same = old is not None and new.number == old.number
    return new, new.revoked_since(None if is_same else old)


def _read_list(path: Path) -> bytes:
    """Return what is in a file, as far as a list can go: the gateway's user may lay anything there, and we are root."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _reload(pid_file: Path) -> None:
    """Have mosquitto read certificates and list again: SIGHUP (mosquitto(8)), sessions stay."""
    try:
        pid = int(pid_file.read_text())
        if (Path("/proc") / str(pid) / "comm").read_text().strip() == "mosquitto":
            os.kill(pid, signal.SIGHUP)
            return
    except PermissionError:
        raise ConfigError("mosquitto may be told only by root: sudo; the list is in its place") from None
    except (OSError, ValueError):
        pass
    _run("systemctl", "reload", "mosquitto")


def _run(*command: str) -> None:
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        why = told.stderr.strip().splitlines()[-1:] if told.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        why = [str(error)]
    if why is not None:
        said = why[0] if why else "it failed"
        raise ConfigError(f"{' '.join(command)}: {said}; the list is in its place, and mosquitto does not know it yet")


def _end_sessions(args: argparse.Namespace, names: list[str], barred: frozenset[str]) -> list[str]:
    """End their sessions; return who of them is in `barred` and came back. The others have a good certificate.

    Who was barred before is asked to go once more: the list may have come when his session could not be ended.
    """
    from bega import mqtt
    from bega_gateway.broker.sessions import end_sessions

    if not names:
        return []
    broker, credentials = _way(args.config)
    connect = partial(mqtt.connect, broker, credentials=credentials, keep=False)

    async def end() -> list[str]:
        came_back = await end_sessions(barred.intersection(names), lambda client_id: connect(client_id), args.hold_s)
        await end_sessions(barred.symmetric_difference(names), lambda client_id: connect(client_id), 0)
        return came_back

    try:
        return asyncio.run(end())
    except (mqtt.SessionLost, OSError) as error:
        raise ConfigError(
            f"{broker}: {error}; the list is in its place, but sessions of {', '.join(names)} may go on: do this again"
        ) from None


def _way(config: Path | None) -> tuple[str, Credentials]:
    """Return the broker on this machine, and what its gateway shows it. Raises ConfigError."""
    from bega import mqtt
    from bega_gateway import config as settings
    from bega_gateway.install import config_of

    file = config or Path(config_of(Path("/"), None))
    tables = settings.load(file)
    for line in tables.lines.values():
        if isinstance(line, settings.MqttLine) and urlsplit(line.broker).hostname in LOCAL:
            return line.broker, mqtt.Credentials(line.ca_file, line.cert_file, line.key_file)
    raise ConfigError(f"{file} has no line of the kind mqtt with a broker on this machine: name the right --config")


def _words(outcome: Outcome, kind: str) -> list[str]:
    said = [f"list {outcome.number}: mosquitto has it"]
    if kind == CITY:
        return [*said, "every session was ended, and begins anew for whoever is let in"]
    ended = [name for name in outcome.ended if name not in outcome.came_back]
    return said + [f"ended    {name}" for name in ended]
