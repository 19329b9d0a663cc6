"""Reports from a kiosk to the desk: kept first, sent second, stored once; what arrives is believed like noise."""

import asyncio
import json
import os
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.clock import CLOCK_FLOOR_MS
from bega.mqtt import Message
from bega_kiosk import outbox as outbox_module
from bega_kiosk.agent import Agent
from bega_kiosk.desk import command
from bega_kiosk.desk.link import Link
from bega_kiosk.desk.store import DeskStore
from bega_kiosk.outbox import FILE, NotKept, Outbox
from bega_kiosk.report import (
    ALPHABET,
    LONGEST_ANSWER,
    Ask,
    Report,
    Status,
    encode,
    make_code,
    read_code,
    read_sent,
    read_status,
    spaced,
)
from bega_protocols.errors import WireError

NOW_MS = 1_795_000_000_000
SCRIPTS = "Groapă, ținut · őrült űr · Straße · Ђорђе Њ · Україна Ґ · Ελλάδα · שלום · 日本 · 👵🏽"


def outbox(folder, now_ms=NOW_MS):
    return Outbox(folder, "kiosk-corner", lambda: now_ms, os.urandom)


@pytest.fixture
def desk(tmp_path):
    store = DeskStore(tmp_path / "desk", lambda: NOW_MS)
    yield Link(store, "timisoara", "mqtt://nowhere:1", "desk")
    store.close()


def sent_by(kiosk, payload):
    return Message(f"city/timisoara/{kiosk}/report", payload)


def test_report_is_the_same_at_the_other_end_in_letters_of_every_script(tmp_path):
    box = outbox(tmp_path)
    code = box.keep("problem", {"what": "road", "details": SCRIPTS}, "ro")
    (waiting,) = box.waiting()
    report = read_sent(waiting.payload)
    assert (report.code, report.source, report.seq, report.time_ms) == (code, "kiosk-corner", 1, NOW_MS)
    assert report.answers == {"what": "road", "details": SCRIPTS}


def test_report_of_ten_thousand_letters_arrives_whole_and_one_more_is_refused():
    def payload(letters):
        return encode(
            Report(
                source="k", boot=1, seq=1, code="34679ACD", kind="problem", language="sr", time_ms=1,
                answers={"details": "ж" * letters},
            )
        )  # fmt: skip

    assert len(read_sent(payload(LONGEST_ANSWER)).answers["details"]) == 10_000
    with pytest.raises(WireError):
        read_sent(payload(LONGEST_ANSWER + 1))


@given(st.binary(max_size=300))
def test_noise_is_no_report_and_no_status(noise):
    for read in (read_sent, read_status):
        with pytest.raises(WireError):
            read(noise)


def test_half_a_report_is_none(tmp_path):
    box = outbox(tmp_path)
    box.keep("problem", {"what": "road"}, "ro")
    (waiting,) = box.waiting()
    for cut in range(len(waiting.payload)):
        with pytest.raises(WireError):
            read_sent(waiting.payload[:cut])


def test_error_says_nothing_of_what_was_written():
    payload = b'{"type":"report","source":"k","answers":{"name":"Ion Popescu"}}'
    with pytest.raises(WireError) as refused:
        read_sent(payload)
    assert "Popescu" not in str(refused.value)


def test_code_is_read_as_people_type_it():
    code = make_code(os.urandom)
    assert read_code(spaced(code).lower()) == code
    assert [read_code(text) for text in ("", "K7TM", "0OIL1258", code + "3", "жжжжжжжж")] == [None] * 5


def test_code_favours_no_letter():
    codes = "".join(make_code(os.urandom) for _ in range(3000))
    counts = [codes.count(letter) for letter in ALPHABET]
    assert sum(counts) == 24_000
    assert max(counts) - min(counts) < 300, "a thousand each, give or take five deviations"


def test_each_start_has_a_boot_of_its_own(tmp_path):
    for _ in range(2):
        box = outbox(tmp_path)
        box.keep("problem", {}, "ro")
        box.keep("problem", {}, "ro")
    reports = [read_sent(waiting.payload) for waiting in box.waiting()]
    assert [report.seq for report in reports] == [1, 2, 1, 2]
    assert len({report.boot for report in reports}) == 2


def test_clock_at_1970_is_said_to_be_wrong(tmp_path):
    outbox(tmp_path, now_ms=5000).keep("problem", {}, "ro")
    outbox(tmp_path, now_ms=CLOCK_FLOOR_MS).keep("problem", {}, "ro")
    assert [read_sent(waiting.payload).time_quality for waiting in outbox(tmp_path).waiting()] == [2, 0]


def test_report_that_cannot_be_written_is_not_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotKept):
        outbox(tmp_path / "file").keep("problem", {}, "ro")
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 2)
    box = outbox(tmp_path / "full")
    assert all(box.keep("problem", {}, "ro") for _ in range(2))
    with pytest.raises(NotKept):
        box.keep("problem", {}, "ro")


def test_report_that_the_desk_has_leaves_no_letter_on_the_kiosk(tmp_path):
    box = outbox(tmp_path)
    code = box.keep("problem", {"name": "Ion Popescu", "details": "y" * 9000}, "ro")
    assert any(b"Ion Popescu" in path.read_bytes() for path in tmp_path.iterdir())
    box.note(Status(code=code, state="received", changed_ms=NOW_MS))
    assert not box.is_waiting(code)
    assert [path.name for path in tmp_path.iterdir() if b"Popescu" in path.read_bytes()] == []
    assert box.heard(code).status.state == "received"


def test_desk_that_knows_nothing_of_a_report_does_not_free_it(tmp_path):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    box.note(Status(code=code, state="unknown"))
    assert box.is_waiting(code)
    assert box.heard(code) is None, "it was asked for before it arrived: nobody is told that there is no such code"


def test_desk_stores_once_what_comes_again_and_tells_it_again(tmp_path, desk):
    box = outbox(tmp_path)
    code = box.keep("problem", {"what": "road"}, "ro")
    message = sent_by("kiosk-corner", box.waiting()[0].payload)
    desk.answer(message)
    ((kiosk, status),) = desk._store.untold()
    assert (kiosk, status.code, status.state) == ("kiosk-corner", code, "received")
    desk._store.told(status)
    assert desk._store.untold() == []
    desk.answer(message)
    assert len(desk._store.untold()) == 1, "the first answer may be lost"
    assert (desk.taken, desk.again, desk._store.count()) == (1, 1, 1)


def test_desk_refuses_what_is_not_the_kiosks_own_and_goes_on(tmp_path, desk):
    box = outbox(tmp_path)
    box.keep("problem", {}, "ro")
    payload = box.waiting()[0].payload
    for message in (sent_by("other", payload), sent_by("kiosk-corner", b"\xff"), sent_by("kiosk-corner", b"[" * 9999)):
        assert desk.answer(message) is None
    assert (desk.refused, desk._store.count()) == (3, 0)
    desk.answer(sent_by("kiosk-corner", payload))
    assert desk._store.count() == 1


def test_kiosk_set_up_anew_without_a_clock_is_heard_although_it_counts_from_the_beginning(tmp_path, desk):
    """Its boot is that of its first days, and so is its first report's seq: another code is another report."""
    for folder in ("before", "after"):
        box = outbox(tmp_path / folder, now_ms=5000)
        code = box.keep("problem", {"text": folder}, "ro")
        for _ in range(2):
            desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
        for _, status in desk._store.untold():
            box.note(status)
            desk._store.told(status)
        assert not box.is_waiting(code)
    assert sorted(row.report.answers["text"] for row in desk._store.rows()) == ["after", "before"]
    assert len({(row.report.boot, row.report.seq) for row in desk._store.rows()}) == 1, "the test shows something"


@pytest.mark.parametrize("topic", ["city/arad/kiosk-corner/report", "city/timisoara/report", "x", "city/timisoara/a/b"])
def test_message_of_an_older_subscription_is_not_taken_for_one_of_this_city(tmp_path, desk, topic):
    box = outbox(tmp_path)
    box.keep("problem", {}, "ro")
    assert desk.answer(Message(topic, box.waiting()[0].payload)) is None
    assert (desk.refused, desk._store.count()) == (1, 0)


def test_kiosk_that_lies_ten_thousand_times_fills_no_log(desk, caplog):
    for _ in range(10_000):
        desk.answer(sent_by("liar", b"nonsense"))
    assert (desk.refused, len(caplog.records)) == (10_000, 14)


def test_report_that_waits_while_its_kiosk_is_given_another_name_arrives_once(tmp_path, desk):
    """Tried without a file first, where a kiosk is called "kiosk", and set up afterwards."""
    kept, lost = (outbox(tmp_path).keep("problem", {"text": text}, "ro") for text in ("kept", "its answer was lost"))
    desk.answer(sent_by("kiosk-corner", outbox(tmp_path).waiting()[1].payload))
    box = Outbox(tmp_path, "kiosk-new", lambda: NOW_MS, os.urandom)
    for waiting in box.waiting():
        answer = desk.answer(sent_by("kiosk-new", waiting.payload))
        if answer:
            assert answer[0] == "city/timisoara/kiosk-new/cmd/report"
            box.note(read_status(answer[1]))
    for kiosk, status in desk._store.untold():
        if kiosk == "kiosk-new":
            box.note(status)
    assert box.waiting() == []
    assert sorted(row.status.code for row in desk._store.rows()) == sorted([kept, lost])


def test_code_that_is_taken_overwrites_nothing(tmp_path, desk):
    box = outbox(tmp_path)
    box.keep("problem", {"what": "road"}, "ro")
    mine = json.loads(box.waiting()[0].payload)
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    desk.answer(sent_by("liar", json.dumps(mine | {"source": "liar", "answers": {}}).encode()))
    assert (desk.refused, [row.report.answers for row in desk._store.rows()]) == (1, [{"what": "road"}])


def test_kiosk_that_asks_is_told_how_a_report_is_and_of_none_that_it_is_unknown(tmp_path, desk):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    topic, payload = desk.answer(sent_by("kiosk-park", encode(Ask(code=code))))
    assert (topic, read_status(payload).state) == ("city/timisoara/kiosk-park/cmd/report", "received")
    _, payload = desk.answer(sent_by("kiosk-park", encode(Ask(code="34679ACD"))))
    assert read_status(payload).state == "unknown"


def test_stolen_kiosk_that_guesses_codes_is_told_nothing_and_the_others_are(tmp_path, desk):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    for _ in range(30):
        assert desk.answer(sent_by("stolen", encode(Ask(code="34679ACD"))))
    assert desk.answer(sent_by("stolen", encode(Ask(code=code)))) is None
    assert desk.answer(sent_by("kiosk-corner", encode(Ask(code=code)))) is not None


def test_change_that_comes_while_another_is_told_is_told_too(tmp_path, desk):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    ((_, first),) = desk._store.untold()
    desk._store._wall_ms = lambda: NOW_MS + 1
    desk._store.change(code, "work", "20114", None)
    desk._store.told(first)
    ((_, second),) = desk._store.untold()
    assert (second.state, second.number) == ("work", "20114")


def test_staff_say_how_a_report_is_and_names_stay_off_the_screen(tmp_path, desk, capsys):
    box = outbox(tmp_path)
    answers = {"what": "road", "person": "Ion Popescu", "contact": "Strada Lungă"}
    code = box.keep("problem", answers | {"text": "a\x1b]0;b\x07\r\n\u202ec"}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    data = ["--data", str(tmp_path / "desk")]
    assert command.main(["set", *spaced(code).split(), *data, "--state", "work", "--number", "20114"]) == 0
    assert command.main(["list", *data]) == 0
    said = capsys.readouterr().out
    assert "work" in said
    assert "what: road" in said
    assert "Popescu" not in said
    assert "Lungă" not in said
    assert "text: a ]0;b c" in said, "a terminal obeys nothing of it"
    assert command.main(["list", *data, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["number"], row["answers"]["person"]) == ("work", "20114", "Ion Popescu")
    for number in ("x" * 201, "20114\n", "\u202e"):
        assert command.main(["set", code, *data, "--number", number]) == 1
        assert "have at most 200 letters" in capsys.readouterr().err
    assert command.main(["set", code, *data, "--detail", "x" * 200]) == 0
    ((_, status),) = desk._store.untold()
    assert (status.number, status.detail) == ("20114", "x" * 200)
    capsys.readouterr()
    for wrong, why in (("nonsense", "is no code"), ("34679ACD", "there is no report")):
        assert command.main(["set", wrong, *data, "--state", "done"]) == 1
        assert why in capsys.readouterr().err


def test_two_changes_in_one_moment_are_both_told(tmp_path, desk):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    first = desk._store.change(code, "work", None, None)
    desk._store.change(code, "done", None, None)
    desk._store.told(first)
    assert [status.state for _, status in desk._store.untold()] == ["done"]


def test_desk_that_has_no_disk_says_so_in_a_sentence(tmp_path, desk, capsys, monkeypatch):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    data = ["--data", str(tmp_path / "desk")]

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(DeskStore, "change", full)
    assert command.main(["set", code, *data, "--state", "done"]) == 1
    assert "disk is full" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert command.main(["list", "--data", str(tmp_path / "empty")]) == 1
    assert "no desk keeps its reports there" in capsys.readouterr().err
    assert [*(tmp_path / "empty").iterdir()] == [], "whoever looks in the wrong place begins no desk there"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--mqtt", "http://x"), "--mqtt: write mqtts://host:port"),
        (("--mqtt", "mqtt://x", "--ca-file", "ca.pem"), "--ca-file: is used with mqtts"),
        (("--mqtt", "mqtts://x", "--key-file", "k"), "--key-file: needs --cert-file"),
        (("--city", "+"), "--city +: a name has"),
    ],
)
def test_desk_that_would_not_do_as_it_is_told_does_not_start(tmp_path, capsys, arguments, why):
    assert command.main(["run", "--data", str(tmp_path / "desk"), *arguments]) == 1
    assert why in capsys.readouterr().err


def test_names_are_for_their_owner_alone_on_both_disks(tmp_path, desk):
    box = outbox(tmp_path)
    box.keep("problem", {"person": "Ion Popescu"}, "ro")
    desk.answer(sent_by("kiosk-corner", box.waiting()[0].payload))
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"Popescu" in path.read_bytes()]
    assert len(found) >= 2
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}


def test_full_disk_loses_no_report_and_reports_leave_it(tmp_path, desk):
    """A disk that takes nothing more: what waits is still read and sent, and none is kept or forgotten by mistake."""
    box = outbox(tmp_path)
    code = box.keep("problem", {"text": "x"}, "ro")
    box.ask("34679ACD")
    connect = outbox_module._connect

    def full(path):
        file = connect(path)
        file.execute("PRAGMA query_only=ON")
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "_connect", full)
        with pytest.raises(NotKept):
            box.keep("problem", {}, "ro")
        with pytest.raises(sqlite3.OperationalError):
            box.note(Status(code=code, state="received"))
        assert box.asked() == []
        assert [waiting.code for waiting in box.waiting()] == [code]
    assert box.is_waiting(code)
    assert box.asked() == [encode(Ask(code="34679ACD"))]


class Unheard:
    """A session whose broker acknowledges and forgets."""

    def __init__(self):
        self.published = []

    async def publish(self, topic, payload):
        self.published.append(payload)


def test_desk_that_is_away_for_a_week_finds_few_copies_of_a_report_however_often_the_line_broke(tmp_path):
    box, now_ms, session = outbox(tmp_path), [0], Unheard()
    for _ in range(3):
        box.keep("problem", {}, "ro")
    agent = Agent(box, "city/c/kiosk-corner/", "mqtt://x", "kiosk-corner", lambda: now_ms[0], tmp_path / "hint")

    async def hours(count, looks_an_hour):
        for _ in range(count * looks_an_hour):
            await agent._send_waiting(session, "t")  # as after each connect
            now_ms[0] += 3_600_000 // looks_an_hour

    asyncio.run(hours(1, 60))
    asyncio.run(hours(7 * 24, 1))
    assert 30 <= len(session.published) <= 60
    box.keep("problem", {}, "ro")
    agent._send_all_again()
    before = len(session.published)
    asyncio.run(hours(1, 1))
    assert len(session.published) >= before + 4, "the desk speaks: all of them go at once"


def test_news_that_a_full_disk_does_not_take_end_no_session_and_are_said_once(tmp_path, monkeypatch, caplog):
    box = outbox(tmp_path)
    code = box.keep("problem", {}, "ro")
    payload = encode(Status(code=code, state="received"))
    agent = Agent(box, "city/c/kiosk-corner/", "mqtt://x", "kiosk-corner", lambda: 0, tmp_path / "none" / "hint")

    class Session:
        async def messages(self):
            yield Message("city/c/kiosk-corner/cmd/notices", b"")
            for _ in range(3):
                yield Message("city/c/kiosk-corner/cmd/report", payload)

    def full(status):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(box, "note", full)
        asyncio.run(agent._hear(Session()))
    assert (agent.heard, len(caplog.records), box.is_waiting(code)) == (0, 1, True)
    asyncio.run(agent._hear(Session()))
    assert (agent.heard, box.is_waiting(code)) == (3, False)


def test_questions_are_few_and_leave_once(tmp_path):
    box = outbox(tmp_path)
    for _ in range(3):
        box.ask("34679ACD")
    assert box.asked() == [encode(Ask(code="34679ACD"))]
    assert box.asked() == []


def test_pages_keep_a_report_while_the_agent_reads(tmp_path):
    box, agent = outbox(tmp_path), outbox(tmp_path)
    box.keep("problem", {}, "ro")
    with closing(sqlite3.connect(tmp_path / FILE)) as reader:
        reader.execute("BEGIN").execute("SELECT * FROM waiting").fetchall()
        assert box.keep("problem", {}, "ro")
    assert len(agent.waiting()) == 2
