"""A city's authority, a gateway's mosquitto as `bega broker configure` makes it, and clients that show certificates."""

import contextlib
import getpass
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho

from bega.broker import free_ports
from bega.clock import wall_ms
from bega_firmware import ca, ca_verbs
from bega_gateway.broker import command

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
DAY_MS = 86_400_000
# As Debian 12 ships it, with other places.
SHIPPED = """pid_file {folder}/mosquitto.pid

persistence true
persistence_location {folder}/

log_dest file {folder}/mosquitto.log

user {user}
include_dir {folder}/etc/conf.d
"""
GATEWAY_TOML = """
[gateway]
name = "gw-1"
city = "arad"
state_dir = "{state}"

[uplink]
brokers = ["mqtts://localhost:{local}"]
ca_file = "{own}/ca.pem"
cert_file = "{own}/gw-1.pem"
key_file = "{own}/gw-1.key"

[lines.nodes]
kind = "mqtt"
broker = "mqtts://localhost:{local}"
ca_file = "{own}/ca.pem"
cert_file = "{own}/gw-1.pem"
key_file = "{own}/gw-1.key"

[nodes.air-7]
line = "nodes"

[nodes.air-8]
line = "nodes"
"""


def bega_ca(verb: str, folder: Path, *arguments: object, now_ms: int | None = None) -> int:
    """Do what `bega ca VERB` does, at a time of one's own."""
    parser, verbs = ca.command_line("bega ca", None, "")
    ca._add_init(verbs)
    ca._add_issue(verbs)
    ca_verbs.add_to(verbs)
    args = parser.parse_args([verb, "--ca", str(folder), *map(str, arguments)])
    return args.command(args, lambda: now_ms or wall_ms())


class City:
    """An authority with nodes, a gateway, a watcher and a broker; and another one, of which nobody here knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca"
        begun_ms = wall_ms() - 3 * DAY_MS
        for name in ("ca", "foreign"):
            assert bega_ca("init", folder / name, "--name", "City of Arad", now_ms=begun_ms) == 0
            self.issue("air-7", ca=name)
        for name in ("air-8", "air-9", "gw-1", "watcher-1", "desk-1"):
            self.issue(name)
        assert bega_ca("issue", self.ca, "broker-1", "--for", "broker", "--host", "localhost") == 0
        assert bega_ca("issue", self.ca, "air-old", "--for", "gateway", "--days", 1, now_ms=begun_ms) == 0

    def issue(self, name: str, ca: str = "ca", *arguments: object) -> None:
        """Issue a certificate in the form that this machine's TLS reads; as a client a node's is no other."""
        assert bega_ca("issue", self.folder / ca, name, "--for", "gateway", *arguments) == 0

    def of(self, name: str, ca: str = "ca") -> tuple[Path, Path]:
        """Return certificate and key of a device."""
        own = self.folder / ca / "identities" / name
        return own / f"{name}.pem", own / f"{name}.key"

    @property
    def list(self) -> Path:
        return self.ca / "revoked.pem"


class CityBroker:
    """A mosquitto with the files of `bega broker configure`."""

    def __init__(self, city: City, folder: Path, *arguments: object) -> None:
        self.city = city
        self.folder = folder
        self.etc = folder / "etc"
        self.port, self.local_port = free_ports(2)
        (self.etc / "conf.d").mkdir(parents=True)
        shipped = SHIPPED.format(folder=folder, user=getpass.getuser())
        (self.etc / "mosquitto.conf").write_text(shipped)
        (self.etc / "bega").mkdir()
        (self.etc / "bega/access.own").write_text("user watcher-1\ntopic read #\n")
        self.config = folder / "gateway.toml"
        own = city.ca / "identities/gw-1"
        self.config.write_text(GATEWAY_TOML.format(state=folder.parent / "gateway", local=self.local_port, own=own))
        assert self.configure(*(arguments or ("--gateway", "gw-1"))) == 0
        self.child: subprocess.Popen[bytes] | None = None

    def configure(self, *arguments: object) -> int:
        """Do what `bega broker configure` does, in this broker's folders."""
        words = ["--folder", self.etc, "--units", self.folder / "units", "--config", self.config]
        words += ["--port", self.port, "--local-port", self.local_port]
        words += ["--identity", self.city.ca / "identities/broker-1", *arguments]
        return command.main(["configure", *map(str, words)])

    def revoke(self, *arguments: object, crl: Path | None = None) -> int:
        """Do what `bega broker revoke` does."""
        words = ["--crl", crl or self.city.list, "--folder", self.etc, "--config", self.config]
        words += ["--pid-file", self.folder / "mosquitto.pid", "--hold-s", 0.1, *arguments]
        return command.main(["revoke", *map(str, words)])

    def start(self) -> None:
        (self.folder / "mosquitto.log").unlink(missing_ok=True)
        self.child = subprocess.Popen([MOSQUITTO, "-c", self.etc / "mosquitto.conf"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while "running" not in self.said():
            assert self.child.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def stop(self) -> None:
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait(10)

    def said(self) -> str:
        log = self.folder / "mosquitto.log"
        return log.read_text() if log.exists() else ""

    def client(self, name: str, client_id: str = "", *, ca: str = "ca", port: int = 0) -> "Client":
        """Return a client that shows the certificate of `name`, and tries to connect again and again."""
        return Client(self, name, client_id or name, self.city.of(name, ca), port or self.port)


class Client:
    """One that keeps trying, and notes each connection that came up and went."""

    def __init__(self, broker: CityBroker, name: str, client_id: str, own: tuple[Path, Path] | None, port: int) -> None:
        self.name = name
        self.ups: list[float] = []
        self.downs: list[float] = []
        self.heard: list[tuple[str, bytes]] = []
        self._paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=True)
        self._paho.tls_set(str(broker.city.ca / "root.pem"), *(map(str, own) if own else ()))
        self._paho.reconnect_delay_set(0.2, 0.2)
        self._paho.on_connect = lambda *facts: self.ups.append(time.monotonic()) if facts[3] == 0 else None
        self._paho.on_disconnect = lambda *facts: self.downs.append(time.monotonic())
        self._paho.on_message = lambda client, data, message: self.heard.append((message.topic, message.payload))
        self._paho.connect_async("localhost", port)
        self._paho.loop_start()

    @property
    def is_up(self) -> bool:
        return self._paho.is_connected()

    def subscribe(self, *topics: str) -> None:
        done = threading.Event()
        self._paho.on_subscribe = lambda *facts: done.set()
        self._paho.subscribe([(topic, 1) for topic in topics])
        assert done.wait(5)

    def publish(self, topic: str, payload: bytes = b"x") -> None:
        """Publish at QoS 1, and wait for the PUBACK: a 3.1.1 publish that is denied gets one too."""
        self._paho.publish(topic, payload, 1).wait_for_publish(5)

    def close(self) -> None:
        self._paho.disconnect()
        self._paho.loop_stop()


@contextlib.contextmanager
def clients(broker: CityBroker, *names: str, **options: object) -> Iterator[list[Client]]:
    """Give clients that are connected."""
    made = [broker.client(name, **options) for name in names]
    try:
        deadline = time.monotonic() + 10
        while not all(client.is_up for client in made):
            assert time.monotonic() < deadline, broker.said()
            time.sleep(0.02)
        yield made
    finally:
        for client in made:
            client.close()


class Hello:
    """A CONNECT (MQTT 3.1.1, section 3.1) by hand, of whoever shows these files."""

    def __init__(self, broker: CityBroker, own: tuple[Path, Path] | None, port: int = 0) -> None:
        self._port = port or broker.port
        self._context = ssl.create_default_context(cafile=str(broker.city.ca / "root.pem"))
        self.session: ssl.SSLSession | None = None
        self.was_reused: bool | None = None
        if own:
            self._context.load_cert_chain(*map(str, own))

    def at_most(self, version: ssl.TLSVersion) -> "Hello":
        self._context.maximum_version = version
        return self

    def is_let_in(self) -> bool:
        """Return whether the broker says yes; the TLS session of the time before is shown where there is one."""
        try:
            with (
                socket.create_connection(("localhost", self._port), 5) as plain,
                self._context.wrap_socket(plain, server_hostname="localhost", session=self.session) as wrapped,
            ):
                wrapped.sendall(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x0f\x00\x07hello-1")
                answer = wrapped.recv(4)
                self.session, self.was_reused = wrapped.session, wrapped.session_reused
                return answer == b"\x20\x02\x00\x00"
        except OSError:
            return False
