"""The kiosk's configuration: every problem is said, each with its place."""

import pytest

from bega_kiosk.command import main
from bega_kiosk.config import examine, load
from bega_protocols.errors import ConfigError
from tests.kiosk_feed import CORNER

WHOLE = """
[kiosk]
name = "kiosk-1"
city = "arad"
panel = "10"

[server]
listen = "[::1]:8001"

[feed]
url = "https://gateway.example:8443/base"
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "kiosk.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_example_is_good_and_says_what_it_shows(capsys):
    assert main(["check", "--config", str(CORNER)]) == 0
    assert "1920 x 1080" in capsys.readouterr().out


def test_whole_file_is_read(file):
    config = load(file(WHOLE))
    assert config.server.listen == "[::1]:8001"
    assert (config.panel.name, config.distance_mm, str(config.timezone)) == ("10", 400, "Europe/Bucharest")


def test_set_is_laid_over_the_file(file):
    config = load(file(WHOLE), {"kiosk": {"panel": "24", "distance_mm": 500}})
    assert (config.panel.name, config.distance_mm, config.kiosk.name) == ("24", 500, "kiosk-1")


@pytest.mark.parametrize(
    ("wrong", "right", "place"),
    [
        ('panel = "10"', 'panel = "7in"', ":5: kiosk.panel: must be one of 24, 24p, 10"),
        ('panel = "10"', "panel = 10", ":5: kiosk.panel: "),
        ('name = "kiosk-1"', 'name = "kiosk 1"', ":3: kiosk.name: "),
        ('name = "kiosk-1"', 'nmae = "kiosk-1"', ":3: kiosk.nmae: unknown key; known are name, city"),
        ('name = "kiosk-1"', "", ":2: kiosk.name: is missing"),
        ('city = "arad"', 'city = "arad"\ndistance_mm = 900', ":5: kiosk.distance_mm: "),
        ('city = "arad"', 'city = "arad"\ndistance_mm = 0', ":5: kiosk.distance_mm: "),
        ('city = "arad"', 'city = "arad"\ntimezone = "Europe/Timisoara"', ":5: kiosk.timezone: "),
        ('city = "arad"', 'city = "arad"\ntimezone = "../etc/passwd"', ":5: kiosk.timezone: "),
        ("[::1]:8001", "8001", ":8: server.listen: write host:port"),
        ("[::1]:8001", "localhost:99999", ":8: server.listen: write host:port"),
        ("https://gateway.example:8443/base", "mqtt://gateway", ":11: feed.url: write http://host:port"),
        ("https://gateway.example:8443/base", "http://a:b@gateway", ":11: feed.url: "),
        ("https://gateway.example:8443/base", "http://gateway:port", ":11: feed.url: "),
        ("[feed]", '[reports]\nmqtt = "http://broker"\n[feed]', ":11: reports.mqtt: write mqtts://host:port"),
        (
            "[feed]",
            '[reports]\nmqtt = "mqtt://b"\nca_file = "ca.pem"\n[feed]',
            ":12: reports.ca_file: is used with mqtts",
        ),
        ("[feed]", '[reports]\nmqtt = "mqtts://b"\nkey_file = "k"\n[feed]', ":12: reports.key_file: needs cert_file"),
        ("[feed]", "[fed]", "fed: unknown table"),
        ("[kiosk]", "[kisok]", "kiosk: this table is missing"),
        ("[server]", "[server", "no TOML"),
        ("[server]\n", "[air]\nlive_limit_minutes = 0\n[server]\n", ":8: air.live_limit_minutes: "),
    ],
)
def test_mistake_is_named_with_its_place(file, wrong, right, place):
    assert wrong in WHOLE
    path = file(WHOLE.replace(wrong, right))
    config, problems = examine(path)
    assert config is None
    assert f"{path}" in problems[0]
    assert any(place in problem for problem in problems), problems


def test_every_mistake_is_listed_at_once(file, capsys):
    path = file(WHOLE.replace('name = "kiosk-1"', "name = 1").replace("[::1]:8001", "x").replace("url", "uri"))
    assert main(["check", "--config", str(path)]) == 1
    said = capsys.readouterr().err
    assert "kiosk.name" in said
    assert "feed.uri" in said
    assert "2 problems" in said  # the address is looked at once the shape is right


def test_missing_file_is_said_in_a_sentence(tmp_path, capsys):
    assert main(["check", "--config", str(tmp_path / "none.toml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_key_that_is_not_there_is_found_by_check_as_by_run(file, tmp_path, capsys):
    path = file(f'{WHOLE}\n[notices]\nkeys = ["{tmp_path}/city.pub"]\n')
    assert main(["check", "--config", str(path)]) == 1
    assert "city.pub cannot be read" in capsys.readouterr().err


def test_run_refuses_a_mistake_before_it_serves(file, capsys):
    assert main(["run", "--config", str(file(WHOLE)), "--set", "kiosk.panel=7in"]) == 1
    assert "kiosk.panel" in capsys.readouterr().err


def test_load_raises_with_every_problem(file):
    with pytest.raises(ConfigError, match=r"kiosk\.panel"):
        load(file(WHOLE.replace('"10"', '"7in"')))
