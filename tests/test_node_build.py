"""`bega node build`: the same sources give the same bytes, the real MicroPython runs them, and none grows unseen."""

import contextlib
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bega.broker import accepts_mqtt, free_ports
from bega.clock import wall_ms
from bega.devices import device_names
from bega_firmware import bytecode, earlier
from bega_firmware.board import MIB, VFS_START, Board, board_names, read_board
from bega_firmware.build import Built, build, frozen_profiles, show_progress, slot_files
from bega_firmware.bytecode import check_head, compile_source, without_types
from bega_firmware.contents import WAYS, node_devices, node_wires, sources
from bega_firmware.image import make_image, read_image
from bega_firmware.library import library_files, wanted_packages
from bega_firmware.pins import BUS_OF_WIRE, CHIPS, wiring_problems
from bega_protocols.devices.modbus_meter.profile import read_profile
from bega_protocols.errors import ConfigError
from bega_protocols.update import why_not
from tests.node_park import FAST, NODE, GatewayDouble, NodeProcess

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
SHIM = ROOT / "simulators/bega_simulators/board/shim"
SIZES = tomllib.loads((ROOT / "firmware/sizes.toml").read_text(encoding="utf-8"))
AIR = "esp32_devkitc"

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
BROKER = """
per_listener_settings true
user root
listener {plain} 127.0.0.1
allow_anonymous true
listener {secured} 127.0.0.1
require_certificate true
use_identity_as_username true
cafile {identity}/ca.pem
certfile {identity}/broker-1.pem
keyfile {identity}/broker-1.key
"""

needs_micropython = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")


@pytest.fixture(scope="module")
def air_node() -> Built:
    board = read_board(AIR)
    return build(board, [device["driver"] for device in board.devices.values()], ["broker"])


def node(*arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bega", "node", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=60)


SMALL = ("build", "--board", AIR, "--device", "sht4x")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Build a small node into a folder. What was built for one test is there for the next one."""
    kept = tmp_path_factory.mktemp("kept")
    return lambda folder, *more: node(*SMALL, "--reuse", kept, "--out", folder, *more)


def test_same_sources_give_the_same_bytes_wherever_and_whenever(tmp_path):
    """Once in the tree; once in a copy of it with other times, another working folder, another seed of hashes."""
    for package in ("bega", "protocols/bega_protocols", "firmware"):
        shutil.copytree(ROOT / package, tmp_path / "copy" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    copy = os.pathsep.join(str(tmp_path / "copy" / folder) for folder in (".", "protocols", "firmware"))
    here = node(*SMALL, "--out", tmp_path / "one", PYTHONHASHSEED="1")
    elsewhere = {"PYTHONPATH": copy, "PYTHONHASHSEED": "2", "TZ": "Pacific/Auckland", "LC_ALL": "C"}
    there = node(*SMALL, "--out", tmp_path / "two", cwd=tmp_path, **elsewhere)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    for name in ("vfs.bin", "contents.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_list_of_contents_is_true(tmp_path, small):
    outcome = small(tmp_path / "out", "--json")
    facts = json.loads(outcome.stdout)
    assert facts == json.loads((tmp_path / "out/contents.json").read_text())
    image = (tmp_path / "out/vfs.bin").read_bytes()
    assert facts["image"]["sha256"] == hashlib.sha256(image).hexdigest()
    assert (facts["chip"], facts["flash_mb"], facts["devices"]) == ("esp32", 4, ["sht4x"])
    found = read_image(image)
    assert sorted(found) == [entry["path"] for entry in facts["files"]]
    for entry in facts["files"]:
        content = (tmp_path / "out/files" / entry["path"][1:]).read_bytes()
        assert content == found[entry["path"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_image_has_the_format_that_every_littlefs_2_knows(air_node):
    """SPEC.md of littlefs, "superblock": the magic, then the version of the format."""
    magic = air_node.image.index(b"littlefs")
    assert struct.unpack_from("<HH", air_node.image, magic + 12) == (0, 2), "2.0; the minor half comes first"


@needs_micropython
def test_micropython_mounts_the_image_and_loads_its_bytecode(tmp_path, air_node):
    (tmp_path / "image").write_bytes(air_node.image)
    blocks = len(air_node.image) // 4096
    modules = ["bega_protocols.ring", "bega_protocols.timekeeping", "commands", "together"]
    modules += [f"bega_protocols.devices.{device}.driver" for device in air_node.devices]
    outcome = subprocess.run(
        [
            *(MICROPYTHON, "-X", "heapsize=240wk", ROOT / "tests/micropython/image_contents.py"),
            *(tmp_path / "image", str(blocks), *modules),
        ],
        env={"MICROPYPATH": f"{SHIM}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    told = json.loads(outcome.stdout)
    assert told["files"] == {entry["path"]: entry["sha256"] for entry in air_node.facts["files"]}
    assert told["loaded"] == modules


@needs_micropython
@pytest.mark.slow
def test_built_image_and_issued_identity_make_a_node_whose_records_arrive_over_mutual_tls(
    tmp_path, air_node, eventually
):
    """The image and what `bega ca` issues, and nothing else: an ESP32 of four megabytes starts, and is heard."""
    for arguments in (
        ["init", "--name", "City"],
        ["issue", NODE],
        ["issue", "broker-1", "--for", "broker", "--host", "localhost"],
    ):
        command = [sys.executable, "-m", "bega", "ca", *arguments, "--ca", tmp_path / "ca"]
        assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    plain, secured = free_ports(2)
    (tmp_path / "mosquitto.conf").write_text(
        BROKER.format(plain=plain, secured=secured, identity=tmp_path / "ca/identities/broker-1")
    )
    tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
    config = {
        "node": NODE,
        "made_s": wall_ms() // 1000,
        "wifi": {"ssid": "city", "key": ""},
        "broker": {"host": "localhost", "port": secured, "tls": tls},
        "devices": FAST,
    }
    identity = {f"/tls/{path.name}": path.read_bytes() for path in (tmp_path / "ca/identities" / NODE).iterdir()}
    contents = {**air_node.contents, **identity, "/config.json": json.dumps(config).encode()}
    node = NodeProcess(tmp_path, secured)
    flash = bytearray(b"\xff" * (air_node.board.flash_mb * MIB))
    flash[VFS_START:] = make_image(contents, air_node.board.vfs_bytes)
    node.flash.write_bytes(flash)
    with contextlib.ExitStack() as stack:
        broker = subprocess.Popen([MOSQUITTO, "-c", tmp_path / "mosquitto.conf"], stderr=subprocess.DEVNULL)
        stack.callback(broker.wait, 5)
        stack.callback(broker.terminate)
        eventually(lambda: accepts_mqtt("127.0.0.1", plain), "mosquitto accepts connections")
        gateway = GatewayDouble(f"mqtt://127.0.0.1:{plain}")
        stack.callback(gateway.close)
        stack.callback(node.stop)
        node.start("--as-is")
        eventually(lambda: gateway.of("pms") and gateway.of("sht"), "records of both devices")
    identities = gateway.identities()
    assert identities == [(identities[0][0], seq) for seq in range(1, len(identities) + 1)]
    assert "Traceback" not in node.said()


def test_only_what_micropython_starts_by_name_is_source(air_node):
    sources_left = [path for path in air_node.contents if not path.endswith(".mpy")]
    assert sorted(sources_left) == ["/a/facts.json", "/main.py"]
    assert len(air_node.contents["/main.py"]) < 1024, "it is compiled on the chip at each start: keep it tiny"


def test_bytecode_runs_on_every_chip(air_node):
    for path, content in air_node.contents.items():
        if path.endswith(".mpy"):
            check_head(content, path)
    with pytest.raises(ConfigError, match="heads no bytecode"):
        check_head(b"M\x05\x00\x1f", "old.mpy")


def test_native_code_is_refused(monkeypatch):
    native = "import micropython\n@micropython.native\ndef f(x):\n    return x\n"
    with pytest.raises(ConfigError, match=r"fast\.py does not compile"):
        compile_source(native, "fast.py")
    monkeypatch.setattr(bytecode, "OPTIMISE", "-march=xtensawin")
    with pytest.raises(ConfigError, match=r"fast\.py: 4d06.* heads no bytecode"):
        compile_source(native, "fast.py")


def test_source_that_does_not_compile_is_named():
    with pytest.raises(ConfigError, match=r"broken\.py does not compile"):
        compile_source("def f(:\n", "broken.py")


def test_what_only_the_type_checker_reads_is_left_out_and_lines_keep_their_numbers():
    text = "TYPE_CHECKING = False  # why\nif TYPE_CHECKING:\n    from typing import Any\nelse:\n    Any = 1\n"
    assert without_types(text).splitlines()[1] == "if False:"
    assert len(without_types(text).splitlines()) == len(text.splitlines())
    assert b"typing" not in compile_source(text, "t.py")


def test_node_carries_what_it_imports_and_no_simulator(air_node):
    paths = set(air_node.contents)
    assert {"/a/app.mpy", "/a/board.mpy", "/a/lib/bega_protocols/ring.mpy"} <= paths
    assert "/a/lib/bega_protocols/devices/pms5003/driver.mpy" in paths
    assert not [path for path in paths if path.endswith("/sim.mpy") or "mbus" in path or "bthome" in path]


def test_air_node_fits_its_budget(air_node):
    """An air node has the devices of its board file. Who lets a file grow says so in firmware/sizes.toml."""
    bytecode = {path: len(content) for path, content in slot_files(air_node).items() if path.endswith(".mpy")}
    grown = {
        path: f"{size} of {SIZES['files'].get(path, SIZES['other_files'])}"
        for path, size in bytecode.items()
        if size > SIZES["files"].get(path, SIZES["other_files"])
    }
    assert not grown, "more bytes than firmware/sizes.toml allows"
    assert sum(bytecode.values()) <= SIZES["air_node"]


def test_budget_names_no_file_that_is_gone(air_node):
    assert not set(SIZES["files"]) - set(slot_files(air_node))


def test_every_device_on_a_wire_that_a_node_has_can_be_built():
    assert {"serial", "i2c"} <= node_wires() <= set(BUS_OF_WIRE), "what the node knows, the check of boards knows too"
    assert {"pms5003", "scd41", "dsmr_p1"} <= set(node_devices()) < set(device_names())
    targets = [source.target for source in sources(read_board(AIR), node_devices())]
    assert targets == sorted(set(targets))


def test_firmware_of_a_board_with_contacts_says_that_it_counts_their_pulses():
    """Or a node could not be set up to count, and who counts would refuse each update for want of a driver."""
    board = read_board("meter_carrier")
    built = build(board, ["pulses"], ["broker"])
    facts = json.loads(built.contents["/a/facts.json"])
    assert built.devices == built.facts["devices"] == facts["devices"] == ["pulses"]
    assert "/a/pulses.mpy" in built.contents
    manifest = {"hardware": "meter_carrier", "version": "9.0.0", "from": "0.1.0", "mpy": 6, "size": 1, "unpacked": 1}
    manifest |= {"devices": facts["devices"], "ways": facts["ways"]}
    assert why_not(manifest, {"version": "0.1.0", "hardware": "meter_carrier"}, "", ["pulses"], "broker") == ""
    with pytest.raises(ConfigError, match="a node has no device pulses"):
        sources(read_board(AIR), ["pulses"])


def test_image_carries_the_ways_out_that_were_asked_for(air_node):
    assert "/a/broker.mpy" in air_node.contents
    assert not {"/a/uplink.mpy", "/a/beacon.mpy"} & set(air_node.contents)
    config = (ROOT / "firmware/node/config.py").read_text(encoding="utf-8")
    assert f"WAYS = {WAYS}".replace("'", '"') in config, "the node's own list of ways"


@needs_micropython
def test_profile_for_a_device_that_knows_none_is_refused_where_the_module_for_profiles_was_left_out(tmp_path):
    """As every other setting that is none: the node says so, in place of failing with ImportError at each start."""
    said = said_on_a_node(tmp_path, "import sensors\nsensors.load_driver('sht4x', {'profile': 'sdm630'})\n")
    assert not (tmp_path / "profiles.py").exists()
    assert "ConfigError: unknown setting profile" in said


@needs_micropython
def test_certificates_without_a_time_to_judge_them_by_are_refused(tmp_path):
    """An ESP32 begins in 2000 after a power cut; here the clock of this machine would hide that."""
    tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
    config = {"wifi": {"ssid": "city"}, "broker": {"host": "city", "tls": tls}}
    script = "import broker\nprint(broker.read(%r)['port'])\n"
    assert "broker.tls needs made_s" in said_on_a_node(tmp_path, script % config)
    assert said_on_a_node(tmp_path, script % {**config, "made_s": 1795300000}) == "8883\n"


def said_on_a_node(folder: Path, script: str) -> str:
    """Return what MicroPython says to a script that has the sources of a small node, and a chip of no use."""
    for source in sources(read_board(AIR), ["sht4x"], ["broker"]):
        place = folder / source.target[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.path, place)
    for name in ("machine", "network"):
        (folder / f"{name}.py").write_text("")
    outcome = subprocess.run(
        [MICROPYTHON, "-c", script],
        env={"MICROPYPATH": f"{folder}:{folder}/lib:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return outcome.stdout + outcome.stderr


def test_beacon_carries_neither_store_nor_link():
    targets = slot_files(build(read_board(AIR), ["sht4x"], ["beacon"]))
    assert "beacon.mpy" in targets
    assert not {"app.mpy", "lib/bega_protocols/ring.mpy", "lib/bega_protocols/senml.mpy"} & set(targets)


def test_register_maps_come_along_as_json_that_says_the_same():
    frozen = frozen_profiles()
    assert "/lib/profiles/sdm630.json" in frozen
    for path, content in frozen.items():
        source = ROOT / "protocols/bega_protocols/profiles" / f"{Path(path).stem}.toml"
        assert json.loads(content) == tomllib.loads(source.read_text(encoding="utf-8"))
        read_profile(json.loads(content))


def test_unknown_board_and_device_are_said(tmp_path, small):
    outcome = node("build", "--board", "esp8266", "--out", tmp_path / "out")
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert "there is no board 'esp8266'; Bega knows" in outcome.stderr
    outcome = small(tmp_path / "out", "--device", "bthome")
    assert outcome.returncode == 1
    assert "a node has no device bthome" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_folder_with_other_things_in_it_is_left_alone(tmp_path, small):
    (tmp_path / "photos.jpg").write_text("mine")
    outcome = small(tmp_path)
    assert outcome.returncode == 1
    assert "is not empty" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos.jpg"]


def test_second_build_into_the_same_folder_leaves_nothing_of_the_first(tmp_path, small):
    assert small(tmp_path, "--device", "scd41").returncode == 0
    assert small(tmp_path).returncode == 0
    assert not (tmp_path / "files/a/lib/bega_protocols/devices/scd41").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contents.json", "files", "names.json", "vfs.bin"]


def test_build_that_was_cut_off_is_built_over(tmp_path, small):
    (tmp_path / "out/files").mkdir(parents=True)
    (tmp_path / "out/files/half.mpy").write_text("half")
    assert small(tmp_path / "out").returncode == 0
    assert not (tmp_path / "out/files/half.mpy").exists()


def test_folder_that_cannot_be_made_is_said(tmp_path, small):
    (tmp_path / "file").write_text("no folder")
    for out in (tmp_path / "file", tmp_path / "file/out"):
        outcome = small(out)
        assert (outcome.returncode, outcome.stdout) == (1, "")
        assert "bega node" in outcome.stderr
        assert "Traceback" not in outcome.stderr


def test_build_of_the_same_sources_is_taken_from_where_it_was_kept(tmp_path, small):
    kept = tmp_path / "kept"
    assert small(tmp_path / "one", "--reuse", kept).returncode == 0
    (made,) = kept.iterdir()
    (made / "files/main.py").write_text("taken from here")
    assert small(tmp_path / "two", "--reuse", kept).returncode == 0
    assert (tmp_path / "two/files/main.py").read_text() == "taken from here"
    assert len(list(kept.iterdir())) == 1


def test_build_that_could_not_be_copied_whole_has_no_list(tmp_path, small):
    kept = tmp_path / "kept"
    assert small(tmp_path / "one", "--reuse", kept).returncode == 0
    (made,) = kept.iterdir()
    (made / "vfs.bin").unlink()
    (made / "vfs.bin").symlink_to(tmp_path / "nowhere")
    outcome = small(tmp_path / "two", "--reuse", kept)
    assert outcome.returncode != 0
    assert (tmp_path / "two/files/main.py").exists()
    assert not (tmp_path / "two/contents.json").exists()


def test_key_of_a_build_changes_with_any_source(monkeypatch, tmp_path):
    key = earlier.key_of(AIR, ["sht4x"], WAYS, "compiler")
    assert key == earlier.key_of(AIR, ["sht4x"], list(WAYS), "compiler")
    others = [(AIR, ["scd41"], WAYS, ""), ("esp32_c3", ["sht4x"], WAYS, ""), (AIR, ["sht4x"], ["broker"], "")]
    assert len({key, *(earlier.key_of(*other) for other in others)}) == 4
    for folder in ("node", "boards"):
        shutil.copytree(ROOT / "firmware" / folder, tmp_path / folder)
    monkeypatch.setattr(earlier, "firmware_folder", lambda name: tmp_path / name)
    assert earlier.key_of(AIR, ["sht4x"], WAYS, "compiler") == key, "where they lie is no matter"
    with (tmp_path / "node/app.py").open("a") as file:
        file.write("\n")
    assert earlier.key_of(AIR, ["sht4x"], WAYS, "compiler") != key


def test_only_the_newest_builds_are_kept(tmp_path):
    for number in range(earlier.KEPT + 3):
        made = earlier.made_before(tmp_path, f"key-{number}", lambda place: (place / "list").write_text("done"))
        os.utime(made, (number, number))
    earlier.made_before(tmp_path, "last", lambda place: (place / "list").write_text("done"))
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == earlier.KEPT
    assert {"last", f"key-{earlier.KEPT + 2}"} <= names


def test_build_that_another_process_forgets_meanwhile_is_no_trouble(tmp_path, monkeypatch):
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*real(folder), folder / "gone"])
    earlier.made_before(tmp_path, "key", lambda place: (place / "list").write_text("done"))
    assert (tmp_path / "key/list").read_text() == "done"


def test_image_that_is_too_large_is_said():
    with pytest.raises(ConfigError, match="do not fit into 64 kB"):
        make_image({"/large": bytes(80_000)}, 65_536)


@pytest.mark.parametrize("name", board_names())
def test_wiring_of_every_board_can_work(name):
    board = read_board(name)
    assert not wiring_problems(board)
    assert board.vfs_bytes == board.flash_mb * MIB - 2 * MIB
    assert board.devices, "a board file says what hangs on it usually"


def test_every_chip_of_the_issue_has_a_board():
    assert {read_board(name).chip for name in board_names()} == set(CHIPS)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import os", "only gives names to values"),
        ("PINS = [pin for pin in range(40)]", "only gives names to values"),
        ("FLASH_MB = 2", "leaves no room behind MicroPython"),
        ('FLASH_MB = "4"', "FLASH_MB is missing, or no int"),
        ("CHIP = None", "CHIP is missing, or no str"),
    ],
)
def test_board_file_that_is_not_data_is_said(tmp_path, monkeypatch, line, complaint):
    text = (ROOT / f"firmware/boards/{AIR}.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(f"{text}\n{line}\n", encoding="utf-8")
    monkeypatch.setattr("bega_firmware.board.firmware_folder", lambda name: tmp_path)
    with pytest.raises(ConfigError, match=complaint):
        read_board("mine")


def test_progress_ends_with_its_line(capsys):
    for done in range(3):
        show_progress(done, 3)
    assert capsys.readouterr().err == "\rcompiling 1 of 3\rcompiling 2 of 3\rcompiling 3 of 3\n"


def rewired(bus: dict[str, Any], **more: Any) -> Board:
    board = read_board(AIR)
    buses = {"uart2": bus}
    return replace(board, buses=buses, devices={}, tables={"BUSES": buses}, **more)


@pytest.mark.parametrize(
    ("bus", "chip", "complaint"),
    [
        ({"kind": "uart", "id": 2, "tx": 12, "rx": 16}, "esp32", "pin 12 is for strapping"),
        ({"kind": "uart", "id": 2, "tx": 17, "rx": 9}, "esp32", "pin 9 is for flash"),
        ({"kind": "uart", "id": 2, "tx": 34, "rx": 16}, "esp32", "pin 34 is an input only"),
        ({"kind": "uart", "id": 2, "tx": 24, "rx": 16}, "esp32", "esp32 has no pin 24"),
        ({"kind": "uart", "id": 2, "tx": 17, "rx": 17}, "esp32", "pin 17 is that of BUSES.uart2.tx"),
        ({"kind": "uart", "id": 0, "tx": 17, "rx": 16}, "esp32", "uart 1 to 2 to give, not 0"),
        ({"kind": "uart", "id": 2, "tx": 7, "rx": 6}, "esp32c3", "uart 1 to 1 to give, not 2"),
        ({"kind": "i2c", "id": 1, "scl": 5, "sda": 4}, "esp32c3", "i2c 0 to 0 to give, not 1"),
        ({"kind": "i2c", "id": 0, "scl": 8, "sda": 19}, "esp32c3", "pin 19 is for USB"),
        ({"kind": "i2c", "id": 0, "scl": 35, "sda": 4}, "esp32s3", "pin 35 is for flash"),
        ({"kind": "i2c", "id": 0, "scl": 5}, "esp32s3", "sda names no pin"),
        ({"kind": "can", "id": 0}, "esp32", "kind is 'can'"),
        ({"kind": "uart", "id": 1, "tx": 17, "rx": 16}, "esp8266", "CHIP is 'esp8266'"),
    ],
)
def test_wiring_that_cannot_work_is_said(bus, chip, complaint):
    assert any(complaint in problem for problem in wiring_problems(rewired(bus, chip=chip)))


def test_input_only_pin_may_listen():
    assert not wiring_problems(rewired({"kind": "uart", "id": 2, "tx": 17, "rx": 34}))


def supplied(**devices: dict[str, Any]) -> Board:
    """The board with these devices instead of its own, each an SHT4x."""
    board = read_board(AIR)
    devices = {name: {"driver": "sht4x", "bus": "i2c0", **device} for name, device in devices.items()}
    return replace(board, devices=devices, tables={"BUSES": board.buses, "DEVICES": devices})


def test_several_devices_may_hang_on_one_supply_and_a_bus_may_not():
    assert wiring_problems(supplied(one={"power_pin": 25}, two={"power_pin": 25})) == []
    assert wiring_problems(supplied(one={"power_pin": 22})) == [
        "DEVICES.one.power_pin: pin 22 is that of BUSES.i2c0.scl"
    ]
    assert wiring_problems(supplied(one={"power_pin": 35})) == ["DEVICES.one.power_pin: pin 35 is an input only"]


def test_device_that_is_told_of_one_that_is_not_there_is_said():
    assert wiring_problems(supplied(one={"beside": "two"}, two={})) == []
    assert wiring_problems(supplied(one={"beside": "bme"})) == ["DEVICES.one: there is no device bme beside it"]


def test_actions_of_drivers_go_along_only_if_they_are_asked_for(air_node):
    """What a driver has for its actions is code that most nodes never run, and heap on each of them."""
    assert "/a/acts.mpy" not in air_node.contents
    drivers = [device["driver"] for device in air_node.board.devices.values()]
    acting = build(air_node.board, drivers, ["broker"], actions=True)
    assert "/a/acts.mpy" in acting.contents
    scd41 = "/a/lib/bega_protocols/devices/scd41/driver.mpy"
    assert len(acting.contents[scd41]) > len(air_node.contents[scd41]) + 500


def test_device_on_a_bus_of_another_kind_is_said():
    board = read_board(AIR)
    board = replace(board, devices={"sht": {"driver": "sht4x", "bus": "uart2"}})
    assert wiring_problems(board) == ["DEVICES.sht: sht4x does not hang on uart"]


def make_library(folder: Path, version: str = "") -> Path:
    """Write a copy of micropython-lib that holds an aioble of two packages, laid out as the real one."""
    version = version or wanted_packages()["aioble"]
    bluetooth = folder / "micropython/bluetooth"
    for package, manifest in {
        "aioble": f'metadata(version="{version}")\nrequire("aioble-core")\n',
        "aioble-core": 'metadata(version="0.4.0")\npackage(\n    "aioble",\n'
        '    files=("__init__.py", "core.py"),\n    base_path="../aioble",\n)\n',
    }.items():
        (bluetooth / package).mkdir(parents=True)
        (bluetooth / package / "manifest.py").write_text(manifest)
    (bluetooth / "aioble/aioble").mkdir()
    (bluetooth / "aioble/aioble/__init__.py").write_text("from .core import log\n")
    (bluetooth / "aioble/aioble/core.py").write_text("def log(*words):\n    print(*words)\n")
    return folder


def test_micropython_lib_is_taken_from_a_copy(tmp_path, small):
    outcome = small(tmp_path / "out", "--json", "--micropython-lib", make_library(tmp_path / "lib"))
    assert outcome.returncode == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert facts["micropython_lib"] == wanted_packages()
    assert {"/a/lib/aioble/__init__.mpy", "/a/lib/aioble/core.mpy"} <= {entry["path"] for entry in facts["files"]}


def test_image_without_micropython_lib_says_so(tmp_path, small):
    outcome = small(tmp_path / "out")
    assert "without aioble" in outcome.stdout
    assert "--micropython-lib DIR" in outcome.stdout


def test_copy_of_micropython_lib_that_cannot_be_is_said(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        library_files(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="has no package aioble"):
        library_files(tmp_path)
    with pytest.raises(ConfigError, match=r"is version 0\.1\.0, and"):
        library_files(make_library(tmp_path / "old", "0.1.0"))


def test_manifest_of_a_package_is_read_and_never_run(tmp_path):
    library = make_library(tmp_path)
    manifest = library / "micropython/bluetooth/aioble-core/manifest.py"
    manifest.write_text('metadata(version=open("/etc/passwd").read())\n')
    with pytest.raises(ConfigError, match="cannot be read as a manifest"):
        library_files(library)
    manifest.write_text('metadata(version="0.4.0")\nmodule("passwd", base_path="../../../../../../../../etc")\n')
    with pytest.raises(ConfigError, match="is not in this copy"):
        library_files(library)
    manifest.write_text('metadata(version="0.4.0")\nrequire("aioble")\n')
    with pytest.raises(ConfigError, match="without end"):
        library_files(library)
