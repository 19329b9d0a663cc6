"""Departures in a real browser: late and cancelled vehicles, long names, alerts; whole in every look."""

import itertools

import pytest

from bega.look.panels import PANELS
from bega_kiosk.display import Display
from bega_kiosk.prepared import prepare
from bega_kiosk.realtime import read_live
from bega_kiosk.timetable import open_timetable
from bega_kiosk.words import LANGUAGES
from tests.kiosk_gate import IS_NIGHT, Kiosk, opened, wrongs
from tests.kiosk_gtfs import a_feed, a_trip, write_feed
from tests.test_kiosk_transport import a_message, an_alert, late

LINES = {
    "4": "Piața Gheorghe Domășneanu",
    "M11": "Bulevardul Dâmbovița",
    "E1": "Institutul Agronomic – Calea Aradului",
    "33b": "Gara de Nord",
    "Noapte 2": "Ciarda Roșie",
    "9": "Calea Torontalului (Ciocanul)",
}
SAID = [
    ("t0", {"stops": [late(60, stop_sequence=2)]}),
    ("t1", {"stops": [late(720, stop_sequence=1)]}),
    ("t2", {"schedule_relationship": 3}),
    ("t3", {"stops": [{"stop_sequence": 2, "schedule_relationship": 1}]}),
    ("t5", {"stops": [late(0, stop_sequence=1)]}),
    ("t8", {"stops": [late(1260, stop_sequence=1)]}),
]
LOOKS = [
    Display(language, is_larger=is_larger, is_reach=is_reach)
    for is_larger, is_reach in itertools.product((False, True), repeat=2)
    for language in LANGUAGES
]  # colours move nothing


def at_a_busy_stop(kiosk, folder):
    """Let a kiosk stand where everything happens at once, a trip every two minutes."""
    routes = [{"route_id": f"r{turn}", "route_short_name": name} for turn, name in enumerate(LINES)]
    trips, calls = [], []
    for turn in range(24):
        towards = [*LINES.values()][turn % len(LINES)]
        access = ["1", "2", ""][turn % 3]
        trip = {"route_id": f"r{turn % len(LINES)}", "service_id": "daily", "trip_id": f"t{turn}"}
        trips.append({**trip, "trip_headsign": towards, "wheelchair_accessible": access})
        minute = 12 * 60 + 57 + 2 * turn
        stops = ("west", "here" if turn % 2 else "there", "east")
        calls += a_trip(f"t{turn}", f"{minute // 60}:{minute % 60:02d}:00", stops)
    feed = write_feed(folder / "feed.zip", a_feed(routes=routes, trips=trips, stop_times=calls))
    prepare(feed, folder / "busy.sqlite", ["here", "there"])
    transport = kiosk.pages.known.transport
    transport.timetable = open_timetable(folder / "busy.sqlite")
    transport.is_example, transport._heard_ms = False, kiosk.now_ms
    alerts = [an_alert(4, route_id="r0"), an_alert(3, route_id="r4")]
    message = a_message(*SAID, told_s=kiosk.now_ms // 1000, alerts=alerts)
    transport.live = read_live(message.SerializeToString(), transport.timetable, kiosk.now_ms)
    transport.alerts = transport.live.alerts


@pytest.mark.parametrize("panel", PANELS)
def test_departures_are_whole_when_everything_happens_at_once(browser, tmp_path, panel):
    found = []
    looks = LOOKS if IS_NIGHT else LOOKS[[*PANELS].index(panel) :: 13]
    with Kiosk(panel, tmp_path) as kiosk:
        at_a_busy_stop(kiosk, tmp_path)
        with opened(browser, kiosk.panel) as page:
            for look in looks:
                address = look.address("/transport")
                assert page.goto(kiosk.address + address).status == 200
                found += [(address, wrong) for wrong in wrongs(page, kiosk, look.is_larger)]
                assert page.locator(".departure").count() >= 1
                assert page.locator(".departure").count() <= kiosk.panel.most_things()
    assert found == []
