"""The steps of a setup, each the work of another verb, on one board."""

from __future__ import annotations

import dataclasses
import fcntl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bega import __version__
from bega.clock import mono_s, wall_ms
from bega.identity import DEVICE_ID
from bega.update_keys import moduli
from bega_firmware import bench_site, book
from bega_firmware.authority import require_clock, require_valid
from bega_firmware.board import Board, read_board
from bega_firmware.build import build, write
from bega_firmware.bytecode import compiler_version
from bega_firmware.ca_folder import IDENTITIES, CaFolder
from bega_firmware.cable import Cable, CableError
from bega_firmware.earlier import key_of, made_before
from bega_firmware.flash import PROMPT, FlashedBoard, board_at, flash
from bega_firmware.label import make_label, support_month
from bega_firmware.loader import Chip
from bega_firmware.node_identity import name_on
from bega_firmware.node_settings import read_settings, way_of
from bega_firmware.outcome import Outcome, worst
from bega_firmware.ports import rom_answers
from bega_firmware.proof import command as proof
from bega_firmware.proof.command import Table, test
from bega_firmware.provision import Provisioned, Wish, provision
from bega_firmware.report import BENCH, ON_SITE, Report
from bega_firmware.setup_plan import UPLINKS, board_for, devices_of, drivers_of, new_id, remember_id, remembered_id
from bega_firmware.site import Site, read_site, site_path
from bega_protocols.errors import ConfigError

BUILD_LOCK = "build.lock"
NO_UPDATES = (
    "It takes no updates over its way out: no --update-key was given (`bega update key new`). Later it needs a cable."
)
NO_UPDATES_BY_BLE = "It only advertises: updates reach it by its cable alone."
METER_BUS = "meters"  # of the meter carrier: where a bench's serial line is


@dataclass
class Job:
    """One setup: what was asked for, and what came of it so far."""

    port: str
    asked_site: str
    kind: str
    uplink: str
    is_bench: bool
    asked_id: str
    again: bool  # the board takes the place of another one of this id, or lost its identity
    asked_board: str
    asked_devices: tuple[str, ...]
    image: Path | None
    table: Table  # what a bench has beside the node
    update_keys: tuple[Path, ...]  # public ones, by which its updates must be signed
    support_until: str
    folder: Path  # the user's data folder
    builds: Path
    out: Path | None
    tell: Callable[[Outcome], None]
    progress: Callable[[int, int], None]

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)
    site: Site | None = None
    chip: Chip | None = None
    board: Board | None = None
    devices: list[str] = field(default_factory=list)
    build: Path | None = None
    flashed: FlashedBoard | None = None
    node: str = ""
    provisioned: Provisioned | None = None
    proved: str = ""
    label: Path | None = None
    complaints: list[str] = field(default_factory=list)  # of the bench book

    def add(self, outcome: Outcome) -> None:
        """Note an outcome, and tell it."""
        self.outcomes.append(outcome)
        self.tell(outcome)

    @property
    def site_name(self) -> str:
        """The site's name, '' as long as it was not found."""
        return self.site.name if self.site else ""

    def secrets(self) -> list[str]:
        """Return what must not stand in a report."""
        found = [dict(self.table.wifi or {}).get("key", "")]
        if self.site is not None and self.site.wifi is not None and self.site.secrets_path.exists():
            found.append(self.site.wifi_key())
        return [secret for secret in found if secret]

    def report(self, at_ms: int, took_s: float) -> Report:
        """Return what is to be told of it."""
        return Report(
            kind="setup",
            at_ms=at_ms,
            outcomes=tuple(self.outcomes),
            node=self.node,
            site=self.site_name,
            proved=self.proved,
            board=self.board.name if self.board else "",
            chip=self.chip.chip if self.chip else "",
            mac=self.chip.mac if self.chip else "",
            port=book.port_name(self.port),
            firmware=__version__ if self.build else "",
            interpreter=_interpreter(self.flashed),
            support_until=support_month(self.support_until) if self.label else "",
            took_s=took_s,
            notes=tuple(self.notes),
            label=self.label.read_bytes() if self.label else b"",
            details=tuple(self.details),
        )

    def note(self, what: str, outcome: Outcome) -> None:
        """Note an outcome in the bench book, by its word for what was done; what is wrong with it is said once."""
        complaint = book.note(
            self.folder,
            what,
            outcome.passed,
            outcome.words,
            node=self.node,
            site=self.site_name,
            port=self.port,
            board=self.board.key if self.board else "",
            chip=self.chip.chip if self.chip else "",
            mac=self.chip.mac if self.chip else "",
            firmware=__version__ if self.build else "",
            interpreter=_interpreter(self.flashed),
        )
        if complaint and complaint not in self.complaints:
            self.complaints.append(complaint)

    def milestones(self) -> Iterator[tuple[str, Outcome]]:
        """Yield what the bench book is to know at the end, by its words for it; the rest was noted when it was done."""
        for outcome in self.outcomes:
            if outcome.step == "flash" and outcome.passed is False:  # that it went well was noted at once
                yield book.FLASHED, outcome
        if self.provisioned is not None:
            telling = worst(self.outcomes)
            if self.proved and telling is None:
                yield book.TESTED, Outcome("test", True, f"proved {self.proved}")
            elif telling and (self.proved or telling.passed is False):
                yield book.TESTED, Outcome("test", telling.passed, f"{telling.step}: {telling.words}")
        if self.label is not None:
            yield book.LABELLED, Outcome("label", True, str(self.label))


def find(job: Job) -> None:
    """See which site and which board it is."""
    began_s = mono_s()
    job.site = _site(job)
    _require_ready(job, job.site, wall_ms())
    job.chip = board_at(job.port)
    job.board = read_board(job.asked_board) if job.asked_board else board_for(job.kind, job.chip.chip)
    if job.board.chip != job.chip.chip:
        raise ConfigError(
            f"the board at {job.port} has an {job.chip.chip}, and {job.board.key} is a board with an {job.board.chip}: "
            "name another with --board, or none"
        )
    job.devices = devices_of(job.kind, job.board, job.asked_devices)
    words = f"{job.chip.chip}, {job.chip.flash_mb} MB, MAC {job.chip.mac}: taken for {job.board.name}"
    job.add(Outcome("find", True, words, took_s=mono_s() - began_s))


def make(job: Job) -> None:
    """Build its firmware, or take the build of the same sources that is kept."""
    began_s = mono_s()
    assert job.board is not None
    board, drivers, ways = job.board, drivers_of(job.board, job.devices), [UPLINKS[job.uplink]]
    keys = b"" if job.uplink == "ble" else moduli(job.update_keys)  # who only advertises hears of no update
    if not keys:
        job.notes.append(NO_UPDATES if job.uplink != "ble" else NO_UPDATES_BY_BLE)
    is_new = False

    def into(place: Path) -> None:
        nonlocal is_new
        is_new = True
        write(build(board, drivers, ways, progress=job.progress, keys=keys), place)

    key = key_of(board.key, drivers, [*ways, keys.hex()], compiler_version())
    job.builds.mkdir(parents=True, exist_ok=True)
    with (job.folder / f"{BUILD_LOCK}-{board.key}").open("w") as lock:  # ten setups begin at once, and want the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        job.build = made_before(job.builds, key, into)
    words = f"firmware {__version__} with {', '.join(drivers)}, way out {job.uplink}"
    job.add(Outcome("build", True, words + ("" if is_new else ", kept from before"), took_s=mono_s() - began_s))


def put(job: Job) -> None:
    """Have the build on the board. One that was begun here, or is a node already, keeps its identity: files change."""
    began_s = mono_s()
    assert job.build is not None and job.chip is not None

    def progress(what: str, done: int, whole: int) -> None:
        job.progress(done, whole)

    job.flashed = _by_prompt(job, progress) or flash(job.port, job.build, job.image, progress)
    if job.flashed.by == PROMPT:
        words = "files that differ, over its prompt; its interpreter and what it stored are kept"
    elif job.flashed.is_virtual:
        words = "file system, read back by hash; a virtual board brings its interpreter"
    else:
        words = f"{_interpreter(job.flashed)} and file system, read back by hash"
    job.add(Outcome("flash", True, words, took_s=mono_s() - began_s))
    job.note(book.FLASHED, job.outcomes[-1])


def give(job: Job) -> None:
    """Give it identity, settings and time."""
    assert job.site is not None and job.chip is not None
    job.node = job.asked_id or job.node or _own_id(job)
    remember_id(job.folder, job.chip.mac, job.site.name, job.node)
    board = job.board.key if job.board else None
    wish = Wish(node=job.node, way=job.uplink, devices=tuple(job.devices), board=board, again=job.again)
    with Cable(job.port) as cable:
        job.provisioned = provision(cable, job.site, wish, job.add)
    if job.provisioned.table:
        job.details.append((f"For the configuration of {job.site.gateway}", job.provisioned.table))


def prove(job: Job) -> None:
    """Read its sensors, and see one record of it at a gateway."""
    job.proved = BENCH if job.is_bench else ON_SITE
    test(job.port, job.site, proof.BENCH if job.is_bench else proof.ON_SITE, job.add, job.table)


def mark(job: Job) -> None:
    """Draw its label."""
    began_s = mono_s()
    assert job.site is not None and job.board is not None
    folder = job.out or job.folder / "reports" / job.node
    made = make_label(
        folder,
        job.node,
        firmware=__version__,
        site=job.site.name,
        board=job.board.name,
        support_until=job.support_until,
    )
    job.label = Path(made["files"][0])
    words = ", ".join(Path(name).name for name in made["files"])
    job.add(Outcome("label", True, "; ".join([words, *made["complaints"]]), took_s=mono_s() - began_s))


STEPS = (("find", find), ("build", make), ("flash", put), ("provision", give), ("test", prove), ("label", mark))


def _site(job: Job) -> Site:
    """Return the site asked for, on a bench without it the bench's own."""
    if not job.is_bench or site_path(job.asked_site).exists():
        return read_site(job.asked_site)
    job.notes.append(bench_site.SAYS.format(asked=job.asked_site))
    site = bench_site.bench_site()
    if job.kind == "meter" and site.uplink is not None:
        return dataclasses.replace(site, uplink=type(site.uplink)(bus=METER_BUS))
    return site


def _require_ready(job: Job, site: Site, now_ms: int) -> None:
    """Raise ConfigError for what would end the work later: it is said now, before anything is done."""
    require_clock(now_ms)
    support_month(job.support_until)
    way_of(site, job.uplink)
    if job.uplink != "wifi":
        return
    if site.ca is not None:
        require_valid(CaFolder(site.ca).issuing().certificate, f"the issuing key of {site.ca}", now_ms)
    if not sys.stdin.isatty():
        site.wifi_key()  # on a terminal it is asked for when it is needed


def _by_prompt(job: Job, progress: Callable[[str, int, int], None]) -> FlashedBoard | None:
    """Return what came of putting files alone on a board that is somebody already; None: it is nobody."""
    assert job.build is not None and job.chip is not None and job.site is not None
    job.node = remembered_id(job.folder, job.chip.mac, job.site.name, _events(job)) or _name_of(job)
    if not job.node:
        return None
    try:
        return flash(job.port, job.build, job.image, progress, by=PROMPT)
    except CableError:
        return None  # nobody at the prompt: its flash was never finished


def _name_of(job: Job) -> str:
    """Return the id of the node at the port, which another bench may have made; '' if it is none."""
    if rom_answers(job.port):
        return ""
    try:
        with Cable(job.port) as cable:
            name = name_on(cable) or str((read_settings(cable) or {}).get("node", ""))
    except CableError:
        return ""
    return name if DEVICE_ID.fullmatch(name) else ""


def _events(job: Job) -> list[book.Event]:
    try:
        return book.read(job.folder)[0]
    except ConfigError:
        return []


def _own_id(job: Job) -> str:
    """Return a new id, that neither the authority nor this bench has given out."""
    assert job.site is not None
    authority = CaFolder(job.site.ca) if job.site.ca is not None else None
    known = {event.node for event in _events(job)}

    def is_taken(name: str) -> bool:
        if authority is None:
            return name in known
        return name in known or bool(authority.issued(name)) or (authority.folder / IDENTITIES / name).exists()

    return new_id(job.kind, is_taken)


def _interpreter(flashed: FlashedBoard | None) -> str:
    return flashed.interpreter if flashed else ""
