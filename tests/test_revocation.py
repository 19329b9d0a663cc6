"""A list of revoked certificates on its way: from the authority over the gateway to its broker, and what each does."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bega.clock import wall_ms
from bega.mqtt import Message
from bega_gateway import config as settings
from bega_gateway import revocation
from bega_gateway.commands.acts import Acts
from bega_gateway.commands.order import Refused, understand
from bega_gateway.config.tables import Revocation
from bega_gateway.lines.errand import Done
from bega_gateway.lines.mqtt import NodeLine
from bega_gateway.lines.nodes import NodeRecords
from bega_gateway.revocation import Revocations
from bega_protocols import senml
from bega_protocols.errors import ConfigError
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record
from tests.broker_city import MOSQUITTO, City, CityBroker, Client, Hello, bega_ca, clients
from tests.node_park import FAST, MICROPYTHON, NodeProcess

needs_mosquitto = pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="no mosquitto here")
WITHIN_S = 60.0  # what the issue gives a revoked node's session
ROOT = "city/arad/gw-1/cmd/"


def pack(node: str, seq: int, boot: int = 1_795_300_000) -> bytes:
    return senml.encode(Record(node, boot, seq, "pms", wall_ms(), SYNCHRONISED, [Reading("pm2_5", 12)]))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> City:
    return City(tmp_path_factory.mktemp("city"))


@pytest.fixture
def city(made, tmp_path) -> City:
    """A city of the test's own: somebody is revoked there."""
    city = City.__new__(City)
    city.folder = tmp_path / "city"
    city.ca = city.folder / "ca"
    shutil.copytree(made.folder, city.folder)
    return city


@pytest.fixture
def known(city, tmp_path) -> Callable[[], Revocations]:
    """Return what a gateway knows, as it begins."""
    state = tmp_path / "state"
    state.mkdir()
    table = Revocation(ca_file=str(city.of("gw-1")[0].with_name("ca.pem")), broker_list=str(tmp_path / "brokers.pem"))
    return lambda: Revocations(table, state)


def taken(revocations: Revocations, city: City) -> bool:
    return asyncio.run(revocations.take(revocations.understood(city.list.read_bytes(), "the list")))


def test_gateway_that_has_the_root_alone_believes_the_list_and_keeps_it(city, known, tmp_path):
    before = known()
    assert not before.is_barred("air-7")
    bega_ca("revoke", city.ca, "air-7")
    shutil.copy(city.list, tmp_path / "brokers.pem")
    assert taken(before, city)
    assert (before.is_barred("air-7"), before.is_barred("air-8")) == (True, False)
    (tmp_path / "brokers.pem").unlink()
    after = known()
    assert (after.number, after.is_barred("air-7")) == (before.number, True), "after a restart too"


def test_list_that_was_brought_to_the_broker_by_hand_counts_for_the_gateway(city, known, tmp_path):
    revocations = known()
    bega_ca("revoke", city.ca, "air-7")
    shutil.copy(city.list, tmp_path / "brokers.pem")
    revocations.look()
    assert revocations.is_barred("air-7")


def test_number_of_a_list_only_rises(city, known, tmp_path):
    revocations = known()
    old = city.list.read_bytes()
    bega_ca("revoke", city.ca, "air-7")
    shutil.copy(city.list, tmp_path / "brokers.pem")
    revocations.look()
    with pytest.raises(ConfigError, match="is here already"):
        revocations.understood(old, "the list")
    (tmp_path / "brokers.pem").write_bytes(old)
    revocations.look()
    assert revocations.is_barred("air-7"), "whoever puts an old file back lets nobody in"


@pytest.mark.parametrize("content", [b"", b"nonsense", "foreign"])
def test_list_that_nobody_signed_changes_nothing(city, known, tmp_path, content, caplog):
    bega_ca("revoke", city.ca, "air-7")
    shutil.copy(city.list, tmp_path / "brokers.pem")
    revocations = known()
    forged = (city.folder / "foreign/revoked.pem").read_bytes() if content == "foreign" else content
    (tmp_path / "brokers.pem").write_bytes(forged)
    revocations.look()
    revocations.look()
    assert revocations.is_barred("air-7")
    assert sum("cannot be used" in record.getMessage() for record in caplog.records) == 1, "said once"


def test_authority_that_is_not_there_is_said_and_the_gateway_starts(tmp_path, caplog):
    (tmp_path / "brokers.pem").write_text("a list")
    table = Revocation(ca_file=str(tmp_path / "none.pem"), broker_list=str(tmp_path / "brokers.pem"))
    assert not Revocations(table, tmp_path).is_barred("air-7")
    assert "none.pem cannot be read" in caplog.text


def test_device_with_a_new_certificate_is_believed_again(city, known, tmp_path):
    revocations = known()
    bega_ca("revoke", city.ca, "air-7")
    shutil.copy(city.list, tmp_path / "brokers.pem")
    revocations.look()
    city_again = ("air-7", "--for", "gateway", "--again", "--out", tmp_path / "again")
    assert bega_ca("issue", city.ca, *city_again) == 0
    shutil.copy(city.list, tmp_path / "brokers.pem")
    revocations.look()
    assert not revocations.is_barred("air-7")


class OfGateway:
    """What commands ask of a gateway, as far as this one is about."""

    def __init__(self, revocations: Revocations | None) -> None:
        self.revocations = revocations


def ordered(city: City, pem: bytes | None = None):
    text = (pem or city.list.read_bytes()).decode()
    return understand(ROOT, ROOT + "revoke", json.dumps({"id": "a", "expires": 1, "list": text}).encode())


def test_command_ends_when_the_broker_has_the_list(city, known, tmp_path, monkeypatch):
    bega_ca("revoke", city.ca, "air-7")
    revocations = known()
    acts = Acts(OfGateway(revocations), None, wall_ms)

    async def scene() -> None:
        doing = asyncio.create_task(acts.prepare(ordered(city))())
        await asyncio.sleep(0.3)
        assert not doing.done()
        assert revocations.is_barred("air-7"), "the gateway itself does not wait"
        shutil.copy(city.list, tmp_path / "brokers.pem")
        assert await doing == (Done(True), {"number": revocations.number, "revoked": 1})

    asyncio.run(scene())
    monkeypatch.setattr(revocation, "HEEDED_WITHIN_S", 0.1)
    bega_ca("revoke", city.ca, "air-8")
    done, facts = asyncio.run(acts.prepare(ordered(city))())
    assert not done.well
    assert "its broker does not yet: see bega-broker-revoke.service" in done.reason
    assert facts["revoked"] == 2


def test_list_that_is_sent_again_wakes_the_unit_again(city, known, tmp_path, monkeypatch):
    """It may have given up while the broker was down: the operator who sends the list once more is not on the pole."""
    monkeypatch.setattr(revocation, "HEEDED_WITHIN_S", 0.01)
    revocations, own = known(), tmp_path / "state/revoked.pem"
    acts = Acts(OfGateway(revocations), None, wall_ms)
    assert not asyncio.run(acts.prepare(ordered(city))())[0].well
    os.utime(own, (1, 1))
    assert not asyncio.run(acts.prepare(ordered(city))())[0].well
    assert own.stat().st_mtime > 1


def test_command_that_may_not_be_done_is_refused(city, known):
    forged = (city.folder / "foreign/revoked.pem").read_bytes()
    with pytest.raises(Refused, match="is not signed by the authority"):
        Acts(OfGateway(known()), None, wall_ms).prepare(ordered(city, forged))
    bega_ca("revoke", city.ca, "air-7", now_ms=wall_ms() + 30 * 86_400_000)
    with pytest.raises(Refused, match="set the clock that is wrong"):
        Acts(OfGateway(known()), None, wall_ms).prepare(ordered(city))
    with pytest.raises(Refused, match=r"has no \[revocation\]"):
        Acts(OfGateway(None), None, wall_ms).prepare(ordered(city))


def test_audit_trail_does_not_hold_the_list(city):
    assert ordered(city).said() == "{}"


def test_nothing_of_a_revoked_node_is_taken(caplog):
    barred = {"air-7"}
    stored = []

    def store(record, octets, head):
        stored.append(record.source)
        return asyncio.get_running_loop().create_future()

    async def scene() -> None:
        records = NodeRecords(store, lambda head: None, {}, is_barred=barred.__contains__)
        line = NodeLine("nodes", ["air-7", "air-8"], None, records, lambda: None, lambda: 0)
        told: asyncio.Queue[str] = asyncio.Queue()
        for kind, payload in (("up", pack("air-7", 1)), ("status", b'{"holds": []}'), ("result", b'{"id": "a"}')):
            await line._take(None, Message(f"node/air-7/{kind}", payload), told)
        await line._take(None, Message("node/air-8/up", pack("air-8", 1)), told)
        assert stored == ["air-8"]
        assert (records.refused, told.qsize(), "air-7" in line.heard_mono_ms) == (3, 0, False)
        barred.clear()
        await line._take(None, Message("node/air-7/up", pack("air-7", 1)), told)
        assert stored == ["air-8", "air-7"]

    asyncio.run(scene())
    assert caplog.text.count("its certificate was revoked") == 1, "said once"


def test_configuration_names_an_authority_that_is_there(tmp_path):
    file = tmp_path / "gateway.toml"
    base = '[gateway]\nname = "gw-1"\ncity = "arad"\n[uplink]\nbrokers = ["mqtt://localhost"]\n'
    file.write_text(f'{base}[revocation]\nca_file = "{tmp_path}/none.pem"\nbroker_list = "{tmp_path}/none.pem"\n')
    _, problems = settings.check(file)
    for key in ("ca_file", "broker_list"):
        assert any(f"revocation.{key}: there is no file" in problem for problem in problems)
    file.write_text(f"{base}[revocation]\n")
    assert any("revocation.ca_file" in problem for problem in settings.check(file)[1])


def test_name_that_no_certificate_can_have_is_told(tmp_path):
    file = tmp_path / "gateway.toml"
    files = 'ca_file = "a"\ncert_file = "b"\nkey_file = "c"\n'
    file.write_text(
        f'[gateway]\nname = "GW_1"\ncity = "arad"\n[uplink]\nbrokers = ["mqtts://b"]\n{files}'
        f'[lines.nodes]\nkind = "mqtt"\nbroker = "mqtts://localhost"\n{files}'
        '[nodes.air_1]\nline = "nodes"\n[nodes.air-2]\nline = "nodes"\n'
    )
    told = [said.split(":")[0] for said in settings.cautions(settings.load(file)) if "no certificate" in said]
    assert told == ["gateway.name", "nodes.air_1"]


class PathUnit:
    """What systemd does with the units of `bega broker configure`: when the list changes, their command runs."""

    def __init__(self, broker: CityBroker) -> None:
        units = broker.folder / "units"
        self._watched = Path(_value(units / "bega-broker-revoke.path", "PathChanged"))
        command = _value(units / "bega-broker-revoke.service", "ExecStart").split()
        places = ["--hold-s", 1, "--pid-file", broker.folder / "mosquitto.pid"]
        self._command = [*command, *map(str, places)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.said: list[str] = []

    def __enter__(self) -> "PathUnit":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        before = None
        while not self._over.wait(0.05):
            status = self._watched.stat() if self._watched.exists() else None
            now = (status.st_mtime_ns, status.st_ino) if status else None
            if now != before:
                told = subprocess.run(self._command, capture_output=True, text=True, timeout=60)
                self.said.append(told.stdout + told.stderr)
            before = now


def _value(unit: Path, key: str) -> str:
    found = re.search(rf"^{key}=(.+)$", unit.read_text(), re.M)
    assert found
    return found[1]


@pytest.fixture
def broker(city, tmp_path) -> Iterator[CityBroker]:
    """A broker whose operator's desk is on it too, and may speak in the place of nodes."""
    (tmp_path / "broker").mkdir()
    one = CityBroker(city, tmp_path / "broker")
    rules = "user desk-1\ntopic write city/arad/+/cmd/#\ntopic read city/arad/#\ntopic node/#\n"
    (one.etc / "bega/access.own").write_text(f"{rules}user watcher-1\ntopic read #\n")
    assert one.configure("--gateway", "gw-1") == 0
    ca_file, listed = city.of("gw-1")[0].with_name("ca.pem"), one.etc / "bega/revoked.pem"
    table = f'[revocation]\nca_file = "{ca_file}"\nbroker_list = "{listed}"\n'
    one.config.write_text(one.config.read_text() + f"[commands]\n{table}")
    one.start()
    yield one
    one.stop()


def revoke_from_afar(city: City, broker: CityBroker) -> tuple[int, dict[str, object]]:
    """Have the desk hand the gateway the list; return the exit code, and the result."""
    desk = city.of("desk-1")
    to = ["--broker", f"mqtts://localhost:{broker.local_port}", "--gateway", "arad/gw-1"]
    to += ["--ca-file", city.ca / "root.pem", "--cert-file", desk[0], "--key-file", desk[1]]
    command = [sys.executable, "-m", "bega", "gateway", "command", *to, "--json", "revoke", city.list]
    told = subprocess.run(command, capture_output=True, text=True, timeout=90)
    return told.returncode, json.loads(told.stdout)


def is_taken(node: Client, seq: int) -> bool:
    """Send a record, as a node does until it is acknowledged, and return whether it was."""
    if node.is_up:
        node.publish(f"node/{node.name}/up", pack(node.name, seq))
    return any(up_to >= seq for _, payload in node.heard for _, up_to in json.loads(payload))


@needs_mosquitto
def test_stolen_node_is_out_a_moment_after_the_command_and_nothing_more_of_it_is_stored(
    city, broker, make_gateway, eventually
):
    gateway = make_gateway(broker.config.read_text())
    gateway.start()
    with (
        PathUnit(broker) as unit,
        clients(broker, "air-7", "air-8") as (stolen, other),
        clients(broker, "desk-1", port=broker.local_port) as (desk,),
    ):
        for node in (stolen, other):
            node.subscribe(f"node/{node.name}/ack")
            eventually(partial(is_taken, node, 1), "its first record is acknowledged")
        bega_ca("revoke", city.ca, "air-7", "--reason", "stolen")
        began = time.monotonic()
        code, result = revoke_from_afar(city, broker)
        assert (code, result["status"], result["result"]["revoked"]) == (0, "done", 1), (result, unit.said)
        eventually(lambda: stolen.downs, "its session is ended", 60)
        assert stolen.downs[0] - began < WITHIN_S
        print(f"its session was ended {stolen.downs[0] - began:.2f} s after the command was typed")
        desk.publish("node/air-7/up", pack("air-7", 2))  # whoever gets past the broker is not believed either
        eventually(partial(is_taken, other, 2), "the other one goes on")
        assert not is_taken(stolen, 2), "no acknowledgement was kept for it"
        assert other.ups == other.ups[:1]
        assert not Hello(broker, city.of("air-7")).is_let_in()
        assert len(stolen.ups) == 1
        assert "its certificate was revoked" in gateway.log.read_text()
    assert gateway.stop() == 0
    assert unit.said and all("came_back" not in said and "let in again" not in said for said in unit.said)


@needs_mosquitto
@pytest.mark.skipif(os.environ.get("BEGA_PROFILE") != "nightly", reason="at night: make nightly PART=technician")
@pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")
def test_real_node_of_a_real_gateway_is_out_keeps_its_records_and_comes_back_with_a_new_certificate(
    city, broker, make_gateway, eventually, tmp_path
):
    """The firmware as shipped, on the broker as `bega broker configure` makes it."""
    from bega_firmware.board import MIB, VFS_START, read_board
    from bega_firmware.build import build
    from bega_firmware.image import make_image

    name = "air-6"
    assert bega_ca("issue", city.ca, name) == 0
    broker.config.write_text(f'{broker.config.read_text()}[nodes.{name}]\nline = "nodes"\n')
    gateway = make_gateway(broker.config.read_text())
    gateway.start()
    tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
    config = {
        **{"node": name, "made_s": wall_ms() // 1000, "wifi": {"ssid": "city", "key": ""}, "devices": FAST},
        "broker": {"host": "localhost", "port": broker.port, "tls": tls},
    }
    board = read_board("esp32_devkitc")
    built = build(board, [device["driver"] for device in board.devices.values()], ["broker"])
    node = NodeProcess(tmp_path, broker.port)

    def lay(identity: Path) -> None:
        files = {f"/tls/{path.name}": path.read_bytes() for path in identity.iterdir()}
        contents = {**built.contents, **files, "/config.json": json.dumps(config).encode()}
        flash = bytearray(b"\xff" * (board.flash_mb * MIB))
        flash[VFS_START:] = make_image(contents, board.vfs_bytes)
        node.flash.write_bytes(flash)

    lay(city.ca / "identities" / name)
    topic = f"city/arad/gw-1/{name}/"
    try:
        with PathUnit(broker), clients(broker, "watcher-1", port=broker.local_port) as (watcher,):
            watcher.subscribe("#")

            def stored() -> int:
                return sum(heard.startswith(topic) for heard, _ in watcher.heard)

            node.start("--as-is")
            eventually(lambda: stored() > 3, "the gateway stores and sends what the node measures", 60)
            assert bega_ca("revoke", city.ca, name, "--reason", "stolen") == 0
            assert revoke_from_afar(city, broker)[0] == 0
            eventually(lambda: f"Client {name} already connected" in broker.said(), "its session is ended", WITHIN_S)
            time.sleep(1)
            before = stored()
            time.sleep(15)  # it tries again meanwhile
            assert stored() == before
            assert "certificate verify failed" in broker.said()
            assert "Traceback" not in node.said()
            node.stop()
            assert bega_ca("issue", city.ca, name, "--again", "--out", tmp_path / "new") == 0
            assert revoke_from_afar(city, broker)[0] == 0
            lay(tmp_path / "new")
            node.start("--as-is")
            eventually(lambda: stored() > before + 3, "with a new certificate it is heard again", 60)
    finally:
        node.stop()
