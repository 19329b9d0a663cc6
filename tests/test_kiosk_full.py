"""Screens with something on them: reports begun, sent, asked after, made before; letters typed; forms printed."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from bega.clock import mono_ms
from bega.look.panels import PANELS
from bega_kiosk.content import Form, sample_folder
from bega_kiosk.display import Display
from bega_kiosk.pages import keyboard
from bega_kiosk.pages.forms import SAID
from bega_kiosk.pages.report import AGAIN, STATES
from bega_kiosk.printer import Job
from bega_kiosk.report import Status
from bega_kiosk.words import LANGUAGES, load_words
from tests.kiosk_gate import IS_NIGHT, LOOKS, NOW_MS, Gate, Kiosk, looked_at
from tests.test_kiosk_forms import PDF

DAY_MS = 86_400_000
LONG = "Trotuarul este spart în fața scării, iar pe întuneric nu se vede. " * 3
ANSWERS = {
    "what": "building", "where": "street", "street": "Bulevardul Revoluției din Decembrie 1989, la numărul 17",
    "since": "weeks", "risk": "yes", "details": "write", "text": LONG, "name": "yes",
    "person": "Maria-Magdalena Constantinescu-Dragomirescu", "contact": "0256 123456",
}  # fmt: skip
ASKED_AGAIN = {"what": "building", "where": "here", AGAIN: "yes"}
LONGEST = "Direcția generală de drumuri, poduri și parcaje " * 4


def kept(kiosk, state="", **said):
    """Have a report in the outbox, and return its code; with `state` the desk has answered."""
    code = kiosk.pages.known.outbox.keep("problem", {"what": "building"}, "ro")
    if state:
        kiosk.now_ms = NOW_MS - 3 * DAY_MS
        kiosk.pages.known.outbox.note(Status(code=code, state=state, changed_ms=NOW_MS, **said))
        kiosk.now_ms = NOW_MS
    return code


def earlier(kiosk, state=""):
    """Have somebody's report of this very place, and none besides."""
    reported = kiosk.pages.known.reported
    reported._path.unlink(missing_ok=True)
    reported.note("building", kept(kiosk, state), NOW_MS - 5 * DAY_MS)
    return {"answers": dict(ASKED_AGAIN)}


def sent(kiosk, state="", is_owed=False, is_call=False, **said):
    code = kept(kiosk, state, **said)
    return {"code": code, "owed": code if is_owed else "", "is_call": is_call, "sent_ms": NOW_MS}


def typed(lacks="", **answers):
    return lambda kiosk: {"answers": answers, "lacks": lacks}


def asked(state, **said):
    def draft(kiosk):
        code = kept(kiosk, state, **said)
        return {"asked": code, "owed": code}

    return draft


# What is on the screen, where that is, and the draft that a citizen has come there with.
WRITTEN: dict[str, tuple[str, Callable[[Kiosk], dict]]] = {
    "the same, reported before": ("/report/same", earlier),
    "one before, on its way": ("/report/earlier", earlier),
    "one before, in work": ("/report/earlier", lambda kiosk: earlier(kiosk, "work")),
    "all that was understood": ("/report/check", typed(**ANSWERS)),
    "one of many to change": ("/report/fix", typed(**ANSWERS)),
    "not kept": ("/report/check", typed("report.not_kept", **ANSWERS)),
    "a slip, kept": ("/report/sent", sent),
    "a slip, sent": ("/report/sent", lambda kiosk: sent(kiosk, "received")),
    "a slip with a number": (
        "/report/sent",
        lambda kiosk: sent(kiosk, "forwarded", is_owed=True, number="SC2026-112233/18.11.2026"),
    ),
    "a slip of a call": ("/report/sent", lambda kiosk: sent(kiosk, is_call=True)),
    "asked, waiting": ("/report/state", asked("")),
    "asked, nothing heard": ("/report/state", lambda kiosk: {"asked": "K7TMR4QX"}),
    **{
        f"asked, {state}": ("/report/state", asked(state, number="SC2026-112233/18.11.2026", detail=LONGEST[:200]))
        for state in STATES
    },
    "a long text": ("/report/text", typed(text=LONG * 9)),
    "too long a text": ("/report/text", typed("report.too_long", text=LONG)),
    "no street": ("/report/street", typed("report.too_short", street="")),
    "a code that is none": ("/report/code", typed("report.bad_code", code="K7TM")),
    "half a number": ("/human/call", typed("call.short", call="0256")),
    "a number not kept": ("/human/call", typed("call.not_kept", call="0256 123456")),
}  # fmt: skip


@pytest.fixture(scope="module", params=PANELS)
def gate(browser, request, tmp_path_factory):
    """Give a kiosk's page in which every form can be printed."""
    folder = tmp_path_factory.mktemp("kiosk")
    shutil.copytree(sample_folder(), folder / "content")
    records = (folder / "content" / "forms.toml").read_text(encoding="utf-8")
    (folder / "content" / "forms.toml").write_text(records.replace("[[form]]\n", '[[form]]\nfile = "a.pdf"\n'), "utf-8")
    (folder / "content" / "forms").mkdir(exist_ok=True)
    (folder / "content" / "forms" / "a.pdf").write_bytes(PDF)
    with Kiosk(request.param, folder, queue="forms", content_dir=str(folder / "content")) as kiosk:
        gate = Gate(browser, kiosk)
        yield gate
        gate.close()


def looks_of(gate, turn):
    return looked_at(turn + 3 * [*PANELS].index(gate.kiosk.config.kiosk.panel))


def drafted(kiosk, given):
    draft = kiosk.pages.known.drafts.begun("")
    for name, value in given.items():
        setattr(draft, name, value)
    return draft.token


def test_every_screen_is_whole_with_something_on_it(gate):
    found = []
    for turn, (what, (path, make)) in enumerate(WRITTEN.items()):
        token = drafted(gate.kiosk, make(gate.kiosk))
        looks = [replace(look, draft=token) for look in looks_of(gate, 5 * turn)]
        found += [(what, *wrong) for wrong in gate.screen(looks, path)]
    assert found == []


def test_slip_has_room_for_the_widest_code(gate):
    """Which one a report gets is chance."""
    token = drafted(gate.kiosk, sent(gate.kiosk))
    for look in (look for look in LOOKS if look.language == "de" and not look.is_dark):
        gate.show(replace(look, draft=token).address("/report/sent"))
        gate.page.eval_on_selector(".code", "code => code.textContent = 'WMWM\\u00a0WMWM'")
        assert gate.judged(look, axe=None) == []


def test_what_is_looked_at_is_there(gate):
    """A draft that is wrong would be looked at as an empty screen."""
    text = load_words(gate.kiosk.config.timezone)["ro"].text
    for what, (path, make) in WRITTEN.items():
        gate.show(Display("ro", draft=drafted(gate.kiosk, make(gate.kiosk))).address(path))
        said = gate.page.inner_text("body")
        assert text("report.empty") not in said, what
        assert text("report.state.no_code") not in said, what


def test_printer_and_forms_are_whole_in_every_state(gate):
    printer, found = gate.kiosk.pages.known.printer, []
    text = load_words(gate.kiosk.config.timezone)["ro"].text
    forms = [form.id for form in gate.kiosk.pages.known.content.every(Form)]
    for turn, state in enumerate(("doing", "taken", "failed", "")):
        printer._last = {form: Job(mono_ms(), state) for form in forms} if state else {}
        form = forms[turn % len(forms)]
        gate.show(Display("ro").address(f"/forms/{form}/printed"))
        assert gate.page.inner_text("#sentence") == text(SAID[state])
        found += gate.screen(looks_of(gate, 7 * turn), f"/forms/{form}/printed")
        found += gate.screen(looks_of(gate, 7 * turn + 3), f"/forms/{form}")
        assert gate.page.locator("button[value='print']").count() == 1
    assert found == []


def test_keyboard_is_whole_with_each_part_of_its_letters(gate):
    found = []
    tight = [look for look in LOOKS if not look.is_dark]  # colours move nothing
    mine = [*PANELS].index(gate.kiosk.config.kiosk.panel)
    for look in tight if IS_NIGHT else [look for look in tight if look.is_larger][mine % 2 :: 2]:
        screen = gate.kiosk.pages.screen(gate.kiosk.pages.places[0], {}, look.query())
        token = drafted(gate.kiosk, {"answers": {"street": "Bulevardul Revoluției"}, "lacks": "report.too_short"})
        for part in range(1, len(keyboard.parts(screen)) + 1):
            address = replace(look, draft=token).address("/report/street", part)
            gate.show(address)
            found += [(address, wrong) for wrong in gate.judged(look, axe=None)]
    assert {look.language for look in tight} == {*LANGUAGES}
    assert found == []
