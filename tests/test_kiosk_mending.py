"""A damaged file of reports: what can be read of it is carried over under its own ids, and nobody sees an error."""

import os
import sqlite3
from contextlib import closing

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bega.clock import wall_ms
from bega_kiosk import mending
from bega_kiosk import outbox as outbox_module
from bega_kiosk.desk import store as desk_module
from bega_kiosk.desk.store import DeskStore
from bega_kiosk.mending import held
from bega_kiosk.outbox import FILE, NotKept, Outbox
from bega_kiosk.report import Report, Status, read_sent
from tests.kiosk_gate import Kiosk

NOW_MS = 1_795_000_000_000
PAGE = 4096
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"


def outbox(folder):
    return Outbox(folder, "kiosk-corner", lambda: NOW_MS, os.urandom)


class Whole(tuple):
    """A file, what waits in it by code, and the codes that its desk knows."""

    def __new__(cls, *parts):
        return super().__new__(cls, parts)

    def __repr__(self):
        return "the whole file"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a file with 120 reports that wait, every tenth on several pages, and 20 that the desk has."""
    folder = tmp_path_factory.mktemp("whole")
    box = outbox(folder)
    codes = [box.keep("problem", {"text": f"{n} " + "ș" * (4500 if n % 10 == 0 else 200)}, "ro") for n in range(140)]
    for code in codes[:20]:
        box.note(Status(code=code, state="work", number="20114", changed_ms=NOW_MS))
    waiting = {waiting.code: waiting for waiting in box.waiting(limit=999)}
    assert len(waiting) == 120
    return Whole((folder / FILE).read_bytes(), waiting, codes[:20])


def pages_of(octets, kind):
    return [place for place in range(0, len(octets), PAGE) if octets[place + (100 if place == 0 else 0)] == kind]


def zeroed(octets, place, length=PAGE):
    return octets[:place] + bytes(length) + octets[place + length :]


def foreign(_):
    with closing(sqlite3.connect(":memory:")) as other:
        other.execute("CREATE TABLE photo (id, name)")
        return other.serialize()


DAMAGES = {  # how it is done, and how many reports are saved at least
    "cut in half": (lambda octets: octets[: len(octets) // 2], 40),
    "a page of reports is gone": (lambda octets: zeroed(octets, pages_of(octets, 13)[-1]), 100),
    "zeroes in the middle": (lambda octets: zeroed(octets, len(octets) // 2 - 300, 600), 100),
    "its head is gone": (lambda octets: zeroed(octets, 0, 100), 100),
    "its first page is gone": (lambda octets: zeroed(octets, 0), 100),
    "the root of its tree is gone": (lambda octets: zeroed(octets, pages_of(octets, 5)[0]), 100),
    "a picture": (lambda octets: b"\x89PNG\r\n\x1a\n" * 3000, 0),
    "another program's": (foreign, 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_be_read_of_a_damaged_outbox_waits_on_under_its_own_ids(tmp_path, whole, damage, caplog):
    octets, waiting, known = whole
    doing, least = DAMAGES[damage]
    damaged = doing(octets)
    assert damaged != octets
    (tmp_path / FILE).write_bytes(damaged)
    box = outbox(tmp_path)
    saved = {one.code: one for one in box.waiting(limit=999)}
    assert saved.items() <= waiting.items(), "no report is another than it was"
    assert least <= len(saved) < 121
    assert (tmp_path / f"{FILE}.damaged-1").read_bytes() == damaged
    assert f"saved={len(saved)}" in caplog.text
    code = box.keep("problem", {"text": "a new one"}, "ro")
    assert outbox(tmp_path).waiting(limit=999)[-1].code == code
    told = [box.heard(code) for code in known]
    assert all(heard is None or (heard.status.number, heard.heard_ms) == ("20114", NOW_MS) for heard in told)
    assert not any(box.is_waiting(code) for code in known), "what the desk has is not sent again"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob(FILE + "*") if "damaged" not in path.name} == {0o600}


@settings(
    max_examples=500 if IS_NIGHT else 10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(places=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=40)), min_size=1, max_size=8))
def test_no_damage_keeps_a_kiosk_from_taking_reports_or_makes_one_up(tmp_path_factory, whole, places):
    octets, waiting, _ = whole
    damaged = bytearray(octets)
    for share, put in places:
        at = round(share * (len(octets) - len(put)))
        damaged[at : at + len(put)] = put
    folder = tmp_path_factory.mktemp("damaged")
    (folder / FILE).write_bytes(damaged)
    box = outbox(folder)
    code = box.keep("problem", {"text": "a new one"}, "ro")
    assert box.is_waiting(code)
    sent = [read_sent(one.payload) for one in box.waiting(limit=999)]
    assert code in {report.code for report in sent}
    ours = {read_sent(one.payload).seq for one in waiting.values()}
    assert all(report.source == "kiosk-corner" and report.seq in ours for report in sent if report.code != code)


def test_damage_under_a_running_kiosk_costs_no_citizen_a_report(tmp_path, whole):
    box, agent = outbox(tmp_path), outbox(tmp_path)
    (tmp_path / FILE).write_bytes(whole[0])
    assert (len(box.waiting(limit=999)), len(agent.waiting(limit=999))) == (120, 120)
    (tmp_path / FILE).write_bytes(zeroed(whole[0], 0, 100))
    code = box.keep("problem", {}, "ro")
    assert agent.waiting(limit=999)[-1].code == code
    assert len(agent.waiting(limit=999)) > 100


def test_journal_without_its_file_is_read_too(tmp_path):
    box = outbox(tmp_path)
    box.keep("problem", {"text": "in the file"}, "ro")
    with closing(sqlite3.connect(tmp_path / FILE)) as reader:  # who is cut off leaves its journal
        reader.execute("SELECT * FROM waiting").fetchall()
        code = box.keep("problem", {"text": "in the journal"}, "ro")
        journal = (tmp_path / f"{FILE}-wal").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / FILE).write_bytes(b"")
    (other / f"{FILE}-wal").write_bytes(journal)
    assert outbox(other).is_waiting(code)


def test_power_cut_while_a_file_is_mended_loses_nothing(tmp_path, whole, monkeypatch):
    (tmp_path / FILE).write_bytes(zeroed(whole[0], 0, 100))

    def cut(_):
        raise KeyboardInterrupt

    for name in ("put_aside", "remove_old"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(mending, name, cut)
            outbox(tmp_path).waiting()
    assert len(outbox(tmp_path).waiting(limit=999)) > 100
    assert not (tmp_path / f"{FILE}.new").exists()


def test_file_that_somebody_holds_is_not_taken_away_under_them(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(mending, "LOOKS", 2)
    (tmp_path / FILE).write_bytes(zeroed(whole[0], 0, 100))
    with held(tmp_path / FILE):
        with pytest.raises(NotKept):
            outbox(tmp_path).keep("problem", {}, "ro")
        assert outbox(tmp_path).heard("34679ACD") is None
        assert not (tmp_path / f"{FILE}.damaged-1").exists()
    assert outbox(tmp_path).keep("problem", {}, "ro")


def test_full_disk_is_no_damage(tmp_path, whole, monkeypatch):
    def full(path):
        raise sqlite3.OperationalError("database or disk is full")

    (tmp_path / FILE).write_bytes(whole[0])
    monkeypatch.setattr(outbox_module, "_connect", full)
    with pytest.raises(NotKept):
        outbox(tmp_path).keep("problem", {}, "ro")
    assert not (tmp_path / f"{FILE}.damaged-1").exists()


@pytest.fixture(scope="module")
def desk_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    store = DeskStore(folder, lambda: NOW_MS)
    for seq in range(1, 201):
        store.take(
            Report(
                source="kiosk-corner",
                boot=7,
                seq=seq,
                code=f"34679{'ACDEFGHJKM'[seq % 10]}{'ACDEFGHJKM'[seq // 10 % 10]}{'ACD'[seq // 100]}",
                kind="problem",
                language="ro",
                time_ms=NOW_MS,
                answers={"text": "ș" * (3000 if seq % 10 == 0 else 200)},
            )
        )
    reports = {row.report.seq: row for row in store.rows(999)}
    for row in reports.values():
        if row.report.seq % 2:
            store.change(row.report.code, "work", str(row.report.seq), "Drumuri")
    reports = {row.report.seq: row for row in store.rows(999)}
    store.close()
    return (folder / desk_module.FILE).read_bytes(), reports


@pytest.mark.parametrize(
    "damage", [name for name, (_, least) in DAMAGES.items() if name != "the root of its tree is gone"]
)
def test_what_can_be_read_of_a_damaged_desk_is_there_with_its_states(tmp_path, desk_file, damage):
    octets, reports = desk_file
    doing, least = DAMAGES[damage]
    kind = 10 if damage == "a page of reports is gone" else 13
    damaged = zeroed(octets, pages_of(octets, kind)[-1]) if kind == 10 else doing(octets)
    (tmp_path / desk_module.FILE).write_bytes(damaged)
    store = DeskStore(tmp_path, lambda: NOW_MS)
    saved = {row.report.seq: row for row in store.rows(999)}
    assert saved.items() <= reports.items(), "no report is another than it was, nor its state"
    assert len(saved) >= least
    assert len(store.untold(999)) == len(saved), "each kiosk is told again"
    assert [store.take(row.report) for row in saved.values()] == [False] * len(saved)
    store.close()
    assert (tmp_path / f"{desk_module.FILE}.damaged-1").read_bytes() == damaged


def test_desk_whose_file_is_damaged_while_it_runs_goes_on_with_what_can_be_read(tmp_path, desk_file):
    octets, reports = desk_file
    store = DeskStore(tmp_path, lambda: NOW_MS)
    store.close()
    (tmp_path / desk_module.FILE).write_bytes(octets)
    store = DeskStore(tmp_path, lambda: NOW_MS)
    with (tmp_path / desk_module.FILE).open("r+b") as file:
        file.write(bytes(len(octets) // 8))
    assert 100 < store.count() <= len(reports)
    store.close()


@pytest.mark.parametrize("damage", ["cut in half", "a picture", "another program's"])
def test_citizen_sees_a_page_whatever_became_of_the_file(tmp_path, whole, damage):
    (tmp_path / FILE).write_bytes(DAMAGES[damage][0](whole[0]))
    with Kiosk("24", tmp_path) as kiosk, httpx.Client(base_url=kiosk.address, trust_env=False) as browser:
        for path in kiosk.paths():
            if path.startswith(("/report", "/human", "/appointments")):
                answer = browser.get(path, follow_redirects=True)
                assert (answer.status_code, 'id="page"' in answer.text) == (200, True), path
        assert kiosk.pages.known.outbox.keep("problem", {}, "ro")


@pytest.mark.parametrize("name", [FILE, desk_module.FILE])
def test_damaged_file_that_names_citizens_goes_after_a_month(tmp_path, name):
    def begun(after_days):
        now_ms = wall_ms() + after_days * 86_400_000
        if name == FILE:
            Outbox(tmp_path, "kiosk-corner", lambda: now_ms, os.urandom).waiting()
        else:
            DeskStore(tmp_path, lambda: now_ms).close()
        return {path.name for path in tmp_path.glob("*damaged*")}

    (tmp_path / name).write_bytes(b"\x89PNG Ion Popescu" * 3000)
    aside = begun(0)
    assert len(aside) == 1
    (tmp_path / name).write_bytes(b"\x89PNG again" * 3000)
    assert len(begun(29)) == 2
    assert begun(31) == set()
    assert (tmp_path / name).exists()
