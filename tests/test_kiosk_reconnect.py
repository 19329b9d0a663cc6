"""Staying with a broker: each trouble is said once, and tried again at a calm pace, however often it comes."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import pytest

from bega import mqtt
from bega.mqtt import SessionLost
from bega_kiosk import reconnect


class Session:
    async def subscribe(self, *topics):
        pass


@pytest.fixture
def stays(monkeypatch):
    """Return what keeps a session with a broker for so many tries of `work`, and what was said, and how it paused."""
    real = asyncio.sleep

    @asynccontextmanager
    async def connect(*_):
        yield Session()

    monkeypatch.setattr(mqtt, "connect", connect)
    monkeypatch.setattr(reconnect, "SETTLED_S", 7.5)  # no pause is so long

    def run(*outcomes, settles=()):
        said, pauses = [], []
        left = list(outcomes)

        async def sleep(for_s):
            if for_s == reconnect.SETTLED_S:
                await real(0 if len(left) in settles else 3600)
                return
            pauses.append(for_s)
            if not left:
                raise asyncio.CancelledError
            await real(0)

        async def work(session):
            for _ in range(5):
                await real(0)
            raise left.pop(0)

        monkeypatch.setattr(reconnect.asyncio, "sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(reconnect.stay_connected("b", "n", None, "t", lambda: said.append("up"), said.append, work))
        monkeypatch.undo()
        return said, pauses

    return run


def test_disk_that_is_full_behind_each_session_is_said_once_and_tried_ever_more_seldom(stays):
    said, pauses = stays(*[sqlite3.OperationalError("disk is full")] * 7)
    assert said == ["up", "disk is full"]
    assert pauses == [1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]


def test_session_that_lasted_is_said_to_be_back_and_its_end_is_news(stays):
    lost = SessionLost("gone")
    said, pauses = stays(lost, lost, lost, settles=(1,))
    assert said == ["up", "gone", "up", "gone"]
    assert pauses == [1.0, 2.0, 1.0]


def test_another_trouble_is_said_too(stays):
    said, _ = stays(SessionLost("gone"), OSError("no route"), SessionLost("gone"))
    assert said == ["up", "gone", "no route", "gone"]
