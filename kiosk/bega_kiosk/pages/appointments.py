"""Appointments, asked for: a person calls back. And the same request without a service, from "call a person".

The request goes the way of a report: on the disk before its citizen reads so, to the desk, with a code. Until then
the number is in the draft alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bega_kiosk.content import Service, said
from bega_kiosk.desks import today
from bega_kiosk.outbox import NotKept
from bega_kiosk.pages import keyboard
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each

DIGITS = "1234567890+"
LEAST_DIGITS = 6
MOST = 16


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/appointments", "appt.title", lambda screen: draw(screen, known), tile=Tile("clock", 70)),
        place_of_each(
            known, Service, "/appointments/{service}", draw_service, "/appointments", lambda service: service.title
        ),
        place_of_each(
            known,
            Service,
            "/appointments/{service}/call",
            lambda screen, known, _: draw_number(screen, known),
            "/appointments/{service}",
            "call.number",
            _taking(known, "appointment"),
        ),
        Place(
            "/human/call",
            "call.number",
            lambda screen: draw_number(screen, known),
            parent="/human",
            take=_taking(known, "callback"),
        ),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return what an appointment can be asked for."""
    language = screen.words.language
    keys = [
        Key(said(service.title, language), screen.address(f"/appointments/{service.id}"), service.icon)
        for service in known.content.every(Service)
    ]
    return screen.choice(keys)


def draw_service(screen: Screen, known: Known, service: Service) -> Drawn:
    """Return whether an appointment is needed, if somebody checked it, and how to ask for one."""
    text = screen.words.text
    keys = [
        Key(text("appt.ask"), screen.address(f"/appointments/{service.id}/call"), "arrow"),
        Key(text("appt.bring"), screen.address(f"/services/{service.id}"), "paper"),
    ]
    notes = [] if service.is_checked(today(screen)) else [text("svc.example")]
    sentence = text("appt.needed" if service.needs_appointment else "appt.unknown")
    return screen.answer(sentence, [text("appt.human"), text("appt.not_yet")], keys, notes)


def draw_number(screen: Screen, known: Known) -> Drawn:
    """Return where a telephone number is typed."""
    draft = known.drafts.find(screen.display.draft)
    if draft:
        draft.at = screen.path
    lacks = screen.words.text(draft.lacks) if draft and draft.lacks.startswith("call.") else ""
    intro = "" if screen.is_tight else screen.words.text("call.who")
    typed = draft.answers.get("call", "") if draft else ""
    return keyboard.draw(screen, typed, intro, letters=DIGITS, most=MOST, lacks=lacks)


def _taking(known: Known, kind: str) -> Callable[[Screen, Mapping[str, str]], str]:
    def take(screen: Screen, sent: Mapping[str, str]) -> str:
        draft = known.drafts.begun(screen.display.draft)
        typed = keyboard.read(sent, MOST)
        draft.answers["call"], draft.lacks = typed.text[:MOST], ""
        here = screen.address(screen.path, draft=draft.token)
        if not typed.goes_on:
            return here
        if sum(letter.isdecimal() for letter in typed.text) < LEAST_DIGITS:
            draft.lacks = "call.short"
            return here
        told = {"contact": draft.answers["call"]} | {name: str(value) for name, value in screen.more.items()}
        try:
            draft.code = known.drafts.sent_once(told, lambda: known.outbox.keep(kind, told, screen.display.language))
        except NotKept:
            draft.lacks = "call.not_kept"
            return here
        draft.sent_ms, draft.is_call = screen.now_ms, True
        draft.answers.pop("call")  # what else was begun is not thrown away by a call for help
        return screen.address("/report/sent", draft=draft.token)

    return take
