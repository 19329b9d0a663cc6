"""Updates through a gateway: in pieces, in rings, over its power cuts; nothing that lies on its disk is believed."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from bega.update_bundle import read, write
from bega_gateway.build import Clocks
from bega_gateway.lines.node_said import read as read_status
from bega_gateway.updates.desk import Updates, opened
from bega_gateway.updates.shelf import Shelf
from bega_gateway.updates.table import Updates as Table
from bega_protocols.errors import ConfigError
from tests.fleet_park import Fleet, NodeByTheBook
from tests.test_update_bundle import FOREIGN, KEY, NOW_S, PUBLIC, bundle, slot

VERSION = "1.3.0"
CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
[uplink]
brokers = ["{broker}"]
[lines.nodes]
kind = "mqtt"
broker = "{broker}"
[updates]
public_keys = ["{key}"]
at_once = 8
canary = ["air-03"]
{nodes}
"""


def public_pem() -> bytes:
    return KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class GatewayDouble:
    """A gateway whose line hears its nodes and keeps what they are told."""

    def __init__(self, *nodes: str) -> None:
        table = SimpleNamespace(line="nodes", audience="operator")
        self._config = SimpleNamespace(nodes=dict.fromkeys(nodes, table))
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.heard_mono_ms = dict.fromkeys(nodes, 0)
        self.answer: dict[str, Any] = {"done": True}

    def config(self) -> Any:
        return self._config

    def line(self, name: str) -> Any:
        return self

    async def command(self, node: str, verb: str, id_: str, payload: bytes) -> dict[str, Any]:
        self.told.append((node, verb, json.loads(payload)))
        return self.answer


def updates_of(folder: Path, keys: tuple[bytes, ...] = (PUBLIC,)) -> Updates:
    return Updates(Shelf(folder), Table(public_keys=[]), list(keys), Clocks(lambda: 1000 * NOW_S, lambda: 0))


def with_gateway(updates: Updates, gateway: GatewayDouble, work: Any) -> Any:
    """Return what comes of work() while `updates` runs."""

    async def all_of_it() -> Any:
        running = asyncio.create_task(updates.run(gateway))
        await asyncio.sleep(0)
        try:
            return await work()
        finally:
            await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return asyncio.run(all_of_it())


def published(folder: Path, gateway: GatewayDouble) -> Updates:
    updates = updates_of(folder)
    with_gateway(updates, gateway, lambda: updates.asked({"do": "publish"}, bundle()))
    return updates


def want(at: int = 0, most: int = 500, sha: str = "") -> bytes:
    return json.dumps({"sha256": (sha or read(bundle()).sha256)[:16], "at": at, "most": most}).encode()


def test_a_published_bundle_is_offered_to_the_canary_and_given_in_pieces(tmp_path):
    gateway = GatewayDouble("air-1", "air-2")
    updates = published(tmp_path / "updates", gateway)
    ((node, verb, asked),) = gateway.told
    assert (node, verb) == ("air-1", "update")
    assert asked["manifest"].encode() == read(bundle()).text
    payload, whole = b"", read(bundle()).payload
    while len(payload) < len(whole):
        piece = updates.piece("air-1", want(len(payload), 100), 2048)
        assert piece[:8].hex() == read(bundle()).sha256[:16] and len(piece) <= 112
        assert int.from_bytes(piece[8:12], "big") == len(payload)
        payload += piece[12:]
    assert payload == whole


WANTS = st.one_of(
    st.binary(max_size=300),
    st.dictionaries(
        st.sampled_from(["sha256", "at", "most"]),
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=2)),
    ).map(lambda said: json.dumps(said).encode()),
    st.integers(-(2**40), 2**40).map(lambda at: want(at)),
    st.integers(-(2**40), 2**40).map(lambda most: want(0, most)),
)


@given(lie=WANTS)
@settings(max_examples=200, deadline=None)
def test_a_want_that_lies_is_met_by_silence_or_by_a_piece_of_what_was_published(tmp_path_factory, lie):
    if not hasattr(test_a_want_that_lies_is_met_by_silence_or_by_a_piece_of_what_was_published, "updates"):
        made = published(tmp_path_factory.mktemp("u") / "updates", GatewayDouble("air-1"))
        test_a_want_that_lies_is_met_by_silence_or_by_a_piece_of_what_was_published.updates = made
    updates = test_a_want_that_lies_is_met_by_silence_or_by_a_piece_of_what_was_published.updates
    piece = updates.piece("air-1", lie, 2048)
    if piece is not None:
        at = int.from_bytes(piece[8:12], "big")
        assert 0 < len(piece) - 12 <= 2048 and read(bundle()).payload[at:].startswith(piece[12:])
    assert updates.piece("stranger", lie, 2048) is None


def test_what_was_stopped_is_given_to_nobody_any_more(tmp_path):
    gateway = GatewayDouble("air-1", "air-2")
    updates = published(tmp_path / "updates", gateway)
    with_gateway(updates, gateway, lambda: updates.asked({"do": "stop"}, b""))
    assert updates.piece("air-1", want(), 2048) is None
    with_gateway(updates, gateway, lambda: updates.asked({"do": "resume"}, b""))
    assert updates.piece("air-1", want(), 2048)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "it is empty"),
        (bundle()[:-1], "cut off"),
        (bundle(signer=FOREIGN), "signature does not fit"),
        (bundle(expires=NOW_S - 1), "expired"),
        (write(read(bundle()).text, b"", read(bundle()).payload), "manifest is none"),
    ],
)
def test_a_bundle_that_no_node_would_take_is_not_published(tmp_path, octets, why):
    gateway = GatewayDouble("air-1")
    updates = updates_of(tmp_path / "updates")
    with pytest.raises(ConfigError, match=why):
        with_gateway(updates, gateway, lambda: updates.asked({"do": "publish"}, octets))
    assert not gateway.told and not updates.status() and not list(tmp_path.glob("updates/*"))


def test_the_same_version_with_other_files_is_refused_and_the_same_bundle_taken_twice(tmp_path):
    gateway = GatewayDouble("air-1")
    updates = published(tmp_path / "updates", gateway)
    said = with_gateway(updates, gateway, lambda: updates.asked({"do": "publish"}, bundle()))
    assert "being rolled out already" in said["said"][0]
    with pytest.raises(ConfigError, match="higher version"):
        other = bundle({**slot(), "more.mpy": b"x"})
        with_gateway(updates, gateway, lambda: updates.asked({"do": "publish"}, other))


def test_a_node_that_runs_the_version_already_or_has_left_it_already_is_where_it_should_be(tmp_path):
    gateway = GatewayDouble("air-1")
    gateway.answer = {"done": False, "reason": f"version {VERSION} runs already"}
    updates = published(tmp_path / "updates", gateway)
    assert updates.status()[0].counts == {"loading": 1}, "its next status says which"
    updates.take("air-1", read_status({"firmware": VERSION}))
    gateway.answer = {"done": False, "reason": "version 1.2.3 runs already"}
    with_gateway(updates, gateway, lambda: updates.asked({"do": "rollback"}, b""))
    assert updates.status()[0].counts == {"gone back": 1}


def test_what_was_rolled_back_by_hand_is_not_published_again(tmp_path):
    gateway = GatewayDouble("air-1")
    updates = published(tmp_path / "updates", gateway)
    said = {"version": VERSION, "state": "confirmed"}
    updates.take("air-1", read_status({"firmware": VERSION, "update": said}))
    gateway.told.clear()
    with_gateway(updates, gateway, lambda: updates.asked({"do": "rollback"}, b""))
    ((node, verb, asked),) = gateway.told
    assert (node, verb, asked["version"]) == ("air-1", "rollback", VERSION), "it says what is to be left"
    for question in ({"do": "publish"}, {"do": "resume"}):
        with pytest.raises(ConfigError, match="was rolled back: give what mends it a higher version"):
            with_gateway(updates, gateway, lambda question=question: updates.asked(question, bundle()))


def test_going_back_needs_no_bundle_and_each_asking_has_a_number_of_its_own(tmp_path):
    """A node that lost its power while it went back answers the same number with "begun before a restart", for ever."""
    gateway = GatewayDouble("air-1")
    updates = published(tmp_path / "updates", gateway)
    said = {"version": VERSION, "state": "confirmed"}
    updates.take("air-1", read_status({"firmware": VERSION, "update": said}))
    with_gateway(updates, gateway, lambda: asyncio.sleep(0))
    gateway.told.clear()
    (tmp_path / "updates" / "esp32_devkitc.bega").unlink()
    gateway.answer = {"done": False, "reason": "begun before a restart: look whether it was done"}
    ids = []
    for _ in range(2):  # the second gateway finds what the first had noted
        again = updates_of(tmp_path / "updates")
        if not ids:
            with_gateway(again, gateway, lambda again=again: again.asked({"do": "rollback"}, b""))
        else:
            with_gateway(again, gateway, lambda: asyncio.sleep(0))
        ((node, verb, asked),) = gateway.told
        assert (node, verb, asked["version"]) == ("air-1", "rollback", VERSION)
        ids.append(asked["id"])
        gateway.told.clear()
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    "question",
    [{}, {"do": "burn"}, {"do": "stop"}, {"do": "publish", "x": 1}, {"do": "publish", "at_once": 0}, {"do": None}],
)
def test_a_question_that_is_none_is_refused_in_words(tmp_path, question):
    updates = updates_of(tmp_path / "updates")
    with pytest.raises(ConfigError):
        with_gateway(updates, GatewayDouble("air-1"), lambda: updates.asked(question, bundle()))


def test_a_rollout_goes_on_where_it_was_after_the_gateways_power_was_cut(tmp_path):
    gateway = GatewayDouble("air-1", "air-2", "air-3")
    updates = published(tmp_path / "updates", gateway)
    said = {"version": VERSION, "state": "confirmed"}
    updates.take("air-1", read_status({"firmware": VERSION, "update": said}))
    with_gateway(updates, gateway, lambda: asyncio.sleep(0))
    gateway.told.clear()
    again = updates_of(tmp_path / "updates")
    with_gateway(again, gateway, lambda: asyncio.sleep(0))
    assert again.status()[0].counts["confirmed"] == 1
    assert {node for node, _, _ in gateway.told} <= {"air-2", "air-3"}


@pytest.mark.parametrize("keep", [0, 10, 300, -1])
def test_a_bundle_that_is_not_whole_on_the_disk_is_set_aside_and_its_rollout_stops(tmp_path, caplog, keep):
    gateway = GatewayDouble("air-1")
    published(tmp_path / "updates", gateway)
    file = tmp_path / "updates" / "esp32_devkitc.bega"
    file.write_bytes(file.read_bytes()[:keep])
    again = updates_of(tmp_path / "updates")
    assert "update set aside" in caplog.text and not file.exists()
    assert again.status()[0].why == "its bundle is gone or damaged: publish it again"
    assert again.piece("air-1", want(), 2048) is None
    with_gateway(again, gateway, lambda: again.asked({"do": "publish"}, bundle()))
    assert again.status()[0].state == "running" and again.piece("air-1", want(), 2048)


def test_a_bundle_that_is_gone_stops_no_rollout_that_is_over_until_another_node_comes(tmp_path):
    gateway = GatewayDouble("air-1")
    updates = published(tmp_path / "updates", gateway)
    updates.take("air-1", read_status({"firmware": VERSION}))
    with_gateway(updates, gateway, lambda: asyncio.sleep(0))
    (tmp_path / "updates" / "esp32_devkitc.bega").unlink()
    again = updates_of(tmp_path / "updates")
    with_gateway(again, gateway, lambda: asyncio.sleep(0))
    assert again.status()[0].state == "over"
    with_gateway(again, GatewayDouble("air-1", "air-2"), lambda: asyncio.sleep(0))
    assert again.status()[0].why == "its bundle is gone or damaged: publish it again"


def test_a_bundle_of_another_key_on_the_disk_is_set_aside(tmp_path):
    published(tmp_path / "updates", GatewayDouble("air-1"))
    assert updates_of(tmp_path / "updates", keys=()).status()[0].is_stopped


def test_a_rollout_that_is_damaged_on_the_disk_is_set_aside_and_nothing_is_offered(tmp_path, caplog):
    gateway = GatewayDouble("air-1")
    published(tmp_path / "updates", gateway)
    (tmp_path / "updates" / "esp32_devkitc.json").write_bytes(b'{"hardware": "esp32_dev')
    gateway.told.clear()
    again = updates_of(tmp_path / "updates")
    with_gateway(again, gateway, lambda: asyncio.sleep(0))
    assert again.status() == [] and gateway.told == [] and "update set aside" in caplog.text


def test_half_of_a_file_that_was_being_written_is_not_read(tmp_path):
    gateway = GatewayDouble("air-1")
    published(tmp_path / "updates", gateway)
    for name in ("esp32_devkitc.bega.part", "esp32_devkitc.json.part", "esp32_c3.bega.part"):
        (tmp_path / "updates" / name).write_bytes(bundle()[:100])
    assert [update.state for update in updates_of(tmp_path / "updates").status()] == ["running"]


def test_a_disk_that_takes_nothing_refuses_a_publication_and_costs_nothing_else(tmp_path):
    gateway = GatewayDouble("air-1")
    (tmp_path / "updates").write_text("a file where the folder should be")
    updates = updates_of(tmp_path / "updates")
    with pytest.raises(ConfigError, match="the disk takes nothing"):
        with_gateway(updates, gateway, lambda: updates.asked({"do": "publish"}, bundle()))
    assert updates.status() == [] and gateway.told == []


def test_what_was_asked_for_and_could_not_be_written_is_so_all_the_same_and_that_is_said(tmp_path, monkeypatch):
    gateway = GatewayDouble("air-1")
    updates = published(tmp_path / "updates", gateway)

    def full(self, hardware, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Shelf, "keep_rollout", full)
    said = with_gateway(updates, gateway, lambda: updates.asked({"do": "stop"}, b""))["said"]
    assert "offered to nobody" in said[0] and "the disk takes nothing (No space left on device)" in said[1]
    assert updates.status()[0].is_stopped
    monkeypatch.undo()
    updates._write_after_ms = 0
    with_gateway(updates, gateway, lambda: asyncio.sleep(0))
    assert updates_of(tmp_path / "updates").status()[0].is_stopped, "it was written once the disk took it"


def test_a_key_that_cannot_be_read_lets_no_bundle_in(tmp_path, caplog):
    table = Table(public_keys=[str(tmp_path / "none.pub")])
    updates = opened(table, tmp_path, Clocks(lambda: 1000 * NOW_S, lambda: 0))
    assert "no update that this key signed is taken" in caplog.text
    with pytest.raises(ConfigError, match="none of ours"):
        with_gateway(updates, GatewayDouble("air-1"), lambda: updates.asked({"do": "publish"}, bundle()))


# ------------------------------------------------------------------ the gateway and the command as shipped


def bega(*words: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bega", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a signed bundle that has not expired, and its public key."""
    from bega.clock import wall_ms

    folder = tmp_path_factory.mktemp("made")
    (folder / "update.key.pub").write_bytes(public_pem())
    (folder / "new.bega").write_bytes(bundle(slot(filling=9_000), expires=wall_ms() // 1000 + 86_400))
    return folder


@pytest.mark.slow
def test_a_gateway_updates_its_nodes_ring_by_ring_over_a_power_cut_and_lost_messages(
    tmp_path, mosquitto, make_gateway, eventually, made
):
    names = [f"air-{number:02}" for number in range(8)]
    tables = "\n".join(f'[nodes.{name}]\nline = "nodes"' for name in names)
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, key=made / "update.key.pub", nodes=tables))
    nodes = [NodeByTheBook(name, PUBLIC, crashes=name == "air-07") for name in names]
    nodes[5].hardware = "esp32_c3"
    fleet = Fleet(mosquitto.url, nodes, lost=0.05)
    where = ("--state", gateway.state)
    try:
        gateway.start()
        told = bega("update", "publish", made / "new.bega", *where, "--failures-percent", 7)
        assert told.returncode == 0, told.stderr
        assert told.stdout == "1.3.0 for esp32_devkitc goes to 8 nodes, first to air-03\n"
        eventually(lambda: nodes[3].firmware == VERSION, "the canary runs it", 30)
        gateway.kill()
        os.sync()
        gateway.start()
        eventually(lambda: "update stopped" in gateway.log.read_text(), "a failure too many stops it", 60)
        stopped = bega("update", "status", *where)
        assert stopped.returncode == 1 and "stopped: " in stopped.stdout
        assert "failed, two starts failed, runs 1.2.3" in stopped.stdout
        assert bega("update", "resume", *where, "--failures-percent", 50).returncode == 0
        eventually(lambda: "update over" in gateway.log.read_text(), "all have it, or have refused it", 60)
        (update,) = json.loads(bega("update", "status", "--json", *where).stdout)
        assert update["counts"] == {"confirmed": 6, "failed": 1, "left out": 1}
        assert update["of_nodes"]["air-05"]["why"] == "it is a esp32_c3"
        assert {node.name for node in nodes if node.firmware != VERSION} == {"air-05", "air-07"}
        assert max(node.trials for node in nodes) == 1, "what a node refused it is not offered again"
        assert nodes[3].files["app.mpy"] == slot(filling=9_000)["app.mpy"]
        back = bega("update", "rollback", *where)
        assert back.stdout == "6 nodes go back from 1.3.0; it is offered to nobody any more\n"
        eventually(lambda: all(node.firmware != VERSION for node in nodes), "all are back", 30)
        eventually(lambda: bega("update", "status", *where).returncode == 0, "nobody need decide anything")
    finally:
        fleet.close()


@pytest.mark.slow
def test_a_gateway_without_the_table_says_so(tmp_path, embedded, make_gateway, made):
    gateway = make_gateway(f'[gateway]\nname = "gw"\ncity = "t"\n[uplink]\nbrokers = ["{embedded.url}"]\n')
    gateway.start()
    told = bega("update", "publish", made / "new.bega", "--state", gateway.state)
    assert (told.returncode, told.stdout) == (1, "")
    assert "its configuration has no table [updates]" in told.stderr
