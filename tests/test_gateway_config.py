"""A configuration is good, or every mistake in it is one line: file:line: place: what to do."""

import copy
import itertools
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega.settings import parse_assignments
from bega_gateway.config import check, examine, load
from bega_protocols.errors import ConfigError

CORNER = Path(__file__).parent.parent / "gateway/examples/corner.toml"
GOOD = """\
[gateway]
name = "gw-corner"
city = "timisoara"

[uplink]
brokers = ["mqtt://127.0.0.1:1883"]

[feed]
listen = "127.0.0.1:8080"

[lines.pms]
kind = "serial"
port = "/dev/pms"

[lines.park]
kind = "ble"

[lines.nodes]
kind = "mqtt"
broker = "mqtt://127.0.0.1"

[devices.roadside-air]
line = "pms"
driver = "pms5003"
audience = "public"

[devices.park-1]
line = "park"
driver = "bthome"
settings = { address = "F0:CA:FE:00:00:01" }

[nodes.air-1]
line = "nodes"
audience = "personal"

[air_index.air]
inputs = ["roadside-air"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.toml"


def problems(path: Path, text: str, *assignments: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    config, found = examine(path, parse_assignments(list(assignments)))
    assert (config is None) == bool(found)
    for line in found:
        assert line.startswith(str(path)) and line.isprintable(), line
    return [line.removeprefix(str(path)) for line in found]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


# ------------------------------------------------------------------ what is good


def test_the_example_that_a_newcomer_copies_is_good():
    config, found = examine(CORNER)
    assert found == []
    assert config.gateway.name == "gw-corner"
    assert {type(line).__name__ for line in config.lines.values()} == {
        "SerialLine", "ModbusRtuLine", "ModbusTcpLine", "BleLine", "MqttLine",
    }  # fmt: skip


def test_what_the_example_has_as_a_comment_is_good_too(path):
    """Whoever takes the "# " away gets what is written there."""
    text = CORNER.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^# ((\w+ = |\[).*)$", r"\1", text).replace('"mqtt://127.0.0.1:1883"]', '"mqtts://broker"]')
    path.write_text(text, encoding="utf-8")
    config = load(path)
    assert config.gateway.spool_quota_mb == 1000
    assert config.uplink.ca_file and config.metrics
    assert config.devices["city-hall"].storage_class == "billing"
    assert config.devices["boiler"].settings["tags"][0]["quantity"] == "temperature"


def test_defaults_are_those_that_the_documents_promise(path):
    path.write_text(GOOD)
    config = load(path)
    assert config.gateway.commit_window_s == 1.0
    assert config.gateway.spool_quota_mb == 1000
    assert config.gateway.state_dir == "/var/lib/bega"
    assert config.feed.keep_hours == 72
    assert config.devices["park-1"].audience == "operator"
    assert config.devices["roadside-air"].every_s == 60


def test_any_value_can_be_laid_over(path):
    path.write_text(GOOD)
    given = ["lines.pms.port=/tmp/pty", "gateway.commit_window_s=0.05", "uplink.brokers=mqtt://broker:1884"]
    given += ["devices.roadside-air.every_s=1", "lines.hall.kind=modbus-tcp", "lines.hall.host=10.0.0.1"]
    config = load(path, parse_assignments(given))
    assert config.lines["pms"].port == "/tmp/pty"
    assert config.gateway.commit_window_s == 0.05
    assert config.uplink.brokers == ["mqtt://broker:1884"]
    assert config.devices["roadside-air"].every_s == 1
    assert config.lines["hall"].host == "10.0.0.1"


def test_nothing_can_be_changed_later(path):
    path.write_text(GOOD)
    config = load(path)
    for thing in (config, config.gateway, config.devices["park-1"]):
        with pytest.raises(AttributeError):
            thing.name = "other"


def test_a_profile_of_ones_own_lies_beside_the_configuration(path, monkeypatch, tmp_path_factory):
    """A service manager starts the gateway in the root directory."""
    from importlib.resources import files

    own = files("bega_protocols").joinpath("profiles", "sdm630.toml").read_text(encoding="utf-8")
    (path.parent / "mine.toml").write_text(own)
    path.write_text(
        GOOD
        + '[lines.hall]\nkind = "modbus-tcp"\nhost = "10.0.0.1"\n'
        + '[devices.hall]\nline = "hall"\ndriver = "modbus_meter"\nsettings = { profile = "mine.toml", address = 1 }\n'
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config, found = examine(path)
    assert found == []
    assert config.devices["hall"].settings["profile"] == tomllib.loads(own)


@pytest.mark.parametrize(
    "address",
    ["mqtt://h", "mqtts://h", "mqtt://h:1", "mqtt://h:65535", "mqtt://a.b-c.example.:1883", "mqtt://[::1]:1883"],
)
def test_brokers_that_can_be_meant(path, address):
    assert problems(path, GOOD, f"uplink.brokers={address}") == []


# ------------------------------------------------------------------ every kind of mistake


MISTAKES = {
    "unknown table": (GOOD + "[linse.x]\n", ": linse: unknown table; known are gateway, uplink, feed"),
    "missing table": (changed('[gateway]\nname = "gw-corner"\ncity = "timisoara"\n', ""), ": gateway: this table is"),
    "unknown key": (
        changed('audience = "public"', 'audiense = "public"'), ": devices.roadside-air.audiense: unknown key; known"),
    "missing key": (changed('port = "/dev/pms"\n', ""), ": lines.pms.port: is missing"),
    "wrong type": (changed('port = "/dev/pms"', "port = 5"), ": lines.pms.port: must be text in quotes, not 5"),
    "wrong unit": (
        changed('audience = "public"', 'every_s = "10 s"'),
        ": devices.roadside-air.every_s: must be a number above 0 and up to 31622400, not '10 s'",
    ),
    "out of range": (
        changed('city = "timisoara"', 'city = "timisoara"\ncommit_window_s = -1'),
        ": gateway.commit_window_s: must be a number from 0 to 60, not -1",
    ),
    "no number": (
        changed('audience = "public"', "every_s = nan"), ": devices.roadside-air.every_s: ",
    ),
    "for ever": (changed('audience = "public"', "every_s = inf"), ": devices.roadside-air.every_s: "),
    "unknown audience": (
        changed('audience = "public"', 'audience = "everyone"'),
        ": devices.roadside-air.audience: must be one of public, operator, personal, not 'everyone'",
    ),
    "name with a slash": (changed('"gw-corner"', '"gw/corner"'), ": gateway.name: a name has up to 64 letters"),
    "name with an end of line": (changed('"gw-corner"', '"gw-corner\\n"'), ": gateway.name: a name has up to 64"),
    "device name with a point": (
        GOOD.replace(".roadside-air]", '."roadside.air"]').replace('["roadside-air"]', '["roadside.air"]'),
        ": devices.roadside.air: a name has up to 64",
    ),
    "table that is none": (GOOD.replace("[feed]", "[[feed]]"), ": feed: must be a table"),
    "rows that are none": (changed('[nodes.air-1]\nline = "nodes"\naudience = "personal"\n', "[[nodes]]\n"), ": nodes"),
    "unknown kind": (changed('kind = "ble"', 'kind = "zigbee"'), ": lines.park.kind: must be one of serial, modbus"),
    "kind that is no word": (changed('kind = "ble"', "kind = [1]"), ": lines.park.kind: must be one of"),
    "no kind": (changed('kind = "ble"\n', ""), ": lines.park.kind: must be one of"),
    "brokers that are no list": (
        changed('["mqtt://127.0.0.1:1883"]', "5"), ": uplink.brokers: must be a list of texts, as",
    ),
    "device without a line": (changed('line = "pms"\n', ""), ": devices.roadside-air.line: is missing"),
    "no broker": (changed('["mqtt://127.0.0.1:1883"]', "[]"), ": uplink.brokers: name at least one broker"),
    "unknown line": (changed('line = "pms"', 'line = "psm"'), ": devices.roadside-air.line: there is no line 'psm'"),
    "unknown driver": (
        changed('"pms5003"', '"pms6003"'), ": devices.roadside-air.driver: there is no device 'pms6003'; Bega knows",
    ),
    "driver on the wrong wire": (
        changed('line = "pms"', 'line = "park"'), ": devices.roadside-air.line: pms5003 speaks serial, and park is",
    ),
    "device on a line for nodes": (
        changed('line = "pms"', 'line = "nodes"'), ": devices.roadside-air.line: pms5003 speaks serial, and nodes",
    ),
    "setting that the driver refuses": (
        changed('audience = "public"', "settings = { baud = 1 }"), ": devices.roadside-air.settings: unknown",
    ),
    "sensor without an address": (
        changed('settings = { address = "F0:CA:FE:00:00:01" }', ""), ": devices.park-1.settings.address: is missing",
    ),
    "two devices on one port": (
        GOOD + '[devices.second]\nline = "pms"\ndriver = "pms5003"\n',
        ": devices.second.line: roadside-air already is alone on a serial port on pms",
    ),
    "one sensor twice": (
        GOOD + '[devices.second]\nline = "park"\ndriver = "bthome"\nsettings = { address = "f0cafe000001" }\n',
        ": devices.second.line: park-1 already has the address F0CAFE000001 on park",
    ),
    "two lines on one port": (
        GOOD + '[lines.second]\nkind = "serial"\nport = "/dev/pms"\n',
        ": lines.second.port: line pms has /dev/pms already",
    ),
    "two lines on one adapter": (
        GOOD + '[lines.second]\nkind = "ble"\n', ": lines.second.adapter: line park has hci0 already",
    ),
    "node on a line that is none": (changed('line = "nodes"', 'line = "pms"'), ": nodes.air-1.line: 'pms' is no"),
    "node with the gateway's name": (changed("[nodes.air-1]", "[nodes.gw-corner]"), ": nodes.gw-corner: is the"),
    "node with a topic's name": (changed("[nodes.air-1]", "[nodes.cmd]"), ": nodes.cmd: cmd, result, status, probe"),
    "gateway with a topic's name": (changed('"gw-corner"', '"status"'), ": gateway.name: cmd, result, status, probe"),
    "index of nothing": (changed('["roadside-air"]', "[]"), ": air_index.air.inputs: name at least one device"),
    "index of a stranger": (
        changed('["roadside-air"]', '["roadside"]'), ": air_index.air.inputs: there is no device 'roadside'",
    ),
    "index of a stranger's device": (
        changed('["roadside-air"]', '["air-9/roadside-air"]'), ": air_index.air.inputs: there is no device 'air-9/",
    ),
    "index of a whole node": (
        changed('["roadside-air"]', '["air-1/"]'), ": air_index.air.inputs: there is no device 'air-1/'",
    ),
    "index with a device's name": (
        changed("[air_index.air]", "[air_index.park-1]"), ": air_index.park-1: a device has this name",
    ),
    "authority that nothing uses": (
        changed('brokers = ["mqtt://127.0.0.1:1883"]', 'brokers = ["mqtt://127.0.0.1:1883"]\nca_file = "ca.pem"'),
        ": uplink.ca_file: is used with mqtts:// only",
    ),
    "key without its certificate": (
        changed('brokers = ["mqtt://127.0.0.1:1883"]', 'brokers = ["mqtts://broker"]\nkey_file = "gw.key"'),
        ": uplink.key_file: needs cert_file beside it",
    ),
    "state in a home": (
        changed('city = "timisoara"', 'city = "timisoara"\nstate_dir = "~/bega"'),
        ": gateway.state_dir: write the whole path, from / on, not '~/bega'",
    ),
    "state nowhere": (
        changed('city = "timisoara"', 'city = "timisoara"\nstate_dir = ""'), ": gateway.state_dir: write the whole",
    ),
    "state somewhere": (
        changed('city = "timisoara"', 'city = "timisoara"\nstate_dir = "bega"'), ": gateway.state_dir: write the whole",
    ),
    "one broker twice": (
        changed('["mqtt://127.0.0.1:1883"]', '["mqtt://a", "mqtt://a"]'),
        ": uplink.brokers[1]: 'mqtt://a' is in the list already",
    ),
    "counters where the feed is": (
        GOOD + '[metrics]\nlisten = "127.0.0.1:8080"\n', ": metrics.listen: feed.listen has 127.0.0.1:8080 already",
    ),
    "counters everywhere on the feed's port": (
        GOOD + '[metrics]\nlisten = "0.0.0.0:8080"\n', ": metrics.listen: feed.listen has 127.0.0.1:8080 already",
    ),
    "no TOML": (changed('kind = "ble"', "kind = ble"), ": no TOML: Invalid value; text stands in quotes"),
    "address without quotes": (
        changed('port = "/dev/pms"', "port = 10.0.0.1"),
        ": no TOML: Expected newline or end of document after a statement; text stands in quotes, and a line has one",
    ),
    "quote that is not closed": (
        changed('port = "/dev/pms"', 'port = "/dev/pms'),
        ": no TOML: Illegal character '\\n'; a text lacks the quote at its end",
    ),
    "the same table twice": (GOOD + "[gateway]\n", ": no TOML: Cannot declare ('gateway',) twice"),
    "end in the middle": ('[gateway]\nname = """gw', ": no TOML: "),
    "number without end": ("a = " + "9" * 5000, ": no TOML: "),
    "nest without end": ("a = " + "[" * 50_000, ": no TOML: "),
}  # fmt: skip


NO_LINE = {"missing table", "rows that are none", "table that is none", "device name with a point"}
NO_LINE |= {"end in the middle", "number without end", "nest without end"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_with_its_place(path, mistake):
    text, said = MISTAKES[mistake]
    (found,) = problems(path, text)
    number, _, rest = found.removeprefix(":").partition(":")
    assert (": " + rest.strip()).startswith(said.rstrip()) or found.startswith(said)
    if not number.isdigit():
        assert mistake in NO_LINE, "the place is in the file, and its line is not told"
        return
    place = said.split(": ")[1]
    line = text.splitlines()[int(number) - 1]
    if said.endswith("is missing") or mistake in ("no kind", "two lines on one adapter"):
        assert line == f"[{'.'.join(place.split('.')[:2])}]", "where the key should stand"
    elif not said.startswith(": no TOML"):
        assert place.split(".")[-1].partition("[")[0] in line


ELEVEN_MISTAKES = """\
[gateway]
name = "status"
city = "timisoara"
state_dir = "~/bega"
commit_window = 1

[uplink]
brokers = ["tcp://127.0.0.1"]

[lines.hall]
kind = "modbus-tcp"
host = "10.0.0.1:502"

[lines.pms]
kind = "serial"
port = 5

[lines.park]
kind = "zigbee"

[devices.a]
line = "hall"
driver = "modbus_meter"
every_s = "10"
settings = { profile = "sdm630" }

[devices.b]
line = "hall"
driver = "modbus_meter"
settings = { profile = "sdm603", address = 2 }

[devices.c]
line = "hal"
driver = "modbus_meter"
settings = { profile = "sdm630", address = 2 }

[devices.d]
line = "pms"
driver = "pms5003"

[devices.e]
line = "park"
driver = "bthome"
settings = { address = "F0:CA:FE:00:00:01" }

[air_index.air]
inputs = ["d"]
"""


def test_eleven_mistakes_of_all_kinds_are_eleven_lines_and_none_is_invented(path):
    assert [line.partition(": ")[2].partition(": ")[0] for line in problems(path, ELEVEN_MISTAKES)] == [
        "gateway.name",
        "gateway.state_dir",
        "gateway.commit_window",
        "uplink.brokers[0]",
        "lines.hall.host",
        "lines.pms.port",
        "lines.park.kind",
        "devices.a.every_s",
        "devices.a.settings",
        "devices.b.settings",
        "devices.c.line",
    ]


def test_two_devices_without_an_address_do_not_have_the_same_one(path):
    text = GOOD + '[lines.hall]\nkind = "modbus-tcp"\nhost = "h"\n'
    for name in "ab":
        text += f'[devices.{name}]\nline = "hall"\ndriver = "modbus_meter"\nsettings = {{ profile = "sdm630" }}\n'
    assert [line.partition(": ")[2].partition(",")[0] for line in problems(path, text)] == [
        "devices.a.settings: address must be a whole number from 1 to 247",
        "devices.b.settings: address must be a whole number from 1 to 247",
    ]


@pytest.mark.parametrize("host", ["", "127.0.0.1:15020", "127.0.0.1 ", "http://meter", "[::1]", "a..b", "meter/1"])
def test_host_that_cannot_be_is_refused(path, host):
    text = GOOD + f'[lines.hall]\nkind = "modbus-tcp"\nhost = "{host}"\n'
    (found,) = problems(path, text)
    assert found.endswith(f"lines.hall.host: write a name or an address and nothing else, not {host!r}")


@pytest.mark.parametrize("host", ["10.0.0.1", "meter-1.example.", "not_there", "::1", "fe80::1%eth0"])
def test_host_that_may_be_is_taken(path, host):
    assert problems(path, GOOD + f'[lines.hall]\nkind = "modbus-tcp"\nhost = "{host}"\n') == []


def test_a_file_that_an_editor_marked_as_utf_8_is_read(path):
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path).gateway.name == "gw-corner"


def test_check_names_a_file_that_is_not_there_and_run_does_without(path, tmp_path):
    (tmp_path / "ca.pem").write_text("")
    lines = f'brokers = ["mqtts://broker"]\nca_file = "{tmp_path}/ca.pem"\ncert_file = "{tmp_path}/gw.pem"'
    path.write_text(changed('brokers = ["mqtt://127.0.0.1:1883"]', lines))
    assert check(path)[1] == [f"{path}:8: uplink.cert_file: there is no file {tmp_path}/gw.pem"]
    assert examine(path)[1] == []


def test_a_number_on_the_command_line_is_a_text_where_the_key_wants_one(path):
    path.write_text(GOOD)
    given = ["gateway.name=12345", "devices.roadside-air.label=7", "devices.roadside-air.every_s=7"]
    config = load(path, parse_assignments(given))
    assert config.gateway.name == "12345"
    assert config.devices["roadside-air"].label == "7"
    assert config.devices["roadside-air"].every_s == 7
    assert problems(path, changed('"gw-corner"', "12345")), "a file can say which it means"


def test_lists_can_be_laid_over_too(path):
    path.write_text(GOOD)
    given = ['uplink.brokers=["mqtt://a","mqtts://b"]', 'air_index.air.inputs=["roadside-air", "air-1/pms"]']
    config = load(path, parse_assignments(given))
    assert config.uplink.brokers == ["mqtt://a", "mqtts://b"]
    assert config.edge["air_index"]["air"].inputs == ["roadside-air", "air-1/pms"]


def test_all_mistakes_are_told_at_once(path):
    text = changed('name = "gw-corner"', 'nmae = "gw-corner"').replace('kind = "ble"', "kind = 1")
    text = text.replace('"personal"', '"nobody"')
    assert sorted(line.split(": ")[1] for line in problems(path, text)) == [
        "gateway.name",
        "gateway.nmae",
        "lines.park.kind",
        "nodes.air-1.audience",
    ]


@pytest.mark.parametrize(
    "address",
    [
        "", "mqtt://", "mqtt://:1883", "mqtt://h:99999", "mqtt://h:65536", "mqtt://h:", "mqtt://h:x", "mqtt://h/x",
        "mqtt://user@h:1883", "mqtt://user:word@h:1883", "mqtt://h?x=1", "mqtt://a..b:1883", "mqtt://" + 64 * "a",
        "http://h:80", "h:1883", "mqtt://h:1883 ", "mqtt://h:١٨٨٣", "mqtt://h\n:1883", "MQTT://h:1883",
    ],
)  # fmt: skip
def test_broker_that_cannot_be_is_refused_before_anything_starts(path, address):
    path.write_text(GOOD)
    config, found = examine(path, {"uplink": {"brokers": address}})
    assert config is None
    assert found[0].startswith(f"{path}:6: uplink.brokers[0]: write mqtt://host:port")
    assert "user:word" not in found[0]
    assert found[0].isprintable()


@pytest.mark.parametrize("listen", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:65536", "h:99999", "a b:1", "::1:80"])
def test_feed_address_that_cannot_be_is_refused(path, listen):
    path.write_text(GOOD)
    _, found = examine(path, {"feed": {"listen": listen}})
    assert found == [f"{path}:9: feed.listen: write host:port, not {listen!r}"]


def test_a_file_that_cannot_be_read_is_a_sentence(path):
    assert examine(path)[1] == [f"{path}: cannot be read: No such file or directory"]
    path.mkdir()
    assert examine(path)[1] == [f"{path}: cannot be read: Is a directory"]
    path.rmdir()
    path.write_bytes(b"[gateway]\nname = '\xff'")
    assert examine(path)[1] == [f"{path}: is no text in UTF-8: invalid start byte at byte 18"]


def test_a_key_is_never_repeated(path):
    secret = "231d39c1d7cc1ab1aee224cd096db932"
    for settings_ in (f'"{secret}"', f'{{ address = "F0:CA:FE:00:00:01", key = "{secret}0" }}', f'["{secret}"]'):
        found = problems(path, changed('{ address = "F0:CA:FE:00:00:01" }', settings_))
        assert found and secret not in "".join(found)


def test_a_long_value_is_cut(path):
    (found,) = problems(path, changed('"gw-corner"', '"' + 5000 * "g" + '"'))
    assert len(found) < 250


def test_load_raises_with_every_line(path):
    path.write_text(changed('name = "gw-corner"', "").replace('city = "timisoara"', ""))
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert sorted(str(refused.value).splitlines()) == [
        f"{path}:1: gateway.city: is missing",
        f"{path}:1: gateway.name: is missing",
    ]


# ------------------------------------------------------------------ whatever TOML can say


PLAIN = (
    st.integers(-(10**20), 10**20)
    | st.floats()
    | st.booleans()
    | st.text(max_size=8)
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.sampled_from(["", "serial", "ble", "mqtt", "pms", "pms5003", "bthome", "modbus_meter", "sdm630", 10**400])
)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def places(tables: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    here = [(*above, key) for key in tables]
    return here + list(
        itertools.chain.from_iterable(
            places(value, (*above, key)) for key, value in tables.items() if isinstance(value, dict)
        )
    )


TABLES = tomllib.loads(CORNER.read_text(encoding="utf-8"))
PLACES = places(TABLES)
DEVICES = [place for place in PLACES if place[0] == "devices" and len(place) >= 2]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_value_in_any_place_is_good_or_a_sentence(data, tmp_path_factory):
    tables = copy.deepcopy(TABLES)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(PLACES) | st.sampled_from(DEVICES))
        key = data.draw(st.sampled_from([place[-1], "address", "profile", "key", "every_s"]) | st.text(max_size=5))
        above = tables
        for part in place[:-1]:
            above = above.get(part) if isinstance(above, dict) else None
        if isinstance(above, dict):
            above[key] = data.draw(ANYTHING)
    # Values go in as what the TOML reader gives; --set lays them over in just this way.
    path = tmp_path_factory.mktemp("any") / "gateway.toml"
    path.write_text("")
    config, found = examine(path, tables)
    assert (config is None) == bool(found)
    assert all(line.isprintable() and re.match(rf"{re.escape(str(path))}(:\d+)?: ", line) for line in found)


@settings(deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_sentence(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "gateway.toml"
    path.write_bytes(text.encode("utf-8"))
    config, found = examine(path)
    assert config is None
    assert all(line.isprintable() for line in found)


# ------------------------------------------------------------------ who may see what


def test_audience_is_what_the_file_says_and_operator_for_all_else(path):
    path.write_text(GOOD + "\n" + '[air_index.mixed]\ninputs = ["roadside-air", "air-1/pms", "park-1"]\n')
    config = load(path)
    assert config.audience_of("gw-corner", "roadside-air") == "public"
    assert config.audience_of("gw-corner", "park-1") == "operator"
    assert config.audience_of("gw-corner", "nothing") == "operator"
    assert config.audience_of("air-1", "anything") == "personal"
    assert config.audience_of("gw-corner", "air") == "public"
    assert config.audience_of("gw-corner", "mixed") == "personal", "the strictest of its inputs"


@pytest.mark.parametrize("one", ["public", "operator", "personal"])
@pytest.mark.parametrize("other", ["public", "operator", "personal"])
def test_an_index_has_the_strictest_audience_of_its_inputs(path, one, other):
    """From the index of a street and a household the household's air could be worked out."""
    path.write_text(
        changed('audience = "personal"', f'audience = "{other}"  # the node')
        .replace('audience = "public"\n', f'audience = "{one}"\n')
        .replace('["roadside-air"]', '["roadside-air", "air-1/pms"]')
    )
    strictest = "personal" if "personal" in (one, other) else "operator" if "operator" in (one, other) else "public"
    assert load(path).audience_of("gw-corner", "air") == strictest


def test_a_source_that_the_file_does_not_know_is_nobodys_public_device(path):
    """A node that was taken out of the file may have called its sensor as the gateway calls one of its own."""
    path.write_text(GOOD.replace('audience = "public"', 'audience = "public"\nlabel = "Piața Victoriei"'))
    config = load(path)
    for device in ("roadside-air", "air", "park-1"):
        assert config.audience_of("air-9", device) == "operator"
        assert config.label_of("air-9", device) == ""
    assert config.label_of("gw-corner", "roadside-air") == "Piața Victoriei"


def test_a_households_meter_is_personal_unless_it_is_said_otherwise(tmp_path):
    path = tmp_path / "home.toml"
    text = '[gateway]\nname = "gw"\ncity = "t"\n[uplink]\nbrokers = ["mqtt://localhost"]\n'
    for name, driver, audience in (
        ("p1", "dsmr_p1", ""), ("sml", "sml_meter", ""), ("head", "iec62056_meter", ""),
        ("hall", "dsmr_p1", 'audience = "public"\n'), ("dust", "pms5003", ""),
    ):  # fmt: skip
        text += f'[lines.{name}]\nkind = "serial"\nport = "/dev/{name}"\n'
        text += f'[devices.{name}]\nline = "{name}"\ndriver = "{driver}"\n{audience}'
    path.write_text(text)
    config, problems = examine(path)
    assert config and not problems
    said = {name: config.audience_of("gw", name) for name in config.devices}
    assert said == {"p1": "personal", "sml": "personal", "head": "personal", "hall": "public", "dust": "operator"}
