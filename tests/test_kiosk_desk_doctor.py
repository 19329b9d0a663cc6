"""`bega desk doctor`: key, certificate, broker, disk, queue, notices, backup; what is wrong ends it with 1."""

import json
import os
import shutil
import socket
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bega.clock import wall_ms
from bega.mqtt import Credentials
from bega_kiosk.desk import doctor
from bega_kiosk.desk.app import NOTICES, Settings
from bega_kiosk.desk.command import main
from bega_kiosk.desk.store import FILE, DeskStore
from bega_kiosk.notices import Board
from bega_kiosk.outbox import Outbox
from bega_kiosk.report import read_sent
from tests.kiosk_notices import CITY, KEYS, listed, public_key, samples

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path, CITY, "127.0.0.1:9", None)


@pytest.fixture
def a_report(tmp_path):
    """A report that the desk took at NOW_MS."""
    box = Outbox(tmp_path / "kiosk", "kiosk-1", lambda: NOW_MS, os.urandom)
    code = box.keep("problem", {"text": "groapă"}, "ro")
    store = DeskStore(tmp_path, lambda: NOW_MS)
    store.take(read_sent(box.waiting()[0].payload))
    yield store, code
    store.close()


def said(found):
    return {finding.what: finding.state for finding in found}


def test_queue_and_what_waits_for_people_have_an_age(settings, a_report):
    store, code = a_report

    def looked(after_ms):
        return said(doctor.store(settings.data, lambda: NOW_MS + after_ms))

    fresh = {"reports": "good", "queue": "good", "unread": "good", "answers": "good"}
    assert looked(DAY_MS - 1) == fresh
    assert looked(2 * DAY_MS) == fresh | {"queue": "wrong"}
    store.told(store.status(code))
    assert looked(8 * DAY_MS) == fresh | {"unread": "wrong"}
    store.change(code, "work", "20114", None)
    store.told(store.status(code))
    assert looked(31 * DAY_MS) == fresh | {"answers": "wrong"}
    store.change(code, "done", None, None)
    store.told(store.status(code))
    assert looked(31 * DAY_MS) == fresh


def test_file_that_is_not_there_or_damaged_is_wrong(settings, tmp_path):
    assert said(doctor.store(settings.data, wall_ms)) == {"reports": "wrong"}
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    assert said(doctor.store(settings.data, wall_ms)) == {"reports": "wrong"}


def test_list_that_nobody_confirmed_for_a_week_is_wrong(settings, tmp_path):
    assert said(doctor.notices(settings, wall_ms)) == {"key": "open"}
    (tmp_path / "city.pub").write_bytes(public_key())
    own = settings._replace(city_keys=[tmp_path / "city.pub"])
    assert said(doctor.notices(own, wall_ms)) == {"key": "good", "list": "open"}
    Board(tmp_path / NOTICES, KEYS, CITY, lambda: NOW_MS).take_all(*listed(samples(NOW_MS), NOW_MS))
    assert said(doctor.notices(own, lambda: NOW_MS)) == {"key": "good", "list": "good", "notices": "good"}
    late = said(doctor.notices(own, lambda: NOW_MS + 8 * DAY_MS))
    assert late == {"key": "good", "list": "wrong", "notices": "good"}
    wrong = settings._replace(city_keys=[tmp_path / "none.pub"])
    assert said(doctor.notices(wrong, wall_ms)) == {"key": "wrong"}


def test_copy_is_young_and_whole_or_it_is_said(a_report, tmp_path):
    folder = tmp_path / "backup"
    folder.mkdir()
    assert doctor.saved(None, wall_ms).state == "open"
    assert doctor.saved(folder, wall_ms).state == "wrong"
    a_report[0].close()
    copy = shutil.copy(tmp_path / FILE, folder / FILE)
    os.utime(copy, (NOW_MS / 1000, NOW_MS / 1000))
    assert "1 reports" in doctor.saved(folder, lambda: NOW_MS + DAY_MS).says
    assert doctor.saved(folder, lambda: NOW_MS + 3 * DAY_MS).state == "wrong"
    copy.write_bytes(copy.read_bytes()[: 4096 + 100])
    os.utime(copy, (NOW_MS / 1000, NOW_MS / 1000))
    assert doctor.saved(folder, lambda: NOW_MS).state == "wrong"


def a_certificate(folder, name, days):
    """Write a certificate that signs itself, and its key; return the credentials."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    builder = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
    cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Credentials(str(cert), str(cert), str(secret))


@pytest.mark.parametrize(
    ("name", "days", "state"), [("desk", 40, "good"), ("desk", 20, "wrong"), ("other", 40, "wrong")]
)
def test_certificate_is_of_this_name_and_good_for_a_while(settings, tmp_path, name, days, state):
    own = settings._replace(credentials=a_certificate(tmp_path, name, days))
    assert said(doctor.certificate(own, lambda: NOW_MS)) == {"certificate": state}
    assert said(doctor.certificate(own, lambda: NOW_MS + 50 * DAY_MS)) == {"certificate": "wrong"}


def test_key_of_another_certificate_is_wrong_and_is_not_shown(settings, tmp_path):
    one, other = a_certificate(tmp_path, "desk", 40), a_certificate(tmp_path, "other", 40)
    (finding,) = doctor.certificate(settings._replace(credentials=one._replace(key_file=other.key_file)), wall_ms)
    assert finding.state == "wrong" and "PRIVATE" not in finding.says


def test_broker_is_reached_or_not(settings):
    assert doctor.broker(settings).state == "open"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert doctor.broker(settings._replace(broker=f"mqtt://127.0.0.1:{port}")).state == "good"
    assert doctor.broker(settings._replace(broker=f"mqtt://127.0.0.1:{port}")).state == "wrong"
    missing = Credentials("/no/such/ca.pem", None, None)
    assert doctor.broker(settings._replace(broker="mqtts://127.0.0.1:1", credentials=missing)).state == "wrong"


def test_command_says_all_of_it_and_ends_with_1_on_a_fault(a_report, tmp_path, capsys):
    assert main(["doctor", "--data", str(tmp_path), "--port", "9", "--json"]) == 1
    found = {finding["what"]: finding["state"] for finding in json.loads(capsys.readouterr().out)}
    assert {"clock", "desk", "reports", "queue", "disk", "broker", "key", "backup"} <= found.keys()
    assert (found["desk"], found["clock"], found["broker"]) == ("wrong", "good", "open")
    assert main(["doctor", "--data", str(tmp_path), "--port", "9"]) == 1
    assert "does `bega desk run` run" in capsys.readouterr().out
