"""The bench book: a memory that is in nobody's way."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bega_firmware import command, nodes_list
from bega_firmware.book import FILE, FLASHED, LABELLED, PROVISIONED, TESTED, WIPED, Event, note, port_name, read
from bega_protocols.errors import ConfigError

NOW_MS = 1_795_344_000_000
MAC = "24:0a:c4:00:00:07"


def at(seconds):
    return lambda: NOW_MS + seconds * 1000


def events(folder):
    found, complaint = read(folder)
    assert complaint == ""
    return found


def test_book_gives_back_what_was_noted(tmp_path):
    assert note(tmp_path, FLASHED, True, "2048 kB", clock=at(0), port="/dev/ttyUSB0", mac=MAC, chip="esp32") == ""
    assert note(tmp_path, TESTED, None, "Wi-Fi not tried", clock=at(1), node="air-7", firmware="0.1.0") == ""
    assert events(tmp_path) == [
        Event(NOW_MS, FLASHED, True, "2048 kB", mac=MAC, chip="esp32", port="ttyUSB0"),
        Event(NOW_MS + 1000, TESTED, None, "Wi-Fi not tried", node="air-7", firmware="0.1.0"),
    ]


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100, "half", "another table"])
def test_a_damaged_book_is_set_aside_and_said_and_the_work_noted(tmp_path, damage):
    for second in range(40):
        note(tmp_path, FLASHED, True, "x" * 200, clock=at(second))
    book = tmp_path / FILE
    if damage == "half":
        content = book.read_bytes()
        book.write_bytes(content[:4096] + bytes(4096) + content[8192:])
    elif damage == "another table":
        book.unlink()
        with sqlite3.connect(book) as strange:
            strange.execute("create table events (something)")
            strange.execute("pragma user_version = 1")
    else:
        book.write_bytes(damage)
    said = note(tmp_path, TESTED, True, "after it", clock=at(50))
    assert [event.words for event in events(tmp_path)] == ["after it"]
    if damage:  # an empty file is a book that was never begun
        assert "was damaged" in said and len(list(tmp_path.glob(f"{FILE}.damaged-*"))) == 1


def test_a_book_of_a_later_version_is_left_as_it_is(tmp_path):
    note(tmp_path, FLASHED, True, "", clock=at(0))
    with sqlite3.connect(tmp_path / FILE) as book:
        book.execute("pragma user_version = 9")
    before = (tmp_path / FILE).read_bytes()
    assert "a later Bega" in note(tmp_path, TESTED, True, "")
    with pytest.raises(ConfigError, match="a later Bega"):
        read(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_folder_that_is_gone_is_said_and_stops_nothing(tmp_path):
    assert "not noted" in note(tmp_path / "gone", FLASHED, True, "")


def test_two_commands_at_once_lose_nothing(tmp_path):
    script = (
        "import sys; from pathlib import Path; from bega_firmware.book import note\n"
        "for n in range(15): assert note(Path(sys.argv[1]), 'flashed', True, f'{sys.argv[2]} {n}') == ''"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, tmp_path, name]) for name in "ab"]
    assert [process.wait(30) for process in both] == [0, 0]
    assert {event.words for event in events(tmp_path)} == {f"{name} {n}" for name in "ab" for n in range(15)}


@pytest.mark.parametrize(
    ("port", "name"),
    [
        ("/dev/ttyUSB0", "ttyUSB0"),
        ("/dev/serial/by-id/usb-Silicon_Labs_CP2102-if00", "usb-Silicon_Labs_CP2102-if00"),
        ("/dev/pts/7", "pts/7"),
        ("rfc2217://127.0.0.1:4000?ign_set_control", "127.0.0.1:4000"),
        ("socket://user:word@bench.local:4000", "bench.local:4000"),
        ("", ""),
    ],
)
def test_a_port_is_called_as_on_the_bench(port, name):
    assert port_name(port) == name


def row(*story, **wanted):
    found = nodes_list.rows([Event(NOW_MS + n, **event) for n, event in enumerate(story)])
    return found[0]


def done(what, passed=True, words="", **facts):
    return {"what": what, "passed": passed, "words": words, **facts}


def test_a_board_is_one_row_from_its_first_flash_to_its_label():
    found = row(
        done(FLASHED, mac=MAC, interpreter="1.29.0"),
        done(PROVISIONED, mac=MAC, node="air-7", site="timisoara"),
        done(TESTED, words="record seen", node="air-7"),
        done(LABELLED, node="air-7"),
    )
    assert (found.node, found.mac, found.interpreter, found.site) == ("air-7", MAC, "1.29.0", "timisoara")
    assert (found.state, found.words, found.flashed_ms) == ("ok", "record seen", NOW_MS)


@pytest.mark.parametrize("mac", [MAC, ""])  # `wipe` does not ask for it
def test_a_board_that_was_wiped_and_named_anew_is_another_node(mac):
    story = [
        done(PROVISIONED, mac=MAC, node="air-7"),
        done(WIPED, mac=mac, node="air-7"),
        done(FLASHED, mac=MAC),
        done(PROVISIONED, mac=MAC, node="air-8"),
    ]
    found = nodes_list.rows([Event(NOW_MS + n, **event) for n, event in enumerate(story)])
    assert [(row.node, row.state) for row in found] == [("air-8", "open"), ("air-7", "wiped")]


@pytest.mark.parametrize(
    ("story", "state", "words"),
    [
        ([done(FLASHED)], "open", "not tested"),
        ([done(TESTED, words="all"), done(FLASHED)], "open", "not tested since it was last flashed"),
        ([done(TESTED, False, "PM sensor silent")], "wrong", "PM sensor silent"),
        ([done(TESTED, False, "PM sensor silent"), done(TESTED, words="all")], "ok", "all"),
        ([done(FLASHED, False, "unplugged"), done(TESTED, words="all")], "ok", "all"),
        ([done(TESTED), done(FLASHED, False, "unplugged")], "wrong", "unplugged"),
        ([done(TESTED, None, "not on site")], "open", "not on site"),
    ],
)
def test_a_row_says_how_the_board_stands(story, state, words):
    found = row(*[event | {"node": "air-7"} for event in story])
    assert (found.state, found.words) == (state, words)


def test_problems_come_first_where_that_is_asked():
    story = [
        Event(NOW_MS, TESTED, False, "", node="bad"),
        Event(NOW_MS + 1, FLASHED, True, "", node="new"),
        Event(NOW_MS + 2, TESTED, True, "", node="good"),
    ]
    assert [one.node for one in nodes_list.rows(story)] == ["good", "new", "bad"]
    assert [one.node for one in nodes_list.rows(story, problems_first=True)] == ["bad", "new", "good"]


def listed(capsys, *arguments):
    assert command.main(["list", *arguments]) == 0
    return capsys.readouterr().out


def test_list_is_a_table_a_sheet_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    assert "nothing was done" in listed(capsys)
    note(tmp_path, TESTED, False, "=silent, on UART 1", node="air-7", mac=MAC)
    assert listed(capsys).splitlines()[1].startswith("!  air-7")
    assert '\nair-7,,wrong,"\'=silent, on UART 1",,,' in listed(capsys, "--csv")  # no formula for a spreadsheet
    assert json.loads(listed(capsys, "--json"))[0]["words"] == "=silent, on UART 1"
    assert json.loads(listed(capsys, "--events", "--json"))[0]["passed"] is False
    assert Path(tmp_path / FILE).exists()
