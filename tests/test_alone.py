"""Two gateways never share a state directory: one of them would lose what it reads."""

import os
import subprocess
import sys

import pytest

from bega.outbox.alone import hold_alone
from bega_protocols.errors import ConfigError

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
[uplink]
brokers = ["mqtt://127.0.0.1:1"]
[lines.pms]
kind = "serial"
port = "/dev/nowhere"
[devices.air]
line = "pms"
driver = "pms5003"
"""


def test_a_second_gateway_on_the_same_state_says_what_to_do_and_leaves_the_first_one_alone(make_gateway):
    gateway = make_gateway(CONFIGURATION)
    gateway.start()
    boot = (gateway.state / "boot.a").read_text()
    command = [sys.executable, "-m", "bega", "gateway", "run", "--config", gateway.config]
    told = subprocess.run(
        [*command, "--set", f"gateway.state_dir={gateway.state}"], capture_output=True, text=True, timeout=20
    )
    assert told.returncode == 1
    assert f"a gateway already runs with the state in {gateway.state}" in told.stderr
    assert "systemctl stop bega-gateway" in told.stderr and "Traceback" not in told.stderr
    assert (gateway.state / "boot.a").read_text() == boot
    gateway.kill()
    gateway.start()
    assert gateway.stop() == 0


def test_a_directory_is_free_again_when_its_holder_ends_and_nothing_is_written_into_it(tmp_path):
    held = hold_alone(tmp_path)
    with pytest.raises(ConfigError, match="already runs"):
        hold_alone(tmp_path)
    os.close(held)
    os.close(hold_alone(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="No such file"):
        hold_alone(tmp_path / "missing")
