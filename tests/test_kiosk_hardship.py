"""The whole kiosk with nothing as it should be: every screen is still a page in plain words, never an error."""

import asyncio
import re
import sqlite3
from contextlib import closing
from dataclasses import replace

import httpx
import pytest

from bega_kiosk.config import make
from bega_kiosk.places import STORE
from bega_kiosk.server import HEADERS, Pages
from bega_kiosk.store import Store, Value
from bega_kiosk.words import LANGUAGES, load_words

NOW_MS = 1_795_000_000_000


@pytest.fixture(scope="module")
def words():
    return load_words(make({"kiosk": {"name": "k", "city": "c"}}).timezone)


def kiosk_at(folder, words, now_ms, panel="24"):
    config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(folder), "panel": panel}})
    store = Store(folder / STORE, lambda: now_ms)
    return Pages(config, store, words, lambda: now_ms), store


def failing(pages, addresses=None):
    """Return the addresses that are no page of ours; left out: every screen, in all languages by turns."""
    tags = list(LANGUAGES)
    paths = [path for place in pages.places for path in place.paths()]
    addresses = addresses or [f"{path}?lang={tags[turn % len(tags)]}" for turn, path in enumerate(paths)]

    async def ask():
        way = httpx.ASGITransport(pages.app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=way, base_url="http://kiosk", follow_redirects=True) as browser:
            answers = [(address, await browser.get(address)) for address in addresses]
        return [
            (address, answer.status_code)
            for address, answer in answers
            if answer.status_code != 200 or 'id="page"' not in answer.text
        ]

    return asyncio.run(ask())


def test_screen_that_fails_is_seen_and_is_still_a_page_in_words(tmp_path, words):
    pages, store = kiosk_at(tmp_path, words, NOW_MS)
    pages.places = [replace(place, draw=lambda screen: 1 / 0) if place.path == "/" else place for place in pages.places]
    assert failing(pages) == [("/?lang=ro", 500)]

    async def ask():
        way = httpx.ASGITransport(pages.app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=way, base_url="http://kiosk") as browser:
            return await browser.get("/")

    assert HEADERS.items() <= {name.title(): value for name, value in asyncio.run(ask()).headers.items()}.items()
    store.close()


def test_language_is_named_in_itself_on_each_part_of_the_list(tmp_path, words):
    """A voice that reads Serbian by German rules says nothing that anybody understands."""
    pages, store = kiosk_at(tmp_path, words, NOW_MS, panel="10")
    place = next(place for place in pages.places if place.path == "/language")
    drawn = [place.draw(pages.screen(place, {}, {"text": "large", "page": page})) for page in ("1", "2")]
    tiles = re.findall(
        r'<a class="tile[^>]*?lang="([^"]*)">.*?class="name">([^<]*)', "".join(one.html for one in drawn), re.S
    )
    assert tiles == [(tag, language.name) for tag, language in LANGUAGES.items()]
    store.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_to_do_in_danger_is_one_screen(tmp_path, words, language):
    """On a small panel it was three of one line each, and room for all."""
    pages, store = kiosk_at(tmp_path, words, NOW_MS, panel="10")
    place = next(place for place in pages.places if place.path == "/help/112")
    assert place.draw(pages.screen(place, {}, {"lang": language})).parts == 1
    store.close()


def test_form_whose_sender_goes_is_no_failure(tmp_path, words, caplog):
    pages, store = kiosk_at(tmp_path, words, NOW_MS)

    async def send_half():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            answered.append(message.get("status"))

        headers = [(b"content-length", b"100")]
        scope = {"type": "http", "method": "POST", "path": "/report", "query_string": b"", "headers": headers}
        await pages.app()(scope, receive, send)

    answered = []
    asyncio.run(send_half())
    assert (answered[0], caplog.text) == (400, "")
    store.close()


@pytest.mark.parametrize("now_ms", [0, 86_400_000, NOW_MS, 4_102_444_800_000], ids=["1970", "day two", "now", "2100"])
def test_every_screen_is_a_page_at_any_clock_without_a_feed(tmp_path, words, now_ms):
    pages, store = kiosk_at(tmp_path, words, now_ms)
    assert failing(pages) == []
    store.close()


def test_every_screen_is_a_page_on_a_full_disk(tmp_path, words):
    pages, store = kiosk_at(tmp_path, words, NOW_MS, panel="10")
    with closing(sqlite3.connect(tmp_path / STORE)) as file:
        store._file.execute(f"PRAGMA max_page_count={file.execute('PRAGMA page_count').fetchone()[0]}")
    value = Value(
        source="gw",
        device="d",
        label="x" * 200,
        quantity="pm2_5",
        part="",
        value=1.0,
        time_ms=NOW_MS,
        time_quality=0,
        quality=0,
        is_simulated=False,
    )
    store.take_values([value])
    store._write([value] * 2000, {})
    assert store._is_failing, "the disk is not full"
    assert failing(pages) == []
    store.close()


def test_every_screen_is_a_page_when_values_lie(tmp_path, words):
    pages, store = kiosk_at(tmp_path, words, NOW_MS)
    for quantity in ("pm_index", "pm2_5", "pm2_5_mean_1h", "coverage"):
        for number, value in enumerate((None, -1.0, 1e300, 7.0)):
            for time_ms in (0, NOW_MS, 1 << 53):
                store.take_values(
                    [
                        Value(
                            source="gw",
                            device=f"d{number}",
                            label="\u202e<b>" * 20,
                            quantity=quantity,
                            part="",
                            value=value,
                            time_ms=time_ms,
                            time_quality=2,
                            quality=2,
                            is_simulated=True,
                        )
                    ]
                )
    assert failing(pages) == []
    store.close()


@pytest.mark.parametrize(
    "query", ["page=99", "page=-1", "page=%00", "lang=xx", "lang=ro&lang=hu", "text=" + "a" * 5000]
)
def test_nonsense_in_an_address_is_a_page(tmp_path, words, query):
    pages, store = kiosk_at(tmp_path, words, NOW_MS)
    assert failing(pages, [f"{place.paths()[0]}?{query}" for place in pages.places if place.paths()]) == []
    store.close()
