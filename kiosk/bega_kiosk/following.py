"""What a kiosk follows while it runs: the public feed, the desk's notices, buses and trams.

The pages answer from what was kept before, so nobody waits for this. It is imported once the first page was given:
what speaks HTTP takes a third of the time of a start.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bega_kiosk.air import PLOTTED, QUANTITIES
from bega_kiosk.feed import Feed
from bega_kiosk.notice_feed import HINT, NoticeFeed
from bega_kiosk.places import Known
from bega_kiosk.transport_feed import TransportFeed


async def follow(known: Known) -> None:
    """Follow everything that the configuration names, for ever."""
    config = known.config
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Feed(config.feed.url, known.store, QUANTITIES, PLOTTED).follow())
        if config.notices.url is not None:
            hint = Path(config.kiosk.state_dir) / HINT
            tasks.create_task(NoticeFeed(config.notices.url, known.notices, hint).follow())
        if config.transport.feed is not None:
            tasks.create_task(TransportFeed(known.transport, known.store.call_pages, known.wall_ms).follow())
