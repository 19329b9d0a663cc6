"""The desk's notices, fetched for ever: when the kiosk starts, every 5 minutes, and at once when there is a hint.

A hint is the file `notices.hint` in the kiosk's state_dir, touched by whoever heard over MQTT that there is something
new. It says nothing else, so nobody gains by a false one; without any, a notice is 5 minutes late. After a fetch
for a hint the kiosk rests for half a minute, however many hints come.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx

from bega_kiosk.feed import FAILURES, LONGEST_PAUSE_S, get_whole
from bega_kiosk.notice_list import PUBLIC, read_given
from bega_kiosk.notices import Board
from bega_protocols.errors import WireError

log = logging.getLogger("bega.kiosk.notices")

HINT = "notices.hint"
EVERY_S = 300.0
LOOK_FOR_HINT_S = 2.0
SET_MS = 2 * round(EVERY_S) * 1000  # older than this no list becomes between two fetches: somebody has set the clock
REST_S = 30.0  # whoever can send hints without end wears out no card, and calls no desk without end


async def asked(url: str) -> bytes:
    """Return what a desk gives out, asked once; raises one of FAILURES."""
    async with _client() as client:
        return await get_whole(client, url.rstrip("/") + PUBLIC)


class NoticeFeed:
    """One desk, asked again and again: what it gives out goes onto the board."""

    def __init__(self, url: str, board: Board, hint: Path) -> None:
        self._url = url.rstrip("/")
        self._board = board
        self._hint = hint
        self._why = ""  # nothing was taken when the desk was asked last

    async def follow(self) -> None:
        """Fetch for ever, whatever the desk does."""
        async with _client() as client:
            is_hinted = False
            while True:
                hint_ns = self._hinted_ns()
                is_there = await self._fetch(client)
                rest_s = REST_S if is_hinted else 0.0
                is_hinted = await self._wait(is_there, rest_s, hint_ns)

    async def _fetch(self, client: httpx.AsyncClient) -> bool:
        try:
            messages, list_message = read_given(await get_whole(client, self._url + PUBLIC))
            require_list(list_message)
            # In a thread: it verifies each signature and waits for the disk, and whoever taps shall not.
            await asyncio.to_thread(self._board.take_all, messages, list_message or b"")
        except FAILURES as error:
            why = error.why if isinstance(error, WireError) else str(error) or type(error).__name__
            if self._why != why:
                log.warning("notices not taken, the last stay: url=%s why=%s", self._url, why)
            self._why = why
            return False
        if self._why:
            log.info("notices taken again url=%s", self._url)
        self._why = ""
        return True

    async def _wait(self, is_there: bool, rest_s: float, hint_ns: int) -> bool:
        """Return whether there is another hint than the one of `hint_ns`, as soon as there is and the rest is over."""
        for_s = EVERY_S if is_there else LONGEST_PAUSE_S
        for turn in range(1, round(for_s / LOOK_FOR_HINT_S) + 1):
            await asyncio.sleep(LOOK_FOR_HINT_S)
            if turn * LOOK_FOR_HINT_S >= rest_s and self._hinted_ns() != hint_ns:
                return True
            if is_there and not self._board.is_heard_by_this_clock(SET_MS):
                return False
        return False

    def _hinted_ns(self) -> int:
        try:
            return self._hint.stat().st_mtime_ns
        except OSError:
            return 0


def _client() -> httpx.AsyncClient:
    # No proxy and no .netrc from the environment; nothing is compressed, so a length is what it says.
    return httpx.AsyncClient(timeout=5.0, trust_env=False, headers={"Accept-Encoding": "identity"})


def require_list(list_message: bytes | None) -> None:
    """Raise WireError that says what to do where nobody signed which notices there are."""
    if list_message is None:
        raise WireError("the desk gives a list that nobody signed: it is older than this kiosk, update it")
    if not list_message:
        raise WireError("no list was signed yet: publish a notice, or `bega kiosk notice confirm`")
