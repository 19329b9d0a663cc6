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


@pytest.fixture
def pages(tmp_path):
    config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(tmp_path)}})
    store = Store(tmp_path / STORE, lambda: 0)
    yield Pages(config, store, load_words(config.timezone), lambda: 0)
    store.close()


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


def test_nothing_heavy_is_imported_for_the_first_page():
    code = "import sys, bega_kiosk.command, bega_kiosk.app; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert "bega_kiosk.server" in modules
    assert HEAVY & set(modules) == set()


def test_first_page_reads_nothing_that_staff_wrote(pages):
    assert ask(pages, "/") == 200
    assert "content" not in vars(pages.known)
    assert pages.given.is_set(), "what waits for the first page goes on"


def test_what_staff_wrote_wrongly_is_said_once_the_first_page_is_given(pages, tmp_path, caplog):
    pages = Pages(
        make({"kiosk": {"name": "k", "city": "c", "state_dir": str(tmp_path), "content_dir": str(tmp_path)}}),
        pages.known.store,
        {},
        lambda: 0,
    )
    (tmp_path / "jobs.toml").write_text("[[job]]\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "bega.kiosk.server"):
        pages.warm()
    assert "jobs.toml: job number 1" in caplog.text
