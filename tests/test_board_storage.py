"""What the virtual chip keeps on its flash: values (NVS), partitions with their rollback, and power cuts among them."""

import asyncio
import itertools
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_simulators.board.chip import PWRON_RESET
from bega_simulators.board.cut import Cut, FlashFile, PowerCut
from bega_simulators.board.flash import make_blank
from bega_simulators.board.nvs import BLOB, I32, Nvs
from bega_simulators.board.partitions import APP, DATA, OTADATA, Bootloader, Partition, table_bytes
from tests.shim_bench import MICROPYTHON, Bench

NVS_START, NVS_BYTES = 0x9000, 0x4000
OTA = (
    Partition(DATA, 2, NVS_START, NVS_BYTES, "nvs"),
    Partition(DATA, OTADATA, 0xD000, 0x2000, "otadata"),
    Partition(DATA, 1, 0xF000, 0x1000, "phy_init"),
    Partition(APP, 0x10, 0x10000, 0x180000, "ota_0"),
    Partition(APP, 0x11, 0x190000, 0x180000, "ota_1"),
    Partition(DATA, 0x81, 0x310000, 0xF0000, "vfs"),
)
needs_micropython = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")


@pytest.fixture
def flash_path(tmp_path):
    make_blank(tmp_path / "flash")
    return tmp_path / "flash"


@pytest.fixture
def ota_flash(flash_path):
    with flash_path.open("r+b") as flash:
        for at, data in ((0x8000, table_bytes(OTA)), (0x10000, b"\xe9old"), (0x190000, b"\xe9new")):
            flash.seek(at)
            flash.write(data)
    return flash_path


class SmallFlash:
    """A flash of five sectors, its power cut at the operation that is asked for."""

    def __init__(self, path, content=b"\xff" * 0x5000):
        path.write_bytes(content)
        self.cut = Cut()
        self.file = FlashFile(path, self.cut)

    def nvs(self):
        return Nvs(self.file, 0, 0x4000)

    def close(self):
        self.file.close()
        self.cut.close()


def number(value):
    return (value & 0xFFFFFFFF).to_bytes(4, "little").hex()


def all_of(nvs):
    """Return what a boot finds of the keys that the tests use."""
    found = {}
    for space, key, kind in itertools.product(("a", "b"), ("k", "n", "big"), (I32, BLOB)):
        with suppress(OSError):
            found[space, key, kind] = nvs.do_nvs_get(space, key, kind, room=4000)
    return found


def life(nvs, seen):
    """Write so much that both banks are used; seen(what is committed so far) after each commit."""
    expected = {}
    for turn in range(24):
        for name, value in ((("a", "k", I32), number(turn)), (("b", "big", BLOB), (bytes([turn]) * 700).hex())):
            nvs.do_nvs_set(*name, value)
            nvs.do_nvs_commit(name[0])
            expected[name] = value
            seen(dict(expected))
        if turn % 5 == 4:
            nvs.do_nvs_erase("a", "k")
            nvs.do_nvs_commit("a")
            del expected["a", "k", I32]
            seen(dict(expected))


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_nvs_is_old_or_new_wherever_the_power_is_cut(tmp_path, torn):
    whole = SmallFlash(tmp_path / "whole")
    states = [{}]
    life(whole.nvs(), states.append)
    operations = whole.cut.operations
    assert operations > 60
    for after in range(operations):
        flash = SmallFlash(tmp_path / "cut")
        flash.cut.arm(after, torn)
        reached = [{}]
        with pytest.raises(PowerCut):
            life(flash.nvs(), reached.append)
        flash.cut.power_on()
        found = all_of(flash.nvs())
        place = len(reached) - 1
        assert found in (states[place], states[place + 1]), f"after {after} operations"
        again = flash.nvs()
        again.do_nvs_set("a", "n", I32, number(-1))
        again.do_nvs_commit("a")
        assert all_of(flash.nvs()) == {**found, ("a", "n", I32): number(-1)}, "it goes on"
        flash.close()
    whole.close()


@given(content=st.binary(max_size=300), at=st.integers(0, 0x4F00))
def test_nvs_makes_something_of_any_flash(tmp_path_factory, content, at):
    path = tmp_path_factory.getbasetemp() / "any-flash"
    flash = SmallFlash(path, bytearray(b"\xff" * 0x5000))
    life(flash.nvs(), lambda expected: None)
    os.pwrite(flash.file.file, content, at)
    nvs = flash.nvs()
    nvs.do_nvs_set("b", "k", I32, number(7))
    nvs.do_nvs_commit("b")
    assert flash.nvs().do_nvs_get("b", "k", I32) == number(7)
    flash.close()


def test_nvs_that_is_full_says_so_and_keeps_what_it_has(tmp_path):
    flash = SmallFlash(tmp_path / "flash")
    nvs = flash.nvs()
    for key in ("k", "n"):
        nvs.do_nvs_set("a", key, BLOB, "00" * 3900)
        nvs.do_nvs_commit("a")
    nvs.do_nvs_set("a", "big", BLOB, "00" * 3900)
    with pytest.raises(OSError) as error:
        nvs.do_nvs_commit("a")
    assert error.value.errno == -0x1105
    assert len(all_of(flash.nvs())) == 2
    flash.close()


@needs_micropython
def test_nvs_speaks_to_micropython_as_the_chip_does(flash_path):
    program = """
import esp32, json
def outcome(do, *args):
    try:
        return do(*args)
    except Exception as error:
        return [type(error).__name__] + list(error.args)
nvs = esp32.NVS("bega")
nvs.set_i32("boots", -5)
nvs.set_blob("key", b"\\x01\\x02")
buf = bytearray(8)
seen = [nvs.get_i32("boots"), nvs.get_blob("key", buf), buf[0], buf[1]]
seen += [outcome(nvs.get_i32, "none"), outcome(nvs.get_blob, "key", bytearray(1)), outcome(nvs.get_i32, "key")]
seen += [outcome(nvs.set_i32, "a name that is long", 1), outcome(esp32.NVS, "a name that is long")]
esp32.NVS("other").set_i32("boots", 7)
nvs.commit()
nvs.set_i32("boots", 9)
print(json.dumps(seen))
"""
    missing = ["OSError", -0x1102, "ESP_ERR_NVS_NOT_FOUND"]
    bench = Bench(flash=flash_path)
    assert bench.run(program) == [
        *(-5, 2, 1, 2, missing, ["OSError", -0x110C, "ESP_ERR_NVS_INVALID_LENGTH"], missing),
        *(["OSError", -0x1109, "ESP_ERR_NVS_KEY_TOO_LONG"], ["OSError", -0x1106, "ESP_ERR_NVS_INVALID_NAME"]),
    ]
    bench.reboot(PWRON_RESET)
    program = """
import esp32, json
nvs = esp32.NVS("bega")
seen = [nvs.get_i32("boots")]
nvs.erase_key("boots")
nvs.commit()
for space in ("bega", "other"):
    try:
        esp32.NVS(space).get_i32("boots")
    except OSError as error:
        seen.append(error.errno)
print(json.dumps(seen))
"""
    assert bench.run(program) == [-5, -0x1102, -0x1102], "what was not committed is gone"


def boot(path, cut=None):
    flash = FlashFile(path, cut or Cut())
    return Bootloader(flash)


def test_flash_without_a_table_is_taken_for_the_usual_one(flash_path):
    bootloader = boot(flash_path)
    assert bootloader.running.label == "factory"
    assert [row.label for row in bootloader.rows] == ["nvs", "phy_init", "factory", "vfs"]
    with pytest.raises(OSError) as error:
        bootloader.do_partition_valid()
    assert error.value.errno == -261
    with pytest.raises(OSError):
        bootloader.do_partition_next("factory")


def test_update_that_says_that_it_is_well_stays(ota_flash):
    first = boot(ota_flash)
    assert first.running.label == "ota_0"
    assert first.do_partition_next("ota_0").label == "ota_1"
    first.do_partition_set_boot("ota_1")
    assert first.do_partition(0).label == "ota_1"
    trial = boot(ota_flash)
    assert trial.running.label == "ota_1"
    trial.do_partition_valid()
    trial.do_partition_valid()
    assert [boot(ota_flash).running.label for _ in range(3)] == ["ota_1"] * 3
    trial.do_partition_set_boot("ota_0")
    assert boot(ota_flash).running.label == "ota_0"


def test_update_that_does_not_say_so_is_rolled_back_at_the_next_boot(ota_flash):
    boot(ota_flash).do_partition_set_boot("ota_1")
    assert [boot(ota_flash).running.label for _ in range(3)] == ["ota_1", "ota_0", "ota_0"]
    boot(ota_flash).do_partition_set_boot("ota_1")
    assert boot(ota_flash).running.label == "ota_1", "it may be tried again"


def test_slot_without_an_image_cannot_be_chosen(ota_flash):
    with ota_flash.open("r+b") as flash:
        flash.seek(0x190000)
        flash.write(b"\xff" * 4)
    with pytest.raises(OSError) as error:
        boot(ota_flash).do_partition_set_boot("ota_1")
    assert error.value.errno == -0x1503


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_some_slot_boots_wherever_the_power_is_cut_in_an_update(ota_flash, torn):
    before = ota_flash.read_bytes()

    def update(cut):
        boot(ota_flash, cut).do_partition_set_boot("ota_1")
        boot(ota_flash, cut).do_partition_valid()

    counted = Cut()
    update(counted)
    for after in range(counted.operations):
        ota_flash.write_bytes(before)
        cut = Cut()
        cut.arm(after, torn)
        with pytest.raises(PowerCut):
            update(cut)
        assert boot(ota_flash).running.label in ("ota_0", "ota_1")
        cut.close()


@needs_micropython
def test_partitions_are_read_written_and_chosen_by_micropython(ota_flash):
    program = """
import esp32, json
P = esp32.Partition
running = P(P.RUNNING)
new = running.get_next_update()
block = bytes(range(256)) * 16
new.writeblocks(1, block)
back = bytearray(4096)
new.readblocks(1, back)
new.writeblocks(1, b"\\x00", 4095)
new.readblocks(1, back, 0)
seen = [running.info()[4], new.info(), back[:4095] == block[:4095], back[4095], new.ioctl(4, 0), new.ioctl(5, 0)]
new.ioctl(6, 1)
new.readblocks(1, back)
seen += [back == b"\\xff" * 4096, [row.info()[4] for row in P.find(P.TYPE_DATA)], P.find(label="ota_1")[0].info()[2]]
new.set_boot()
seen += [P(P.BOOT).info()[4], P("nvs").info()[3]]
try:
    P("none")
except OSError as error:
    seen.append(error.errno)
print(json.dumps(seen))
"""
    bench = Bench(flash=ota_flash)
    assert bench.run(program) == [
        *("ota_0", [0, 0x11, 0x190000, 0x180000, "ota_1", False], True, 0, 0x180, 4096),
        *(True, ["nvs", "otadata", "phy_init", "vfs"], 0x190000, "ota_1", NVS_BYTES, 2),
    ]
    bench.reboot()
    program = "import esp32; P = esp32.Partition; print('\"' + P(P.RUNNING).info()[4] + '\"')"
    assert bench.run(program + "; P.mark_app_valid_cancel_rollback()") == "ota_1"
    bench.reboot()
    assert bench.run(program) == "ota_1"


WRITES = """
import os, vfs
from _board import cut, file
from _flash import Partition
part = Partition(file("flash"), 0x310000, 0xF0, cut)
try:
    fs = vfs.VfsLfs2(part)
except OSError:
    vfs.VfsLfs2.mkfs(part)
    fs = vfs.VfsLfs2(part)
vfs.mount(fs, "/flash")
print("go")
import time; time.sleep_ms(50)
for turn in range(5):
    with open("/flash/new", "w") as file:
        file.write("%d" % turn * 500)
    os.rename("/flash/new", "/flash/value")
print(len(os.listdir("/flash")))
"""
READS = """
import json, vfs
from _board import file
from _flash import Partition
vfs.mount(vfs.VfsLfs2(Partition(file("flash"), 0x310000, 0xF0)), "/flash")
text = open("/flash/value").read()
print(json.dumps([len(text), len(set(text))]))
"""


@needs_micropython
@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_power_is_cut_at_the_operation_that_was_asked_for_and_the_files_stand(ota_flash, torn):
    bench = Bench(flash=ota_flash)
    assert bench.run(WRITES) == 1
    for after in (0, 1, 5, 9):
        before = bench.peripherals.state()["flash_operations"]
        order = {"power_cut": {"after": after, "torn": torn}}
        assert bench.run(WRITES, lambda peripherals, order=order: peripherals.obey(order)) is None
        assert bench.peripherals.state()["flash_operations"] == before + after + 1
        bench.reboot()
        assert bench.peripherals.cause == PWRON_RESET
        assert bench.run(READS) == [500, 1]


@needs_micropython
def test_bit_that_rots_is_read_as_it_is(flash_path):
    bench = Bench(flash=flash_path)
    bench.peripherals.obey({"flip": [[0x9001, 3]]})
    program = """
import esp32
buf = bytearray(2)
esp32.Partition("nvs").readblocks(0, buf)
print(buf[1])
"""
    assert bench.run(program) == 0xF7


@needs_micropython
def test_power_cut_in_nvs_answers_nobody(flash_path):
    bench = Bench(flash=flash_path)
    bench.peripherals.obey({"power_cut": {"after": 1}})
    program = """
import esp32
nvs = esp32.NVS("bega")
for turn in range(10):
    nvs.set_i32("turn", turn)
    nvs.commit()
print(1)
"""
    assert bench.run(program) is None
    bench.reboot()
    assert bench.run("import esp32\nprint(len(esp32.idf_heap_info(esp32.HEAP_DATA)))") == 3


def test_power_cut_in_the_bootloader_is_a_power_cut(ota_flash):
    bench = Bench(flash=ota_flash)
    boot(ota_flash).do_partition_set_boot("ota_1")
    bench.peripherals.obey({"power_cut": {"after": 0, "torn": True}})
    bench.peripherals.power_on(PWRON_RESET)
    assert bench.peripherals.reset_asked
    assert asyncio.run(bench.peripherals.rest()) == PWRON_RESET
    bench.reboot(PWRON_RESET)
    assert bench.peripherals.answer({"op": "partition", "which": 1}).label in ("ota_0", "ota_1")
