"""Report a problem: one question a screen, what was understood, a slip with a code; and how a report is.

Until it is sent nothing of it is anywhere but in memory (drafts.py). What is said of sending is true: "kept" when it is
on the disk, "sent" when the desk has said that it has it, a number when city hall gave one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from bega.clock import CLOCK_FLOOR_MS
from bega_kiosk.drafts import Draft
from bega_kiosk.outbox import Heard, NotKept
from bega_kiosk.pages import keyboard
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.pages.square import square_path
from bega_kiosk.places import Known, Place, Tile
from bega_kiosk.report import ALPHABET, LONGEST_ANSWER, read_code, spaced
from bega_kiosk.reported import OPEN
from bega_kiosk.store import AHEAD_MS

LONGEST_SHOWN = 90  # letters of an answer where all of them are shown
KIND = "problem"


@dataclass(frozen=True)
class Question:
    """One screen of the way. Its answers are the last parts of the keys of texts; without any it is typed."""

    name: str
    path: str
    text: str
    answers: tuple[str, ...] = ()
    intro: tuple[str, ...] = ()
    asked: tuple[str, str] | None = None  # only where this question has this answer
    most: int = 200
    may_be_empty: bool = False


WHAT = Question(
    "what",
    "/report",
    "report.title",
    (
        "report.cat.road",
        "report.cat.light",
        "report.cat.waste",
        "report.cat.bin",
        "report.cat.water",
        "report.cat.tree",
        "report.cat.sign",
        "report.cat.parking",
        "report.cat.dogs",
        "report.cat.stop",
        "report.cat.access",
        "report.cat.snow",
        "report.cat.green",
        "report.cat.play",
        "report.cat.car",
        "report.cat.noise",
        "report.cat.smoke",
        "report.cat.building",
        "report.cat.other",
    ),
    ("report.danger",),
)
AGAIN = "again"  # "yes" where somebody reported the same kind of thing of this place before; nobody is asked for it
SAME = Question("same", "/report/same", "report.q.same", ("report.same.yes", "report.same.no"), asked=(AGAIN, "yes"))
QUESTIONS = (
    WHAT,
    Question("where", "/report/where", "report.q.where", ("report.a.here", "report.a.street")),
    SAME,  # drawn by pages/earlier.py
    Question("street", "/report/street", "report.q.street", asked=("where", "street")),
    Question(
        "since",
        "/report/since",
        "report.q.since",
        ("report.a.today", "report.a.days", "report.a.weeks", "report.a.unknown"),
    ),
    Question(
        "risk", "/report/risk", "report.q.risk", ("report.a.yes", "report.a.no", "report.a.unknown"), ("report.danger",)
    ),
    Question("details", "/report/details", "report.q.details", ("report.a.write", "report.a.nothing")),
    Question("text", "/report/text", "report.q.text", asked=("details", "write"), most=LONGEST_ANSWER),
    Question(
        "name",
        "/report/name",
        "report.q.name",
        ("report.name.yes", "report.name.no"),
        ("report.name.explain", "report.name.anon"),
    ),
    Question("person", "/report/person", "report.q.person", asked=("name", "yes")),
    Question("contact", "/report/contact", "report.q.contact", asked=("name", "yes")),
)
ONLY_HERE = ("details", "name")  # answers that the desk need not be told: others follow from them
ICONS = {
    "road": "road",
    "light": "lamp",
    "waste": "bin",
    "bin": "bin",
    "water": "drop",
    "tree": "tree",
    "sign": "sign",
    "parking": "car",
    "car": "car",
    "dogs": "dog",
    "stop": "stop",
    "access": "wheelchair",
    "snow": "snow",
    "green": "grass",
    "play": "bench",
    "noise": "noise",
    "smoke": "smoke",
    "building": "crack",
    "other": "pencil",
    "here": "pin",
    "street": "pencil",
    "write": "pencil",
}
STATES = {
    "received": "report.state.received",
    "forwarded": "report.state.forwarded",
    "work": "report.state.work",
    "done": "report.state.done",
    "refused": "report.state.refused",
    "unknown": "report.state.unknown",
}
DETAILS = {"forwarded": "report.office", "refused": "report.reason"}


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    mine = [question for question in QUESTIONS if question is not SAME]
    before = {question.path: before.path for before, question in pairwise(mine)}
    asking = [
        Place(
            question.path,
            question.text,
            _drawing(known, question),
            before.get(question.path, "/"),
            Tile("megaphone", 30) if question is WHAT else None,
            take=_taking(known, question),
        )
        for question in mine
    ]
    return [
        *asking,
        Place("/report/check", "report.check.title", lambda at: check(at, known), "/report", take=_sending(known)),
        Place("/report/fix", "report.fix.title", lambda at: fix(at, known), "/report/check"),
        Place("/report/sent", "report.receipt", lambda at: slip(at, known)),
        Place("/report/code", "report.follow", lambda at: follow(at, known), "/report", take=_looking(known)),
        Place("/report/state", "report.state.title", lambda at: state(at, known), "/report/code"),
    ]


def asked_of(answers: Mapping[str, str]) -> Iterator[Question]:
    """Yield the questions that these answers lead to."""
    for question in QUESTIONS:
        if question.asked is None or answers.get(question.asked[0]) == question.asked[1]:
            yield question


def next_path(answers: Mapping[str, str]) -> str:
    """Return where to go on: the first question without an answer, or what was understood."""
    open_ = (question.path for question in asked_of(answers) if not answers.get(question.name, "").strip())
    return next(open_, "/report/check")


def draft_of(screen: Screen, known: Known) -> Draft | None:
    """Return what is being written, and note where its writer is."""
    draft = known.drafts.find(screen.display.draft)
    if draft:
        draft.at = screen.path
    return draft


def _drawing(known: Known, question: Question) -> Callable[[Screen], Drawn]:
    def draw(screen: Screen) -> Drawn:
        draft = draft_of(screen, known)
        answers = draft.answers if draft else {}
        if not question.answers:
            lacks = screen.words.text(draft.lacks) if draft and draft.lacks else ""
            return keyboard.draw(screen, answers.get(question.name, ""), most=question.most, lacks=lacks)
        return screen.choice(_keys(screen, question, answers), _intro(screen, question, answers), kind="question")

    return draw


def _keys(screen: Screen, question: Question, answers: Mapping[str, str]) -> list[Key]:
    text, keys = screen.words.text, []
    for answer in question.answers:
        name = answer.rpartition(".")[2]
        icon = ICONS.get(name, "")
        is_here = answers.get(question.name) == name
        keys.append(Key(text(answer), "", icon, is_here=is_here, value=name))
    if question is WHAT:
        first = screen.panel.most_things(screen.display.is_larger) - 2
        keys.insert(first, Key(text("report.have_code"), screen.address("/report/code"), "paper"))
    return keys


def _intro(screen: Screen, question: Question, answers: Mapping[str, str]) -> str:
    text = screen.words.text
    is_narrow = not screen.panel.is_large and screen.display.is_larger
    said = [text(key) for key in (question.intro[-1:] if is_narrow else question.intro)]
    if not said or (screen.is_roomy and question is not WHAT):
        asked = [each.name for each in asked_of(answers)]
        number = asked.index(question.name) + 1 if question.name in asked else 1
        said.insert(0, text("report.step", n=str(number), total=str(len(asked))) + ".")
    return " ".join(said)


def answered(screen: Screen, known: Known, question: Question, answer: str) -> str:
    """Take an answer and return the address to go on to; asked again where it is none."""
    draft = known.drafts.begun(screen.display.draft)
    draft.lacks = ""
    if answer not in [one.rpartition(".")[2] for one in question.answers]:
        return screen.address(question.path, draft=draft.token)
    if question.name in ("what", "where") and draft.answers.get(question.name) != answer:
        draft.answers.pop(SAME.name, None)
    draft.answers[question.name] = answer
    is_here = draft.answers.get("where") == "here"
    is_again = is_here and known.reported.find(draft.answers.get("what", ""), screen.now_ms) is not None
    draft.answers[AGAIN] = "yes" if is_again else "no"
    return screen.address(next_path(draft.answers), draft=draft.token)


def _taking(known: Known, question: Question) -> Callable[[Screen, Mapping[str, str]], str]:
    def take(screen: Screen, sent: Mapping[str, str]) -> str:
        if question.answers:
            return answered(screen, known, question, sent.get("answer", ""))
        draft = known.drafts.begun(screen.display.draft)
        draft.lacks = ""
        typed = keyboard.read(sent, question.most)
        draft.answers[question.name] = typed.text[: question.most]
        if not typed.goes_on:
            return screen.address(question.path, typed.page or screen.page, draft=draft.token)
        draft.lacks = _lacks(typed.text, question.most)
        if draft.lacks:
            return screen.address(question.path, draft=draft.token)
        draft.answers[question.name] = typed.text.strip()
        return screen.address(next_path(draft.answers), draft=draft.token)

    return take


def _lacks(text: str, most: int) -> str:
    if len(text) > most:
        return "report.too_long"
    return "" if text.strip() else "report.too_short"


def _lines(screen: Screen, answers: Mapping[str, str]) -> list[tuple[Question, str]]:
    """Return what was answered, in words and not too long to be read."""
    found = []
    for question in asked_of(answers):
        given = answers.get(question.name, "")
        keys = {answer.rpartition(".")[2]: answer for answer in question.answers}
        said = screen.words.text(keys[given]) if given in keys else " ".join(given.split())
        if said and not (question.name in ("where", *ONLY_HERE) and given in ("street", "write", "yes")):
            found.append((question, said if len(said) <= LONGEST_SHOWN else said[:LONGEST_SHOWN].rstrip() + "…"))
    return found


def check(screen: Screen, known: Known) -> Drawn:
    """Return what was understood, to be sent or changed."""
    draft, text = draft_of(screen, known), screen.words.text
    lines = _lines(screen, draft.answers) if draft else []
    if not draft or not lines or draft.lacks == "report.not_kept":
        sentence = text("report.not_kept") if draft and draft.lacks else text("report.empty")
        again = Key(text("report.again"), "", "arrow", value="send") if draft and draft.lacks else None
        begin = Key(text("report.begin"), screen.address("/report"), "arrow")
        return screen.answer(sentence, keys=[again or begin])
    said = [f"{text('report.q.what') if each is WHAT else text(each.text)} {answer}" for each, answer in lines]
    keys = [
        Key(text("report.send"), "", "arrow", value="send"),
        Key(text("report.fix"), screen.address("/report/fix"), "pencil"),
    ]
    return screen.answer(text("report.check"), said, keys)


def fix(screen: Screen, known: Known) -> Drawn:
    """Return the answers, to change one of them."""
    draft, text = draft_of(screen, known), screen.words.text
    questions = [question for question, _ in _lines(screen, draft.answers)] if draft else [WHAT]
    keys = [Key(text("report.q.what" if each is WHAT else each.text), screen.address(each.path)) for each in questions]
    is_narrow = screen.is_tight and screen.display.is_reach  # a whole question needs the width of the panel there
    return screen.choice(keys, kind="list" if is_narrow else "plain")


def _sending(known: Known) -> Callable[[Screen, Mapping[str, str]], str]:
    def send(screen: Screen, sent: Mapping[str, str]) -> str:
        draft = known.drafts.begun(screen.display.draft)
        if draft.code and not draft.answers:  # a second tap: it is on its way already
            return screen.address("/report/sent", draft=draft.token)
        if next_path(draft.answers) != "/report/check":
            return screen.address(next_path(draft.answers), draft=draft.token)
        told = dict(_told(draft.answers))
        earlier = known.reported.find(told["what"], screen.now_ms) if told.get(SAME.name) == "yes" else None
        if earlier:
            told[SAME.name] = spaced(earlier.code)  # so that the desk need not look for the other one
        try:
            draft.code = known.outbox.keep(KIND, told, screen.display.language)
        except NotKept:
            draft.lacks = "report.not_kept"
            return screen.address("/report/check", draft=draft.token)
        if told["where"] == "here" and not earlier and told["what"] != "other":
            known.reported.note(told["what"], draft.code, screen.now_ms)
        draft.owed = draft.code if told.get("person") and told.get("contact") else ""
        draft.sent_ms, draft.is_call = screen.now_ms, False
        draft.answers, draft.lacks = {}, ""  # what was written is on its way, and nowhere else
        return screen.address("/report/sent", draft=draft.token)

    return send


def _told(answers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for question in asked_of(answers):
        if question.name not in ONLY_HERE:
            yield question.name, answers[question.name]


def slip(screen: Screen, known: Known) -> Drawn:
    """Return the slip: the code to keep, and whether the desk has the report."""
    draft, text = draft_of(screen, known), screen.words.text
    if not draft or not draft.code:
        return screen.answer(text("report.empty"), keys=[Key(text("report.begin"), screen.address("/report"), "arrow")])
    heard = known.outbox.heard(draft.code)
    is_sent = heard is not None and heard.status.state != "unknown"
    number = heard.status.number if heard else ""
    code = spaced(draft.code)
    path, size = square_path(f"{known.config.kiosk.city} {known.config.kiosk.name} {code}")
    said = [text("report.write_down")]
    if screen.panel.is_large or not screen.display.is_larger:
        said.append(text("report.ask_later"))
    if screen.is_roomy and draft.sent_ms >= CLOCK_FLOOR_MS:  # a clock that was never set says nothing
        said.append(text("report.time", date=screen.words.date(draft.sent_ms), time=screen.words.time(draft.sent_ms)))
    if screen.is_roomy and not is_sent:
        said.append(text("report.later"))
    if heard and number and (heard.status.is_owed or draft.owed == draft.code):
        said = [text("report.deadline"), *(said if screen.is_roomy else [])]
    values = {
        "sentence": text("report.sent" if is_sent else "call.kept" if draft.is_call else "report.kept"),
        "code": code,
        "is_labelled": screen.panel.is_large or not screen.display.is_larger,
        "number": text("report.number", number=number) if number else text("report.not_number"),
        "paragraphs": said,
        "path": path,
        "size": size,
        "keys": [],
    }
    return Drawn(screen.draw("receipt.html", values))


def follow(screen: Screen, known: Known) -> Drawn:
    """Return where a code is typed."""
    draft = draft_of(screen, known)
    lacks = screen.words.text(draft.lacks) if draft and draft.lacks else ""
    typed = draft.answers.get("code", "") if draft else ""
    return keyboard.draw(screen, typed, letters=ALPHABET, most=12, lacks=lacks)


def _looking(known: Known) -> Callable[[Screen, Mapping[str, str]], str]:
    def look(screen: Screen, sent: Mapping[str, str]) -> str:
        draft = known.drafts.begun(screen.display.draft)
        typed = keyboard.read(sent, 12)
        draft.answers["code"], draft.lacks = typed.text.upper(), ""
        if not typed.goes_on:
            return screen.address("/report/code", typed.page or screen.page, draft=draft.token)
        code = read_code(typed.text)
        if code is None:
            draft.lacks = "report.bad_code"
            return screen.address("/report/code", draft=draft.token)
        draft.asked = code
        draft.answers.pop("code")
        known.outbox.ask(code)
        return screen.address("/report/state", draft=draft.token)

    return look


def state(screen: Screen, known: Known) -> Drawn:
    """Return how a report is, as the desk last said, and when that was."""
    draft, text = draft_of(screen, known), screen.words.text
    if not draft or not draft.asked:
        key = Key(text("report.follow"), screen.address("/report/code"), "pencil")
        return screen.answer(text("report.state.no_code"), keys=[key])
    heard = known.outbox.heard(draft.asked)
    if heard is None:
        if known.outbox.is_waiting(draft.asked):
            return screen.answer(text("report.state.waiting"), [text("report.later")])
        return screen.answer(text("report.state.asking"), [text("report.state.appears")])
    said = _said(screen, heard)
    if heard.status.number and heard.status.state in OPEN and (heard.status.is_owed or draft.owed == draft.asked):
        said.append(text("report.deadline"))
    return screen.answer(text(STATES[heard.status.state]), said, notes=[age_of(screen, heard)])


def _said(screen: Screen, heard: Heard) -> list[str]:
    status, text = heard.status, screen.words.text
    said = [text("report.number", number=status.number)] if status.number else []
    if status.detail and status.state in DETAILS:
        said.append(text(DETAILS[status.state], detail=status.detail))
    return said


def age_of(screen: Screen, heard: Heard) -> str:
    """Return how old the desk's word is."""
    age_ms = screen.now_ms - heard.heard_ms
    if not screen.is_clock_set or not heard.heard_ms or age_ms < -AHEAD_MS:  # a clock that was wrong, then or now
        return screen.words.text("report.heard_once")
    return screen.words.text("report.heard", ago=screen.words.ago(max(0, age_ms)))
