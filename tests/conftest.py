"""What several test modules share: real brokers, a relay that turns into a black hole, a gateway as a process."""

import contextlib
import getpass
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
import pytest
from hypothesis import HealthCheck, settings

from bega.broker import EmbeddedBroker, accepts_mqtt, free_port
from bega_protocols import senml
from bega_protocols.devices.pms5003.sim import Sim as Pms5003
from bega_protocols.record import Record

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# No deadline: two cores shared with brokers and a browser say nothing about speed.
settings.register_profile("test", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", parent=settings.get_profile("test"), max_examples=3000)
settings.load_profile(os.environ.get("BEGA_PROFILE", "test"))

IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"  # what takes long is whole then (docs/decisions/073)

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
MOSQUITTO_CONFIGURATION = """
listener {port} 127.0.0.1
user {user}
allow_anonymous true
persistence true
persistence_location {directory}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 100000
max_inflight_messages 100
"""


class Mosquitto:
    """A mosquitto of one's own, configured as `docs/` asks for on a gateway."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._configuration = directory / "mosquitto.conf"
        directory.mkdir()
        # Started as root it would become the user mosquitto, who may not enter a test's folder, and store nothing.
        user = getpass.getuser()
        text = MOSQUITTO_CONFIGURATION.format(port=self.port, directory=directory, user=user)
        self._configuration.write_text(text)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._child = subprocess.Popen([MOSQUITTO, "-c", self._configuration], stderr=subprocess.DEVNULL)
        eventually(lambda: accepts_mqtt("127.0.0.1", self.port), "mosquitto accepts connections")

    def remember(self, client_id: str) -> None:
        """Have the session of `client_id` on disk: mosquitto writes it when it likes.

        A kill -9 before that loses it. What is published after the restart and before its reader is back would then
        go to nobody, with a PUBACK.
        """
        assert self._child
        self._child.send_signal(signal.SIGUSR1)
        eventually(lambda: client_id.encode() in self._database(), f"mosquitto has the session of {client_id} on disk")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _database(self) -> bytes:
        file = self._configuration.with_name("mosquitto.db")
        return file.read_bytes() if file.exists() else b""

    def _end(self, number: int) -> None:
        if self._child and self._child.poll() is None:
            self._child.send_signal(number)
            self._child.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "mosquitto")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path / "embedded") as broker:
        yield broker


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser for the tests of a module: of a longer life Playwright's loop would be in the way of asyncio.run."""
    from playwright.sync_api import sync_playwright

    from tests.kiosk_gate import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> object:
    """Each test that asks for a broker runs on both."""
    return request.getfixturevalue(request.param)


class Relay:
    """A TCP relay in front of a broker. `stall()` makes it a black hole: sockets stay open, nothing passes."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._stalled = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        self._stalled.set()

    def reset(self) -> None:
        """End the black hole as a mobile network does: every connection is reset, new ones pass."""
        self._stalled.clear()
        for connection in list(self._pairs):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                connection.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self.reset()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._pairs = {one: other for one, other in self._pairs.items() if one.fileno() >= 0 <= other.fileno()}
            watched = [self._listener] if self._stalled.is_set() else [self._listener, *self._pairs]
            with contextlib.suppress(OSError, ValueError):
                for ready in select.select(watched, [], [], 0.05)[0]:
                    self._accept() if ready is self._listener else self._pass_on(ready)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target_port), 2)
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}

    def _pass_on(self, ready: socket.socket) -> None:
        other = self._pairs[ready]
        try:
            octets = ready.recv(65536)
            if octets:
                other.sendall(octets)
                return
        except OSError:
            pass
        ready.close()
        other.close()


class Reader:
    """Whoever reads what the gateways publish: a session that the broker keeps, and the records that came."""

    def __init__(self, url: str, topic: str = "city/+/+/+/+/up") -> None:
        self.packs: list[tuple[str, bytes]] = []
        self.records: list[Record] = []
        self._topic = topic
        host, port = url.removeprefix("mqtt://").split(":")
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="reader", clean_session=False)
        self._client.reconnect_delay_set(0.2, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.on_message = self._take
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect_async(host, int(port), keepalive=5)
        self._client.loop_start()
        assert subscribed.wait(30), "the reader could not subscribe"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def identities(self) -> Counter[tuple[str, int, int]]:
        """Return how often each record came."""
        return Counter((record.source, record.boot, record.seq) for record in list(self.records))

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self.packs.append((message.topic, message.payload))
        if message.topic.endswith("/up"):
            self.records.append(senml.decode(message.payload))


@pytest.fixture
def make_reader(request: pytest.FixtureRequest) -> Iterator[Callable[..., Reader]]:
    with contextlib.ExitStack() as stack:

        def make(url: str, topic: str = "city/+/+/+/+/up") -> Reader:
            reader = Reader(url, topic)
            stack.callback(reader.close)
            mosquitto = request.node.funcargs.get("mosquitto") or request.node.funcargs.get("broker")
            if isinstance(mosquitto, Mosquitto) and mosquitto.url == url:
                mosquitto.remember("reader")
            return reader

        yield make


class CountingSensor:
    """A PMS5003 on a pty that speaks `per_s` times a second; its PM2.5 is the number of its frame."""

    def __init__(self, directory: Path, per_s: float = 20) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = str(directory / "sensor")
        Path(self.port).symlink_to(os.ttyname(self._slave))
        self.sent = 0
        self.stored: Callable[[], int] | None = None  # number of the last frame that was; the next is spoken after it
        self._sim = Pms5003({}, seed=1)
        self._pause_s = 1 / per_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        os.close(self._master)
        os.close(self._slave)

    def _speak(self) -> None:
        while not self._ended.wait(self._pause_s):
            if self.stored and self.stored() < self.sent:
                continue
            self.sent += 1
            self._sim.set("pm2_5", "", self.sent)
            with contextlib.suppress(BlockingIOError):  # nobody reads: a UART would lose it too
                os.write(self._master, self._sim.tick(self.sent * 1000))


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[CountingSensor]:
    counting = CountingSensor(tmp_path)
    yield counting
    counting.close()


class GatewayProcess:
    """`bega gateway run`, as shipped, on a configuration of the test's."""

    def __init__(self, directory: Path, configuration: str) -> None:
        self.state = directory / "gateway"
        self.config = directory / "gateway.toml"
        self.config.write_text(configuration)
        self.log = directory / "gateway.log"
        self._ready = directory / "gateway.ready"
        self._child: subprocess.Popen[bytes] | None = None
        self.boot = 0
        self.feed = ""

    def start(self, **environment: str) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "gateway", "run", "--config", self.config]
        settings = ["--set", f"gateway.state_dir={self.state}", "--ready-file", self._ready]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*command, *settings],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        eventually(lambda: self._ready.exists() or self._child.poll() is not None, "the gateway is up")
        assert self._child.poll() is None, self.log.read_text()
        facts = json.loads(self._ready.read_text())
        self.boot, self.feed = facts["boot"], facts["feed"]

    def kill(self) -> None:
        """End it as a power cut would."""
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> int:
        """End it in order; return its exit code."""
        if self._child is None or self._child.poll() is not None:
            return self._child.returncode if self._child else 0
        self._child.terminate()
        return self._child.wait(30)


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[[str], GatewayProcess]]:
    made: list[GatewayProcess] = []

    def make(configuration: str) -> GatewayProcess:
        made.append(GatewayProcess(tmp_path, configuration))
        return made[-1]

    yield make
    for gateway in made:
        gateway.stop()


def eventually(holds: Callable[[], object], what: str, timeout_s: float = 45) -> None:
    """Wait until `holds()`; fail with `what` did not come true. The time is no claim: a busy machine may take it."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., None]:
    return eventually


@pytest.fixture
def make_relay() -> Iterator[Callable[[int], Relay]]:
    with contextlib.ExitStack() as stack:

        def make(target_port: int) -> Relay:
            relay = Relay(target_port)
            stack.callback(relay.close)
            return relay

        yield make
