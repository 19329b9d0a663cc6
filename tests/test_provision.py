"""`bega node provision`, `log`, `wipe` over the cable of a real board: resumed where it was cut off, no secret said."""

import base64
import itertools
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from bega.clock import wall_ms
from bega_firmware import ca, log, node_settings, provision, wipe
from bega_firmware.authority import common_name
from bega_firmware.board import read_board
from bega_firmware.ca_folder import IDENTITIES, CaFolder
from bega_firmware.cable import Cable, CableError
from bega_firmware.command import main
from bega_firmware.proof import lent
from bega_firmware.site import Beacon, Broker, Site, Uplink, Wifi, save_site, save_wifi_key
from bega_protocols.checks import crc32
from bega_protocols.errors import ConfigError
from tests.bench_board import BenchBoard, air_image, needs_micropython

PASSWORD = "parola-de-la-primarie"
NODE = "air-7"
NIGHTLY = os.environ.get("BEGA_PROFILE") == "nightly"

pytestmark = needs_micropython
by_night = pytest.mark.skipif(not NIGHTLY, reason="four seconds; make nightly PART=technician")


@pytest.fixture(scope="module")
def image() -> bytes:
    return air_image("broker", "uplink", "beacon")


@pytest.fixture
def board(tmp_path, image) -> Iterator[BenchBoard]:
    one = BenchBoard(tmp_path, image)
    one.start()
    yield one
    one.unplug()


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.setenv("BEGA_DATA", str(tmp_path / "data"))
    assert ca.main(["init", "--ca", str(tmp_path / "ca"), "--name", "City"]) == 0
    one = Site(
        "hall", tmp_path / "hall.toml", "timisoara", "gw-hall", (Broker(host="127.0.0.1"),), Wifi(ssid="city"),
        Uplink(), Beacon(), tmp_path / "ca",
    )  # fmt: skip
    save_site(one)
    save_wifi_key(one, PASSWORD)
    return one


class PulledAfter(Cable):
    """A cable that somebody pulls after so many exchanges with the board."""

    def __init__(self, port: str, exchanges: int) -> None:
        super().__init__(port)
        self._left = exchanges

    def run(self, source: str, within_s: float = 10.0) -> str:
        if self._left == 0:
            raise CableError("pulled")
        self._left -= 1
        return super().run(source, within_s)


def provisioned(port: str, site: Site, **wish: Any) -> provision.Provisioned:
    with Cable(port) as cable:
        return provision.provision(cable, site, provision.Wish(**{"node": NODE, "way": "wifi", **wish}))


def on_board(port: str) -> dict[str, bytes]:
    with Cable(port) as cable:
        paths = [path for path in cable.listing() if path.startswith(("/config", "/tls/"))]
        return {path: cable.get(path, is_secret=True) for path in paths}


def test_board_becomes_a_node_keeps_its_identity_and_says_no_secret(board, site, capfd):
    first = provisioned(board.port, site)
    assert [outcome.step for outcome in first.outcomes if outcome.passed] == ["identity", "clock", "settings", "start"]
    files = on_board(board.port)
    config = json.loads(files["/config.json"])
    assert (config["node"], config["wifi"]["key"], sorted(config["devices"])) == (NODE, PASSWORD, ["pms", "sht"])
    assert abs(config["made_s"] - wall_ms() // 1000) < 100
    assert common_name(x509.load_der_x509_certificate(files["/tls/node.der"])) == NODE
    assert not (site.ca / IDENTITIES / NODE).exists(), "nobody else needs its key"

    again = provisioned(board.port, site, node=None)
    assert again.identity.serial == first.identity.serial and not again.identity.is_new
    assert on_board(board.port) == files
    assert main(["provision", "--port", board.port, "--site", str(site.path), "--uplink", "wifi", "--json"]) == 0
    heard = capfd.readouterr()
    assert json.loads(heard.out.splitlines()[-1])["identity"]["serial"] == first.identity.serial
    said = (
        board.said()
        + heard.out
        + heard.err
        + repr(first)
        + (site.path.parent / "data" / "bench.db").read_text("latin-1")
    )
    for secret in (PASSWORD.encode(), files["/config.json"], files["/tls/node.key"]):
        assert base64.b64encode(secret)[:20].decode() not in said and secret.hex() not in said
        assert secret.decode("latin-1") not in said

    with pytest.raises(ConfigError, match="is air-7: `bega node wipe` first"):
        provisioned(board.port, site, node="air-8")
    for every_s in (float("nan"), float("inf"), 0.01):
        with pytest.raises(ConfigError, match="--every-s is from"):
            provisioned(board.port, site, every_s=every_s)
    changed = provisioned(board.port, site, every_s=5.0)
    assert changed.identity.serial == first.identity.serial
    assert json.loads(on_board(board.port)["/config.json"])["devices"]["pms"] == {"every_s": 5}


def test_node_that_a_bench_had_is_provisioned_for_good(board, site):
    """Whoever pulled the cable in a test and then provisioned had the former settings again at the next test."""
    provisioned(board.port, site)
    with Cable(board.port) as cable:
        cable.put("/state/ring/00000077.seg", b"the site's own")
        lent.lend(cable, {"node": NODE, "devices": {}}, {"ca.der": b"x"})
        cable.put("/config.json", json.dumps({"node": NODE, "ring_segments": 4, "devices": {"pms": {}}}).encode())
    changed = provisioned(board.port, site, every_s=7.0)
    assert [outcome.step for outcome in changed.outcomes].count("configuration") == 1
    with Cable(board.port) as cable:
        assert not lent.give_back(cable), "nothing of the bench waits for the next test"
        settings = json.loads(cable.get("/config.json"))
        assert settings["devices"] == {"pms": {"every_s": 7}, "sht": {"every_s": 7}} and "ring_segments" not in settings
        assert "/state/ring/00000077.seg" in cable.listing()


def test_settings_of_a_meter_are_given_by_name_and_refused_before_anything_is_done(site):
    drivers = ("dsmr_p1", "mbus_meter", "modbus_meter", "pulses")
    there = node_settings.OnBoard(read_board("meter_carrier"), "0.1.0", drivers, ("broker",), "0a", None)

    def made(devices: tuple[str, ...], *own: str) -> Any:
        return node_settings.settings(there, site, "grid-1", "wifi", "", devices, None, 0, own)["devices"]

    grid = ("grid=modbus_meter@meters",)
    assert made(()) == {"main": {}}, "a contact is not taken for granted"
    assert made(grid, "grid.profile=sdm630", "grid.address=3")["grid"]["settings"] == {
        "profile": "sdm630",
        "address": 3,
    }
    flat = made(("flat",), 'flat.start="123456.789"')["flat"]
    assert flat == {"settings": {"pulses_per_kwh": 1000, "start": "123456.789"}}, "the board file's stays"
    there = replace(there, config={"node": "grid-1", "devices": {"flat": flat}})
    assert made(("flat",)) == made(()) == {"flat": flat}, "and what it was told, if it is named again"
    there = replace(there, config=None)
    for devices, own, words in (
        (grid, (), r"device grid \(modbus_meter\): profile must name .* --set grid.SETTING=VALUE"),
        (grid, ("grid.profile=sdm999",), "sdm999"),
        (("flat",), ("flat.litres=1",), r"device flat \(pulses\): unknown setting litres"),
        (("main",), ("main.key=00112233",), "a key is a secret"),
        (("main",), ("other.x=1",), "has the devices main"),
        (("main",), ("main",), "DEVICE.SETTING=VALUE"),
    ):
        with pytest.raises(ConfigError, match=words) as refused:
            made(devices, *own)
        assert "00112233" not in str(refused.value)


@pytest.mark.timeout(900)
def test_plug_that_is_pulled_anywhere_leaves_what_the_same_command_ends(board, site):
    """Over one board, each time a new name: what is cut off after n exchanges is whole after the next run."""
    for exchanges in itertools.count(2, 1 if NIGHTLY else 23):
        with Cable(board.port) as cable:
            cable.remove("/config.json", *node_settings.TLS.values())
        node = f"air-{exchanges}"
        try:
            with PulledAfter(board.port, exchanges) as cable:
                provision.provision(cable, site, provision.Wish(node=node, way="wifi"))
            break
        except CableError as error:
            assert str(error) == "pulled"
        done = provisioned(board.port, site, node=node)
        assert all(outcome.passed for outcome in done.outcomes)
        assert not [path for path in on_board(board.port) if path.endswith("~")]
        assert len(CaFolder(site.ca).issued(node)) == 1, "one certificate, however often it was begun"
        assert not (site.ca / IDENTITIES / node).exists()
    assert exchanges > 20


@by_night
def test_identity_begun_for_one_board_goes_to_no_other(board, site):
    with PulledAfter(board.port, 30) as cable, pytest.raises(CableError):
        provision.provision(cable, site, provision.Wish(node=NODE, way="wifi"))
    chip = site.ca / IDENTITIES / NODE / "chip"
    chip.write_text("240ac4ffffff\n")
    with Cable(board.port) as cable:
        cable.remove(*node_settings.TLS.values())
    with pytest.raises(ConfigError, match="begun on another board"):
        provisioned(board.port, site)


def test_node_without_wifi_shares_a_key_with_its_gateway_alone(board, site, capsys):
    serial = provisioned(board.port, site, way="serial", devices=("sht",))
    key = site.keys_path / f"{NODE}.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_text().strip()) == 64
    assert f"[nodes.{NODE}]" in serial.table and key.read_text().strip() not in serial.table
    with pytest.raises(ConfigError, match="no key for the way ble"):
        provisioned(board.port, site, way="ble")
    beacon = provisioned(board.port, site, way="ble", again=True)
    secret = key.read_text().strip()
    kept = site.keys_path / f"{NODE}.toml"
    assert secret in kept.read_text() and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert 'address = "24:0A:C4:' in beacon.table and secret not in beacon.table
    assert all(outcome.passed for outcome in beacon.outcomes)
    assert secret not in board.said()


def test_wiped_board_holds_no_secret_anywhere_in_its_flash(board, site, capsys):
    provisioned(board.port, site)
    files = on_board(board.port)
    secrets = [PASSWORD.encode(), files["/tls/node.key"][8:40]]
    assert all(secret in board.flash.read_bytes() for secret in secrets)
    assert main(["wipe", "--port", board.port]) == 1
    assert "--yes" in capsys.readouterr().err
    choice = b"a - - 0.2.0"
    choice += b" %08x" % crc32(choice)
    with Cable(board.port) as cable:
        assert wipe.name_of(cable) == NODE
        cable.put("/state/slot", choice)
        lent.lend(cable, {"node": NODE, "devices": {}}, {})  # a test whose cable was pulled
    assert main(["wipe", "--port", board.port, "--yes"]) == 0
    assert "bega ca revoke air-7" in capsys.readouterr().out
    flash = board.flash.read_bytes()
    assert not any(secret in flash for secret in secrets)
    with Cable(board.port) as cable:
        files = cable.listing()
        left = [path for path in files if path.startswith(wipe.OURS)]
        assert set(left) <= {"/state/starts", "/state/slot"}, "that of the start just now"
        assert "/a/facts.json" in files, "its firmware stays"
        assert cable.get("/state/slot") == choice, "and the version that it was updated to"


def test_log_names_what_a_traceback_means(tmp_path):
    facts = {"app": {"names": {"log2": "send"}, "lines": [[1, "/store.py", 1], [327, "/link.py", 5]]}}
    (tmp_path / "names.json").write_text(json.dumps(facts))
    names = log.read_names(tmp_path)
    assert log.in_source('  File "app", line 330, in log2', names) == "  = link.py:8, in send"
    assert log.in_source('  File "app.py", line 3, in other', names) == "  = store.py:3, in other"
    assert log.in_source('  File "main.py", line 3, in <module>', names) == log.in_source("hello", names) == ""
    with pytest.raises(ConfigError, match="cannot be read"):
        log.read_names(Path("/nowhere"))
