"""Three taps: how far each answer is from home, found by walking every key of every screen, "more" and all.

A choice is a tap that leads to another screen. Turning to the next part of a screen is a tap, and no choice: a panel
may show only so many things at once, and the fewer the larger its letters (decision 090).
"""

import heapq
import html
import re
from collections import Counter
from urllib.parse import parse_qs

import pytest

from bega_kiosk.content import District, Form
from bega_kiosk.display import Display
from tests.kiosk_gate import NOW_MS, Kiosk
from tests.test_kiosk_pages import day_points, good

WISHES = ("lang", "text", "reach", "look")
MOST_CHOICES = 3
OWN_WAY = ("/report/", "/still")  # one question a screen; the question whether anybody is there


class Walker:
    """Knows the keys of each screen of a kiosk, for one reader; a screen is drawn once."""

    def __init__(self, kiosk, is_larger):
        self.is_larger = is_larger
        self.home = Display(is_larger=is_larger).address("/")
        self._pages = kiosk.pages
        self._places = {path: place for place in kiosk.pages.places for path in place.paths()}
        self._drawn = {}

    def page(self, address):
        if address not in self._drawn:
            path, _, query = address.partition("?")
            place, given = self._places[path], {key: one for key, (one,) in parse_qs(query).items()}
            self._drawn[address] = place.draw(self._pages.screen(place, place.params(path), given)).html
        return self._drawn[address]

    def whole(self, path):
        """Return all parts of a screen that has been walked."""
        return "".join(page for address, page in self._drawn.items() if path_of(address) == path)

    def leads(self, address):
        """Return the addresses of its keys, as this reader wants the screens; no language or look is changed."""
        found = [html.unescape(one) for one in re.findall(r'href="(/[^"]*[?][^"]*)"', self.page(address))]
        return [one for one in found if wish(one) == wish(self.home) and path_of(one) in self._places]

    def distances(self, is_turning_a_tap):
        """Return for each path how far it is from home, by the shortest way (Dijkstra)."""
        nearest, waiting = {}, [(0, self.home)]
        while waiting:
            far, address = heapq.heappop(waiting)
            if address in nearest:
                continue
            nearest[address] = far
            for one in self.leads(address):
                turns = path_of(one) == path_of(address)
                heapq.heappush(waiting, (far + (is_turning_a_tap or not turns), one))
        found = {}
        for address, far in nearest.items():
            found[path_of(address)] = min(far, found.get(path_of(address), far))
        return found


def path_of(address):
    return address.partition("?")[0]


def wish(address):
    given = parse_qs(address.partition("?")[2])
    return [given.get(key) for key in WISHES]


@pytest.fixture(scope="module", params=["24", "24p", "10"])
def kiosk(request, tmp_path_factory):
    with Kiosk(request.param, tmp_path_factory.mktemp("kiosk")) as kiosk:
        kiosk.knows(*good(3, 35.0), points=day_points(NOW_MS, 12))
        yield kiosk


@pytest.fixture(scope="module", params=[False, True], ids=["usual", "large"])
def walker(request, kiosk):
    return Walker(kiosk, request.param)


def is_told_before(path):
    """Return whether the screen before this one tells the same: the verdict and number of each district of an area."""
    return path.startswith("/air/district/") or path == "/air/list"


def test_every_answer_is_three_choices_from_home(kiosk, walker):
    far = walker.distances(is_turning_a_tap=False)
    paths = [path for path in kiosk.paths() if not path.startswith(OWN_WAY)]
    never = {path for path in paths if path not in far}
    unread = {"/air/dust", "/air/day"} if kiosk.panel.is_large and not walker.is_larger else set()
    assert never == unread, "on a large panel one screen shows all of the air"
    too_far = {path: far[path] for path in paths if path in far and far[path] > MOST_CHOICES}
    assert {path for path in too_far if not is_told_before(path)} == set()


def test_air_of_every_district_is_told_within_three_choices(kiosk, walker):
    far = walker.distances(is_turning_a_tap=False)
    areas = [path for path in far if path.startswith("/air/area/") and far[path] <= MOST_CHOICES]
    told = "".join(walker.whole(path) for path in areas)
    districts = kiosk.pages.known.content.every(District)
    assert len(districts) > 30
    assert [one.name for one in districts if html.escape(one.name) not in told] == []


def test_desks_of_every_form_are_told_within_three_choices(kiosk, walker):
    far = walker.distances(is_turning_a_tap=False)
    for form in kiosk.pages.known.content.every(Form):
        assert min(far[f"/forms/{form.id}"], far[f"/services/{form.service}/where"]) <= MOST_CHOICES


def test_turning_pages_adds_one_tap_on_a_large_panel_and_two_on_a_small_one_or_five_in_large_letters(kiosk, walker):
    far = walker.distances(is_turning_a_tap=True)
    taps = Counter(far[path] for path in far if not path.startswith(OWN_WAY) and not is_told_before(path))
    most = 4 if kiosk.panel.is_large else 8 if walker.is_larger else 5
    assert max(taps) == most, taps
