"""Tags and priorities in the gateway's file: what is taken, and where a mistake is said to be."""

from pathlib import Path

import pytest

from bega_gateway.config import examine, load

EXAMPLE = Path(__file__).parent.parent / "gateway/examples/tags.toml"


def problems_of(tmp_path: Path, old: str, new: str) -> list[str]:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "gateway.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return [problem.removeprefix(str(path)) for problem in examine(path)[1]]


def line_of(text: str, number: int = 1) -> int:
    """Return where the example has `text` for the `number`th time."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    return [index for index, line in enumerate(lines, start=1) if text in line][number - 1]


def test_example_of_tags_is_good_and_its_tags_reach_the_driver():
    config = load(EXAMPLE)
    boiler = config.devices["boiler"]
    assert boiler.priority == "high"
    assert [tag["address"] for tag in boiler.settings["tags"]] == [0, 1, 16, 256]


@pytest.mark.parametrize(
    ("old", "new", "row", "complaint"),
    [
        ('type = "uint32"', 'type = "uint31"', 4, "tags[3] (active_energy_import): type must be one of"),
        ('part = "return"', 'part = "flow"', 2, "tags[1]: repeats temperature flow; `part` tells two apart"),
        ("exponent = 0 ", "exponent = 99 ", 3, "tags[2] (active_power): exponent must be"),
        ("address = 0x0001", "address = 0x0011", 2, "tags[1]: temperature return overlaps active_power"),
        ('quantity = "active_power"', 'quantity = "power"', 3, "tags[2]: there is no quantity 'power'"),
        (
            'quantity = "active_power"',
            'quantity = "activ_power"',
            3,
            "tags[2]: there is no quantity 'activ_power'; is it active_power",
        ),
    ],
)
def test_mistake_in_a_tag_is_said_at_its_place(tmp_path, old, new, row, complaint):
    found = problems_of(tmp_path, old, new)
    assert len(found) == 1
    assert found[0].startswith(f":{line_of('[[devices.boiler.tags]]', row)}: devices.boiler.{complaint}")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            'priority = "high"',
            'priority = "urgent"',
            "devices.boiler.priority: must be one of high, normal, low, not 'urgent'",
        ),
        ("gap_registers = 16", "gap = 16", "devices.boiler.settings: unknown setting"),
        ("gap_registers = 16", 'profile = "sdm630"', "devices.boiler.settings: give either profile or tags, not both"),
        ("address = 5, ", "", "devices.boiler.settings: address must be"),
    ],
)
def test_mistake_about_the_device_is_said_at_its_place(tmp_path, old, new, complaint):
    assert any(complaint in problem for problem in problems_of(tmp_path, old, new))


def test_all_mistakes_in_tags_and_settings_are_told_at_once(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("address = 5, function = 4", "address = 500, speed = 1").replace("uint32", "uint31")
    text = text.replace("address = 0x0001", "address = -1\nunit = 5").replace("exponent = 0 ", "exponent = 99 ")
    path = tmp_path / "gateway.toml"
    path.write_text(text, encoding="utf-8")
    assert sorted(
        problem.split(": ", 1)[1][len("devices.boiler.") :].split(", not")[0].split("; known")[0]
        for problem in examine(path)[1]
    ) == [
        "settings: address must be a whole number from 1 to 247",
        "settings: unknown setting speed",
        "tags[1] (temperature return): address must be a whole number from 0 to 65535",
        "tags[1] (temperature return): unknown key unit",
        "tags[2] (active_power): exponent must be a whole number from -18 to 18",
        "tags[3] (active_energy_import): type must be one of float32, float64, int16, int32, int64, uint16, "
        "uint32, uint64",
    ]


def test_settings_that_are_for_tags_say_so_where_there_are_none(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(EXAMPLE.read_text(encoding="utf-8").partition("[[devices")[0], encoding="utf-8")
    assert [problem.partition(": ")[2] for problem in examine(path)[1]] == [
        "devices.boiler.settings: function, gap_registers: only with tags, so list the tags of this device"
    ]


def test_priority_is_for_devices_that_share_a_modbus_line(tmp_path):
    path = tmp_path / "gateway.toml"
    sensor = '[lines.pms]\nkind = "serial"\nport = "/dev/ttyS0"\n[devices.air]\nline = "pms"\ndriver = "pms5003"\n'
    path.write_text(EXAMPLE.read_text(encoding="utf-8") + sensor + 'priority = "low"\n', encoding="utf-8")
    assert [problem.partition(": ")[2] for problem in examine(path)[1]] == [
        "devices.air.priority: is for devices that share a Modbus line"
    ]
