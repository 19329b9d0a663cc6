"""A kiosk's configuration: TOML into frozen types. A typo stops the start, with its place in the file.

`kiosk/examples/corner.toml` shows every table with its reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from bega import tables
from bega.look.panels import NEAREST_MM, PANELS, Panel
from bega.tables import Name, Problem, Table, Tables, is_address, table_problems
from bega_kiosk.content import sample_folder
from bega_kiosk.notice_list import BELIEVED_DAYS
from bega_protocols.errors import ConfigError

PlaceName = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
CREDENTIALS = ("ca_file", "cert_file", "key_file")
Minutes = Annotated[int, msgspec.Meta(ge=1, le=24 * 60)]


class Kiosk(Table, frozen=True, kw_only=True):
    """Who this kiosk is, what it keeps, and the screen that its pages are drawn for."""

    name: Name
    city: Name
    state_dir: str = "/var/lib/bega"
    content_dir: str | None = None  # left out: the sample, which says of itself that it is one
    panel: str = "24"
    distance_mm: int | None = None  # left out: the farthest that the panel's layout is made for
    timezone: str = "Europe/Bucharest"


class Server(Table, frozen=True, kw_only=True):
    """Where the pages are served."""

    listen: str = "127.0.0.1:8000"


class Feed(Table, frozen=True, kw_only=True):
    """The public feed that the pages live from: a gateway's, or the city's."""

    url: str = "http://127.0.0.1:8080"


class Air(Table, frozen=True, kw_only=True):
    """What the air page shows of a feed, and for how long a value speaks for now."""

    index: Name | None = None  # the device of the index record
    dust: Name | None = None  # the device of the dust value and of the day's plot
    verdict_limit_minutes: Minutes = 120
    live_limit_minutes: Minutes = 10


class Notices(Table, frozen=True, kw_only=True):
    """Whose notices of streets and outages are shown, and what counts as near."""

    url: str | None = None  # the desk that gives them out; left out: none are fetched
    keys: list[str] = msgspec.field(default_factory=list)  # PEM files of the city: who else signs is not believed
    limit_minutes: Minutes = 60  # a list that is older may lack something: "nu știm acum"
    confirmed_limit_days: Annotated[int, msgspec.Meta(ge=1, le=90)] = BELIEVED_DAYS  # one that nobody signed anew, too
    district: PlaceName | None = None  # of this kiosk
    near: list[PlaceName] = msgspec.field(default_factory=list)  # streets around it

    @property
    def has_place(self) -> bool:
        """Return whether the kiosk knows what is near."""
        return self.district is not None or bool(self.near)


class Transport(Table, frozen=True, kw_only=True):
    """Whose buses and trams are shown, and of which stops. Without a feed an example stands in, which says so."""

    feed: str | None = None  # a GTFS feed: the address of a zip, or a file that somebody puts there
    stops: Annotated[list[str], msgspec.Meta(max_length=20)] = msgspec.field(default_factory=list)  # stop_id: "here"
    realtime: str | None = None  # the address of the GTFS Realtime trip updates
    alerts: str | None = None  # and of the alerts, where they are elsewhere
    limit_days: Annotated[int, msgspec.Meta(ge=1, le=400)] = 30  # a feed unconfirmed for longer: "nu știm acum"
    realtime_limit_seconds: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 180  # older: the timetable, and it says so


class Printer(Table, frozen=True, kw_only=True):
    """A printer for forms, by its queue in CUPS. Without one a form's address is shown, and where it is on paper."""

    queue: Name | None = None  # as `lpstat -e` says it
    limit_seconds: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10  # for CUPS to take a form


class Reports(Table, frozen=True, kw_only=True):
    """How what citizens send leaves the kiosk. Without a broker it waits, and the slip says so."""

    mqtt: str | None = None  # mqtts://host:port, the city's broker; the pages start the agent that speaks to it
    ca_file: str | None = None  # with mqtts: who signed the broker's certificate
    cert_file: str | None = None  # the kiosk's; its name is kiosk.name
    key_file: str | None = None


class Config(Table, frozen=True, kw_only=True):
    """All of it, whole and consistent."""

    kiosk: Kiosk
    server: Server = Server()
    feed: Feed = Feed()
    air: Air = Air()
    reports: Reports = Reports()
    printer: Printer = Printer()
    notices: Notices = Notices()
    transport: Transport = Transport()

    @property
    def panel(self) -> Panel:
        """Return the screen that the pages are drawn for."""
        return PANELS[self.kiosk.panel]

    @property
    def content_folder(self) -> Path:
        """Return where the content lies that staff edit."""
        return sample_folder() if self.kiosk.content_dir is None else Path(self.kiosk.content_dir)

    @property
    def distance_mm(self) -> int:
        """Return how far off the reader stands."""
        given = self.kiosk.distance_mm
        return self.panel.farthest_mm if given is None else given

    @property
    def timezone(self) -> ZoneInfo:
        """Return the zone whose clock the pages show."""
        return ZoneInfo(self.kiosk.timezone)


SECTIONS: dict[str, type[Table]] = {
    "kiosk": Kiosk,
    "server": Server,
    "feed": Feed,
    "air": Air,
    "reports": Reports,
    "printer": Printer,
    "notices": Notices,
    "transport": Transport,
}


def load(path: Path, assignments: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration in `path` with `assignments` (from --set) laid over it.

    Raises ConfigError whose text lists every problem, one a line, each with its place.
    """
    config, problems = examine(path, assignments)
    if config is None:
        raise ConfigError("\n".join(problems))
    return config


def make(whole: Tables) -> Config:
    """Return the configuration that these tables are; raises ConfigError that lists every problem, one a line."""
    config, problems = _understood(whole)
    if config is None or problems:
        raise ConfigError("\n".join(f"{place}: {why}" for place, why in problems))
    return config


def examine(path: Path, assignments: Mapping[str, Any] | None = None) -> tuple[Config | None, list[str]]:
    """Return (configuration, []) or (None, every problem with its place)."""
    return tables.examine(path, assignments, _understood)


def _understood(whole: Tables) -> tuple[Config | None, list[Problem]]:
    problems = list(_shape_problems(whole))
    if problems:
        return None, problems
    config = msgspec.convert(whole, Config)
    return config, list(_sense_problems(config))


def _shape_problems(whole: Tables) -> Iterator[Problem]:
    for key in sorted(whole.keys() - SECTIONS.keys()):
        yield key, f"unknown table; known are {', '.join(SECTIONS)}"
    if "kiosk" not in whole:
        yield "kiosk", "this table is missing"
    for section, kind in SECTIONS.items():
        if section in whole:
            yield from table_problems(section, whole[section], kind)


def _sense_problems(config: Config) -> Iterator[Problem]:
    """What the types alone cannot know: panels, zones and addresses that do not exist."""
    panel = PANELS.get(config.kiosk.panel)
    if panel is None:
        yield "kiosk.panel", f"must be one of {', '.join(PANELS)}, not {config.kiosk.panel!r}"
    elif not NEAREST_MM <= config.distance_mm <= panel.farthest_mm:
        yield (
            "kiosk.distance_mm",
            f"the pages of a {panel.name} panel are made for {NEAREST_MM} to {panel.farthest_mm} mm, "
            f"not {config.distance_mm}",
        )
    try:
        ZoneInfo(config.kiosk.timezone)
    except (KeyError, OSError, ValueError):  # unknown (a KeyError), a folder of the database, no name at all
        yield "kiosk.timezone", f"there is no time zone {config.kiosk.timezone!r}"
    if not is_address(config.server.listen):
        yield "server.listen", f"write host:port, not {config.server.listen!r}"
    for key, why in broker_problems(config.reports):
        yield f"reports.{key}", why
    if not _is_http(config.feed.url):
        yield "feed.url", f"write http://host:port, not {config.feed.url!r}"
    if config.notices.url is not None and not _is_http(config.notices.url):
        yield "notices.url", f"write http://host:port, not {config.notices.url!r}"
    if config.notices.url is not None and not config.notices.keys:
        yield "notices.keys", "name the city's public key: without one no notice is believed"
    yield from _transport_problems(config.transport)


def _transport_problems(said: Transport) -> Iterator[Problem]:
    if said.feed is None:
        if said.stops or said.realtime or said.alerts:
            yield "transport.feed", "name the timetable: an address, or a file"
        return
    if not said.stops or not all(said.stops):
        yield "transport.stops", "name the stop_id of each stop here; `bega kiosk timetable FEED` lists them"
    if "://" in said.feed and not _is_download(said.feed):
        yield "transport.feed", f"write http(s)://host/path or the path of a file, not {said.feed!r}"
    for key, url in (("realtime", said.realtime), ("alerts", said.alerts)):
        if url is not None and not _is_download(url):
            yield f"transport.{key}", f"write http(s)://host/path, not {url!r}"


def broker_problems(reports: Reports) -> Iterator[Problem]:
    """Yield what makes no sense in how a broker is reached: which of the values, and why. A desk asks too."""
    if reports.mqtt is not None and not _is_mqtt(reports.mqtt):
        yield "mqtt", f"write mqtts://host:port or mqtt://host:port, not {reports.mqtt!r}"
    given = [key for key in CREDENTIALS if getattr(reports, key) is not None]
    if given and not (reports.mqtt or "mqtts:").startswith("mqtts:"):
        yield given[0], "is used with mqtts:// only, and the broker's address has not that"
    if reports.key_file is not None and reports.cert_file is None:
        yield "key_file", "needs cert_file beside it"


def _is_mqtt(url: str) -> bool:
    """Return whether `url` is an address of a broker; who we are the certificate says, not the address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("mqtt", "mqtts") and bool(parts.hostname) and port != 0 and "@" not in parts.netloc


def _is_download(url: str) -> bool:
    """Return whether `url` is an address of a file; unlike a feed of ours it may ask for something after a "?"."""
    return _is_http(url.partition("?")[0])


def _is_http(url: str) -> bool:
    """Return whether `url` is an address of a feed: no name or password in it, since the feed asks for none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and plain
