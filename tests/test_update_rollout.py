"""A rollout goes ring by ring and stops by itself, whatever of what nodes say is lost, late, or heard twice."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bega_gateway.lines.node_said import UpdateSaid
from bega_gateway.updates import told
from bega_gateway.updates.rollout import ALL, CANARY, IN_HAND, LOST_MS, SETTLED, TENTH, Rollout, begun, taken_up
from bega_protocols.errors import WireError

OLD, NEW, BOARD = "1.2.3", "1.3.0", "esp32_devkitc"
MANIFEST: dict[str, Any] = {"hardware": BOARD, "version": NEW, "from": "1.2.0", "sha256": "a" * 64, "expires": 2_000}
NOW_S = 1_000
STEP_MS = 30_000


def heard_now(node: str) -> int:
    return 0


def rollout_of(nodes: int, **options: Any) -> Rollout:
    names = [f"air-{number:03}" for number in range(nodes)]
    given = {"canary": [], "at_once": 10, "failures_percent": 10, "now_ms": 0, **options}
    return begun(MANIFEST, names, **given)


def said(state: str, why: str = "", version: str = NEW) -> UpdateSaid:
    return UpdateSaid(version=version, state=state, why=why)


def confirm(rollout: Rollout, node: str, now_ms: int = 0) -> None:
    rollout.take_answer(node, True, "", False, now_ms)
    rollout.take_status(node, NEW, BOARD, said("trial"), 0, now_ms)
    rollout.take_status(node, NEW, BOARD, said("confirmed"), 0, now_ms)


def fail(rollout: Rollout, node: str, now_ms: int = 0) -> None:
    rollout.take_answer(node, True, "", False, now_ms)
    rollout.take_status(node, OLD, BOARD, said("rolled back", "two starts failed"), 0, now_ms)


def offered(rollout: Rollout, now_ms: int = 0) -> list[str]:
    return [node for node, verb in rollout.due(now_ms, NOW_S, heard_now) if verb == "update"]


def test_one_goes_first_then_a_tenth_then_all_never_more_at_once_than_it_may():
    rollout = rollout_of(200, at_once=8)
    order: list[int] = []
    while not rollout.is_over:
        nodes = offered(rollout)
        assert 0 < len(nodes) <= 8
        order.append(len({rollout.seats[node].ring for node in nodes}))
        for node in nodes:
            confirm(rollout, node)
    rings = [seat.ring for seat in rollout.seats.values()]
    assert [rings.count(ring) for ring in (CANARY, TENTH, ALL)] == [1, 20, 179]
    assert set(order) == {1}, "a ring begins when the one before has ended"


def test_any_failure_of_the_canary_stops_it_and_later_ones_stop_it_beyond_their_share():
    canary = rollout_of(200)
    fail(canary, *offered(canary))
    assert "'canary' failed, and at most 0 may" in canary.stopped and offered(canary) == []
    tenth = rollout_of(200, at_once=20)
    confirm(tenth, *offered(tenth))
    nodes = offered(tenth)
    assert len(nodes) == 20
    for node in nodes[:2]:
        fail(tenth, node)
    assert not tenth.stopped, "a tenth of twenty"
    fail(tenth, nodes[2])
    assert tenth.stopped == "3 of 20 nodes of the ring '10 %' failed, and at most 2 may"
    assert not tenth.may_pull(nodes[3]), "who is in the middle of loading it gets no more of it"


def test_a_stopped_one_is_resumed_by_hand_and_what_failed_before_stops_it_no_more():
    rollout = rollout_of(30)
    (canary,) = offered(rollout)
    fail(rollout, canary)
    rollout.resume(None)
    (second, *_) = offered(rollout)
    assert rollout.seats[second].ring == TENTH
    fail(rollout, second)
    assert rollout.stopped
    rollout.resume(50)
    assert not rollout.stopped and canary not in offered(rollout), "a version that a node refused is not offered again"


def test_who_has_other_hardware_is_left_out_and_another_one_goes_first_in_its_place():
    rollout = rollout_of(5, canary=["air-002"])
    rollout.take_status("air-002", OLD, "esp32_c3", None, 0, 0)
    assert rollout.seats["air-002"].why == "it is a esp32_c3"
    (first,) = offered(rollout)
    assert rollout.seats[first].ring == CANARY
    rollout.take_answer(first, False, "it lacks the driver scd41", False, 0)
    (second,) = offered(rollout)
    assert second != first and rollout.seats[first].state == "left out"
    assert rollout.seats[first].why == "it lacks the driver scd41"


def test_versions_that_do_not_fit_are_left_out_without_being_asked():
    rollout = rollout_of(4)
    rollout.take_status("air-000", "1.4.0", BOARD, None, 0, 0)
    rollout.take_status("air-001", "1.1.9", BOARD, None, 0, 0)
    rollout.take_status("air-002", NEW, BOARD, None, 0, 0)
    states = {node: seat.state for node, seat in rollout.seats.items()}
    assert states == {"air-000": "left out", "air-001": "left out", "air-002": "confirmed", "air-003": "waiting"}


def test_a_node_that_had_this_version_and_went_back_from_it_is_not_offered_it_again():
    rollout = rollout_of(3)
    rollout.take_status("air-000", OLD, BOARD, said("rolled back", "ten minutes without a record"), 0, 0)
    assert rollout.seats["air-000"].state == "left out"
    assert "air-000" not in offered(rollout)


def test_who_cannot_take_it_yet_is_asked_again_after_a_pause():
    rollout = rollout_of(1)
    (node,) = offered(rollout)
    rollout.take_answer(node, False, "the node does not know the time yet", True, 0)
    assert offered(rollout, 59_000) == [] and offered(rollout, 61_000) == [node]


def test_who_was_cut_off_while_it_loaded_has_not_failed_and_is_offered_it_again():
    rollout = rollout_of(1)
    (node,) = offered(rollout)
    rollout.take_answer(node, True, "", False, 0)
    rollout.take_status(node, OLD, BOARD, said("refused", "it is cut off: 512 of 9000 bytes came"), 0, 0)
    assert not rollout.stopped and offered(rollout, 61_000) == [node]
    rollout.take_answer(node, True, "", False, 61_000)
    rollout.note_pull(node, 0, 9_000, 61_500)
    rollout.take_status(node, OLD, BOARD, said("refused", "the hash differs"), 0, 62_000)
    assert rollout.seats[node].state == "failed"


def test_who_does_not_answer_is_asked_again_and_who_is_away_is_waited_for():
    rollout = rollout_of(1)
    assert rollout.due(0, NOW_S, lambda node: None) == [], "never heard"
    assert rollout.away(lambda node: None) == ["air-000"]
    assert offered(rollout, 0) == ["air-000"]
    rollout.look(91_000, heard_now)
    assert offered(rollout, 91_000) == [] and offered(rollout, 152_000) == ["air-000"]


def test_who_sleeps_is_told_only_while_it_is_awake():
    rollout = rollout_of(1)
    rollout.take_status("air-000", OLD, BOARD, None, 3_600_000, 0)
    assert rollout.due(0, NOW_S, lambda node: 20_000) == []
    assert rollout.due(0, NOW_S, lambda node: 1_000) == [("air-000", "update")]


def test_who_has_all_of_it_and_is_never_heard_again_has_failed_but_not_who_only_loads_it():
    rollout = rollout_of(2, canary=["air-000", "air-001"])
    for node in offered(rollout):
        rollout.take_answer(node, True, "", False, 0)
    rollout.take_status("air-000", NEW, BOARD, said("trial"), 0, 0)
    rollout.look(LOST_MS + 1, lambda node: LOST_MS + 1)
    assert rollout.seats["air-000"].state == "failed" and rollout.stopped
    assert rollout.seats["air-001"].state == "loading"
    rollout.take_status("air-000", NEW, BOARD, said("confirmed"), 0, LOST_MS + 2)
    assert rollout.seats["air-000"].state == "confirmed", "it was away, and well"


def test_one_that_is_away_while_it_loads_keeps_no_other_waiting():
    rollout = rollout_of(3, at_once=1, canary=["air-000", "air-001", "air-002"])
    (first,) = offered(rollout)
    rollout.take_answer(first, True, "", False, 0)
    assert offered(rollout) == []
    hours = {first: 7_200_000}
    assert rollout.due(0, NOW_S, lambda node: hours.get(node, 0)) == [("air-001", "update")]


def test_a_bundle_that_has_expired_goes_to_nobody_until_it_is_signed_again():
    rollout = rollout_of(3)
    assert rollout.due(0, 2_000, heard_now) == [] and "expired" in rollout.stopped
    rollout.renew(9_000)
    assert rollout.due(0, 2_000, heard_now) == [("air-000", "update")]


def test_going_back_asks_each_that_runs_it_once_and_nobody_is_offered_it_any_more():
    rollout = rollout_of(12, at_once=4, canary=["air-000", "air-001"])
    for node in offered(rollout):
        confirm(rollout, node)
    assert rollout.go_back(list(rollout.seats), 0) == ["air-000", "air-001"]
    assert rollout.due(0, NOW_S, heard_now) == [("air-000", "rollback"), ("air-001", "rollback")]
    assert rollout.due(1, NOW_S, heard_now) == [], "they are about to"
    rollout.take_answer("air-000", True, "", False, 2)
    rollout.take_status("air-001", OLD, BOARD, None, 0, 3)
    assert rollout.count()["gone back"] == 2
    assert rollout.due(9_999_999, NOW_S, heard_now) == []


def test_a_node_that_is_new_to_the_gateway_comes_last_and_one_that_is_gone_holds_up_nobody():
    rollout = rollout_of(3)
    rollout.know(["air-001", "air-002", "air-new"], 0)
    assert rollout.seats["air-000"].state == "left out"
    assert rollout.seats["air-new"].ring == ALL
    assert rollout.seats[offered(rollout)[0]].ring == CANARY


def test_words_of_another_board_that_has_a_version_of_the_same_name_are_not_taken_for_ours():
    rollout = rollout_of(3, canary=["air-000"])
    rollout.take_status("air-000", NEW, "", said("confirmed"), 0, 0)  # it does not say which board it is
    assert offered(rollout) == ["air-000"], "nothing of this board is proved yet"
    rollout.take_answer("air-000", False, f"it is for the board {BOARD}, and this is esp32_c3", False, 0)
    assert rollout.seats["air-000"].state == "left out" and offered(rollout) == ["air-001"]
    for state in ("loading", "trial", "rolled back", "confirmed"):
        rollout.take_status("air-000", NEW, "", said(state), 0, 1)
    assert rollout.seats["air-000"].state == "left out" and not rollout.stopped
    rollout.go_back(list(rollout.seats), 2)
    rollout.take_status("air-000", NEW, "", said("confirmed"), 0, 3)
    assert ("air-000", "rollback") not in rollout.due(4, NOW_S, heard_now)


def test_who_runs_it_already_and_does_not_say_its_board_is_confirmed_once_it_has_answered():
    rollout = rollout_of(1)
    rollout.take_status("air-000", NEW, "", None, 0, 0)
    assert offered(rollout) == ["air-000"]
    rollout.take_answer("air-000", True, f"version {NEW} runs already", False, 1)
    assert rollout.is_over and not rollout.stopped and rollout.count()["confirmed"] == 1


def test_who_is_on_trial_with_it_is_not_confirmed_by_its_answer():
    rollout = rollout_of(1)
    rollout.take_status("air-000", NEW, "", said("trial"), 0, 0)
    assert offered(rollout) == ["air-000"]
    rollout.take_answer("air-000", True, f"version {NEW} runs already", False, 1)
    assert not rollout.is_over
    rollout.take_status("air-000", NEW, "", said("confirmed"), 0, 2)
    assert rollout.count() == {"confirmed": 1}


def test_who_looks_at_the_offer_after_its_answer_and_refuses_it_is_left_out_and_not_asked_again():
    rollout = rollout_of(2)
    (node,) = offered(rollout)
    rollout.take_answer(node, True, "", False, 0)  # it has too little memory to look at it at once
    rollout.take_status(node, OLD, "", said("refused", "it has no driver scd41, and this node needs it"), 0, 1)
    assert rollout.seats[node].state == "left out" and not rollout.stopped
    assert offered(rollout, 61_000) == ["air-001"]


def test_who_took_it_and_knows_nothing_of_it_is_asked_again_after_a_pause():
    rollout = rollout_of(1)
    (node,) = offered(rollout)
    rollout.take_answer(node, True, "", False, 0)
    rollout.take_status(node, OLD, "", None, 0, 1)
    assert offered(rollout, 59_000) == [] and offered(rollout, 61_000) == [node]


def test_who_has_no_room_after_its_answer_is_not_made_to_restart_every_minute():
    rollout = rollout_of(1)
    (node,) = offered(rollout)
    rollout.take_answer(node, True, "", False, 0)
    rollout.take_status(node, OLD, "", said("refused", "no room: 9 kB of 90 are free; ask again once"), 0, 1)
    assert offered(rollout, 600_000) == [] and offered(rollout, 901_000) == [node]


def test_going_back_ends_and_reaches_who_was_loading_and_who_was_about_to_start_with_it():
    rollout = rollout_of(30, at_once=3, canary=["air-000", "air-001", "air-002"])
    for node in offered(rollout):
        rollout.take_answer(node, True, "", False, 0)
        rollout.note_pull(node, 0, 9_000, 0)
    rollout.take_status("air-001", OLD, BOARD, said("waiting"), 0, 1)
    assert rollout.go_back(list(rollout.seats), 2) == ["air-000", "air-001", "air-002"]
    assert [node for node, _ in rollout.due(3, NOW_S, heard_now)] == ["air-000", "air-001", "air-002"]
    for node in ("air-000", "air-001", "air-002"):
        rollout.take_answer(node, True, f"version {OLD} runs already", False, 4)
    assert rollout.is_over, "who was never offered it has nothing to go back from"
    rollout.take_status("air-001", NEW, BOARD, said("trial"), 0, 5)  # all of it had come
    assert rollout.due(6, NOW_S, heard_now) == [("air-001", "rollback")]
    rollout.take_answer("air-001", True, "", False, 7)
    assert rollout.is_over and rollout.count()["gone back"] == 3


def test_another_board_of_that_name_is_offered_it_anew_but_not_who_was_told_to_go_back():
    rollout = rollout_of(2, canary=["air-000", "air-001"])
    for node in offered(rollout):
        confirm(rollout, node)
    rollout.take_status("air-000", OLD, BOARD, None, 0, 1)
    assert rollout.is_over, "a word may come late"
    rollout.take_status("air-000", OLD, BOARD, None, 0, 2)
    for _ in range(2):
        rollout.take_status("air-001", OLD, BOARD, said("rolled back", "by command"), 0, 2)
    assert rollout.count() == {"waiting": 1, "gone back": 1}
    assert offered(rollout, 3) == ["air-000"]


def test_a_node_that_is_back_in_the_configuration_has_its_turn():
    rollout = rollout_of(3)
    rollout.know(["air-001", "air-002"], 0)
    assert rollout.know(["air-000", "air-001", "air-002"], 1)
    assert rollout.seats["air-000"].state == "waiting" and rollout.seats["air-000"].ring == ALL


def test_a_failure_that_was_forgiven_and_proved_none_makes_up_for_no_other():
    rollout = rollout_of(3)
    (node,) = offered(rollout)
    fail(rollout, node)
    rollout.resume(None)
    rollout.take_status(node, NEW, BOARD, said("confirmed"), 0, 1)
    assert rollout.forgiven == [0, 0, 0]


@pytest.mark.parametrize(("nodes", "rings"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (9, (1, 1, 7)), (11, (1, 2, 8))])
def test_in_a_small_fleet_any_failure_stops_it(nodes, rings):
    rollout = rollout_of(nodes)
    assert tuple(sum(seat.ring == ring for seat in rollout.seats.values()) for ring in (CANARY, TENTH, ALL)) == rings
    for ring, size in enumerate(rings):
        if size:
            stopping = rollout_of(nodes)
            while stopping.ring < ring:
                for node in offered(stopping):
                    confirm(stopping, node)
            fail(stopping, offered(stopping)[0])
            assert stopping.stopped


def test_versions_are_numbers_and_no_texts():
    rollout = begun(MANIFEST | {"version": "1.10.0", "from": "1.2.0"}, ["air-000", "air-001"], [], 1, 10, 0)
    rollout.take_status("air-000", "1.9.0", BOARD, None, 0, 0)
    rollout.take_status("air-001", "1.11.0", BOARD, None, 0, 0)
    assert [seat.state for seat in rollout.seats.values()] == ["waiting", "left out"]


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"\xff", b'{"hardware": 1}'])
def test_a_file_that_holds_no_rollout_is_an_error_and_no_rollout(text):
    with pytest.raises((msgspec.MsgspecError, ValueError, WireError)):
        taken_up(text, 0)


class Node:
    """A node by the book (docs/updates.md), that keeps over a power cut what a real one does."""

    def __init__(self, fate: str) -> None:
        self.fate = fate  # "good", "crashes", or "refuses"
        self.firmware = OLD
        self.update: UpdateSaid | None = None
        self.trials = 0

    def command(self) -> tuple[bool, str]:
        if self.fate == "refuses":
            return False, "it lacks a driver"
        if self.update is None:
            self.update = said("loading")
        return self.update.state != "rolled back", ""

    def live(self) -> None:
        """Come one step further."""
        if self.update is None:
            return
        state = self.update.state
        if state == "loading":
            self.update = said("waiting")
        elif state == "waiting":
            self.firmware, self.update = NEW, said("trial")
            self.trials += 1
        elif state == "trial" and self.fate == "good":
            self.update = said("confirmed")
        elif state == "trial":
            self.firmware, self.update = OLD, said("rolled back", "two starts failed")


FATES = st.lists(st.sampled_from(["good", "good", "good", "good", "crashes", "refuses"]), min_size=1, max_size=40)


@given(fates=FATES, at_once=st.integers(1, 9), percent=st.integers(0, 40), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_lost_or_comes_twice_rings_keep_their_order_and_every_node_its_end(fates, at_once, percent, data):
    """Gateways are killed, answers and statuses lost, late and repeated; in the end each node is where it should be."""
    chance = data.draw(st.randoms(use_true_random=False))
    nodes = {f"air-{number:03}": Node(fate) for number, fate in enumerate(fates)}
    rollout = begun(MANIFEST, nodes, [], at_once, percent, 0)
    late: list[tuple[str, str, UpdateSaid | None]] = []
    now_ms = 0
    for _ in range(600):
        now_ms += STEP_MS
        new = offered(rollout, now_ms)
        in_hand = sum(seat.state in IN_HAND for seat in rollout.seats.values())
        assert not new or in_hand <= at_once
        for node in new:
            assert not rollout.stopped
            earlier = [seat for seat in rollout.seats.values() if seat.ring < rollout.seats[node].ring]
            assert all(seat.state in SETTLED for seat in earlier), "the ring before has ended"
            if chance.random() < 0.8:
                answer = nodes[node].command()
                if chance.random() < 0.8:
                    rollout.take_answer(node, *answer, False, now_ms)
        for name, node in nodes.items():
            if chance.random() < 0.5 and (rollout.may_pull(name) or (node.update and node.update.state != "loading")):
                node.live()
            if chance.random() < 0.5:
                status = name, node.firmware, node.update
                rollout.take_status(name, node.firmware, BOARD, node.update, 0, now_ms)
                late += [status] * (chance.random() < 0.2)
        if late and chance.random() < 0.3:
            name, firmware, update = late.pop(chance.randrange(len(late)))
            rollout.take_status(name, firmware, BOARD, update, 0, now_ms)
        if chance.random() < 0.05:  # the gateway's power is cut
            rollout = taken_up(msgspec.json.encode(rollout), now_ms)
        rollout.look(now_ms, heard_now)
        told.line(told.of_rollout(rollout, heard_now))
        list(told.words(rollout, heard_now))
        if rollout.is_over or rollout.stopped:
            break
    assert rollout.is_over or rollout.stopped, "it comes to an end"
    for name, node in nodes.items():
        state = rollout.seats[name].state
        assert node.trials <= 1, "a version that it refused is not tried again"
        if rollout.is_over:
            assert (
                state
                in {"good": ("confirmed",), "crashes": ("failed", "left out"), "refuses": ("left out",)}[node.fate]
            )
    failed = [seat for seat in rollout.seats.values() if seat.ring == CANARY and seat.state == "failed"]
    assert rollout.stopped or not failed
