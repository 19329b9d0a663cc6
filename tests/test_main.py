"""The command `bega`: imports only what was asked for, and answers every mistake with what to do."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bega import __main__ as command
from bega import __version__

BEGA = [sys.executable, "-m", "bega"]


def bega(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BEGA, *arguments], capture_output=True, text=True, timeout=30, **options)


def with_command(monkeypatch, value: str) -> None:
    """Let `bega made-up` be what `value` names."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [EntryPoint("made-up", value, group)])


def test_version_is_that_of_the_package():
    told = bega("--version")
    assert (told.returncode, told.stdout) == (0, f"bega {__version__}\n")


def test_help_names_every_command_with_its_purpose():
    told = bega("--help")
    assert told.returncode == 0
    for name in ("decode", "gateway", "kiosk", "sim", "demo"):
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in told.stdout.splitlines()), name


def test_no_command_is_answered_with_the_commands():
    told = bega()
    assert told.returncode == 2 and "usage: bega COMMAND" in told.stdout


def test_unknown_command_is_named_with_those_that_are():
    told = bega("gatway")
    assert told.returncode == 2
    assert "there is no command 'gatway'" in told.stderr and "  gateway " in told.stderr
    assert told.stdout == ""


def test_only_the_command_that_was_asked_for_is_imported():
    code = "import sys; from bega.__main__ import main; main(['decode', '--list']); print('msgspec' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.stdout.splitlines()[-1] == "False"


def test_commands_of_our_own_are_found_without_reading_every_package():
    assert command._our_commands() == command._commands(), "nobody else brings one here"
    code = "import sys; from bega.__main__ import main; main(['decode', '--list'])"
    code += "; print('importlib.metadata' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.stdout.splitlines()[-1] == "False"


def test_entry_points_are_read_as_their_specification_says(tmp_path):
    written = "[console_scripts]\nx = y:z\n\n[bega.commands]\na=b.c:d [tech,sim]\nplain = e:f\n\n[other]\ng = h:i\n"
    (tmp_path / "entry_points.txt").write_text(written)
    found = command._read_commands(str(tmp_path / "entry_points.txt"))
    assert found == {"a": ("b.c", "d", "tech"), "plain": ("e", "f", "")}


def test_missing_extra_is_answered_with_how_to_install_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "made_up_command.py").write_text("import no_such_library\ndef main(argv): return 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with_command(monkeypatch, "made_up_command:main [kiosk]")
    assert command.main(["made-up"]) == 1
    said = capsys.readouterr().err
    assert "needs no_such_library, which is not installed" in said
    assert f"in the checkout of Bega: {sys.executable} -m pip install '.[kiosk]'" in said


def test_missing_extra_that_shows_only_while_running_is_answered_too(monkeypatch, capsys, tmp_path):
    """`bega gateway run` imports its MQTT library late: `check` must not need it."""
    (tmp_path / "made_up_late.py").write_text("def main(argv):\n    import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with_command(monkeypatch, "made_up_late:main [gateway]")
    assert command.main(["made-up"]) == 1
    assert "pip install '.[gateway]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo", "bench"])
def test_what_starts_a_gateway_says_at_once_that_none_is_installed(monkeypatch, capsys, name):
    monkeypatch.setattr("bega.extras._is_installed", lambda package: package != "pymodbus")
    assert command.main([name]) == 1
    assert capsys.readouterr().err == (
        f"bega {name}: the {name} needs what is not installed; "
        f"in the checkout of Bega: {sys.executable} -m pip install '.[gateway]'\n"
    )


@pytest.mark.parametrize("value", ["bega_no_such_part:main [gateway]", "no_such_library:main"])
def test_a_module_of_our_own_that_is_missing_is_a_defect_and_not_hidden(monkeypatch, value):
    with_command(monkeypatch, value)
    with pytest.raises(ModuleNotFoundError):
        command.main(["made-up"])


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_commands_own(monkeypatch, tmp_path, code):
    (tmp_path / f"made_up_{code}.py").write_text(f"def main(argv): return {code} if argv == ['a', 'b'] else 9\n")
    monkeypatch.syspath_prepend(tmp_path)
    with_command(monkeypatch, f"made_up_{code}:main")
    assert command.main(["made-up", "a", "b"]) == code


def test_control_c_is_no_traceback(monkeypatch, tmp_path):
    (tmp_path / "made_up_stop.py").write_text("def main(argv): raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    with_command(monkeypatch, "made_up_stop:main")
    assert command.main(["made-up"]) == 130


@pytest.mark.parametrize("frames", [1, 5000], ids=["little, flushed at the end", "much, written on the way"])
def test_a_reader_that_goes_away_is_no_error(frames, tmp_path):
    """`bega decode ... | head -1` must end quietly, also where all the output fits into one buffer."""
    from bega_protocols.devices.pms5003.sim import Sim

    capture = tmp_path / "capture.bin"
    sim = Sim({}, seed=1)
    capture.write_bytes(b"".join(sim.tick(1000 * second) for second in range(frames)))
    read, write = os.pipe()
    child = subprocess.Popen([*BEGA, "decode", "pms5003", capture], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(read)
    os.close(write)
    assert child.stderr.read() == ""
    assert child.wait(30) == 0


def test_standard_output_that_is_closed_is_no_traceback():
    told = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *BEGA, "decode", "--list"], capture_output=True, timeout=30
    )
    assert (told.returncode, told.stderr) == (0, b"")


def test_output_that_could_not_be_written_whole_is_an_error():
    with Path("/dev/full").open("w") as full:
        told = subprocess.run([*BEGA, "decode", "--list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert told.returncode == 1
    assert told.stderr == "bega decode: No space left on device; what was written is not whole\n"


@pytest.mark.parametrize("name", [["demo"], ["sim", "corner"], ["sim", "ble"], ["sim", "board"]], ids=" ".join)
def test_ready_file_that_cannot_be_written_is_named_before_anything_starts(name):
    told = bega(*name, "--ready-file", "/no/such/ready")
    assert told.returncode == 1
    assert (
        told.stderr
        == f"bega {' '.join(name)}: --ready-file /no/such/ready cannot be written (No such file or directory)\n"
    )
    assert told.stdout == ""
