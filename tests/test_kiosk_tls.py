"""Kiosk and desk at a city's broker: mutual TLS, each with a certificate of its own and at its own topics only."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bega_kiosk.outbox import Outbox
from bega_kiosk.report import Status, encode
from tests.broker_city import MOSQUITTO, City, CityBroker, clients

pytestmark = pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="no mosquitto here")

NOW_MS = 1_795_000_000_000
MEMBERS = ("--gateway", "gw-1", "--kiosk", "kiosk-1", "kiosk-2", "--desk", "desk-1")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    made = City(tmp_path_factory.mktemp("city"))
    for name in ("kiosk-1", "kiosk-2"):
        made.issue(name)
    made.issue("kiosk-1", "foreign")
    return made


@pytest.fixture(scope="module")
def broker(city, tmp_path_factory):
    one = CityBroker(city, tmp_path_factory.mktemp("broker"), "--for", "city", "--city", "timisoara", *MEMBERS)
    one.start()
    yield one
    one.stop()


def outbox(folder):
    return Outbox(folder, "kiosk-1", lambda: NOW_MS, os.urandom)


def files_of(city, name, ca="ca"):
    certificate, key = city.of(name, ca)
    return str(city.ca / "root.pem"), str(certificate), str(key)


@contextlib.contextmanager
def running(log, *words):
    """Run `bega ...`; yield what it said so far. It must end with 0."""
    with log.open("ab") as said:
        process = subprocess.Popen([sys.executable, "-m", "bega", *map(str, words)], stderr=said)
    try:
        yield lambda: log.read_text()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10.0) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def agent(folder, broker, ca_file, cert_file, key_file):
    reports = {
        "mqtt": f"mqtts://localhost:{broker.port}", "ca_file": ca_file, "cert_file": cert_file, "key_file": key_file
    }  # fmt: skip
    values = [f"reports.{key}={json.dumps(value)}" for key, value in reports.items() if value]
    said = ("kiosk.name=kiosk-1", "kiosk.city=timisoara", *values)
    return running(
        folder / "agent.log", "kiosk", "agent", "--data", folder, *(part for value in said for part in ("--set", value))
    )


def desk(folder, broker, ca_file, cert_file, key_file):
    words = ["desk", "run", "--data", folder / "desk", "--city", "timisoara", "--name", "desk-1", "--port", 0]
    words += ["--mqtt", f"mqtts://localhost:{broker.port}", "--ca-file", ca_file]
    return running(folder / "desk.log", *words, "--cert-file", cert_file, "--key-file", key_file)


def test_report_and_its_state_go_between_kiosk_and_desk_that_show_certificates(city, broker, tmp_path, eventually):
    box = outbox(tmp_path)
    code = box.keep("problem", {"text": "Groapă în stradă"}, "ro")
    with desk(tmp_path, broker, *files_of(city, "desk-1")), agent(tmp_path, broker, *files_of(city, "kiosk-1")):
        eventually(lambda: box.heard(code), "the desk has it")
        assert not box.is_waiting(code)
        words = ["desk", "set", code, "--state", "work", "--number", "20114", "--data", tmp_path / "desk"]
        subprocess.run([sys.executable, "-m", "bega", *words], check=True, capture_output=True)
        eventually(lambda: box.heard(code).status.state == "work", "the change comes too")
        assert box.heard(code).status.number == "20114"


@pytest.mark.skipif(os.environ.get("BEGA_PROFILE") != "nightly", reason="at night: a refusal is known after 8 s")
@pytest.mark.parametrize(("name", "ca"), [("kiosk-1", "foreign"), (None, "ca")], ids=["another's", "none"])
def test_kiosk_without_a_certificate_of_the_city_keeps_its_reports_and_says_why(
    city, broker, tmp_path, eventually, name, ca
):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    files = files_of(city, name, ca) if name else (str(city.ca / "root.pem"), None, None)
    with agent(tmp_path, broker, *files) as said:
        eventually(lambda: "agent down" in said(), "it says so")
        assert "does it believe our certificate" in said() or "TLS handshake" in said(), said()
    assert box.is_waiting(code)


def test_desk_hears_reports_and_answers_kiosks_and_commands_nobody(city, broker, eventually):
    own = ["city/timisoara/kiosk-1/cmd/report", "city/timisoara/kiosk-2/cmd/notices"]
    others = [
        "city/timisoara/gw-1/cmd/restart",
        "city/timisoara/gw-1/cmd/report",
        "city/timisoara/kiosk-1/cmd/restart",
        "city/timisoara/kiosk-1/report",
        "city/arad/kiosk-1/cmd/report",
    ]
    with clients(broker, "watcher-1", "desk-1", "gw-1", "kiosk-1") as (watcher, desk, gateway, kiosk):
        watcher.subscribe("#")
        desk.subscribe("#", "city/#", "city/timisoara/+/report")
        for topic in [*others, *own]:
            desk.publish(topic)
        gateway.publish("city/timisoara/gw-1/air-7/pms/up")
        kiosk.publish("city/timisoara/kiosk-1/report")
        eventually(lambda: len(watcher.heard) == 4 and desk.heard, "what is allowed arrives")
        assert {topic for topic, _ in watcher.heard} == {
            *own, "city/timisoara/gw-1/air-7/pms/up", "city/timisoara/kiosk-1/report"
        }  # fmt: skip
        assert [topic for topic, _ in desk.heard] == ["city/timisoara/kiosk-1/report"]


def test_kiosk_neither_reads_nor_writes_what_is_anothers(city, broker, eventually):
    status = encode(Status(code="K7TMR4QX", state="done"))
    with clients(broker, "watcher-1", "desk-1", "kiosk-1", "kiosk-2") as (watcher, desk, kiosk, other):
        watcher.subscribe("#")
        for each in (kiosk, other):
            each.subscribe("#", "city/timisoara/#", f"city/timisoara/{each.name}/cmd/#")
        kiosk.publish("city/timisoara/kiosk-2/report")
        kiosk.publish("city/timisoara/kiosk-2/cmd/report", status)
        kiosk.publish("city/timisoara/kiosk-1/report")
        desk.publish("city/timisoara/kiosk-2/cmd/report", status)
        eventually(lambda: len(watcher.heard) == 2 and other.heard, "what is allowed arrives")
        assert [topic for topic, _ in other.heard] == ["city/timisoara/kiosk-2/cmd/report"]
        assert {topic for topic, _ in kiosk.heard} <= {"city/timisoara/kiosk-1/report"}
