"""One kiosk: the feed followed, the store kept, the pages served, all of it ended together."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from bega.clock import Clock
from bega.ready import write_ready
from bega.web import address_of, bind, serve
from bega_kiosk.agent_child import kept_running
from bega_kiosk.config import Config
from bega_kiosk.outbox import Outbox
from bega_kiosk.places import STORE, Known
from bega_kiosk.server import Pages
from bega_kiosk.store import Store
from bega_kiosk.words import load_words

log = logging.getLogger("bega.kiosk")

LOOK_EVERY_S = 1.0
FIRST_PAGE_WITHIN_S = 1.0


async def run(config: Config, wall_ms: Clock, ready_file: Path | None, stop: asyncio.Event) -> None:
    """Run the kiosk until `stop` is set; raises ConfigError before anything is served if it cannot be run."""
    words = load_words(config.timezone)
    listener = bind("server.listen", config.server.listen)
    store = Store(Path(config.kiosk.state_dir) / STORE, wall_ms)
    pages = Pages(config, store, words, wall_ms)
    _ = pages.known.notices  # keys that cannot be read end it here
    address = address_of(listener) + "/"
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(_follow(pages)), tasks.create_task(store.keep())]
            background.append(tasks.create_task(_watch(pages.known.outbox, store)))
            if config.reports.mqtt is not None:
                background.append(tasks.create_task(kept_running(config)))
            serving = tasks.create_task(serve(pages.app(), listener))
            write_ready(ready_file, {"kiosk": address})
            log.info("kiosk up address=%s feed=%s panel=%s", address, config.feed.url, config.panel.name)
            await stop.wait()
            pages.stopping.set()
            for task in [*background, serving]:
                task.cancel()
    finally:
        listener.close()
        store.close()
    log.info("kiosk ended")


async def _follow(pages: Pages) -> None:
    """Follow the feeds, once the first page was given: whoever switches a kiosk on waits for that page alone."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_PAGE_WITHIN_S):
            await pages.given.wait()
    follow = await asyncio.to_thread(_loaded, pages)
    await follow(pages.known)


def _loaded(pages: Pages) -> Callable[[Known], Awaitable[None]]:
    """Return what follows the feeds. In a thread: the next pages are given meanwhile."""
    pages.warm()
    _ = pages.known.transport.timetable  # the example, where a kiosk has no feed
    from bega_kiosk.following import follow

    # What was made until now stays until the end. Looking through it again and again for garbage would stop the pages
    # for 30 ms each time; while it was being made it was not looked through at all (command.py).
    gc.collect()
    gc.freeze()
    gc.enable()
    return follow


async def _watch(outbox: Outbox, store: Store) -> None:
    """Call the pages whenever the agent has heard of a report: whoever holds the slip sees it within seconds."""
    seen_ns = outbox.changed_ns()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now_ns = outbox.changed_ns()
        if now_ns != seen_ns:
            seen_ns = now_ns
            store.call_pages()
