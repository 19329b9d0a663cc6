"""Forms of the services: printed here where there is a printer, else where to open them at home and get them on paper.

No key is dead: without a printer, or without a file that it understands, there is no key to print. What is said of
printing is what CUPS knows: that the queue took the form, not that paper came out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bega_kiosk.content import Desk, Form, Service, form_bytes, pdf_bytes, said
from bega_kiosk.desks import today, where_lines
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.pages.square import square_path
from bega_kiosk.places import Known, Place, place_of_each
from bega_kiosk.sheet import sheet_path

SAID = {"doing": "form.doing", "taken": "form.taken", "failed": "form.failed", "": "form.again"}


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""

    def chosen_among() -> list[str]:
        services = sorted({form.service for form in known.content.every(Form)})
        return [f"/services/{name}/forms" for name in services if len(forms_of(known, name)) > 1]

    def place(ending: str, draw: Callable[[Screen, Known, Form], Drawn], parent: str) -> Place:
        taking = None if ending else lambda screen, sent: take(screen, sent, known)
        return place_of_each(known, Form, "/forms/{form}" + ending, draw, parent, lambda form: form.title, taking)

    def desks_of_their_own() -> list[str]:
        forms = known.content.every(Form)
        return [path for form in forms if (path := f"/forms/{form.id}/where") == desks_path(known, form)]

    return [
        Place(
            "/services/{service}/forms",
            "svc.forms",
            lambda screen: draw_list(screen, known, screen.more["service"]),
            parent="/services/{service}",
            instances=chosen_among,
        ),
        place("", draw_form, "/services"),
        replace(place("/where", draw_where, "/forms/{form}"), instances=desks_of_their_own),
        *([place("/printed", draw_printed, "/forms/{form}")] if known.printer else []),
    ]


def forms_of(known: Known, service: str) -> list[Form]:
    """Return the forms of a service."""
    return [form for form in known.content.every(Form) if form.service == service]


def way_to(screen: Screen, known: Known, service: str) -> list[Key]:
    """Return the key that leads to the forms of a service, none where it has none."""
    forms = forms_of(known, service)
    if not forms:
        return []
    path = f"/forms/{forms[0].id}" if len(forms) == 1 else f"/services/{service}/forms"
    return [Key(screen.words.text("svc.form"), screen.address(path), "paper")]


def desks_path(known: Known, form: Form) -> str | None:
    """Return the screen that says which desks give a form on paper, None where the form's own screen does.

    It is the service's where both have the same desks: that one is within three choices (decision 090).
    """
    if form.address is None or not form.desks:
        return None
    service = known.content.find(Service, form.service)
    is_same = service is not None and set(form.desks) <= set(service.desks)
    return f"/services/{form.service}/where" if is_same else f"/forms/{form.id}/where"


def draw_list(screen: Screen, known: Known, service: str) -> Drawn:
    """Return the forms of a service, to choose from."""
    language = screen.words.language
    keys = [
        Key(said(form.title, language), screen.address(f"/forms/{form.id}"), "paper")
        for form in forms_of(known, service)
    ]
    return screen.choice(keys, kind="list")


def draw_form(screen: Screen, known: Known, form: Form) -> Drawn:
    """Return where a form is: here on paper, at home as a square for a telephone, at a desk."""
    text, language = screen.words.text, screen.words.language
    keys = [Key(text("form.print"), "", "printer", value="print")] if is_printable(screen, known, form) else []
    sentence = text("form.here" if keys else "form.away" if form.address else "form.paper")
    if desks := desks_path(known, form):
        keys.append(Key(text("form.paper"), screen.address(desks), "pin"))
    keys.append(Key(text("svc.bring"), screen.address(f"/services/{form.service}"), "paper"))
    purpose = [said(one, language) for one in form.purpose]
    if form.address is None:
        return screen.answer(sentence, purpose + _desk_lines(screen, known, form), keys, _notes(screen, form))
    path, size = square_path(form.address)
    values = {
        "sentence": sentence if screen.panel.is_large else screen.title,  # a small panel has room for one of them
        "is_title_spoken": not screen.panel.is_large,
        "lines": purpose if screen.panel.is_large else [],
        "home": text("form.home"),
        "address": form.address.removeprefix("https://").rstrip("/"),
        "notes": _notes(screen, form),
        "path": path,
        "size": size,
        "keys": keys,
    }
    return Drawn(screen.draw("form.html", values))


def draw_where(screen: Screen, known: Known, form: Form) -> Drawn:
    """Return the desks that give a form on paper."""
    return screen.answer(screen.words.text("form.paper"), _desk_lines(screen, known, form), notes=_notes(screen, form))


def take(screen: Screen, sent: Mapping[str, str], known: Known) -> str:
    """Send a form to the printer and return where it is said what became of it."""
    form = _form(known, screen.more["form"])
    document = _document(screen, known, form)
    if known.printer is None or sent.get("answer") != "print":
        return screen.address(f"/forms/{form.id}")
    if document is not None:
        known.printer.begin(form.id, said(form.title, screen.words.language), document)
    return screen.address(f"/forms/{form.id}/printed")


def draw_printed(screen: Screen, known: Known, form: Form) -> Drawn:
    """Return what became of it."""
    text = screen.words.text
    state = known.printer.state(form.id) if known.printer else ""
    lines = {
        "doing": [text("form.wait")],
        "taken": [text("form.nothing_comes")],
        "failed": [text("form.other_way")],
        "": [],
    }[state]
    keys = [Key(text("form.where"), screen.address(f"/forms/{form.id}"), "paper")]
    keys += [Key(text("common.call_human"), screen.address("/human"), "person")]
    return screen.answer(text(SAID[state]), lines, keys)


def is_printable(screen: Screen, known: Known, form: Form) -> bool:
    """Return whether there is a printer, and a file for it now: somebody may have taken it away since the start."""
    return known.printer is not None and _document(screen, known, form) is not None


def _document(screen: Screen, known: Known, form: Form) -> bytes | None:
    """Return the clerk's own form, else the sheet that says what is so now in this language, None without either."""
    if form.file is not None:
        return form_bytes(known.config.content_folder, form)
    return pdf_bytes(sheet_path(Path(known.config.kiosk.state_dir), screen, known.content, form))


def _desk_lines(screen: Screen, known: Known, form: Form) -> list[str]:
    desks = [desk for name in form.desks if (desk := known.content.find(Desk, name))]
    return [line for desk in desks for line in where_lines(screen, desk)]


def _notes(screen: Screen, form: Form) -> list[str]:
    if form.is_checked(today(screen)):
        return []
    example = screen.words.text("common.example")
    is_narrow = not screen.panel.is_large and (screen.display.is_larger or screen.display.is_reach)
    return [example.partition(" ")[0] if is_narrow else example]


def _form(known: Known, name: str) -> Form:
    form = known.content.find(Form, name)
    assert form is not None, "the server asks for no other"
    return form
