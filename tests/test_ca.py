"""`bega ca`: an authority on disk, and its certificates against the real mosquitto and the real MicroPython."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from bega.broker import free_ports
from bega.clock import CLOCK_FLOOR_MS, wall_ms
from bega.identity import DEVICE_ID
from bega_firmware import ca, ca_folder
from bega_firmware.authority import (
    Pair,
    Role,
    certificate_der,
    certificate_pem,
    common_name,
    key_der,
    key_pem,
    make_issuing,
    make_leaf,
    make_root,
)
from bega_protocols.errors import ConfigError

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
NOW_MS = CLOCK_FLOOR_MS + 86_400_000 * 30
DAY_MS = 86_400_000
NAME = "City of Timișoara"

ROOT_PAIR = make_root(NAME, NOW_MS)
ISSUING_PAIR = make_issuing(NAME, 1, ROOT_PAIR, NOW_MS)


def bega_ca(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bega", "ca", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def make(folder: Path, now_ms: int = NOW_MS, **options: object) -> Path:
    """Make an authority, as `bega ca init` does."""
    args = ca_args("init", "--ca", folder, "--name", NAME, **options)
    assert ca.init(args, lambda: now_ms) == 0
    return folder


def ca_args(*arguments: object, **options: object):
    """Return what the command line says, as the command itself reads it."""
    words = [str(word) for word in arguments]
    for key, value in options.items():
        words += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
    parser, verbs = ca.command_line("bega ca", None, "")
    ca._add_init(verbs)
    ca._add_issue(verbs)
    return parser.parse_args(words)


def issue(folder: Path, *arguments: object, now_ms: int = NOW_MS) -> int:
    return ca.issue(ca_args("issue", "--ca", folder, *arguments), lambda: now_ms)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_authority_has_a_root_for_ten_years_and_an_issuing_key_for_two(tmp_path):
    folder = make(tmp_path / "ca")
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    issuing = x509.load_pem_x509_certificate((folder / "issuing-1.pem").read_bytes())
    assert timedelta(days=3650) < root.not_valid_after_utc - root.not_valid_before_utc < timedelta(days=3660)
    assert timedelta(days=729) < issuing.not_valid_after_utc - issuing.not_valid_before_utc < timedelta(days=735)
    constraints = [one.extensions.get_extension_for_class(x509.BasicConstraints).value for one in (root, issuing)]
    assert [(one.ca, one.path_length) for one in constraints] == [(True, 1), (True, 0)]
    issuing.verify_directly_issued_by(root)
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.glob("*.key")} == {"root.key": 0o600, "issuing-1.key": 0o600}


def test_root_key_can_go_to_a_medium_of_its_own(tmp_path):
    (tmp_path / "stick").mkdir()
    folder = make(tmp_path / "ca", root_key=tmp_path / "stick/root.key")
    assert mode(tmp_path / "stick/root.key") == 0o600
    assert not (folder / "root.key").exists()
    assert issue(folder, "air-7") == 0, "only the next issuing key needs it"


def test_authority_is_never_replaced(tmp_path):
    folder = make(tmp_path / "ca")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="is not empty"):
        make(folder)
    with pytest.raises(ConfigError, match="not written over"):
        make(tmp_path / "other", root_key=folder / "root.key")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "other").exists()


def test_key_of_a_root_that_came_to_nothing_is_not_left_behind(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((ConfigError, OSError)):
        make(tmp_path / "file/ca", root_key=tmp_path / "root.key")
    assert not (tmp_path / "root.key").exists()


@pytest.mark.parametrize(
    ("role", "hosts", "purpose"),
    [
        (Role.NODE, [], ExtendedKeyUsageOID.CLIENT_AUTH),
        (Role.GATEWAY, [], ExtendedKeyUsageOID.CLIENT_AUTH),
        (Role.BROKER, ["broker.city.example", "192.168.10.2", "fd00::2"], ExtendedKeyUsageOID.SERVER_AUTH),
    ],
)
def test_certificate_says_who_and_what_for(role, hosts, purpose):
    leaf = make_leaf("dev-1", role, hosts, ISSUING_PAIR, NOW_MS, 730).certificate
    assert leaf.subject.rfc4514_string() == "CN=dev-1"
    leaf.verify_directly_issued_by(ISSUING_PAIR.certificate)
    extensions = leaf.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    assert leaf.public_key().curve.name == "secp256r1"
    if not hosts:
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.city.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("192.168.10.2"), ip_address("fd00::2")]


@given(name=st.text(max_size=40) | st.text("abz09-", min_size=1, max_size=40))
@example("+")
@example("#")
@example("air/7")
@example("../air-7")
@example("air-7\n")
@example("ａｉｒ-７")
def test_device_id_is_small_letters_digits_and_dashes(name):
    allowed = 4 <= len(name) <= 32 and all(letter in "abcdefghijklmnopqrstuvwxyz0123456789-" for letter in name)
    assert bool(DEVICE_ID.fullmatch(name)) == allowed
    if not allowed:
        with pytest.raises(ConfigError, match="is no device id"):
            make_leaf(name, Role.NODE, [], ISSUING_PAIR, NOW_MS, 1)


@pytest.mark.parametrize(
    "host",
    ["", "*.city.example", "Broker", "a b", "-a", "a..b", "a" * 64, "1.2.3", "1.2.3.4.5", "[::1]", "a\n", "ș.ro"],
)
def test_host_that_cannot_be_is_refused(host):
    with pytest.raises(ConfigError, match="host"):
        make_leaf("broker-1", Role.BROKER, [host], ISSUING_PAIR, NOW_MS, 1)


def test_hosts_are_for_brokers_and_a_broker_has_some():
    for role, hosts in ((Role.BROKER, []), (Role.NODE, ["a.example"]), (Role.GATEWAY, ["a.example"])):
        with pytest.raises(ConfigError, match="names its hosts"):
            make_leaf("dev-1", role, hosts, ISSUING_PAIR, NOW_MS, 1)


@pytest.mark.parametrize("name", ["", " ", "a" * 49, "x\n", "CN=x,O=y/..", " x"])
def test_authority_needs_a_name_for_people(name):
    with pytest.raises(ConfigError, match="no name for an authority"):
        make_root(name, NOW_MS)


def test_node_gets_der_with_keys_for_its_owner_alone(tmp_path):
    folder = make(tmp_path / "ca")
    assert issue(folder, "air-7") == 0
    identity = folder / "identities/air-7"
    assert {path.name: mode(path) for path in identity.iterdir()} == {
        "ca.der": 0o644,
        "node.der": 0o644,
        "node.key": 0o600,
    }
    assert mode(identity) == 0o700
    certificate = x509.load_der_x509_certificate((identity / "node.der").read_bytes())
    key = load_der_private_key((identity / "node.key").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    assert (identity / "ca.der").read_bytes() == certificate_der(
        x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    ), "a node trusts the root: a new issuing key is no visit to it"
    noted = list((folder / "issued/air-7").iterdir())
    assert [path.name for path in noted] == [f"{certificate.serial_number:x}.pem"]
    assert x509.load_pem_x509_certificate(noted[0].read_bytes()) == certificate


def test_gateway_and_broker_get_chains_and_the_broker_knows_who_issues(tmp_path):
    folder = make(tmp_path / "ca")
    assert issue(folder, "gw-1", "--for", "gateway") == 0
    assert issue(folder, "broker-1", "--for", "broker", "--host", "localhost") == 0
    names = {}
    for name in ("gw-1", "broker-1"):
        identity = folder / "identities" / name
        for file in ("ca.pem", f"{name}.pem"):
            chain = x509.load_pem_x509_certificates((identity / file).read_bytes())
            names[name, file] = [common_name(certificate) for certificate in chain]
        load_pem_private_key((identity / f"{name}.key").read_bytes(), None)
        assert mode(identity / f"{name}.key") == 0o600
    assert names == {
        ("gw-1", "ca.pem"): [f"{NAME} root"],
        ("gw-1", "gw-1.pem"): ["gw-1", f"{NAME} issuing 1"],
        ("broker-1", "ca.pem"): [f"{NAME} root", f"{NAME} issuing 1"],
        ("broker-1", "broker-1.pem"): ["broker-1", f"{NAME} issuing 1"],
    }


def test_newest_issuing_key_signs_and_a_broker_knows_the_older_ones(tmp_path):
    folder = make(tmp_path / "ca")
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    key = load_pem_private_key((folder / "root.key").read_bytes(), None)
    second = make_issuing(NAME, 2, Pair(root, key), NOW_MS)
    ca_folder.write_new(folder / "issuing-2.pem", certificate_pem(second.certificate), 0o644)
    ca_folder.write_new(folder / "issuing-2.key", key_pem(second.key), 0o600)
    assert issue(folder, "broker-1", "--for", "broker", "--host", "localhost") == 0
    identity = folder / "identities/broker-1"
    chain = x509.load_pem_x509_certificates((identity / "broker-1.pem").read_bytes())
    known = x509.load_pem_x509_certificates((identity / "ca.pem").read_bytes())
    assert [common_name(one) for one in chain] == ["broker-1", f"{NAME} issuing 2"]
    assert [common_name(one) for one in known] == [f"{NAME} root", f"{NAME} issuing 2", f"{NAME} issuing 1"]


def test_issuing_certificate_of_another_authority_is_not_used(tmp_path):
    """A broker would be told to trust it, and a node would not know what it signs."""
    folder, other = make(tmp_path / "ca"), make(tmp_path / "other")
    for ending in ("pem", "key"):
        shutil.copy(other / f"issuing-1.{ending}", folder / f"issuing-2.{ending}")
    with pytest.raises(ConfigError, match=r"issuing-2\.pem is not signed by .*root\.pem"):
        issue(folder, "broker-1", "--for", "broker", "--host", "localhost")
    assert not (folder / "issued").exists()


def test_no_certificate_outlives_its_issuing_key_and_it_is_said(tmp_path, capsys):
    folder = make(tmp_path / "ca")
    later_ms = NOW_MS + 700 * DAY_MS
    assert issue(folder, "air-7", now_ms=later_ms) == 0
    leaf = x509.load_der_x509_certificate((folder / "identities/air-7/node.der").read_bytes())
    issuing = x509.load_pem_x509_certificate((folder / "issuing-1.pem").read_bytes())
    assert leaf.not_valid_after_utc == issuing.not_valid_after_utc
    assert "valid only until" in capsys.readouterr().err
    assert issue(folder, "air-8", "--days", 10, now_ms=later_ms) == 0
    assert capsys.readouterr().err == "", "ten days were asked for"


def test_expired_issuing_key_issues_nothing(tmp_path):
    folder = make(tmp_path / "ca")
    with pytest.raises(ConfigError, match=r"the issuing key ended on 20\d\d-\d\d-\d\d"):
        issue(folder, "air-7", now_ms=NOW_MS + 731 * DAY_MS)
    assert not (folder / "identities").exists()
    assert not (folder / "issued").exists()


@pytest.mark.parametrize("now_ms", [0, 946_684_800_000, CLOCK_FLOOR_MS - 1])
def test_clock_that_is_not_set_is_said(tmp_path, now_ms):
    with pytest.raises(ConfigError, match=r"this machine's clock shows .*: set it"):
        make(tmp_path / "ca", now_ms=now_ms)
    folder = make(tmp_path / "ca")
    with pytest.raises(ConfigError, match="this machine's clock shows"):
        issue(folder, "air-7", now_ms=now_ms)


def test_clock_behind_the_authority_is_said(tmp_path):
    folder = make(tmp_path / "ca")
    with pytest.raises(ConfigError, match=r"valid from .* set the clock"):
        issue(folder, "air-7", now_ms=NOW_MS - 3 * DAY_MS)


def test_certificate_is_good_a_day_before_it_was_made():
    """A node takes the moment of its configuration for the time, and another machine may have written that."""
    leaf = make_leaf("air-7", Role.NODE, [], ISSUING_PAIR, NOW_MS, 1).certificate
    assert leaf.not_valid_before_utc == datetime.fromtimestamp(NOW_MS / 1000 - 86_400, UTC)


def test_device_with_a_certificate_gets_another_only_when_asked_for(tmp_path):
    folder = make(tmp_path / "ca")
    assert issue(folder, "air-7") == 0
    with pytest.raises(ConfigError, match="not written over"):
        issue(folder, "air-7", "--again")
    with pytest.raises(ConfigError, match="air-7 has a certificate until"):
        issue(folder, "air-7", "--out", tmp_path / "second")
    assert issue(folder, "air-7", "--out", tmp_path / "second", "--again") == 0
    assert len(list((folder / "issued/air-7").iterdir())) == 2


def test_one_issues_at_a_time_so_that_two_do_not_both_get_the_same_name(tmp_path):
    folder = make(tmp_path / "ca", wall_ms())
    command = [sys.executable, "-m", "bega", "ca", "issue", "--ca", folder, "air-7", "--out"]
    with ca_folder.CaFolder(folder).locked():
        both = [subprocess.Popen([*command, tmp_path / name], stderr=subprocess.DEVNULL) for name in ("one", "two")]
        with pytest.raises(subprocess.TimeoutExpired):
            both[0].wait(1.5)
    assert sorted(process.wait(20) for process in both) == [0, 1]
    assert len(list((folder / "issued/air-7").iterdir())) == 1


def test_key_that_others_can_read_is_not_used(tmp_path):
    folder = make(tmp_path / "ca")
    (folder / "issuing-1.key").chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others: chmod 600"):
        issue(folder, "air-7")


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\nsecret!\n-----END PRIVATE KEY-----\n", b"\xff"]
)
def test_damaged_key_is_said_without_a_word_of_it(tmp_path, content):
    folder = make(tmp_path / "ca")
    (folder / "issuing-1.key").write_bytes(content)
    with pytest.raises(ConfigError, match=r"issuing-1\.key is no private key") as caught:
        issue(folder, "air-7")
    assert "secret" not in str(caught.value)


def test_key_of_another_certificate_is_said(tmp_path):
    folder = make(tmp_path / "ca")
    shutil.copy(folder / "root.key", folder / "issuing-1.key")
    with pytest.raises(ConfigError, match="is not the key of"):
        issue(folder, "air-7")


def test_damaged_certificate_and_missing_authority_are_said(tmp_path):
    with pytest.raises(ConfigError, match="holds no authority"):
        issue(tmp_path, "air-7")
    folder = make(tmp_path / "ca")
    (folder / "issuing-1.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"issuing-1\.pem is no certificate"):
        issue(folder, "air-7")
    (folder / "issuing-1.pem").unlink()
    with pytest.raises(ConfigError, match="holds no issuing key"):
        issue(folder, "air-7")


@pytest.mark.parametrize("cut", range(8))
def test_disk_that_fails_leaves_an_identity_whole_or_not_at_all(tmp_path, monkeypatch, cut):
    """Each fsync in turn fails. What was signed is on record in any case before its key lies anywhere."""
    folder = make(tmp_path / "ca")
    calls = [0]
    really = os.fsync

    def fail(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == cut + 1:
            raise OSError(28, "No space left on device")
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    try:
        issue(folder, "air-7")
        failed = False
    except (ConfigError, OSError):
        failed = True
    monkeypatch.undo()
    identity = folder / "identities/air-7"
    assert failed == (cut < calls[0])
    assert not list(folder.glob("identities/.*")), "no half of a key is left behind"
    if identity.exists():
        assert sorted(path.name for path in identity.iterdir()) == ["ca.der", "node.der", "node.key"]
        leaf = x509.load_der_x509_certificate((identity / "node.der").read_bytes())
        assert (folder / f"issued/air-7/{leaf.serial_number:x}.pem").exists()


def test_command_says_what_it_did_and_no_secret(tmp_path):
    outcome = bega_ca("init", "--ca", tmp_path / "ca", "--name", NAME)
    assert outcome.returncode == 0, outcome.stderr
    assert "Move" in outcome.stdout
    said = outcome.stdout + outcome.stderr
    for arguments in (("air-7", "--json"), ("gw-1", "--for", "gateway"), ("air-7",), ("AIR",)):
        outcome = bega_ca("issue", "--ca", tmp_path / "ca", *arguments)
        said += outcome.stdout + outcome.stderr
        assert outcome.returncode == (0 if arguments[-1] in ("--json", "gateway") else 1)
        assert "Traceback" not in outcome.stderr
        if "--json" in arguments:
            assert json.loads(outcome.stdout)["name"] == "air-7"
    assert "PRIVATE" not in said
    for key in (tmp_path / "ca").rglob("*.key"):
        content = key.read_bytes()
        secret = content.splitlines()[1].decode() if content.startswith(b"-----") else content.hex()
        assert secret not in said


def test_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    outcome = bega_ca("init", "--ca", tmp_path / "file/ca", "--name", NAME)
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    assert "bega ca" in outcome.stderr


def test_help_has_an_example():
    outcome = bega_ca("--help")
    assert outcome.returncode == 0
    assert "bega ca issue --ca city-ca air-7" in outcome.stdout


CONFIGURATION = """
listener {port} 127.0.0.1
user root
allow_anonymous false
require_certificate true
use_identity_as_username true
cafile {ca}
certfile {certificate}
keyfile {key}
"""


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    """An authority with a broker, a node and a gateway; and another one of which nobody here knows."""
    folder = tmp_path_factory.mktemp("city")
    now_ms = wall_ms()
    for name in ("ca", "foreign"):
        make(folder / name, now_ms - 3 * DAY_MS)
        assert issue(folder / name, "air-7", now_ms=now_ms) == 0
    assert issue(folder / "ca", "broker-1", "--for", "broker", "--host", "localhost", now_ms=now_ms) == 0
    assert issue(folder / "ca", "gw-1", "--for", "gateway", now_ms=now_ms) == 0
    assert issue(folder / "ca", "air-old", "--days", 1, now_ms=now_ms - 2 * DAY_MS) == 0
    return folder


@pytest.fixture
def start_broker(city, tmp_path, eventually) -> Iterator[Callable[..., int]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(authorities: Path, certificate: Path, key: Path) -> int:
        (port,) = free_ports(1)
        configuration = tmp_path / f"{port}.conf"
        configuration.write_text(CONFIGURATION.format(port=port, ca=authorities, certificate=certificate, key=key))
        with (tmp_path / f"{port}.log").open("wb") as log:
            started.append(subprocess.Popen([MOSQUITTO, "-c", configuration], stderr=log))
        eventually(lambda: b"running" in (tmp_path / f"{port}.log").read_bytes(), "mosquitto runs")
        return port

    yield start
    for broker in started:
        broker.terminate()
        broker.wait(5)


def hello(port: int, authority: Path, certificate: Path, key: Path, host: str = "localhost") -> str:
    """Return what MicroPython's own TLS, set up as the node does, says of a connection."""
    outcome = subprocess.run(
        [MICROPYTHON, ROOT / "tests/micropython/tls_hello.py", str(port), authority, certificate, key, host],
        env={"MICROPYPATH": ".frozen"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return (outcome.stdout + outcome.stderr).strip()


needs_micropython = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")


@needs_micropython
def test_node_and_broker_know_each_other_by_the_files_that_were_issued(city, start_broker):
    """The node sends its certificate alone; the broker finds the issuing key in its ca.pem and sends its own chain."""
    identities = city / "ca/identities"
    broker, node = identities / "broker-1", identities / "air-7"
    port = start_broker(broker / "ca.pem", broker / "broker-1.pem", broker / "broker-1.key")
    own = (node / "node.der", node / "node.key")
    assert hello(port, node / "ca.der", *own) == "connected"
    assert "CN" in hello(port, node / "ca.der", *own, host="elsewhere"), "another host has another certificate"
    foreign = city / "foreign/identities/air-7"
    assert hello(port, node / "ca.der", foreign / "node.der", foreign / "node.key") != "connected"
    assert "not correctly signed" in hello(port, foreign / "ca.der", *own)
    old = identities / "air-old"
    assert hello(port, node / "ca.der", old / "node.der", old / "node.key") != "connected"


@needs_micropython
def test_node_whose_clock_is_that_of_its_configuration_knows_a_broker_of_later_years(city, start_broker, tmp_path):
    """After a power cut it has no other: it came to the pole before this issuing key and this certificate were made."""
    folder, later_ms = tmp_path / "ca", wall_ms() + 640 * DAY_MS
    shutil.copytree(city / "ca", folder)
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    root_key = load_pem_private_key((folder / "root.key").read_bytes(), None)
    second = make_issuing(NAME, 2, Pair(root, root_key), later_ms)
    ca_folder.write_new(folder / "issuing-2.pem", certificate_pem(second.certificate), 0o644)
    ca_folder.write_new(folder / "issuing-2.key", key_pem(second.key), 0o600)
    assert issue(folder, "broker-2", "--for", "broker", "--host", "localhost", now_ms=later_ms) == 0
    broker, node = folder / "identities/broker-2", folder / "identities/air-7"
    port = start_broker(broker / "ca.pem", broker / "broker-2.pem", broker / "broker-2.key")
    assert hello(port, node / "ca.der", node / "node.der", node / "node.key") == "connected"


@needs_micropython
def test_nobody_takes_the_others_part(city, start_broker, tmp_path):
    """A stolen node cannot play the broker, nor a broker a node: each certificate says what it is good for."""
    identities = city / "ca/identities"
    broker, node, gateway = identities / "broker-1", identities / "air-7", identities / "gw-1"
    port = start_broker(broker / "ca.pem", gateway / "gw-1.pem", gateway / "gw-1.key")
    answer = hello(port, node / "ca.der", node / "node.der", node / "node.key", host="gw-1")
    assert answer != "connected"
    assert "BAD_CERTIFICATE" in answer, "its name would do: CN=gw-1, and no other name is in it"
    port = start_broker(broker / "ca.pem", broker / "broker-1.pem", broker / "broker-1.key")
    leaf = x509.load_pem_x509_certificates((broker / "broker-1.pem").read_bytes())[0]
    key = load_pem_private_key((broker / "broker-1.key").read_bytes(), None)
    (tmp_path / "leaf.der").write_bytes(certificate_der(leaf))
    (tmp_path / "key.der").write_bytes(key_der(key))
    assert hello(port, node / "ca.der", tmp_path / "leaf.der", tmp_path / "key.der") != "connected"


@needs_micropython
def test_micropython_sends_no_chain_so_the_broker_must_know_the_issuing_key(city, start_broker, tmp_path):
    """What decision 048 rests on: with the root alone a broker cannot place a node, whatever file the node has."""
    identities = city / "ca/identities"
    broker, node = identities / "broker-1", identities / "air-7"
    issuing = x509.load_pem_x509_certificate((city / "ca/issuing-1.pem").read_bytes())
    port = start_broker(city / "ca/root.pem", broker / "broker-1.pem", broker / "broker-1.key")
    (tmp_path / "chain.der").write_bytes((node / "node.der").read_bytes() + certificate_der(issuing))
    leaf = x509.load_der_x509_certificate((node / "node.der").read_bytes())
    (tmp_path / "chain.pem").write_bytes(certificate_pem(leaf, issuing))
    for certificate in (node / "node.der", tmp_path / "chain.der"):
        assert hello(port, node / "ca.der", certificate, node / "node.key") != "connected"
    assert "invalid cert" in hello(port, node / "ca.der", tmp_path / "chain.pem", node / "node.key")
