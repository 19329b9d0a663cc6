"""`bega site`: what nodes of one place have in common, and its secrets kept apart."""

import argparse
import io
import json
import stat
from pathlib import Path

import pytest

from bega_firmware import site_command
from bega_firmware.site import SITES, Site, read_site, save_wifi_key
from bega_protocols.errors import ConfigError

SECRET = "parola-de-la-primarie"
OPTIONS = ("--city", "timisoara", "--gateway", "gw-hall", "--broker", "192.168.10.2", "--ssid", "city-iot")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BEGA_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def secret_file(tmp_path: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Path:
    path = tmp_path / "wifi.key"
    path.write_text(text)
    path.chmod(mode)
    return path


def made(*arguments: object) -> int:
    return site_command.main(["new", "hall", *OPTIONS, "--ca", "/ca", *map(str, arguments)])


def test_site_is_what_was_asked_and_its_password_is_the_owners_alone(tmp_path, data, capsys):
    assert made("--wifi-key-file", secret_file(tmp_path)) == 0
    site = read_site("hall")
    assert (site.city, site.gateway, site.wifi.ssid, site.ca) == ("timisoara", "gw-hall", "city-iot", Path("/ca"))
    assert [(broker.host, broker.port, broker.tls) for broker in site.brokers] == [("192.168.10.2", 8883, True)]
    assert site.wifi_key() == SECRET
    assert stat.S_IMODE((data / SITES / "hall.secrets").stat().st_mode) == 0o600
    assert SECRET not in (data / SITES / "hall.toml").read_text()
    assert site_command.main(["show", "hall"]) == site_command.main(["show", "hall", "--json"]) == 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err


def test_site_whose_authority_is_named_from_where_one_stands_can_be_made_again(data, capsys):
    for _ in range(2):
        assert site_command.main(["new", "hall", *OPTIONS, "--ca", "../city-ca"]) == 0
    assert read_site("hall").ca == Path.cwd().parent / "city-ca"


def test_answer_that_does_not_come_is_a_sentence(data, monkeypatch, capsys):
    def ended(question: str) -> str:
        raise EOFError

    assert made() == 0
    with pytest.raises(ConfigError, match="was not typed"):
        read_site("hall").wifi_key(ended)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ended)
    assert site_command.main(["new", "cellar"]) == 1
    assert "an answer is missing" in capsys.readouterr().err


def test_password_of_no_network_is_refused(tmp_path, data, capsys):
    words = ["new", "cellar", "--city", "a", "--gateway", "gw-1", "--uplink"]
    assert site_command.main([*words, "--wifi-key-file", str(secret_file(tmp_path))]) == 1
    assert "name it with --ssid" in capsys.readouterr().err
    assert not (data / SITES / "cellar.toml").exists()


def test_site_made_again_is_the_same_or_refused(tmp_path, data, capsys):
    key = secret_file(tmp_path)
    assert made("--wifi-key-file", key) == made("--wifi-key-file", key) == 0
    before = {path: path.read_bytes() for path in (data / SITES).iterdir()}
    assert made("--broker", "10.0.0.1") == 1
    assert "not written over" in capsys.readouterr().err
    assert made("--wifi-key-file", secret_file(tmp_path, "another-password")) == 1
    assert "another-password" not in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (data / SITES).iterdir()} == before


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (SECRET, 0o644, "can be read by others"),
        ("short", 0o600, "8 to 63"),
        (SECRET + "\nmore", 0o600, "one line"),
        ("x" * 64, 0o600, "8 to 63"),
    ],
)
def test_password_that_cannot_be_is_refused_without_a_word_of_it(tmp_path, data, capsys, text, mode, why):
    assert made("--wifi-key-file", secret_file(tmp_path, text, mode)) == 1
    said = capsys.readouterr().err
    assert why in said and text not in said
    assert not (data / SITES / "hall.secrets").exists()


def test_what_is_missing_is_asked_for_and_a_password_is_not_echoed(data):
    answers = {"City": "arad", "Gateway": "gw-1", "Wi-Fi name": "iot", "Broker": "b.example:9000", "Authority": "/ca"}
    asked, secrets = [], []

    def ask(question: str) -> str:
        asked.append(question)
        return next(answer for start, answer in answers.items() if question.startswith(start))

    args = argparse.Namespace(
        name="hall", city=None, gateway=None, broker=[], plain=False, ssid=None, wifi_key_file=None, ca=None,
        uplink=False, beacon=False,
    )  # fmt: skip
    assert site_command.new(args, ask, lambda question: secrets.append(question) or SECRET) == 0
    site = read_site("hall")
    assert (site.city, site.brokers[0].host, site.brokers[0].port) == ("arad", "b.example", 9000)
    assert site.wifi_key() == SECRET and len(secrets) == 1 and not any("assword" in question for question in asked)


def test_nobody_there_to_ask_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert site_command.main(["new", "hall", "--city", "arad"]) == 1
    assert "--gateway is missing" in capsys.readouterr().err
    assert made() == 0
    with pytest.raises(ConfigError, match="nobody is here to type it"):
        read_site("hall").wifi_key()
    assert read_site("hall").wifi_key(lambda question: SECRET) == SECRET


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[site]\ncity = "a b"\ngateway = "g"\n[beacon]', "hall.toml:2: site.city"),
        ('[site]\ncity = "a"\ngateway = "g"', "no way out"),
        ('[site]\ncity = "a"\n[uplink]', "gateway: is missing"),
        ('[site]\ncity = "a"\ngateway = "g"\n[wifi]\nssid = "x"', "brokers: is missing"),
        ('[site]\ncity = "a"\ngateway = "g"\n[wifi]\nssid = "x"\n[[brokers]]\nhost = "b"', "ca: is missing"),
        ('[site]\ncity = "a"\ngateway = "g"\n[wifi]\nssid = "x"\nkey = "y"', "wifi.key: unknown key"),
        ('[site]\ncity = "a"\ngateway = "g"\n[wifi]\nssid = "x"\n[[brokers]]\nhost = "mqtt://b"', "brokers[0].host"),
        ('[site]\ncity = "a"\ngateway = "g"\n[uplink]\nbaud = 5', "hall.toml:5: uplink.baud"),
        ('brokers = 1\n[site]\ncity = "a"\ngateway = "g"\n[beacon]', "brokers: must be a list"),
        ('wifi = 1\n[site]\ncity = "a"\ngateway = "g"\n[beacon]', "wifi: must be a table"),
        ("ca = 5\n[[site]]", "ca: must be a folder"),
        ("site", "no TOML"),
    ],
)
def test_file_that_cannot_be_names_its_problem(tmp_path, text, problem):
    (tmp_path / "hall.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_site(str(tmp_path / "hall.toml"))
    assert problem in str(error.value)


def test_authority_is_found_from_where_the_file_lies(tmp_path):
    text = '[site]\ncity = "a"\ngateway = "g"\n[wifi]\nssid = "x"\n[[brokers]]\nhost = "b"'
    (tmp_path / "hall.toml").write_text('ca = "../city-ca"\n' + text)
    assert read_site(str(tmp_path / "hall.toml")).ca == tmp_path.parent / "city-ca"


def test_bench_site_is_plain_and_other_ways_need_no_broker(data, capsys):
    new = ["new", "--city", "timisoara", "--gateway", "gw-1"]
    assert site_command.main([*new, "bench", "--ssid", "x", "--broker", "127.0.0.1:1883", "--plain"]) == 0
    assert not read_site("bench").brokers[0].tls
    assert site_command.main([*new, "cellar", "--uplink", "--uplink-baud", "9600"]) == 0
    assert read_site("cellar").uplink.baud == 9600
    assert site_command.main([*new, "park", "--beacon"]) == 0
    capsys.readouterr()
    assert site_command.main(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["bench", "cellar", "park"]
    with pytest.raises(ConfigError, match=r"there is no site pole.*there are bench, cellar, park"):
        read_site("pole")


def test_password_with_anything_in_it_comes_back(tmp_path, data):
    site = Site("hall", tmp_path / "hall.toml", "a", "g")
    key = "a\"\\ș $`é ]#'=\\u0041"
    assert save_wifi_key(site, key)
    assert site.wifi_key() == key
