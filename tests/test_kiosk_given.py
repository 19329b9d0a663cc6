"""A kiosk without a configuration file: what is needed is asked for, what is wrong is said, the rest is as usual."""

import argparse
import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from bega_kiosk.command import main
from bega_kiosk.given import add_settings, given_config
from bega_protocols.errors import ConfigError
from tests.kiosk_feed import CORNER, wait_until


def asked(*words):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return given_config(parser.parse_args([str(word) for word in words]))


def test_folder_is_all_that_a_kiosk_needs(tmp_path):
    config = asked("--data", tmp_path)
    assert (config.kiosk.state_dir, config.panel.name, config.server.listen) == (str(tmp_path), "24", "127.0.0.1:8000")


def test_options_are_laid_over_a_file_and_over_set():
    config = asked("--config", CORNER, "--set", "kiosk.panel=10", "--panel", "24p", "--port", 81, "--feed", "http://gw")
    assert asked("--config", CORNER, "--mqtt", "mqtts://b:8883").reports.mqtt == "mqtts://b:8883"
    assert (config.panel.name, config.server.listen, config.feed.url) == ("24p", "127.0.0.1:81", "http://gw")
    assert config.kiosk.name == "kiosk-corner"


def test_without_folder_or_file_it_is_said_what_to_give(capsys):
    assert main(["run", "--port", "0"]) == 1
    assert "--data DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["--feed", "gateway"], "feed.url: write http://host:port"),
        (["--port", "70000"], "server.listen: write host:port"),
        (["--set", "kiosk.nmae=x"], "kiosk.nmae: unknown key"),
    ],
)
def test_mistake_is_said_with_the_setting_that_it_is_about(tmp_path, words, place):
    with pytest.raises(ConfigError, match=place):
        asked("--data", tmp_path, *words)


def test_kiosk_runs_from_a_port_and_a_folder(tmp_path):
    ready = tmp_path / "ready.json"
    words = ["--port", "0", "--data", tmp_path / "data", "--panel", "10", "--feed", "http://127.0.0.1:9"]
    command = [sys.executable, "-m", "bega", "kiosk", "run", *words, "--ready-file", ready]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_until(lambda: ready.exists() or process.poll() is not None, 30)
        with urllib.request.urlopen(json.loads(ready.read_text())["kiosk"], timeout=10) as page:
            assert page.status == 200
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
