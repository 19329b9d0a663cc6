"""`bega broker`: own topics only, certificates only, a revoked node is out at once; with the real mosquitto."""

import contextlib
import json
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bega.clock import wall_ms
from bega_gateway.broker import command, configuration, place, sessions
from bega_gateway.broker.identity import read_identity
from bega_gateway.doctor.machine import MOSQUITTO_NEEDS
from bega_protocols.errors import ConfigError
from tests.broker_city import MOSQUITTO, City, CityBroker, Client, Hello, bega_ca, clients

pytestmark = pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="no mosquitto here")

WITHIN_S = 60.0  # what the issue gives a revoked node's session


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> City:
    return City(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def broker(made, tmp_path_factory) -> Iterator[CityBroker]:
    """A broker for what changes nothing in the city."""
    one = CityBroker(made, tmp_path_factory.mktemp("broker"))
    one.start()
    yield one
    one.stop()


@pytest.fixture
def own_city(made, tmp_path) -> City:
    """A city of the test's own: somebody is revoked there."""
    city = City.__new__(City)
    city.folder = tmp_path / "city"
    city.ca = city.folder / "ca"
    shutil.copytree(made.folder, city.folder)
    return city


@pytest.fixture
def own_broker(own_city, tmp_path) -> Iterator[CityBroker]:
    (tmp_path / "broker").mkdir()
    one = CityBroker(own_city, tmp_path / "broker")
    one.start()
    yield one
    one.stop()


def topics(client: Client) -> list[str]:
    return [topic for topic, _ in client.heard]


def test_node_writes_its_own_topics_and_no_others(broker, eventually):
    """A denied publish gets its PUBACK as well (MQTT 3.1.1 has no way to say no): what arrived is read back."""
    own = [f"node/air-7/{kind}" for kind in ("up", "status", "result", "want")]
    others = [
        *(f"node/air-8/{kind}" for kind in ("up", "status", "result", "want", "ack", "time", "piece", "cmd/restart")),
        *(f"node/air-7/{kind}" for kind in ("ack", "time", "piece", "cmd/config", "up/more", "elsewhere")),
        "node/up",
        "city/arad/gw-1/air-7/pms/up",
        "city/arad/air-7/pms/up",
        "city/arad/air-7/probe",
        "city/arad/gw-1/cmd/status",
        "homeassistant/sensor/air-7/config",
        "$SYS/broker/uptime",
        "anything",
    ]
    with (
        clients(broker, "watcher-1", port=broker.local_port) as (watcher,),
        clients(broker, "air-7") as (node,),
    ):
        watcher.subscribe("#")
        for topic in [*others, *own]:
            node.publish(topic)
        eventually(lambda: "node/air-7/want" in topics(watcher), "the last one arrives")
        assert topics(watcher) == own


def test_node_reads_its_own_topics_and_no_others(broker, eventually):
    """mosquitto grants each subscription and delivers none of it."""
    with clients(broker, "gw-1", port=broker.local_port) as (gateway,), clients(broker, "air-7", "air-8") as nodes:
        nodes[0].subscribe("#", "node/#", "node/+/cmd/#", "node/air-8/ack", "$SYS/#", "city/#")
        nodes[1].subscribe("node/air-8/cmd/#")
        for node in ("air-8", "air-7"):
            for kind in ("ack", "time", "piece", "cmd/config", "cmd/update"):
                gateway.publish(f"node/{node}/{kind}")
        nodes[1].publish("node/air-8/up")
        eventually(lambda: len(set(topics(nodes[0]))) == 5 and len(nodes[1].heard) == 2, "what is theirs arrives")
        assert {topic.split("/")[1] for topic in topics(nodes[0])} == {"air-7"}
        assert set(topics(nodes[1])) == {"node/air-8/cmd/config", "node/air-8/cmd/update"}


def test_gateway_speaks_for_no_node_and_hears_them_all(broker, eventually):
    with (
        clients(broker, "gw-1", "watcher-1", port=broker.local_port) as (gateway, watcher),
        clients(broker, "air-7", "air-8") as nodes,
    ):
        watcher.subscribe("#")
        gateway.subscribe("node/+/up", "city/arad/gw-1/probe", "city/arad/gw-1/cmd/#")
        for topic in ("node/air-7/up", "node/air-7/status", "city/arad/gw-2/x/up", "node/air-7/ack"):
            gateway.publish(topic)
        gateway.publish("city/arad/gw-1/probe")
        for node in nodes:
            node.publish(f"node/{node.name}/up")
        eventually(lambda: len(watcher.heard) == 4 and len(gateway.heard) == 3, "what is allowed arrives")
        assert set(topics(watcher)) == {"node/air-7/ack", "city/arad/gw-1/probe", "node/air-7/up", "node/air-8/up"}
        assert set(topics(gateway)) == {"city/arad/gw-1/probe", "node/air-7/up", "node/air-8/up"}


def test_certificate_without_a_place_reads_and_writes_nothing(broker, eventually):
    """desk-1 is of the same authority, and a gateway's broker knows no desk; nor has a node a way as an operator."""
    with clients(broker, "desk-1", "watcher-1", "air-7", port=broker.local_port) as (desk, watcher, node):
        watcher.subscribe("#")
        desk.subscribe("#")
        desk.publish("node/air-7/cmd/restart")
        desk.publish("city/arad/gw-1/cmd/status")
        node.publish("node/air-7/up")
        eventually(lambda: watcher.heard, "the node's own arrives")
        assert topics(watcher) == ["node/air-7/up"]
        assert desk.heard == []


def test_only_a_good_certificate_of_this_authority_is_let_in(broker, made, tmp_path):
    assert Hello(broker, made.of("air-7")).is_let_in()
    assert not Hello(broker, None).is_let_in(), "no certificate"
    assert not Hello(broker, made.of("air-7", "foreign")).is_let_in(), "another authority of the same name"
    assert not Hello(broker, made.of("air-old")).is_let_in(), "expired"
    assert not Hello(broker, made.of("broker-1")).is_let_in(), "a broker's certificate is no client's"
    assert not Hello(broker, (made.ca / "issuing-1.pem", made.ca / "issuing-1.key")).is_let_in(), "no authority's"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=gw-1", "-keyout", tmp_path / "own.key", "-out", tmp_path / "own.pem"),
        ],
        check=True,
        capture_output=True,
    )
    assert not Hello(broker, (tmp_path / "own.pem", tmp_path / "own.key")).is_let_in(), "signed by itself"
    for port in (broker.port, broker.local_port):
        assert not Hello(broker, None, port).is_let_in()
        with socket.create_connection(("localhost", port), 5) as plain:
            plain.settimeout(5)
            plain.sendall(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x0f\x00\x07hello-1")
            with contextlib.suppress(OSError):
                assert plain.recv(4) != b"\x20\x02\x00\x00", "without TLS"


def test_node_ends_no_session_by_taking_its_id(broker, eventually):
    """The id is the name in the certificate, whatever a client says that it is."""
    with (
        clients(broker, "gw-1", port=broker.local_port, client_id="gw-1-nodes") as (gateway,),
        clients(broker, "air-7") as (node,),
    ):
        for taken in ("air-7", "gw-1-nodes"):
            with clients(broker, "air-8", client_id=taken):
                time.sleep(0.2)  # for who was ended to hear of it
        assert (node.downs, gateway.downs) == ([], [])
        with clients(broker, "air-7"):
            eventually(lambda: node.downs, "its own certificate takes its session over")


def test_packet_that_no_node_sends_is_not_taken(broker, eventually):
    with clients(broker, "air-7") as (node,):
        node._paho.publish("node/air-7/up", b"x" * 70_000, 1)
        eventually(lambda: node.downs, "mosquitto ends the session")


def test_revoked_node_is_out_within_a_minute_and_stays_out(own_city, own_broker, eventually, capsys):
    """mosquitto takes the list for new sessions alone: the live one must be ended."""
    with clients(own_broker, "air-7", "air-8") as (node, other):
        capsys.readouterr()
        began = time.monotonic()
        assert bega_ca("revoke", own_city.ca, "air-7", "--reason", "stolen") == 0
        assert own_broker.revoke("--hold-s", 1) == 0
        assert node.downs
        assert node.downs[0] - began < WITHIN_S
        assert "ended    air-7" in capsys.readouterr().out
        assert len(node.ups) == 1, "it tries again and again, and is refused"
        assert (other.is_up, len(other.ups)) == (True, 1), "nobody else noticed"
        assert own_broker.revoke("--json") == 0, "the same list again does no harm"
        assert json.loads(capsys.readouterr().out)["came_back"] == []
        assert (other.is_up, len(other.ups)) == (True, 1)
    own_broker.stop()
    own_broker.start()
    assert not Hello(own_broker, own_city.of("air-7")).is_let_in()
    assert Hello(own_broker, own_city.of("air-8")).is_let_in()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_revoked_node_does_not_get_in_by_the_tls_session_that_it_had(own_city, own_broker, version):
    """A session that is resumed shows no certificate again (RFC 8446, section 2.2)."""
    thief = Hello(own_broker, own_city.of("air-7")).at_most(version)
    assert thief.is_let_in()
    bega_ca("revoke", own_city.ca, "air-7")
    assert own_broker.revoke() == 0
    assert not thief.is_let_in()


def test_node_with_a_new_certificate_is_let_in_and_its_old_one_is_not(own_city, own_broker, tmp_path):
    (noted,) = (own_city.ca / "issued/air-7").iterdir()
    assert bega_ca("renew", own_city.ca, "air-7", "--out", tmp_path / "new") == 0
    assert bega_ca("revoke", own_city.ca, "air-7", "--serial", noted.stem) == 0
    assert own_broker.revoke() == 0
    assert not Hello(own_broker, own_city.of("air-7")).is_let_in()
    assert Hello(own_broker, (tmp_path / "new/air-7.pem", tmp_path / "new/air-7.key")).is_let_in()


def test_node_that_was_renewed_may_come_back_when_its_old_certificate_is_revoked(
    own_city, own_broker, tmp_path, monkeypatch, eventually, capsys
):
    """It is on the list for its old one, and comes back by its new one: that is no broker which heeds no list."""
    monkeypatch.setattr(sessions, "AGAIN_S", 0.1)
    (noted,) = (own_city.ca / "issued/air-7").iterdir()
    assert bega_ca("renew", own_city.ca, "air-7", "--out", tmp_path / "new") == 0
    assert bega_ca("revoke", own_city.ca, "air-7", "--serial", noted.stem) == 0
    own = (tmp_path / "new/air-7.pem", tmp_path / "new/air-7.key")
    node = Client(own_broker, "air-7", "air-7", own, own_broker.port)
    try:
        eventually(lambda: node.is_up, "it connects by its new one")
        assert own_broker.revoke("--hold-s", 1) == 0
        assert "let in again" not in capsys.readouterr().err
        assert len(node.downs) == 1
        eventually(lambda: node.is_up, "it is back")
    finally:
        node.close()


def test_session_that_an_earlier_list_could_not_end_is_ended_by_the_next(own_city, own_broker, tmp_path, eventually):
    """The list of the first came into its place, and the way to the broker was shut: it is not new on the second."""
    with clients(own_broker, "air-7") as (node,):
        bega_ca("revoke", own_city.ca, "air-7")
        assert own_broker.revoke("--config", tmp_path / "none.toml") == 1
        assert node.is_up
        bega_ca("revoke", own_city.ca, "air-8")
        assert own_broker.revoke() == 0
        eventually(lambda: node.downs, "it is out")


def test_list_mends_a_broker_whose_own_is_damaged(own_city, own_broker):
    (own_broker.etc / "bega/revoked.pem").write_bytes(b"")
    bega_ca("revoke", own_city.ca, "air-7")
    assert own_broker.revoke() == 0
    assert Hello(own_broker, own_city.of("air-8")).is_let_in()
    assert not Hello(own_broker, own_city.of("air-7")).is_let_in()


def test_list_that_begins_in_the_future_is_not_taken(own_city, own_broker, capsys):
    """The authority's clock was ahead, or this machine's is behind: mosquitto would refuse everybody by it."""
    bega_ca("revoke", own_city.ca, "air-7", now_ms=wall_ms() + 30 * 86_400_000)
    assert own_broker.revoke() == 1
    assert "set the clock that is wrong" in capsys.readouterr().err
    assert Hello(own_broker, own_city.of("air-8")).is_let_in()


def test_file_without_end_is_no_list(own_city, own_broker, capsys):
    """The gateway's user may lay a link to anything where root looks for a list."""
    assert own_broker.revoke(crl=Path("/dev/zero")) == 1
    assert "is larger than any list" in capsys.readouterr().err


def test_list_brings_a_new_issuing_key_to_the_broker(own_city, own_broker, tmp_path):
    assert bega_ca("issuing", own_city.ca) == 0
    assert bega_ca("renew", own_city.ca, "air-9", "--out", tmp_path / "new") == 0
    new = (tmp_path / "new/air-9.pem", tmp_path / "new/air-9.key")
    assert not Hello(own_broker, new).is_let_in(), "mosquitto does not know who issued it"
    assert own_broker.revoke() == 0
    assert Hello(own_broker, new).is_let_in()
    assert Hello(own_broker, own_city.of("air-8")).is_let_in(), "what the older key signed stays good"


def test_stolen_issuing_key_lets_nobody_in_once_the_list_is_there(own_city, own_broker, tmp_path):
    assert bega_ca("issuing", own_city.ca, "--stolen", 1) == 0
    assert bega_ca("renew", own_city.ca, "air-9", "--out", tmp_path / "new") == 0
    assert own_broker.revoke() == 0
    own_broker.stop()  # OpenSSL keeps the lists that it was given, the stolen key's too
    own_broker.start()
    assert not Hello(own_broker, own_city.of("air-8")).is_let_in()
    assert Hello(own_broker, (tmp_path / "new/air-9.pem", tmp_path / "new/air-9.key")).is_let_in()
    bega_ca("revoke", own_city.ca, "air-9")
    assert own_broker.revoke("--config", tmp_path / "none.toml") == 1, "the gateway's own is the stolen key's too"
    assert not Hello(own_broker, own_city.of("air-8")).is_let_in(), "no later list brings it back"


def test_list_that_is_older_or_of_another_authority_changes_nothing(own_city, own_broker, tmp_path, capsys):
    old = Path(shutil.copy(own_city.list, tmp_path / "old.pem"))
    bega_ca("revoke", own_city.ca, "air-7")
    assert own_broker.revoke() == 0
    there = (own_broker.etc / "bega/revoked.pem").read_bytes()
    forged = own_city.folder / "foreign/revoked.pem"
    for crl, why in ((old, "fetch the newest"), (forged, "is not signed by"), (tmp_path / "none", "cannot be read")):
        assert own_broker.revoke(crl=crl) == 1
        assert why in capsys.readouterr().err
        assert (own_broker.etc / "bega/revoked.pem").read_bytes() == there
    assert not Hello(own_broker, own_city.of("air-7")).is_let_in()


def test_broker_that_does_not_heed_the_list_is_told_of(own_city, own_broker, tmp_path, monkeypatch, capsys):
    """A reload that comes to nothing: the node is back each time that its session was ended."""
    monkeypatch.setattr(sessions, "AGAIN_S", 0.1)
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with clients(own_broker, "air-7"):
        bega_ca("revoke", own_city.ca, "air-7")
        assert own_broker.revoke("--pid-file", tmp_path / "none", "--hold-s", 1) == 1
    assert "air-7 was let in again: mosquitto does not heed" in capsys.readouterr().err


def test_broker_that_does_not_run_is_said_and_the_list_is_in_its_place(own_city, own_broker, tmp_path, capsys):
    own_broker.stop()
    bega_ca("revoke", own_city.ca, "air-7")
    assert own_broker.revoke() == 1
    assert "the list is in its place" in capsys.readouterr().err
    own_broker.start()
    assert not Hello(own_broker, own_city.of("air-7")).is_let_in()


def test_city_lets_in_whom_it_names_and_ends_all_sessions_when_one_is_revoked(
    own_city, tmp_path, monkeypatch, eventually
):
    """There a gateway has several sessions under ids of its own choice: a restart ends them all."""
    own_city.issue("gw-2")
    (tmp_path / "broker").mkdir()
    who = ("--for", "city", "--city", "arad", "--gateway", "gw-1", "gw-2", "--operator", "desk-1")
    broker = CityBroker(own_city, tmp_path / "broker", *who)
    broker.start()
    try:
        with clients(broker, "watcher-1", "desk-1", "gw-1", "gw-2", "air-7") as (watcher, desk, first, second, node):
            watcher.subscribe("#")
            first.subscribe("city/arad/gw-1/cmd/#", "city/arad/gw-2/cmd/#", "city/arad/#")
            for topic in ("city/arad/air-7/pms/up", "city/arad/gw-1/air-7/pms/up", "node/air-7/up"):
                node.publish(topic)
            for topic in ("city/arad/gw-2/x/up", "city/brasov/gw-1/x/up", "city/arad/gw-1/x/up"):
                first.publish(topic)
            desk.publish("city/arad/gw-1/x/up")
            desk.publish("city/arad/gw-2/cmd/status")
            desk.publish("city/arad/gw-1/cmd/status")
            eventually(lambda: len(watcher.heard) == 3, "what is allowed arrives")
            assert set(topics(watcher)) == {
                "city/arad/gw-1/x/up",
                "city/arad/gw-1/cmd/status",
                "city/arad/gw-2/cmd/status",
            }
            eventually(lambda: first.heard, "the gateway hears its command")
            assert topics(first) == ["city/arad/gw-1/cmd/status"]
            again = tmp_path / "systemctl"
            again.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\nkill $(cat {broker.folder}/mosquitto.pid)\n")
            again.chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
            bega_ca("revoke", own_city.ca, "gw-2")
            assert broker.revoke() == 0
            assert (tmp_path / "asked").read_text() == "restart mosquitto\n"
            broker.child.wait(10)
            broker.start()
            eventually(lambda: first.is_up, "the others come back")
            time.sleep(0.7)
            assert not second.is_up
    finally:
        broker.stop()


@pytest.fixture
def empty(made, tmp_path) -> CityBroker:
    """A mosquitto as shipped, nothing of ours written yet."""
    one = CityBroker.__new__(CityBroker)
    one.city, one.folder, one.etc = made, tmp_path, tmp_path / "etc"
    one.port, one.local_port, one.config = 8883, 8884, tmp_path / "gateway.toml"
    (one.etc / "conf.d").mkdir(parents=True)
    (one.etc / "mosquitto.conf").write_text(f"persistence true\ninclude_dir {one.etc}/conf.d\n")
    return one


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dry_run_shows_all_and_writes_nothing(empty, capsys):
    before = files(empty.folder)
    assert empty.configure("--gateway", "gw-1", "--dry-run") == 0
    said = capsys.readouterr().out
    for words in ("require_certificate true", "pattern write node/%u/want", "user gw-1", "bega-broker-revoke.path"):
        assert words in said
    assert "PRIVATE KEY" not in said
    assert files(empty.folder) == before


def test_files_are_written_once_and_the_key_is_for_the_broker_alone(empty, capsys):
    assert empty.configure("--gateway", "gw-1") == 0
    first = files(empty.folder)
    assert stat.S_IMODE((empty.etc / "bega/broker.key").stat().st_mode) == 0o600
    assert "BEGIN" not in capsys.readouterr().out
    assert empty.configure("--gateway", "gw-1") == 0
    assert "wrote" not in capsys.readouterr().out
    assert files(empty.folder) == first
    conf = (empty.etc / "conf.d/bega.conf").read_text()
    assert all(f"\n{key} {value}\n" in conf for key, value in MOSQUITTO_NEEDS.items())
    assert "persistence_location" in conf, "nothing else says where"


def test_what_somebody_else_wrote_or_changed_stays_until_it_is_said(empty, capsys):
    conf = empty.etc / "conf.d/bega.conf"
    conf.write_text("# mine\n")
    assert empty.configure("--gateway", "gw-1") == 1
    assert "bega.conf was written or changed by somebody else" in capsys.readouterr().err
    assert conf.read_text() == "# mine\n"
    assert not (empty.etc / "bega").exists()
    assert empty.configure("--gateway", "gw-1", "--replace") == 0
    access = empty.etc / "bega/access"
    access.write_text(access.read_text().replace("# sum", "user me\ntopic #\n# sum"))
    assert empty.configure("--gateway", "gw-1") == 1
    assert "access.own" in capsys.readouterr().err
    assert "user me" in access.read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd's tools are not here")
def test_units_are_what_systemd_takes(empty):
    assert empty.configure("--gateway", "gw-1", "--state", "/var/lib/be ga") == 0
    units = sorted((empty.folder / "units").iterdir())
    told = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (told.returncode, "bega-broker" in told.stderr) == (0, False), told.stderr
    service = (empty.folder / "units/bega-broker-revoke.service").read_text()
    assert f"--folder {empty.etc}\n" in service
    assert f"ReadWritePaths={empty.etc}\n" in service
    assert "StartLimitIntervalSec=0\n" in service, "a limit that is hit ends the path unit, and no later list is seen"


def test_rules_of_ones_own_are_kept(empty):
    (empty.etc / "bega").mkdir()
    (empty.etc / "bega/access.own").write_text("user homeassistant\ntopic homeassistant/#\n")
    assert empty.configure("--gateway", "gw-1") == 0
    assert "user homeassistant\ntopic homeassistant/#\n" in (empty.etc / "bega/access").read_text()


@pytest.mark.parametrize("line", ["listener 1883", "allow_anonymous true", "  password_file /etc/p", "port 1883"])
def test_other_ways_into_the_broker_are_said(empty, capsys, line):
    (empty.etc / "conf.d/default.conf").write_text(f"# from before\n{line}\n")
    assert empty.configure("--gateway", "gw-1") == 1
    assert f"default.conf: {line.strip()}" in capsys.readouterr().err
    assert empty.configure("--gateway", "gw-1", "--keep-others") == 0


def test_identity_of_months_ago_does_not_undo_the_newest_list(own_city, empty, capsys):
    empty.city = own_city
    assert empty.configure("--gateway", "gw-1") == 0
    bega_ca("issuing", own_city.ca)
    bega_ca("revoke", own_city.ca, "air-7")
    listed = empty.etc / "bega/revoked.pem"
    listed.write_bytes(own_city.list.read_bytes())
    assert empty.configure("--gateway", "gw-1") == 0
    assert listed.read_bytes() == own_city.list.read_bytes()
    assert (own_city.ca / "issuing-2.pem").read_bytes() in (empty.etc / "bega/ca.pem").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nobody would have a place"),
        (("--gateway", "GW"), "is no device id"),
        (("--gateway", "gw-1\nuser x"), "is no device id"),
        (("--gateway", "gw-1", "gw-1"), "named twice"),
        (("--gateway", "gw-1", "--operator", "desk-1"), "on the city's broker"),
        (("--gateway", "gw-1", "--kiosk", "kiosk-1", "--desk", "desk-1"), "on the city's broker"),
        (("--for", "city", "--city", "arad", "--gateway", "gw-1", "--desk", "desk-1"), "a desk answers kiosks"),
        (("--for", "city", "--gateway", "gw-1"), "say which city"),
        (("--for", "city", "--city", "a/+", "--gateway", "gw-1"), "say which city"),
    ],
)
def test_names_that_cannot_be_are_said(empty, capsys, arguments, why):
    before = files(empty.folder)
    assert empty.configure(*arguments) == 1
    assert why in capsys.readouterr().err
    assert files(empty.folder) == before


def test_machine_without_mosquitto_is_said(empty, capsys):
    (empty.etc / "mosquitto.conf").unlink()
    assert empty.configure("--gateway", "gw-1") == 1
    assert "is mosquitto installed" in capsys.readouterr().err


def test_identity_that_is_none_is_said(own_city, tmp_path):
    own = own_city.ca / "identities"
    now_ms = wall_ms()
    assert read_identity(own / "broker-1", now_ms, True).revoked.entries == ()
    bega_ca("issue", own_city.ca, "broker-2", "--for", "broker", "--host", "b.example")
    cases = {
        own: "one .key file is",
        own / "gw-1": "is no broker's certificate",
        own / "broker-2": "does not name localhost",
    }
    for folder, why in cases.items():
        with pytest.raises(ConfigError, match=why):
            read_identity(folder, now_ms, True)
    read_identity(own / "broker-2", now_ms, False)
    with pytest.raises(ConfigError, match="`bega ca renew` issues"):
        read_identity(own / "broker-1", now_ms + 1000 * 86_400_000, True)
    shutil.copy(own / "broker-2/broker-2.key", own / "broker-1/broker-1.key")
    with pytest.raises(ConfigError, match="is not the key of"):
        read_identity(own / "broker-1", now_ms, True)


def test_revoke_before_configure_is_said(empty, capsys):
    assert command.main(["revoke", "--crl", str(empty.city.list), "--folder", str(empty.etc)]) == 1
    assert "`bega broker configure` first" in capsys.readouterr().err


def test_file_of_ours_is_known_and_a_changed_one_too(tmp_path):
    path = tmp_path / "access"
    assert not place.is_foreign(path)
    for kind in (configuration.GATEWAY, configuration.CITY):
        path.write_text(place.sealed(kind, "user x\n"))
        assert (place.kind_of(path), place.is_foreign(path)) == (kind, False)
        path.write_text(path.read_text().replace("user x", "user y"))
        assert place.is_foreign(path)
    path.write_text("user x\n")
    assert (place.kind_of(path), place.is_foreign(path)) == ("", True)


def test_help_has_an_example():
    outcome = subprocess.run([sys.executable, "-m", "bega", "broker", "--help"], capture_output=True, text=True)
    assert outcome.returncode == 0
    assert "bega broker configure --identity broker-1 --gateway gw-1 --dry-run" in outcome.stdout
