"""Streets and outages: what the city's signed notices say of a place, of a district, of a street, and until when."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from bega_kiosk.latin import to_latin
from bega_kiosk.notices import Notice
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Params, Place, Tile
from bega_kiosk.store import AHEAD_MS
from bega_kiosk.words import DAY_MS, Words

SAID = {
    "water_stop": "notice.water.stop",
    "water_low": "notice.water.low",
    "heat_stop": "notice.heat.stop",
    "heat_water_only": "notice.heat.water_only",
    "power_stop": "notice.power.stop",
    "gas_stop": "notice.gas.stop",
    "road_closed": "notice.road.closed",
    "road_limited": "notice.road.limited",
    "transport_detour": "notice.transport.detour",
}
KINDS = {
    "water": "streets.kind.water",
    "heat": "streets.kind.heat",
    "power": "streets.kind.power",
    "gas": "streets.kind.gas",
    "road": "streets.kind.road",
    "transport": "streets.kind.transport",
}
REASONS = {
    "repair": "notice.reason.repair",
    "fault": "notice.reason.fault",
    "connection": "notice.reason.connection",
    "cleaning": "notice.reason.cleaning",
    "works": "notice.reason.works",
    "event": "notice.reason.event",
    "weather": "notice.reason.weather",
}
BEFORE = {
    "water_stop": ["notice.water.store"],
    "power_stop": ["notice.power.care", "notice.power.medical"],
    "gas_stop": ["notice.gas.care"],
}  # what to do, by effect
AFTER = {"water_stop": "notice.water.after", "gas_stop": "notice.gas.smell"}
ICONS = {"water": "drop", "heat": "flame", "power": "bolt", "gas": "flame", "road": "road", "transport": "tramway"}
LETTERS = {"a": "AC", "d": "DF", "g": "GK", "l": "LN", "o": "OR", "s": "SZ"}  # six parts, on every panel the same
NOT_NAMES = frozenset(
    (
        *("strada", "bulevardul", "calea", "piata", "splaiul", "aleea", "intrarea", "soseaua", "drumul"),
        *("de", "din", "la", "lui", "cel", "sf", "dr"),
    )
)  # words by which nobody looks for a street
STROKES = str.maketrans("đłø", "dlo")  # letters that have no accent to take off
STREETS_A_LINE = 3  # a paragraph must not be longer than a screen
KEPT_MS = DAY_MS  # an address is good for a day after the notice is over, and says so


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/streets", "streets.title", lambda screen: draw(screen, known), tile=_tile(known)),
        Place("/streets/near", "streets.near_here", lambda screen: _near_here(screen, known), parent="/streets"),
        Place("/streets/every", "streets.every", lambda screen: _every(screen, known), parent="/streets"),
        Place("/streets/district", "streets.pick_area", lambda screen: _districts(screen, known), parent="/streets"),
        Place(
            "/streets/district/{district}",
            "streets.list",
            lambda screen: _of_district(screen, known),
            parent="/streets/district",
            instances=lambda: [f"/streets/district/{_slug(name)}" for name in _district_names(_kept(known))],
        ),
        Place("/streets/street", "streets.pick_street", lambda screen: _letters(screen, known), parent="/streets"),
        Place(
            "/streets/street/{letter}",
            _letters_title,
            lambda screen: _of_letters(screen, known),
            parent="/streets/street",
            instances=lambda: [f"/streets/street/{first}" for first in LETTERS],
        ),
        Place(
            "/streets/notice/{notice}",
            lambda words, params: words.text(_kind(known, params["notice"])),
            lambda screen: _notice(screen, known),
            parent="/streets",
            instances=lambda: [f"/streets/notice/{notice.id}" for notice in _kept(known)],
        ),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return where to look: near, by district, by street; or at once that there is nothing."""
    text = screen.words.text
    notices = _valid(known, screen.now_ms)
    if not notices:
        return _nothing(screen, known, text("streets.none_city"))
    keys = [
        Key(text("streets.near_here"), screen.address("/streets/near"), "pin", _count(screen, _near(known, notices)))
    ]
    if not known.config.notices.has_place:
        keys = []
    if _district_names(notices):
        keys.append(Key(text("streets.pick_area"), screen.address("/streets/district"), "town"))
    keys.append(Key(text("streets.pick_street"), screen.address("/streets/street"), "letters"))
    keys.append(Key(text("streets.every"), screen.address("/streets/every"), "paper", _count(screen, notices)))
    intro = text("streets.ask") if is_fresh(screen, known) else _age(screen, known)
    return screen.choice(keys, intro, kind="list halves")


def _near_here(screen: Screen, known: Known) -> Drawn:
    notices = _near(known, _valid(known, screen.now_ms))
    return _list(screen, known, notices, screen.words.text("streets.none_near"))


def _every(screen: Screen, known: Known) -> Drawn:
    return _list(screen, known, _valid(known, screen.now_ms), screen.words.text("streets.none_city"))


def _districts(screen: Screen, known: Known) -> Drawn:
    notices = _valid(known, screen.now_ms)
    keys = [
        Key(name, screen.address(f"/streets/district/{_slug(name)}"), "", _count(screen, _in_district(notices, name)))
        for name in _district_names(notices)
    ]
    if not keys:
        return _nothing(screen, known, screen.words.text("streets.none_city"))
    return screen.choice(keys, _age(screen, known))


def _of_district(screen: Screen, known: Known) -> Drawn:
    name = _named(known, screen.more["district"])
    text = screen.words.text
    notices = _in_district(_valid(known, screen.now_ms), name)
    return _list(screen, known, notices, text("streets.none", area=name), text("streets.area", area=name))


def _letters(screen: Screen, known: Known) -> Drawn:
    streets = _streets(_valid(known, screen.now_ms))
    keys = []
    for first, ends in LETTERS.items():
        found = {notice.id: notice for street, notice in streets if _is_of(street, first)}
        keys.append(
            Key(f"{ends[0]}–{ends[1]}", screen.address(f"/streets/street/{first}"), "", _count(screen, [*found]))
        )
    return screen.choice(keys, screen.words.text("streets.letters_how"))


def _letters_title(words: Words, params: Params) -> str:
    ends = LETTERS[params["letter"]]
    return words.text("streets.letters", first=ends[0], last=ends[1])


def _of_letters(screen: Screen, known: Known) -> Drawn:
    streets = _streets(_valid(known, screen.now_ms))
    found = sorted((row for row in streets if _is_of(row[0], screen.more["letter"])), key=lambda row: _slug(row[0]))
    if not found:
        return _nothing(screen, known, screen.words.text("streets.none_letters"))
    keys = [_key(screen, notice, street) for street, notice in found]
    no_other = screen.words.text("streets.no_other") if is_fresh(screen, known) else _age(screen, known)
    return screen.choice(keys, _marked(screen, no_other, [notice for _, notice in found]), kind="list")


def _list(screen: Screen, known: Known, notices: Sequence[Notice], none: str, of: str = "") -> Drawn:
    if not notices:
        return _nothing(screen, known, none)
    keys = [_key(screen, notice) for notice in notices]
    return screen.choice(keys, _marked(screen, f"{of} {_age(screen, known)}".strip(), notices), kind="list")


def _marked(screen: Screen, intro: str, notices: Iterable[Notice]) -> str:
    """Return what stands above a list; that it is made up in part stands there, too."""
    is_example = any(notice.is_example for notice in notices)
    return f"{screen.words.text('common.example_here')} {intro}" if is_example else intro


def _nothing(screen: Screen, known: Known, none: str) -> Drawn:
    """Say that there is nothing, or that we cannot know."""
    text = screen.words.text
    if is_fresh(screen, known):
        return screen.answer(none, [text("streets.none_but")], notes=[_age(screen, known)])
    return screen.answer(text("streets.unknown"), [_age(screen, known), text("streets.none_but")])


def _key(screen: Screen, notice: Notice, street: str = "") -> Key:
    """Return a notice in two lines: where, and what until when."""
    words = screen.words
    others = len(notice.streets) - 1
    name = street or notice.streets[0]
    if others and not street:
        name = f"{name} {words.counted('streets.others', others)}"
    short = f"{words.text(SAID[notice.effect])} {_soon(screen, notice)}"
    return Key(name, screen.address(f"/streets/notice/{notice.id}"), ICONS[notice.kind], short)


def _notice(screen: Screen, known: Known) -> Drawn:
    text = screen.words.text
    notice = known.notices.find(screen.more["notice"])
    if notice is None:
        return screen.answer(text("notice.gone"))
    notes = [text("common.example")] if notice.is_example else []
    notes += [] if is_fresh(screen, known) else [_age(screen, known)]  # it may have been taken back since
    said, paragraphs = text(SAID[notice.effect]), [*_paragraphs(screen, notice)]
    if notice.is_over(screen.now_ms):
        return screen.answer(text("streets.over"), [said, *paragraphs], notes=notes)
    return screen.answer(said, paragraphs, notes=notes)


def _paragraphs(screen: Screen, notice: Notice) -> Iterator[str]:
    text = screen.words.text
    yield _when(screen, notice)
    for first in range(0, len(notice.streets), STREETS_A_LINE):
        streets = ", ".join(notice.streets[first : first + STREETS_A_LINE])
        yield text("notice.where_more" if first else "notice.where", streets=streets)
    if notice.section_from and notice.section_to:
        yield text("notice.section", first=notice.section_from, last=notice.section_to)
    if notice.effect in BEFORE and not notice.is_over(screen.now_ms):
        yield " ".join(text(key) for key in BEFORE[notice.effect])
    yield from (text(AFTER[effect]) for effect in [notice.effect] if effect in AFTER)
    if notice.can_walk is not None:
        yield text("notice.walk" if notice.can_walk else "notice.nowalk")
    for first in range(0, len(notice.detour), STREETS_A_LINE):
        yield text("notice.detour", streets=", ".join(notice.detour[first : first + STREETS_A_LINE]))
    if notice.lines:
        yield text("notice.lines", lines=", ".join(notice.lines))
    reason = [text(REASONS[notice.reason])] if notice.reason else []
    who = [text("notice.who", who=notice.who)] if notice.who else []
    if reason or who:
        yield " ".join([*reason, *who])
    yield _published(screen.words, notice)


def _when(screen: Screen, notice: Notice) -> str:
    words = screen.words
    begin_day, end_day = words.date(notice.from_ms), words.date(notice.until_ms)
    begin, end = words.time(notice.from_ms), words.time(notice.until_ms)
    if notice.is_end_known and begin_day == end_day:
        return _capital(words.text("notice.when", day=begin_day, begin=begin, end=end))
    begins = words.text("notice.begins", day=begin_day, begin=begin)
    if notice.is_end_known:
        return f"{begins} {words.text('notice.ends', day=end_day, end=end)}"
    return f"{begins} {words.text('notice.unknown_end')}"


def _soon(screen: Screen, notice: Notice) -> str:
    """Return when, as briefly as is true at this moment."""
    words, now_ms = screen.words, screen.now_ms
    day, begin = words.near_date(notice.from_ms), words.time(notice.from_ms)
    if not screen.is_clock_set:
        return _capital(words.text("streets.later", day=day, begin=begin))
    if notice.is_now(now_ms) and not notice.is_end_known:
        return words.text("streets.now_unknown")
    if notice.is_now(now_ms):
        end_day, end = words.near_date(notice.until_ms), words.time(notice.until_ms)
        if words.local(notice.until_ms).date() == words.local(now_ms).date():
            return words.text("streets.now_time", end=end)
        return words.text("streets.now_day", day=end_day, end=end)
    days = (words.local(notice.from_ms).date() - words.local(now_ms).date()).days
    if days == 0:
        return words.text("streets.today", begin=begin)
    if days == 1:
        return words.text("streets.tomorrow", begin=begin)
    return _capital(words.text("streets.later", day=day, begin=begin))


def _published(words: Words, notice: Notice) -> str:
    day, time = words.date(notice.published_ms), words.time(notice.published_ms)
    return words.text("notice.published", day=day, time=time)


def _age(screen: Screen, known: Known) -> str:
    """Return how old the list is, or why nobody knows."""
    words, heard_ms = screen.words, known.notices.heard_ms
    if heard_ms is None:
        return words.text("streets.never")
    listed = known.notices.listed
    if listed is not None and not _is_confirmed(screen, known):
        heard_ms = min(heard_ms, listed.signed_ms)  # so old is the last word of a person
    age_ms = screen.now_ms - heard_ms
    is_ahead = listed is not None and listed.signed_ms > screen.now_ms + AHEAD_MS
    if not screen.is_clock_set or age_ms < -AHEAD_MS or is_ahead:
        return words.text("streets.clock")
    return words.text("streets.checked" if is_fresh(screen, known) else "streets.stale", ago=words.ago(max(age_ms, 0)))


def is_fresh(screen: Screen, known: Known) -> bool:
    """Return whether what the list says is said as true now: the desk gave it lately, and a person signed it lately."""
    heard_ms = known.notices.heard_ms
    limit_ms = known.config.notices.limit_minutes * 60_000
    if heard_ms is None or not screen.is_clock_set or not -AHEAD_MS <= screen.now_ms - heard_ms <= limit_ms:
        return False
    return _is_confirmed(screen, known)


def _is_confirmed(screen: Screen, known: Known) -> bool:
    """Return whether a person signed the list lately: an old one that is shown again and again does not stay true."""
    listed = known.notices.listed
    return listed is not None and listed.is_good(screen.now_ms, known.config.notices.confirmed_limit_days)


def _tile(known: Known) -> Tile:
    return Tile("road", 20, lambda screen: (_in_short(screen, known), None))


def _in_short(screen: Screen, known: Known) -> str:
    notices = _valid(known, screen.now_ms)
    if not screen.panel.is_large:
        return ""  # no room below a name of two lines
    if notices:
        return _count(screen, notices)
    return screen.words.text("streets.none_city" if is_fresh(screen, known) else "streets.unknown")


def _count(screen: Screen, found: Sequence[object]) -> str:
    return screen.words.counted("streets.count", len(found)) if found else ""


def _kept(known: Known) -> list[Notice]:
    """Return the notices that have an address."""
    return [notice for notice in known.notices.every() if not notice.is_over(known.wall_ms() - KEPT_MS)]


def _valid(known: Known, now_ms: int) -> list[Notice]:
    return [notice for notice in known.notices.every() if not notice.is_over(now_ms)]


def _near(known: Known, notices: Iterable[Notice]) -> list[Notice]:
    here = known.config.notices
    near = {_slug(street) for street in here.near}
    return [
        notice
        for notice in notices
        if (here.district and _in_district([notice], here.district)) or near & {_slug(one) for one in notice.streets}
    ]


def _in_district(notices: Iterable[Notice], name: str) -> list[Notice]:
    return [notice for notice in notices if _slug(name) in {_slug(district) for district in notice.districts}]


def _district_names(notices: Iterable[Notice]) -> list[str]:
    """Return the districts that the notices name, each once however it is written."""
    names = {_slug(name): name for notice in notices for name in notice.districts}
    return [names[slug] for slug in sorted(names)]


def _kind(known: Known, name: str) -> str:
    notice = known.notices.find(name)
    return "streets.every" if notice is None else KINDS[notice.kind]


def _named(known: Known, slug: str) -> str:
    return next((name for name in _district_names(known.notices.every()) if _slug(name) == slug), slug)


def _streets(notices: Iterable[Notice]) -> list[tuple[str, Notice]]:
    return [(street, notice) for notice in notices for street in notice.streets]


def _is_of(street: str, first: str) -> bool:
    """Return whether any word of a street's name begins so: George Ardelean is looked for under G and under A."""
    least, most = LETTERS[first][0].lower(), LETTERS[first][1].lower()
    words = [word for word in _slug(street).split("-") if word not in NOT_NAMES]
    return any(least <= word[0] <= most for word in words if word[0].isalpha()) or (
        first == "a" and not any(word[0].isalpha() for word in words)
    )


def _slug(name: str) -> str:
    """Return a name as an address has it: small Latin letters without accents, joined by hyphens.

    A letter of another script is its number, so that two names never become one.
    """
    plain = unicodedata.normalize("NFKD", to_latin(name).casefold()).translate(STROKES)
    return "-".join("".join(_in_slug(letter) for letter in plain if not unicodedata.combining(letter)).split()) or "x"


def _in_slug(letter: str) -> str:
    if not letter.isalnum():
        return " "
    return letter if letter.isascii() else f"{ord(letter):x}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
