"""A kiosk's start: what a first page does without is neither imported nor read before it."""

import asyncio
import logging
import subprocess
import sys

import pytest

from bega_kiosk.config import make
from bega_kiosk.places import STORE
from bega_kiosk.server import Pages
from bega_kiosk.store import Store
from bega_kiosk.words import load_words

# What costs more than everything that the first page needs: a client of HTTP, Unicode's data of all languages, ciphers,
# drawing on terminals, codes to be printed, MQTT.
HEAVY = {"httpx", "babel", "cryptography", "rich", "pygments", "segno", "aiomqtt", "paho", "google.protobuf"}
# In a process of its own: this one has imported everything.
FIRST_PAGE = """import sys
from pathlib import Path
import bega_kiosk.app, bega_kiosk.command
from bega_kiosk.config import make
from bega_kiosk.server import Pages
from bega_kiosk.store import Store
from bega_kiosk.words import load_words
config = make({"kiosk": {"name": "k", "city": "c", "state_dir": sys.argv[1]}})
pages = Pages(config, Store(Path(sys.argv[1]) / "store", lambda: 0), load_words(config.timezone), lambda: 0)
home = next(place for place in pages.places if place.path == "/")
assert "tile" in home.draw(pages.screen(home, {}, {})).html
print(*sys.modules)"""


def new_pages(folder, **more):
    config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(folder), **more}})
    return Pages(config, Store(folder / STORE, lambda: 0), load_words(config.timezone), lambda: 0)


@pytest.fixture
def pages(tmp_path):
    found = new_pages(tmp_path)
    yield found
    found.known.store.close()


def ask(pages, path):
    """Return the status of a page, asked for without any client."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "root_path": ""}
    asyncio.run(pages.app()(scope, receive, send))
    return sent[0]["status"]


def test_nothing_heavy_is_imported_for_the_first_page(tmp_path):
    asked = subprocess.run([sys.executable, "-c", FIRST_PAGE, tmp_path], stdout=subprocess.PIPE, check=True, text=True)
    modules = asked.stdout.split()
    assert "bega_kiosk.pages.report" in modules
    assert HEAVY & set(modules) == set()


def test_first_page_reads_nothing_that_staff_wrote(pages):
    assert ask(pages, "/") == 200
    assert "content" not in vars(pages.known)
    assert pages.given.is_set(), "what waits for the first page goes on"


def test_first_page_reads_no_example_of_a_timetable_and_the_next_does(pages):
    assert ask(pages, "/") == 200
    assert pages.known.transport._timetable is None
    assert ask(pages, "/transport/lines") == 200
    assert pages.known.transport.timetable.lines


def test_what_staff_wrote_wrongly_is_said_once_the_first_page_is_given(tmp_path, caplog):
    pages = new_pages(tmp_path, content_dir=str(tmp_path))
    (tmp_path / "jobs.toml").write_text("[[job]]\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "bega.kiosk.server"):
        pages.warm()
    pages.known.store.close()
    assert "jobs.toml: job number 1" in caplog.text
