"""Timetables for tests: GTFS feeds made of a few rows, zipped, and messages of GTFS Realtime."""

import csv
import io
import zipfile

AGENCY = [
    {
        "agency_id": "a",
        "agency_name": "Transport",
        "agency_url": "https://x.example",
        "agency_timezone": "Europe/Bucharest",
    }
]
STOPS = [
    {"stop_id": "west", "stop_name": "Gara de Nord"},
    {"stop_id": "here", "stop_name": "Piața Victoriei", "platform_code": "1"},
    {"stop_id": "there", "stop_name": "Piața Victoriei", "platform_code": "2"},
    {"stop_id": "east", "stop_name": "Ciarda Roșie"},
]
ALWAYS = {
    "service_id": "daily",
    **dict.fromkeys(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), "1"),
    "start_date": "20200101",
    "end_date": "20351231",
}


def a_feed(**files):
    """Return the files of a feed in which line 4 goes from west over here to east at 13:00, changed by `files`."""
    feed = {
        "agency": AGENCY,
        "stops": STOPS,
        "routes": [{"route_id": "r4", "route_short_name": "4", "route_type": "0"}],
        "trips": [{"route_id": "r4", "service_id": "daily", "trip_id": "t1", "trip_headsign": ""}],
        "calendar": [ALWAYS],
        "stop_times": a_trip("t1", "13:00:00"),
    }
    return {name: rows for name, rows in (feed | files).items() if rows is not None}


def a_trip(trip, at, stops=("west", "here", "east"), minutes=(0, 10, 25), **more):
    """Return the calls of a trip that begins `at`; `minutes` after that it is at each stop."""
    hours, minute, second = map(int, at.split(":"))
    rows = []
    for turn, (stop, later) in enumerate(zip(stops, minutes, strict=True), start=1):
        time_s = hours * 3600 + minute * 60 + second + later * 60
        time = f"{time_s // 3600}:{time_s // 60 % 60:02d}:{time_s % 60:02d}"
        rows.append(
            {
                "trip_id": trip,
                "arrival_time": time,
                "departure_time": time,
                "stop_id": stop,
                "stop_sequence": str(turn),
                **more,
            }
        )
    return rows


def as_text(rows):
    """Return rows as the text of a CSV file; a text is one already."""
    if isinstance(rows, str):
        return rows
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_feed(path, files, folder=""):
    """Zip the files of a feed into `path`, and return it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, rows in files.items():
            whole.writestr(f"{folder}{name}.txt", as_text(rows))
    return path
