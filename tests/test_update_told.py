"""What operators are told of a rollout: by status, doctor and metrics; and of a table that makes no sense."""

from pathlib import Path

import pytest

from bega_gateway import metrics, status
from bega_gateway.config import check
from bega_gateway.doctor.told import of_updates
from bega_gateway.status import Status
from bega_gateway.updates import told
from bega_gateway.updates.told import OfUpdate
from tests.test_update_rollout import confirm, fail, heard_now, offered, rollout_of

RUNNING = OfUpdate(hardware="esp32_c3", version="1.3.0", state="running", ring="10 %", nodes=20, counts={"loading": 2})
STOPPED = OfUpdate(
    hardware="esp32_devkitc",
    version="1.3.0",
    state="stopped",
    why="1 of 1 nodes of the ring 'canary' failed, and at most 0 may",
    ring="10 %",
    nodes=20,
    counts={"failed": 1, "waiting": 18, "left out": 1},
    away=3,
)


def status_with(*updates: OfUpdate) -> Status:
    return Status(gateway="gw", boot=1, wall_ms=1_795_300_000_000, mono_ms=1, up_s=100.0, updates=list(updates))


def test_a_stopped_one_is_a_trouble_and_one_that_goes_on_is_not():
    now = status_with(RUNNING, STOPPED)
    (stopped,) = [line for line in status.troubles(now) if line.startswith("update")]
    assert stopped == (
        "update 1.3.0 for esp32_devkitc: 0 of 20 confirmed, 3 away, 1 failed, 1 left out,"
        " stopped: 1 of 1 nodes of the ring 'canary' failed, and at most 0 may"
    )
    lines = list(status.text(now, 0.0, Path("gw.toml")))
    assert "update 1.3.0 for esp32_c3: 0 of 20 confirmed, ring '10 %', 2 in hand" in lines
    assert not [line for line in status.troubles(status_with(RUNNING)) if "update" in line]


def test_the_doctor_finds_what_stopped_and_says_what_to_do():
    (finding,) = of_updates(status_with(RUNNING, STOPPED))
    assert (finding.cause, finding.stops_readings) == ("update stopped", False)
    assert "goes to no further node" in finding.what and "18 waiting" in finding.evidence
    assert "bega update resume" in finding.remedy


def test_metrics_have_a_sample_for_each_state_and_nothing_without_a_rollout():
    text = metrics.text(metrics._of_updates([RUNNING, STOPPED]))
    labels = 'hardware="esp32_devkitc",version="1.3.0"'
    assert f'bega_gateway_update_nodes{{{labels},state="left_out"}} 1' in text
    assert f"bega_gateway_update_stopped{{{labels}}} 1" in text
    assert f"bega_gateway_update_away_nodes{{{labels}}} 3" in text
    assert metrics.text(metrics._of_updates([])) == "\n"


def test_words_name_the_nodes_that_need_one():
    rollout = rollout_of(4, canary=["air-000", "air-001"])
    first, second = offered(rollout)
    confirm(rollout, first)
    fail(rollout, second)
    assert list(told.words(rollout, heard_now)) == [
        "update 1.3.0 for esp32_devkitc: 1 of 4 confirmed, 1 failed,"
        " stopped: 1 of 2 nodes of the ring 'canary' failed, and at most 0 may",
        "  air-001: failed, two starts failed, runs 1.2.3",
    ]
    away = list(told.words(rollout, lambda node: None))
    assert "  air-002: waiting, not heard, it is waited for" in away


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("public_keys = []", "updates.public_keys: name one or two"),
        ('public_keys = ["a", "b", "c"]', "updates.public_keys: name one or two"),
        ('public_keys = ["/none.pub"]', "updates.public_keys[0]: there is no file /none.pub"),
        ('public_keys = ["{here}"]\ncanary = ["nobody"]', "updates.canary[0]: there is no node 'nobody'"),
        ('public_keys = ["{here}"]\nat_once = 0', "updates.at_once"),
        ('public_keys = ["{here}"]\nfailures_percent = 101', "updates.failures_percent"),
        ('public_keys = ["{here}"]\nspeed = 1', "updates.speed"),
        ("at_once = 3", "updates"),
    ],
)
def test_a_table_that_makes_no_sense_is_said_with_its_place(tmp_path, table, said):
    file = tmp_path / "gw.toml"
    head = '[gateway]\nname = "gw"\ncity = "t"\n[uplink]\nbrokers = ["mqtt://localhost"]\n[updates]\n'
    file.write_text(head + table.replace("{here}", str(file)))
    config, problems = check(file)
    assert config is None
    assert any(said in problem for problem in problems), problems
