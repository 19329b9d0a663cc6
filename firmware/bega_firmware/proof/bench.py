"""A broker and a gateway on the technician's own machine, for a node that its site's network does not reach.

With mosquitto all show certificates, of an authority made for this one test; the embedded broker takes its place where
mosquitto is not installed, and speaks without TLS. The gateway is the real one, started by its own command.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bega.broker import LOOPBACK, EmbeddedBroker, free_port
from bega.clock import mono_s, wall_ms
from bega.identity import DEVICE_ID
from bega_firmware.authority import (
    Pair,
    Role,
    certificate_der,
    certificate_pem,
    key_der,
    key_pem,
    make_issuing,
    make_leaf,
    make_root,
)
from bega_protocols.errors import ConfigError

GATEWAY, CITY, NODE = "gw-bench", "bench", "bench-node"
DAYS = 2
UP_WITHIN_S, ENDS_WITHIN_S, LOOK_AGAIN_S = 20.0, 3.0, 0.05
MOSQUITTO_PLACES = ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto")
# 192.0.2.0/24 is for documents (RFC 5737): nothing is sent there, but the system says from which address it would be.
ELSEWHERE = ("192.0.2.1", 9)
# Started by root it would become the user mosquitto, who may not read our folder.
MOSQUITTO = """user {user}
persistence false
log_dest stderr
listener {port} {host}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
require_certificate true
use_identity_as_username true
allow_anonymous false
"""


@dataclass(frozen=True)
class Bench:
    """What a node needs to know of a bench that is up."""

    broker: tuple[str, int]
    is_secured: bool
    software: str  # "mosquitto", or what stood in for it
    files: Mapping[str, bytes] = field(default_factory=dict)  # for the node, by name


def own_address() -> str:
    """Return the address at which this machine is reached from its network, the loopback's if it has none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(ELSEWHERE)
        return str(probe.getsockname()[0])
    return LOOPBACK


@contextlib.contextmanager
def bench(node: str, host: str, uplink: Mapping[str, Any] | None = None) -> Iterator[Bench]:
    """Bring up broker and gateway for one node, and end them.

    host: the address of this machine that the node can reach; uplink: port, baud and key (hex, "" for none) of a node
    on a serial line. Raises ConfigError if they do not come up.
    """
    with tempfile.TemporaryDirectory(prefix="bega-bench-") as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        mosquitto = find_mosquitto()
        if mosquitto:
            found = _with_mosquitto(stack, folder, mosquitto, node, host)
        else:
            broker = EmbeddedBroker(folder / "broker", host=host)
            stack.enter_context(broker)
            found = Bench((host, broker.port), False, "the embedded broker, since mosquitto is not installed")
        _start_gateway(stack, folder, node, found, uplink)
        yield found


def find_mosquitto() -> str:
    """Return the path of mosquitto, '' where it is not installed: Debian puts it where users do not look."""
    return shutil.which("mosquitto") or next((place for place in MOSQUITTO_PLACES if Path(place).exists()), "")


def _with_mosquitto(stack: contextlib.ExitStack, folder: Path, program: str, node: str, host: str) -> Bench:
    files = _identities(folder, node, host)
    port = free_port(host)
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        MOSQUITTO.format(user=getpass.getuser(), port=port, host=host, folder=folder), encoding="utf-8"
    )
    command = [program, "-c", str(configuration)]
    child = stack.enter_context(_child(command, folder / "mosquitto.log"))
    _wait(child, folder / "mosquitto.log", lambda: _listens(host, port), "mosquitto")
    return Bench((host, port), True, "mosquitto", files)


def _identities(folder: Path, node: str, host: str) -> dict[str, bytes]:
    """Write the broker's and the gateway's identities into `folder`; return the node's files."""
    now_ms = wall_ms()
    root = make_root("Bench", now_ms)
    issuing = make_issuing("Bench", 1, root, now_ms)
    trusted = certificate_pem(root.certificate, issuing.certificate)
    _write(folder / "ca.pem", trusted)
    for name, role, hosts in (("broker", Role.BROKER, [host]), (GATEWAY, Role.GATEWAY, [])):
        pair = make_leaf(f"{name}-1" if role is Role.BROKER else name, role, hosts, issuing, now_ms, DAYS)
        _write_pair(folder, name, pair, issuing)
    name = node if DEVICE_ID.fullmatch(node) else NODE
    pair = make_leaf(name, Role.NODE, [], issuing, now_ms, DAYS)
    return {
        "ca.der": certificate_der(root.certificate),
        "node.der": certificate_der(pair.certificate),
        "node.key": key_der(pair.key),
    }


def _write_pair(folder: Path, name: str, pair: Pair, issuing: Pair) -> None:
    _write(folder / f"{name}.pem", certificate_pem(pair.certificate, issuing.certificate))
    _write(folder / f"{name}.key", key_pem(pair.key))


def _write(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)


def _start_gateway(
    stack: contextlib.ExitStack, folder: Path, node: str, found: Bench, uplink: Mapping[str, Any] | None
) -> None:
    configuration, ready, log = folder / "gateway.toml", folder / "ready.json", folder / "gateway.log"
    configuration.write_text(gateway_text(folder, node, found, uplink), encoding="utf-8")
    command = [sys.executable, "-m", "bega", "gateway", "run", "--config", str(configuration)]
    child = stack.enter_context(_child([*command, "--ready-file", str(ready)], log))
    _wait(child, log, ready.exists, "the gateway")


def gateway_text(folder: Path, node: str, found: Bench, uplink: Mapping[str, Any] | None) -> str:
    """Return the configuration of a bench's gateway."""
    host, port = found.broker
    url = f"{'mqtts' if found.is_secured else 'mqtt'}://{host}:{port}"
    parts = {"ca_file": "ca.pem", "cert_file": f"{GATEWAY}.pem", "key_file": f"{GATEWAY}.key"}
    shown = [f"{key} = {_quoted(folder / name)}" for key, name in parts.items()] if found.is_secured else []
    rows = ["[gateway]", f'name = "{GATEWAY}"', f'city = "{CITY}"', f"state_dir = {_quoted(folder / 'state')}"]
    rows += ["commit_window_s = 0.1", "[uplink]", f'brokers = ["{url}"]', *shown, "[lines.nodes]"]
    if uplink is None:
        rows += ['kind = "mqtt"', f'broker = "{url}"', *shown, f"[nodes.{_quoted(node)}]", 'line = "nodes"']
    else:
        rows += ['kind = "uplink"', f"port = {_quoted(uplink['port'])}", f"baud = {uplink['baud']}"]
        rows += [f"[nodes.{_quoted(node)}]", 'line = "nodes"']
        if uplink["key"]:
            _write(folder / "node.hex", str(uplink["key"]).encode())
            rows.append(f"key_file = {_quoted(folder / 'node.hex')}")
    return "\n".join(rows) + "\n"


@contextlib.contextmanager
def _child(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a session of its own, and end it with all that it started."""
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(ENDS_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait(child: subprocess.Popen[bytes], log: Path, is_up: Any, who: str) -> None:
    began_s = mono_s()
    while not is_up():
        if child.poll() is not None or mono_s() - began_s > UP_WITHIN_S:
            raise ConfigError(f"{who} of the bench does not come up on this machine: {_last_words(log)}")
        time.sleep(LOOK_AGAIN_S)


def _last_words(log: Path) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1] if said else "it says nothing"


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _quoted(value: object) -> str:
    """Return a text as TOML writes it."""
    return json.dumps(str(value), ensure_ascii=False)
