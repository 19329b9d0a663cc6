"""The agent as the pages' child: it comes back, it goes with them, and the pages do without it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bega.settings import parse_assignments
from bega_kiosk import agent_child
from bega_kiosk.config import make
from tests.kiosk_feed import wait_until


@pytest.fixture
def config(tmp_path):
    kiosk = {"name": "kiosk-1", "city": "c", "state_dir": str(tmp_path / "Chioșc \U0001f475")}
    return make({"kiosk": kiosk, "reports": {"mqtt": "mqtt://127.0.0.1:9"}})


def kept_for(config, is_over):
    async def run():
        keeping = asyncio.create_task(agent_child.kept_running(config))
        async with asyncio.timeout(20):
            while not is_over():  # noqa: ASYNC110 - what is waited for is said in a log
                await asyncio.sleep(0.02)
        assert not keeping.done(), "the pages would end with it"
        keeping.cancel()

    asyncio.run(run())


def test_machine_that_has_no_room_for_an_agent_goes_on_and_says_so_once(config, monkeypatch, caplog):
    tries = []

    async def no_room(*command, env):
        tries.append(command)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_room)
    monkeypatch.setattr(agent_child, "AGAIN_AFTER_S", 0.01)
    kept_for(config, lambda: len(tries) > 5)
    assert [record.getMessage() for record in caplog.records] == [
        "agent ended, begun again every 0.01 s error=Resource temporarily unavailable"
    ]


def test_agent_that_dies_is_begun_again(config, monkeypatch, tmp_path, caplog):
    born = f"open({str(tmp_path / 'born')!r}, 'a').write('x'); raise SystemExit(3)"
    monkeypatch.setattr(agent_child, "command", lambda config: [sys.executable, "-S", "-c", born])
    monkeypatch.setattr(agent_child, "AGAIN_AFTER_S", 0.01)
    kept_for(config, lambda: (tmp_path / "born").exists() and len((tmp_path / "born").read_text()) >= 3)
    assert [record.getMessage() for record in caplog.records] == ["agent ended, begun again every 0.01 s exit=3"]


def test_folder_of_any_name_reaches_the_agent(config):
    words = agent_child.command(config)
    given = parse_assignments([word for word, before in zip(words[1:], words, strict=False) if before == "--set"])
    assert given["kiosk"]["state_dir"] == config.kiosk.state_dir


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_agent_of_a_kiosk_that_was_killed_ends_too(tmp_path):
    words = ["--port", "0", "--data", tmp_path / "data", "--mqtt", "mqtt://127.0.0.1:9", "--feed", "http://127.0.0.1:9"]
    with (tmp_path / "log").open("wb") as log:
        kiosk = subprocess.Popen([sys.executable, "-m", "bega", "kiosk", "run", *words], stderr=log)
    try:
        wait_until(lambda: children_of(kiosk.pid), 20)
        (agent,) = children_of(kiosk.pid)
        wait_until(lambda: "agent down" in (tmp_path / "log").read_text(), 20)
        kiosk.kill()
        kiosk.wait()
        wait_until(lambda: not is_alive(agent), 20)
    finally:
        kiosk.kill()
        kiosk.wait()
