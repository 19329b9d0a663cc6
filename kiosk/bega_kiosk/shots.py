"""Pictures of every screen, for people who look at them all: each language, each panel, and each part of a long screen.

The pages come from a kiosk of its own, `bega kiosk run` on a free port, which knows what the kiosk's store and its
notices say (a copy: the running one is left alone) and what the feed says now. Where it has no notice, samples stand
in, which say so on the page: people have to look at what a citizen would see. Nothing is ever sent from a form.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from bega.browser import Page, running_browser
from bega.clock import mono_ms, wall_ms
from bega.look.panels import PANELS
from bega_kiosk import given
from bega_kiosk.config import Config
from bega_kiosk.display import Display
from bega_kiosk.notices import Board
from bega_kiosk.places import NOTICES, STORE, every_screen
from bega_kiosk.sample_notices import DISTRICT, put_samples
from bega_kiosk.signed import read_public_keys
from bega_kiosk.words import DEFAULT
from bega_protocols.errors import ConfigError, LineError

UP_S, END_S = 30.0, 10.0
SETTLE_S = 2.0  # the feed's first answer
MOST_PARTS = 30
INDEX = "index.html"

# Which parts of this screen its links lead to, and what the server answered.
PARTS = """[...document.querySelectorAll("main a")].map((link) => new URL(link.href))
  .filter((url) => url.pathname === location.pathname).map((url) => Number(url.searchParams.get("page")) || 1)"""
STATUS = """performance.getEntriesByType("navigation")[0].responseStatus"""

Said = Callable[[int, str], None]


def every_look(languages: Sequence[str], whole: bool) -> list[Display]:
    """Return how screens are looked at: in each language, and with `whole` in each of the 8 looks as well."""
    flags = (False, True) if whole else (False,)
    return [
        Display(language, is_dark, is_larger, is_reach)
        for is_dark, is_larger, is_reach in itertools.product(flags, repeat=3)
        for language in languages
    ]


def every_path(args: argparse.Namespace) -> list[str]:
    """Return the path of every screen that the kiosk of the pictures has."""
    with tempfile.TemporaryDirectory(prefix="bega-shots-") as folder:
        assignments = _copied(given.given_config(args), Path(folder))
        own = argparse.Namespace(**vars(args) | {"set": [*args.set, *assignments], "data": folder})
        return [path for path, _ in every_screen(given.given_config(own), wall_ms, DEFAULT)]


def draw(
    args: argparse.Namespace, folder: Path, looks: Sequence[Display], paths: Sequence[str], say: Said
) -> list[str]:
    """Write a picture of each path in each look on each panel asked for; return what could not be drawn, in words."""
    panels = [args.panel] if args.panel else list(PANELS)
    failed: list[str] = []
    drawn: list[Path] = []
    with running_browser() as browser:
        for name in panels:
            with running_kiosk(args, name) as address:
                page = browser.open(PANELS[name].width_px, PANELS[name].height_px)
                for display, path in itertools.product(looks, paths):
                    try:
                        drawn += _draw_parts(page, address, display, path, folder / name)
                    except LineError as error:
                        failed.append(f"{name} {display.address(path)}: {error}")
                    say(len(panels) * len(looks) * len(paths), f"{name} {display.language} {path}")
                page.close()
    _write_index(folder, drawn)
    return failed


def file_of(display: Display, path: str, part: int) -> Path:
    """Return where a picture goes: "ro/air_dust-dark-2.png"."""
    look = [*(["dark"] if display.is_dark else []), *(["large"] if display.is_larger else [])]
    look += ["reach"] if display.is_reach else []
    name = path.strip("/").replace("/", "_") or "home"
    return Path(display.language) / ("-".join([name, *look, *([str(part)] if part > 1 else [])]) + ".png")


@contextlib.contextmanager
def running_kiosk(args: argparse.Namespace, panel: str) -> Iterator[str]:
    """Run a kiosk of these settings on a free port; yield its address without the last slash."""
    with tempfile.TemporaryDirectory(prefix="bega-shots-") as folder:
        ready, log = Path(folder) / "ready", Path(folder) / "log"
        assignments = _copied(given.given_config(args), Path(folder))
        words = [sys.executable, "-m", "bega", "kiosk", "run", "--port", "0", "--ready-file", str(ready)]
        words += [*_settings(args, assignments), "--data", folder, "--panel", panel]
        with log.open("wb") as said, subprocess.Popen(words, stderr=said, stdout=said) as process:
            try:
                _wait_for(ready, process, log)
                time.sleep(SETTLE_S)
                yield json.loads(ready.read_text(encoding="utf-8"))["kiosk"].rstrip("/")
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
                process.kill()


def _settings(args: argparse.Namespace, more: Sequence[str]) -> list[str]:
    words = ["--config", str(args.config.absolute())] if args.config else []
    words += [word for assignment in (*args.set, *more) for word in ("--set", assignment)]
    return words + (["--feed", args.feed] if args.feed else [])


def _wait_for(ready: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    until_ms = mono_ms() + round(UP_S * 1000)
    while not ready.exists():
        if process.poll() is not None or mono_ms() > until_ms:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ConfigError(f"the kiosk did not come up: {said[-1] if said else 'it said nothing'}")
        time.sleep(0.05)


def _copied(config: Config, folder: Path) -> list[str]:
    """Copy what a kiosk heard of its feed and its desk; return what is to be laid over its settings."""
    _copy_store(config.kiosk.state_dir, folder)
    here, there = Path(config.kiosk.state_dir) / NOTICES, folder / NOTICES
    keys = read_public_keys([Path(file) for file in config.notices.keys])
    if Board(here, keys, config.kiosk.city, wall_ms).every():
        there.write_bytes(here.read_bytes())
        return []
    public = put_samples(there, config.kiosk.city, wall_ms())
    district = [] if config.notices.has_place else [f"notices.district={json.dumps(DISTRICT)}"]
    return [f"notices.keys={json.dumps([str(public)])}", *district]


def _copy_store(state_dir: str, folder: Path) -> None:
    """Copy what a kiosk heard of its feed, and nothing else of it; without it the pages begin with nothing."""
    path = Path(state_dir) / STORE
    if not path.exists():
        return
    with (
        contextlib.suppress(sqlite3.Error),  # damaged: as if there were none, and `bega kiosk doctor` says so
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(folder / STORE)) as copy,
    ):
        source.backup(copy)


def _draw_parts(page: Page, address: str, display: Display, path: str, folder: Path) -> list[Path]:
    drawn: list[Path] = []
    for part in range(1, MOST_PARTS):
        page.go(address + display.address(path, part))
        if (status := page.run(STATUS)) != 200:
            raise LineError(f"the kiosk answers {status}")
        file = folder / file_of(display, path, part)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(page.picture()))
        drawn.append(file)
        if part + 1 not in page.run(PARTS):
            break
    return drawn


def _write_index(folder: Path, drawn: list[Path]) -> None:
    """Write one page that shows them all, small, each with its name."""
    names = [escape(os.path.relpath(file, folder)) for file in drawn]
    figures = "\n".join(
        f'<figure><a href="{name}"><img src="{name}" alt="{name}" loading="lazy" height="300"></a>'
        f"<figcaption>{name}</figcaption></figure>"
        for name in names
    )
    style = "<style>body{font:14px sans-serif}figure{display:inline-block;margin:8px}img{border:1px solid #888}</style>"
    folder.mkdir(parents=True, exist_ok=True)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{len(names)} screens</title>{style}'
    (folder / INDEX).write_text(f"{head}\n{figures}\n", encoding="utf-8")
