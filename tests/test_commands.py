"""Commands: each allowed one done once, each other refused with its reason, over restarts at any moment."""

import asyncio
import json
import random
import sqlite3
from collections import Counter
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from bega.mqtt import Message
from bega_gateway.commands import ledger as ledgers
from bega_gateway.commands.desk import MOST_WAITING, Desk, Ended
from bega_gateway.commands.ledger import LONGEST_AHEAD_S, Begun, Ledger
from bega_gateway.commands.order import Refused, canonical, understand
from bega_gateway.commands.signature import Seal
from bega_gateway.lines.errand import Done
from bega_protocols.errors import ConfigError
from tests.conftest import IS_NIGHT

NOW_S = 1_795_300_000
ROOT = "city/arad/gw-1/"
KEY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()


def command(id_: str, verb: str = "read", *, key=None, root: str = ROOT, expires: int = NOW_S + 60, **keys) -> Message:
    topic = f"{root}cmd/{verb}"
    payload = {"id": id_, "expires": expires, **({"device": "good"} if verb == "read" else {}), **keys}
    if key:
        payload["sig"] = key.sign(canonical(topic, payload)).hex()
    return Message(topic, json.dumps(payload).encode())


@pytest.fixture(scope="module")
def seal(tmp_path_factory) -> Seal:
    file = tmp_path_factory.mktemp("key") / "commands.pem"
    file.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return Seal(file)


class Inline(Executor):
    """Does what is submitted at once: so a test decides when all of it stands still."""

    def submit(self, work, /, *arguments, **words):
        future: Future = Future()
        try:
            future.set_result(work(*arguments, **words))
        except BaseException as error:
            future.set_exception(error)
        return future


class Killed(BaseException):
    """The power is gone."""


class Life:
    """Ends at the given step; after that nothing that is done counts."""

    def __init__(self, steps: float = float("inf")) -> None:
        self.steps = steps

    def step(self) -> None:
        self.steps -= 1
        if self.steps <= 0:
            raise Killed


class MortalLedger(Ledger):
    """Dies before or after anything that it writes."""

    def __init__(self, path: Path, life: Life) -> None:
        super().__init__(path)
        self._life = life

    def begin(self, *arguments) -> None:
        self._life.step()
        super().begin(*arguments)
        self._life.step()

    def end(self, *arguments) -> None:
        self._life.step()
        super().end(*arguments)
        self._life.step()

    def lose_power(self) -> None:
        if self._file:
            self._file.close()  # without a commit


class City:
    """Whoever commands: what it was told, and what was done in the world. It outlives every gateway."""

    def __init__(self, directory: Path, seal: Seal | None = None) -> None:
        self.path = directory / "commands.db"
        self.seal = seal
        self.now_ms = 1000 * NOW_S
        self.done: Counter[str] = Counter()
        self.results: list[dict] = []
        self.classes: list[str] = []
        self.life = Life()
        self.facts: dict = {}  # what each command finds
        self.counted: Counter[tuple[str, str]] = Counter()

    def desk(self) -> tuple[Desk, MortalLedger]:
        ledger = MortalLedger(self.path, self.life)
        return (
            Desk(ROOT, ledger, Inline(), self, self.prepare, lambda: self.now_ms, seal=self.seal, per_second=1e6),
            ledger,
        )

    def prepare(self, order):
        if getattr(order.keys, "device", "good") != "good":
            raise Refused("no such device")

        async def work() -> Ended:
            self.life.step()
            self.done[order.id] += 1
            self.life.step()
            await asyncio.sleep(0)
            return Ended(Done(True), self.facts)

        return work

    def add(self, topic, payload, *, storage_class="routine", at_once=False):
        assert topic == f"{ROOT}result"
        assert at_once
        self.life.step()
        self.results.append(json.loads(payload))
        self.classes.append(storage_class)
        self.life.step()
        stored = asyncio.get_running_loop().create_future()
        stored.set_result(None)
        return stored

    async def commanded(self, *messages: Message) -> list[dict]:
        """Start a gateway, give it `messages`, and return the results that came of them."""
        before = len(self.results)
        desk, ledger = self.desk()
        running = asyncio.create_task(desk.run())
        for message in messages:
            desk.hear(message)
        while desk._waiting.qsize() or desk._in_hand or len(self.results) < before + len(messages):  # noqa: ASYNC110 - sets no event
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        ledger.close()
        self.counted += desk.counted
        return self.results[before:]

    def answers(self, *messages: Message) -> list[dict]:
        return asyncio.run(asyncio.wait_for(self.commanded(*messages), 30))


@pytest.fixture
def city(tmp_path) -> City:
    return City(tmp_path)


def test_a_command_is_done_and_its_result_can_be_repeated_without_doing_it_again(city):
    first, second = city.answers(command("a"), command("a"))
    assert (first["id"], first["verb"], first["status"]) == ("a", "read", "done")
    assert second["status"] in ("begun", "done")
    (again,) = city.answers(command("a"))
    assert again == {**first, "repeated": True}
    assert city.done == {"a": 1}
    assert city.classes[0] == "billing"


@pytest.mark.parametrize(
    ("message", "status", "why"),
    [
        (command("x", expires=NOW_S), "expired", "too late"),
        (command("x", expires=NOW_S + LONGEST_AHEAD_S + 1), "refused", "24 hours"),
        (command("x", root="city/arad/gw-2/"), "refused", "another gateway"),
        (command("x", device="other"), "refused", "no such device"),
        (command("x", verb="explode"), "refused", "no such verb"),
        (command("x", colour="red"), "refused", "does not know"),
        (command("x", device=7), "refused", "device"),
        (command("x", device=""), "refused", "device"),
        (command("x", verb="write", device="good", name="n", value=1.5), "refused", "as text"),
        (command("x", verb="act", device="good", action="zero", value=2**60), "refused", "too large"),
        (command("x", verb="blink", for_s=3600), "refused", "60"),
        (command("x y"), "refused", "id must be"),
        (command("x", expires="soon"), "refused", "expires must be"),
        (Message(f"{ROOT}cmd/read", b'{"id":"x","id":"x","expires":1}'), "refused", "twice"),
        (Message(f"{ROOT}cmd/read", b"[1]"), "refused", "no JSON object"),
        (Message(f"{ROOT}cmd/read", b"\xff"), "refused", "no JSON"),
        (Message(f"{ROOT}cmd/read", b"[" * 5000), "refused", "no JSON"),
        (Message(f"{ROOT}cmd/read", b" " * 9000), "refused", "longer than"),
    ],
)
def test_what_may_not_be_done_is_refused_with_its_reason(city, message, status, why):
    (answer,) = city.answers(message)
    assert answer["status"] == status
    assert why in answer["reason"]
    assert not city.done
    assert city.classes == ["routine"]


def test_refusals_are_counted_by_their_reason(city, seal):
    city.answers(command("a"), command("b", device="other"), command("a", expires=NOW_S + 61), command("x y"))
    city.answers(command("far", expires=NOW_S + LONGEST_AHEAD_S + 1), command("late", expires=NOW_S), command("a"))
    city.now_ms = 5000
    city.answers(command("c"))
    city.seal = seal
    city.answers(command("d"))
    kinds = ("not_allowed", "id_used", "malformed", "too_far_ahead", "no_time", "unsigned")
    assert city.counted == {
        ("done", ""): 1,
        ("expired", ""): 1,
        ("repeated", ""): 1,
        **{("refused", kind): 1 for kind in kinds},
    }


def test_without_the_time_nothing_is_done(city):
    city.now_ms = 5000
    (answer,) = city.answers(command("a", expires=60))
    assert "does not know the time" in answer["reason"]


def test_where_a_key_is_given_only_its_owner_commands(city, seal):
    city.seal = seal
    signed = command("signed", key=KEY)
    elsewhere = json.loads(command("elsewhere", key=KEY, root="city/arad/gw-2/").payload)
    changed = {**json.loads(command("changed", key=KEY).payload), "expires": NOW_S + 61}
    answers = city.answers(
        signed,
        command("unsigned"),
        command("forged", key=STRANGER),
        Message(signed.topic, json.dumps(elsewhere).encode()),
        Message(signed.topic, json.dumps(changed).encode()),
        Message(signed.topic.replace("read", "status"), signed.payload),
        Message(signed.topic, json.dumps({**json.loads(signed.payload), "sig": "zz"}).encode()),
    )
    found = Counter((answer["id"], answer["status"]) for answer in answers)
    assert found[("signed", "done")] == 1
    assert {status for (id_, status) in found if id_ != "signed"} == {"refused"}
    assert city.done == {"signed": 1}


def test_a_key_of_another_kind_is_refused(tmp_path):
    (tmp_path / "none.pem").write_text("no key")
    with pytest.raises(ConfigError, match="public_key"):
        Seal(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="public_key"):
        Seal(tmp_path / "missing.pem")


def test_the_signature_covers_the_bytes_that_the_docs_say():
    payload = {"expires": 1, "id": "é", "device": "d", "sig": "00"}
    assert canonical("t", payload) == b't\n{"device":"d","expires":1,"id":"\\u00e9"}'


@given(
    payload=st.binary(max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "expires", "sig", "device", "value"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
    verb=st.sampled_from(["read", "write", "act", "status", "configure_node", "x"]),
)
def test_whatever_comes_is_understood_or_refused(payload, verb):
    try:
        order = understand(f"{ROOT}cmd/", f"{ROOT}cmd/{verb}", payload)
    except Refused as error:
        assert error.why
    else:
        assert order.id


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ('"\\ud800":1', "no JSON in UTF-8"),
        ('"device":"\\udfff"', "no JSON in UTF-8"),
        ('"x\\nlevel=ERROR":1', "a key that its verb does not know"),
        ('"device":' + 900 * "[" + 900 * "]", "nested"),
        ('"device":"' + 9000 * "a" + '"', "longer than"),
    ],
)
def test_what_is_made_to_do_harm_ends_nothing(city, inner, why):
    answers = city.answers(
        Message(f"{ROOT}cmd/read", f'{{"id":"a","expires":{NOW_S + 60},{inner}}}'.encode()), command("b")
    )
    assert why in answers[0]["reason"]
    assert "level" not in answers[0]["reason"]
    assert answers[1]["status"] == "done"


def test_a_command_of_any_length_takes_little_room_while_it_waits(city):
    desk, _ = city.desk()
    desk.hear(Message(f"{ROOT}cmd/read", b"x" * 5_000_000))
    assert len(desk._waiting.get_nowait().payload) < 10_000


def test_a_flood_is_turned_away_and_the_gateway_goes_on(city):
    async def scene():
        desk, ledger = city.desk()
        for number in range(MOST_WAITING + 500):
            desk.hear(command(f"flood-{number}"))
        running = asyncio.create_task(desk.run())
        while sum(city.done.values()) < MOST_WAITING:  # noqa: ASYNC110 - sets no event
            await asyncio.sleep(0)
        desk.hear(command("after"))
        while not city.done["after"]:  # noqa: ASYNC110 - sets no event
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        ledger.close()

    asyncio.run(asyncio.wait_for(scene(), 30))
    busy = [result for result in city.results if result["status"] == "refused"]
    assert 0 < len(busy) <= 10, "answers to a flood are bounded"
    assert all("busy" in result["reason"] for result in busy)


def test_what_was_begun_when_the_power_went_is_unknown_and_never_begun_again(city):
    async def scene():
        city.life = Life(3)  # before the commit, after it, and then in the act
        desk, ledger = city.desk()
        desk.hear(command("a"))
        with pytest.raises(BaseExceptionGroup):
            await desk.run()
        ledger.lose_power()

    asyncio.run(scene())
    city.life = Life()
    (found, *_), (again, *_) = city.answers(command("a")), city.answers(command("a"))
    assert (found["status"], again["status"], again["repeated"]) == ("unknown", "unknown", True)
    assert not city.done["a"]


def test_a_disk_that_takes_nothing_lets_nothing_be_done(city):
    city.path.mkdir()  # no file can be opened there
    (answer,) = city.answers(command("a"))
    assert "the disk takes nothing" in answer["reason"]
    assert not city.done
    city.path.rmdir()
    (answer,) = city.answers(command("a"))
    assert answer["status"] == "done"


def test_after_a_damaged_ledger_nothing_is_done_that_may_have_been(city):
    city.answers(command("a"))
    city.path.write_bytes(b"no database" * 1000)
    (answer,) = city.answers(command("a"))
    assert "with this ledger's name" in answer["reason"]
    named = {"ledger": answer["result"]["ledger"]}
    first, again, other = city.answers(command("b", **named), command("b", **named), command("c", ledger="of old"))
    assert (first["status"], again["status"] in ("begun", "done"), other["status"]) == ("done", True, "refused")
    assert other["result"] == named, "it is told how it is called"
    assert city.done == {"a": 1, "b": 1}
    assert city.path.with_name("commands.db.damaged").exists()


def test_a_sender_who_names_no_ledger_is_heard_again_two_days_after_one_who_did(city):
    city.answers(command("a", expires=NOW_S + LONGEST_AHEAD_S))
    city.path.write_bytes(b"no database" * 1000)
    (refusal,) = city.answers(command("b"))
    city.answers(command("c", expires=NOW_S + 60, **refusal["result"]))
    city.now_ms += 1000 * (LONGEST_AHEAD_S + 30)
    early, late = city.answers(
        command("d", expires=NOW_S + LONGEST_AHEAD_S + 60), command("e", expires=NOW_S + LONGEST_AHEAD_S + 61)
    )
    assert (early["status"], late["status"]) == ("refused", "done")
    assert city.done == {"a": 1, "c": 1, "e": 1}


YEARS_S = 15 * 366 * 86_400


@pytest.mark.parametrize("ahead_s", [YEARS_S, 3 * 86_400, 3600, -3600, -3 * 86_400])
def test_a_clock_that_is_wrong_when_the_ledger_is_begun_anew_locks_nobody_out_and_lets_nothing_in_again(city, ahead_s):
    """It is right later. What came meanwhile, whatever its expiry, must not have moved the bounds."""
    old = [command(f"old-{hours}", expires=NOW_S + hours * 3600) for hours in (1, 12, 24)]
    city.answers(*old)
    city.path.write_bytes(b"no database" * 1000)
    city.now_ms += 1000 * ahead_s
    answers = city.answers(*old, command("then", expires=NOW_S + ahead_s + 60))
    assert not [answer for answer in answers if answer["status"] not in ("refused", "expired")]
    city.now_ms -= 1000 * ahead_s
    *replayed, fresh = city.answers(*old, command("fresh"))
    assert {answer["status"] for answer in [*replayed, fresh]} == {"refused"}
    (named,) = city.answers(command("fresh", **fresh["result"]))
    assert named["status"] == "done"
    for hours in (1, 13, 47):
        city.now_ms = 1000 * (NOW_S + hours * 3600)
        *replayed, named = city.answers(
            *old, command(f"at-{hours}", expires=NOW_S + hours * 3600 + 9, **fresh["result"])
        )
        assert not [answer for answer in replayed if answer["status"] not in ("refused", "expired")]
        assert named["status"] == "done"
    assert max(city.done.values()) == 1


@given(
    turns=st.lists(
        st.one_of(
            st.tuples(st.just("clock"), st.integers(-5 * 86_400, 5 * 86_400) | st.just(YEARS_S)),
            st.tuples(st.just("old"), st.integers(0, 3)),
            st.tuples(st.just("new"), st.integers(1, LONGEST_AHEAD_S)),
            st.tuples(st.just("named"), st.integers(1, LONGEST_AHEAD_S)),
            st.tuples(st.just("damage"), st.just(0)),
        ),
        max_size=12,
    )
)
@settings(max_examples=12, deadline=None)
def test_over_damage_and_any_clock_nothing_is_done_twice_and_who_names_the_ledger_is_heard(tmp_path_factory, turns):
    """The sender's clock is right; the gateway's is anything, and right when a command with the name comes."""
    city = City(tmp_path_factory.mktemp("city"))
    old = [command(f"old-{number}", expires=NOW_S + number * 28_800 + 1) for number in range(4)][:3]
    old.append(command("old-3", expires=NOW_S + LONGEST_AHEAD_S))
    city.answers(*old)
    for number, (kind, figure) in enumerate([("damage", 0), *turns]):
        if kind == "clock":
            city.now_ms = 1000 * (NOW_S + figure)
        elif kind == "damage":
            city.path.write_bytes(b"no database" * 1000)
        elif kind == "old":
            city.answers(old[figure])
        elif kind == "new":
            city.answers(command(f"new-{number}", expires=NOW_S + figure))
        else:
            before, city.now_ms = city.now_ms, 1000 * NOW_S
            made = {"id_": f"named-{number}", "expires": NOW_S + figure}
            (answer,) = city.answers(command(**made))
            if answer["status"] == "refused":
                (answer,) = city.answers(command(**made, **answer["result"]))
            assert answer["status"] == "done"
            city.now_ms = before
    assert max(city.done.values()) == 1


def test_a_power_cut_while_a_damaged_ledger_is_set_aside_lets_nothing_in_again(city):
    city.answers(command("a"))
    city.path.rename(city.path.with_name("commands.db.damaged"))  # and the new one was not made yet
    (answer,) = city.answers(command("a"))
    assert "with this ledger's name" in answer["reason"]
    assert city.done == {"a": 1}


def test_a_damaged_ledger_that_cannot_be_set_aside_has_every_command_refused(city):
    city.path.write_bytes(b"no database" * 1000)
    in_the_way = city.path.with_name("commands.db.damaged")
    in_the_way.mkdir()
    (answer,) = city.answers(command("a"))
    assert (answer["status"], "the disk takes nothing" in answer["reason"]) == ("refused", True)
    in_the_way.rmdir()
    (answer,) = city.answers(command("a"))
    assert "with this ledger's name" in answer["reason"]


def test_who_asks_again_without_the_ledgers_name_hears_what_came_of_it_with_the_name(city):
    """`bega gateway command` with the same id and expiry does so: it cannot know that the name was wanted."""
    city.path.write_bytes(b"no database" * 1000)
    (refusal,) = city.answers(command("a"))
    (done,) = city.answers(command("a", **refusal["result"]))
    (again,) = city.answers(command("a"))
    assert (done["status"], again.get("repeated"), again["status"]) == ("done", True, "done")
    (other,) = city.answers(command("a", verb="status"))
    assert other["reason"] == "its id was that of another command"
    assert city.done == {"a": 1}


def test_what_cannot_be_said_of_one_command_ends_no_other(city):
    for _ in range(5000):
        city.facts = {"in": city.facts}
    answers = city.answers(command("a"), command("b"))
    assert [answer["reason"] for answer in answers] == ["a defect; see the log of the gateway"] * 2
    assert city.done == {"a": 1, "b": 1}


def test_a_defect_where_a_command_is_looked_at_ends_no_other(city, monkeypatch, caplog):
    prepare = city.prepare

    def stumble(order):
        if order.id == "a":
            raise ZeroDivisionError
        return prepare(order)

    monkeypatch.setattr(city, "prepare", stumble)
    first, second = city.answers(command("a"), command("b"))
    assert (first["status"], first["reason"]) == ("refused", "a defect; see the log of the gateway")
    assert second["status"] == "done" and "ZeroDivisionError" in caplog.text


def test_old_commands_are_forgotten_after_their_expiry_only_and_never_come_in_again(city, monkeypatch):
    monkeypatch.setattr(ledgers, "KEPT", 10)
    monkeypatch.setattr(ledgers, "LOOK_EVERY", 1)
    city.answers(*(command(f"early-{number}", expires=NOW_S + 10) for number in range(20)))
    assert _rows(city.path) == 20, "none has expired"
    city.now_ms += 20_000
    city.answers(*(command(f"late-{number}") for number in range(3)))
    assert _rows(city.path) <= 12
    city.now_ms -= 20_000  # the clock is set back
    before = dict(city.done)
    (answer,) = city.answers(command("early-0", expires=NOW_S + 10))
    assert answer["status"] == "refused"
    assert city.done == before


def _rows(path: Path) -> int:
    with sqlite3.connect(path) as file:
        return file.execute("SELECT COUNT(*) FROM commands").fetchone()[0]


def test_a_full_ledger_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "MOST", 2)
    ledger = Ledger(tmp_path / "commands.db")
    ledger.open()
    for id_ in "ab":
        ledger.begin(Begun(id_, "read", b"", ""), "", NOW_S + 9, 1000 * NOW_S)
    with pytest.raises(ledgers.LedgerFull):
        ledger.begin(Begun("c", "read", b"", ""), "", NOW_S + 9, 1000 * NOW_S)
    with pytest.raises(sqlite3.IntegrityError):
        monkeypatch.setattr(ledgers, "MOST", 9)
        ledger.begin(Begun("a", "read", b"", ""), "", NOW_S + 9, 1000 * NOW_S)
    ledger.close()


COMMANDS = 10_000 if IS_NIGHT else 2_000
REFUSED = {
    "late": ("expired", "too late"),
    "forged": ("refused", "not signed"),
    "foreign": ("refused", "another gateway"),
    "strange": ("refused", "no such device"),
    "far": ("refused", "24 hours"),
}


def _made(number: int, chance: random.Random, before: list[Message]) -> Message:
    kind = chance.choices(["good", "twice", *REFUSED], [60, 15, 5, 5, 5, 5, 5])[0]
    id_ = f"{kind}-{number}"
    if kind == "twice" and before:
        return chance.choice(before)
    if kind == "late":
        return command(id_, key=KEY, expires=NOW_S - 1)
    if kind == "forged":
        return command(id_, key=STRANGER)
    if kind == "foreign":
        return command(id_, key=KEY, root="city/arad/gw-2/")
    if kind == "strange":
        return command(id_, key=KEY, device="other")
    if kind == "far":
        return command(id_, key=KEY, expires=NOW_S + 2 * LONGEST_AHEAD_S)
    good = command(f"good-{number}", key=KEY)
    before.append(good)
    return good


async def _until_the_power_goes(city: City, messages: list[Message]) -> int:
    """Give one gateway messages until it dies; return how many it took in."""
    desk, ledger = city.desk()
    running = asyncio.create_task(desk.run())
    taken = 0
    try:
        while not running.done() and (taken < len(messages) or desk._waiting.qsize() or desk._in_hand):
            while taken < len(messages) and desk._waiting.qsize() < 5:
                desk.hear(messages[taken])
                taken += 1
            await asyncio.sleep(0)
        for _ in range(9):  # the last one has left the queue, and may be refused only now
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
    finally:
        ledger.lose_power()
    return taken


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_thousands_of_commands_each_allowed_one_is_done_once_over_restarts_at_any_moment(tmp_path, seal, caplog):
    caplog.set_level("ERROR", logger="bega_gateway")  # a line for each that is refused
    city, chance, good = City(tmp_path, seal), random.Random(5), []
    messages = [_made(number, chance, good) for number in range(COMMANDS)]
    sent, lives = 0, 0
    while sent < COMMANDS:
        # Eight steps a command: so about each hundredth message is the last one of its gateway, wherever in its course.
        city.life = Life(chance.randint(1, 900))
        taken = asyncio.run(_until_the_power_goes(city, messages[sent : sent + 500]))
        sent, lives = sent + taken, lives + 1
    city.life = Life()
    answered = {result["id"] for result in city.results}
    again = [message for message in messages if json.loads(message.payload)["id"] not in answered]
    asyncio.run(_until_the_power_goes(city, again))  # whoever hears nothing sends it again, with the same id

    by_id: dict[str, list[dict]] = {}
    for result in city.results:
        by_id.setdefault(result["id"], []).append(result)
    assert lives > COMMANDS // 100
    assert len(by_id) == len({json.loads(message.payload)["id"] for message in messages})
    assert max(city.done.values()) == 1
    for id_, results in by_id.items():
        kind = id_.partition("-")[0]
        if kind in REFUSED:
            status, why = REFUSED[kind]
            assert {result["status"] for result in results} == {status}
            assert all(why in result["reason"] for result in results)
            assert not city.done[id_]
            continue
        ends = {result["status"] for result in results} - {"begun"}
        assert ends in ({"done"}, {"unknown"}), (id_, results)
        assert city.done[id_] == 1 or ends == {"unknown"}
    unknown = sum(results[-1]["status"] == "unknown" for results in by_id.values())
    print(f"{len(by_id)} ids, {lives} gateways, {unknown} unknown")
    assert unknown <= 2 * lives
