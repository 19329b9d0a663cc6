"""The desk's notices, fetched for ever: when the kiosk starts, every 5 minutes, and at once when there is a hint.

A hint is the file `notices.hint` in the kiosk's state_dir, touched by whoever heard over MQTT that there is something
new. It says nothing else, so nobody gains by a false one; without any, a notice is 5 minutes late.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from pathlib import Path

import httpx
import msgspec

from bega_kiosk.feed import FAILURES, LONGEST_PAUSE_S, get_whole
from bega_kiosk.notices import MOST_NOTICES, Board

log = logging.getLogger("bega.kiosk.notices")

HINT = "notices.hint"
PUBLIC = "/public/v1/notices"
EVERY_S = 300.0
LOOK_FOR_HINT_S = 2.0


class Answer(msgspec.Struct):
    """What the desk gives out; the signature of each is looked at by the board."""

    notices: list[str]


class NoticeFeed:
    """One desk, asked again and again: what it gives out goes onto the board."""

    def __init__(self, url: str, board: Board, hint: Path) -> None:
        self._url = url.rstrip("/")
        self._board = board
        self._hint = hint
        self._is_away = False

    async def follow(self) -> None:
        """Fetch for ever, whatever the desk does."""
        # No proxy and no .netrc from the environment; nothing is compressed, so a length is what it says.
        async with httpx.AsyncClient(timeout=5.0, trust_env=False, headers={"Accept-Encoding": "identity"}) as client:
            while True:
                hint_ns = self._hinted_ns()
                is_there = await self._fetch(client)
                await self._wait(EVERY_S if is_there else LONGEST_PAUSE_S, hint_ns)

    async def _fetch(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = msgspec.json.decode(await get_whole(client, self._url + PUBLIC), type=Answer)
            messages = [b64decode(notice, validate=True) for notice in answer.notices[:MOST_NOTICES]]
        except (*FAILURES, ValueError) as error:  # ValueError: no base64
            if not self._is_away:
                log.warning("desk away url=%s why=%s", self._url, str(error) or type(error).__name__)
            self._is_away = True
            return False
        if self._is_away:
            log.info("desk back url=%s", self._url)
        self._is_away = False
        self._board.take_all(messages)
        return True

    async def _wait(self, for_s: float, hint_ns: int) -> None:
        """Return after a while, or as soon as there is another hint than the one of `hint_ns`."""
        for _ in range(round(for_s / LOOK_FOR_HINT_S)):
            await asyncio.sleep(LOOK_FOR_HINT_S)
            if self._hinted_ns() != hint_ns:
                return

    def _hinted_ns(self) -> int:
        try:
            return self._hint.stat().st_mtime_ns
        except OSError:
            return 0
