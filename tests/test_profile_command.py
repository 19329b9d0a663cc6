"""`bega profile`: what is wrong in a register map is said with its line, and a display has the last word."""

import itertools
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from bega.devices import profile_names
from bega.profile import compare, examine, main
from bega_protocols.devices.modbus_meter.profile import read_profile

FOLDER = Path(str(files("bega_protocols").joinpath("profiles")))
DOCS = Path(__file__).parent.parent / "docs" / "profiles.md"
OWN = """part = "boiler"
maker = "Some maker"
document = "manual 7, p. 12"
function = 3
max_registers = 60
registers = [
  { address = 10, type = "uint16", quantity = "temperature", scale = -1 },  # {"a brace"}
  { address = 12, type = "float32", quantity = "active_power", exponent = 0 },
]
[identify]
fits = [
  { address = 1, type = "uint16", is = [77] },
]
"""
PAPER = """printed_minus_wire = 40001
function = 3
registers = [
  { printed = 40011, hex = "0301", shows = "76.9 °C", is = "temperature" },
  { printed = 40013, hex = "4576 8000", shows = "3.94 kW", is = "active_power" },
]
"""


def own(tmp_path, text=OWN, paper=None):
    file = tmp_path / "boiler.toml"
    file.write_text(text)
    if paper:
        (tmp_path / "boiler.sim.toml").write_text(paper)
    return str(file)


def text_of(name):
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", profile_names())
def test_profile_that_bega_brings_has_no_problem_and_no_doubt(name):
    problems, warnings = examine(text_of(name))
    assert not problems
    assert not [warning for warning in warnings if "read along" not in warning]


@pytest.mark.parametrize("name", profile_names())
def test_profile_that_bega_brings_reads_as_the_display_shows(name, capsys):
    assert main(["check", str(FOLDER / f"{name}.toml")]) == 0
    assert "reads as" in capsys.readouterr().out


@pytest.mark.parametrize("name", profile_names())
def test_no_two_addresses_of_a_profile_can_be_swapped_unnoticed(name):
    table = tomllib.loads(text_of(name))
    paper = tomllib.loads((FOLDER / f"{name}.sim.toml").read_text(encoding="utf-8"))
    rows = table["registers"]
    for first, second in itertools.pairwise(rows):
        if first.get("type") != second.get("type"):
            continue
        first["address"], second["address"] = second["address"], first["address"]
        assert len(compare(read_profile(table), paper)) >= 2
        first["address"], second["address"] = second["address"], first["address"]
    assert compare(read_profile(table), paper) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quantity = \"temperature\"", "quantity = \"temprature\"", "line 7: profile: row 1: there is no quantity"),
        ("exponent = 0", "exponent = 0.5", "line 8: profile: row 2 (active_power): exponent"),
        (", exponent = 0", "", "line 8: profile: row 2 (active_power): exponent"),
        ("address = 12", "address = 10", "line 8: profile: row 2: active_power overlaps temperature"),
        ("max_registers = 60", "max_registers = 0", "line 5: profile: max_registers"),
        ("function = 3", "function = 3\nspeed = 9600", "line 5: profile: unknown key speed"),
        ('document = "manual 7, p. 12"', "", "profile: document must be a text"),
        ("is = [77]", "is = 77", "line 12: profile: identify.fits 1"),
        ("[identify]", "[[settings]]\nname = 'x'\n[identify]", "line 10: profile: settings 1 (x): type"),
        ('part = "boiler"', "part = boiler", "line 1"),
    ],
)  # fmt: skip
def test_problem_is_said_with_its_line(tmp_path, capsys, old, new, said):
    assert old in OWN
    assert main(["check", own(tmp_path, OWN.replace(old, new, 1))]) == 1
    assert said in capsys.readouterr().out


def test_every_problem_is_said_at_once(tmp_path, capsys):
    text = OWN.replace("type = ", "typ = ").replace("max_registers", "max_register").replace("maker", "make")
    assert main(["check", own(tmp_path, text)]) == 1
    said = capsys.readouterr().out
    assert said.count("problem: ") >= 7
    for place in ("line 2:", "line 5:", "line 7:", "line 8:", "line 12:"):
        assert place in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("manual 7, p. 12", "manual", "line 3: profile: document names no edition"),
        (", scale = -1", "", "line 7: profile: row 1 (temperature): a whole number without scale"),
        ("function = 3", "function = 3\neven = true", "line 8: profile: row 1 (temperature): even = true"),
        ("exponent = 0", "exponent = -9", "line 8: profile: row 2 (active_power): exponent -9"),
        ("[identify]\nfits = [\n  { address = 1, type = \"uint16\", is = [77] },\n]\n", "", "`bega gateway scan`"),
    ],
)  # fmt: skip
def test_doubt_is_said_and_is_no_problem(tmp_path, capsys, old, new, said):
    assert old in OWN
    assert main(["check", own(tmp_path, OWN.replace(old, new, 1))]) == 0
    said_here = capsys.readouterr().out
    assert "warning: " in said_here
    assert said in said_here


def test_what_will_be_asked_is_shown(tmp_path, capsys):
    assert main(["check", own(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "each time: 2 questions, 2 numbers" in said
    assert "function 3, registers 0x000C to 0x000D: 2" in said
    assert "Not compared with a display" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("76.9", "77.9", "reads 76.9 °C, the display shows 77.9 °C"),
        ("3.94 kW", "3.94 W", "reads 3944 W, the display shows 3.94 W"),
        ("40011", "40012", "the profile reads it at 10 by function 3, here it is 11 by 3"),
        ("0301", "0301 0000", "the profile takes 1 registers, here are 2"),
        ('is = "temperature"', 'is = "humidity"', "the profile has no such row"),
        ("4576 8000", "7fc0 0000", "gives no reading, the display shows 3.94 kW"),
        ("76.9 °C", "---", "reads 76.9, the display shows nothing"),
        ("hex", "hx", "printed, hex and shows are wanted"),
        ("registers = [", "registers = 3\nx = [", "registers must list tables"),
    ],
)
def test_display_has_the_last_word(tmp_path, capsys, old, new, said):
    assert main(["check", own(tmp_path, OWN, PAPER)]) == 0
    assert main(["check", own(tmp_path, OWN, PAPER.replace(old, new, 1))]) == 1
    assert said in capsys.readouterr().out


def test_list_and_show_name_what_bega_brings(capsys):
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == profile_names()
    for name in profile_names():
        assert main(["show", name]) == 0
        assert f"The file: {FOLDER / name}.toml" in capsys.readouterr().out
    assert main(["show", "sdm631"]) == 1
    assert "there is no profile 'sdm631'" in capsys.readouterr().err
    assert main(["check", "nowhere.toml"]) == 1


def test_profile_in_the_docs_can_be_used_as_it_stands(tmp_path, capsys):
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert main(["check", own(tmp_path, blocks[0], blocks[1])]) == 0
    said = capsys.readouterr().out
    assert "warning" not in said
    assert "reads as" in said
