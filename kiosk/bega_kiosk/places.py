"""Every screen of the kiosk: found in the modules of `pages`, so that a new one is a module, a template and its texts.

A module of `pages` with a function `places(known)` gives screens; nothing else has to be told of them. The server makes
their routes, home their tiles, `bega kiosk screens` their list, and the tests look at each.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from bega.clock import Clock, mono_ms
from bega_kiosk import pages
from bega_kiosk.config import Config
from bega_kiosk.content import Content, Kind, Wording, load_content, said, sample_folder
from bega_kiosk.drafts import Drafts
from bega_kiosk.notices import Board
from bega_kiosk.outbox import Outbox
from bega_kiosk.pages.screen import Drawn, Screen
from bega_kiosk.printer import Printer
from bega_kiosk.reported import Reported
from bega_kiosk.signed import read_public_keys
from bega_kiosk.store import Store
from bega_kiosk.transport import Transport
from bega_kiosk.words import Words, load_words

STORE, NOTICES = "kiosk.sqlite", "notices"  # in the kiosk's state_dir
EXAMPLE = "transport"  # in the sample of what staff edit
Params = Mapping[str, str]  # what stands in the place of {names} in a path


@dataclass(frozen=True)
class Known:
    """What screens are drawn from."""

    config: Config
    store: Store
    wall_ms: Clock

    @cached_property
    def content(self) -> Content:
        """Return what staff wrote, as it was when the kiosk started."""
        return load_content(self.config.content_folder)

    @cached_property
    def notices(self) -> Board:
        """Return the city's notices, as they were kept; raises ConfigError if its keys cannot be read."""
        keys = read_public_keys([Path(file) for file in self.config.notices.keys])
        return Board(Path(self.config.kiosk.state_dir) / NOTICES, keys, self.config.kiosk.city, self.wall_ms)

    @cached_property
    def transport(self) -> Transport:
        """Return buses and trams, as they were kept; a kiosk with nothing of its city shows an example."""
        example = sample_folder() / EXAMPLE if self.config.kiosk.content_dir is None else None
        return Transport(self.config.transport, Path(self.config.kiosk.state_dir), example, self.wall_ms)

    @cached_property
    def drafts(self) -> Drafts:
        """Return what citizens are about to send."""
        return Drafts(mono_ms, os.urandom)

    @cached_property
    def printer(self) -> Printer | None:
        """Return the printer for forms, None where there is none; pages are looked at again when it has answered."""
        queue = self.config.printer.queue
        if queue is None:
            return None
        return Printer(queue, self.config.printer.limit_seconds, mono_ms, self.store.call_pages)

    @cached_property
    def outbox(self) -> Outbox:
        """Return what they have sent, until the desk has it."""
        return Outbox(Path(self.config.kiosk.state_dir), self.config.kiosk.name, self.wall_ms, os.urandom)

    @cached_property
    def reported(self) -> Reported:
        """Return what citizens have reported of this very place."""
        return Reported(Path(self.config.kiosk.state_dir), self.outbox)


@dataclass(frozen=True)
class Tile:
    """How home shows a screen: its drawing, its turn, and its answer in a few words with the index of air it names."""

    icon: str
    turn: int
    answer: Callable[[Screen], tuple[str, int | None]] | None = None


@dataclass(frozen=True)
class Place:
    """One screen, or one kind of them: "/services/{service}" has an address for each of `instances`."""

    path: str
    title: str | Callable[[Words, Params], str]  # the key of its heading, or the heading itself
    draw: Callable[[Screen], Drawn]
    parent: str | None = "/"  # where "back" leads
    tile: Tile | None = None
    instances: Callable[[], Iterable[str]] | None = None
    take: Callable[[Screen, Mapping[str, str]], str] | None = None  # a form that was sent: the address to go on to

    def heading(self, words: Words, params: Params) -> str:
        """Return what the screen is called."""
        return words.text(self.title) if isinstance(self.title, str) else self.title(words, params)

    def params(self, path: str) -> Params:
        """Return what stands in `path`, one of ours, in the place of the {names}."""
        pairs = zip(self.path.split("/"), path.split("/"), strict=True)
        return {name[1:-1]: given for name, given in pairs if name.startswith("{")}

    def paths(self) -> list[str]:
        """Return every path that the screen has."""
        return [self.path] if self.instances is None else [*self.instances()]


def place_of_each(
    known: Known,
    kind: type[Kind],
    path: str,
    draw: Callable[[Screen, Known, Kind], Drawn],
    parent: str,
    called: Callable[[Kind], Wording] | str,
    take: Callable[[Screen, Mapping[str, str]], str] | None = None,
) -> Place:
    """Return the screens of each record of a kind: {name} in `path` is its id, `called` its heading or a key."""
    before, _, rest = path.partition("{")
    name, _, after = rest.partition("}")

    def found(params: Params) -> Kind:
        record = known.content.find(kind, params[name])
        assert record is not None, "the server asks for no other"
        return record

    return Place(
        path,
        called if isinstance(called, str) else lambda words, params: said(called(found(params)), words.language),
        lambda screen: draw(screen, known, found(screen.more)),
        parent,
        instances=lambda: [f"{before}{record.id}{after}" for record in known.content.every(kind)],
        take=take,
    )


def every_screen(config: Config, wall_ms: Clock, language: str) -> list[tuple[str, str]]:
    """Return (address, heading) of each screen of a kiosk, as its store has them; nothing has to run for it."""
    store = Store(Path(config.kiosk.state_dir) / STORE, wall_ms)
    try:
        places = every_place(Known(config, store, wall_ms))
        words = load_words(config.timezone)[language]
        return [(path, place.heading(words, place.params(path))) for place in places for path in place.paths()]
    finally:
        store.close()


def every_place(known: Known) -> list[Place]:
    """Return all screens, home first; raises ValueError if two have one path."""
    found = sorted(_found(known), key=lambda place: place.path)
    paths = [place.path for place in found]
    if len(set(paths)) < len(paths):
        raise ValueError(f"two screens have one path: {paths}")
    return found


def _found(known: Known) -> Iterator[Place]:
    for module in pkgutil.iter_modules(pages.__path__, f"{pages.__name__}."):
        places = getattr(import_module(module.name), "places", None)
        if places is not None:
            yield from places(known)
