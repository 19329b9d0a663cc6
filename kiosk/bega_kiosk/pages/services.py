"""Papers and services: what to bring, where to go, what else is good to know. Clerks write the lists."""

from __future__ import annotations

from bega_kiosk.content import Desk, Service, said
from bega_kiosk.desks import source_line, today, where_lines
from bega_kiosk.pages.forms import way_to
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each

VIEWS = {"bring": ("svc.bring", ""), "where": ("svc.where", "/where"), "about": ("svc.about", "/about")}


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""

    def place(view: str) -> Place:
        return place_of_each(
            known,
            Service,
            "/services/{service}" + VIEWS[view][1],
            lambda screen, known, service: draw_service(screen, known, service, view),
            "/services",
            lambda service: service.title,
        )

    tile = Tile("paper", 45)
    return [Place("/services", "svc.title", lambda screen: draw(screen, known), tile=tile), *map(place, VIEWS)]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return the services to choose from."""
    language = screen.words.language
    keys = [
        Key(said(service.title, language), screen.address(f"/services/{service.id}"), service.icon)
        for service in known.content.every(Service)
    ]
    if keys:
        return screen.choice(keys)
    text = screen.words.text
    return screen.answer(
        text("svc.none"), [text("svc.ask")], [Key(text("common.call_human"), screen.address("/human"))]
    )


def draw_service(screen: Screen, known: Known, service: Service, view: str) -> Drawn:
    """Return one view of a service."""
    text, language = screen.words.text, screen.words.language
    form = way_to(screen, known, service.id)
    others = [*VIEWS, *VIEWS][[*VIEWS].index(view) + 1 :][:2]  # the next ones first
    keys = [Key(text(VIEWS[other][0]), screen.address(f"/services/{service.id}{VIEWS[other][1]}")) for other in others]
    keys += form
    notes = [] if service.is_checked(today(screen)) else [text("svc.example")]
    if view == "bring":
        return screen.answer(
            text("svc.bring"), [said(one, language) for one in service.bring], keys, notes, is_list=True
        )
    if view == "where":
        desks = [desk for name in service.desks if (desk := known.content.find(Desk, name))]
        if not all(desk.is_checked(today(screen)) for desk in desks):
            notes = [text("svc.example")]
        lines = [line for desk in desks for line in where_lines(screen, desk)]
        ways = [said(one, language) for one in service.where]
        told = lines + ways if len(desks) == 1 else ways + lines  # which of several desks comes before where they are
        return screen.answer(text("svc.where"), told, keys, notes)
    sentences = [said(one, language) for one in [*service.purpose, *service.know]]
    notes += [source_line(screen, service)] if screen.panel.is_large else []
    return screen.answer(text("svc.about"), sentences, keys, notes)
