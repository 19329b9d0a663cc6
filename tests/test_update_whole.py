"""From a key to a node that runs the new version: every command as shipped, over mosquitto, on the virtual board."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bega.update_keys import moduli
from tests.node_park import FAST, MICROPYTHON, NODE, NodeProcess

IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IS_NIGHT, reason="each part of it is tried by day: make nightly PART=updates"),
    pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine"),
]

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
[uplink]
brokers = ["{broker}"]
[lines.nodes]
kind = "mqtt"
broker = "{broker}"
[nodes.{node}]
line = "nodes"
[updates]
public_keys = ["{key}"]
"""
NEW = "0.2.0"


def bega(*words: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bega", *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_key_a_bundle_and_a_rollout_bring_a_node_a_new_version_and_back(
    tmp_path: Path, mosquitto, make_gateway, make_reader, eventually
):
    key, bundle = tmp_path / "update.key", tmp_path / "new.bega"
    bega("update", "key", "new", key)
    public = f"{key}.pub"
    drivers = ["--device", "pms5003", "--device", "sht4x", "--way", "broker"]
    bega(
        "update",
        "build",
        "--board",
        "esp32_devkitc",
        "--version",
        NEW,
        "--update-key",
        public,
        *drivers,
        "--out",
        bundle,
    )
    bega("update", "sign", bundle, "--key", key)
    (tmp_path / "keys").write_bytes(moduli([Path(public)]))
    reader = make_reader(mosquitto.url)
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, key=public, node=NODE))
    where = ("--state", gateway.state)
    node = NodeProcess(tmp_path, mosquitto.port, devices=FAST)
    try:
        gateway.start()
        node.start("--put", f"{tmp_path / 'keys'}=/a/keys")
        eventually(lambda: len(reader.records) > 3, "it measures", 60)
        assert f"first to {NODE}" in bega("update", "publish", bundle, *where).stdout
        eventually(lambda: "update confirmed" in gateway.log.read_text(), "the node confirms it", 120)
        assert "1 of 1 confirmed, over" in bega("update", "status", *where).stdout
        assert f"firmware {NEW}" in node.said()
        before = len(reader.records)
        eventually(lambda: len(reader.records) > before + 3, "it measures with it", 60)
        bega("update", "rollback", *where)
        eventually(lambda: "update gone back node" in gateway.log.read_text(), "the node goes back", 60)
        eventually(lambda: node.said().count("firmware 0.1.0") >= 2, "it runs what it ran before", 60)
        before = len(reader.records)
        eventually(lambda: len(reader.records) > before + 3, "and measures", 60)
    finally:
        node.stop()
    seqs: dict[int, set[int]] = {}
    for _, boot, seq in reader.identities():
        seqs.setdefault(boot, set()).add(seq)
    assert all(max(found) == len(found) for found in seqs.values()), "no record is lost"
