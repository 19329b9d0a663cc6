"""What holds up all others is found and set aside; what others would do too is not blamed on one message."""

import random

from hypothesis import given
from hypothesis import strategies as st

from bega.outbox.suspects import STRIKES, Suspects


def attempt(suspects: Suspects, poison: set[int], waiting: list[int], acknowledged: int, window: int = 4):
    """One connection, as the publisher makes it; returns (what was under way at its end, acknowledged)."""

    def passes(id_: int) -> bool:
        nonlocal acknowledged
        if id_ in poison:
            return False
        waiting.remove(id_)
        acknowledged += 1
        return True

    while (id_ := suspects.next()) is not None:
        if suspects.needs_another(id_, acknowledged):
            another = [other for other in waiting if other not in suspects][:1]
            if another and not passes(another[0]):
                return another, acknowledged
        if id_ in waiting and not passes(id_):
            return [id_], acknowledged
        suspects.clear(id_)
    while waiting:
        under_way = waiting[:window]
        if poison & set(under_way):
            return under_way, acknowledged
        acknowledged += len(under_way)
        del waiting[: len(under_way)]
    return [], acknowledged


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 2**32))
def test_poisoned_messages_are_set_aside_and_all_others_pass(count, poisoned, seed):
    waiting = list(range(1, count + 1))
    poison = set(random.Random(seed).sample(waiting, min(poisoned, count - 1)))
    suspects, acknowledged, set_aside = Suspects(), 0, []
    for _ in range(200):
        under_way, acknowledged = attempt(suspects, poison, waiting, acknowledged)
        guilty = suspects.note_loss(under_way, acknowledged) if under_way else None
        if guilty is not None:
            set_aside.append(guilty)
            waiting.remove(guilty)
            suspects.clear(guilty)
        if not set(waiting) - poison:
            waiting.extend([max(waiting, default=count) + count + 1] if waiting else [])  # life goes on
        if not waiting:
            break
    assert set(set_aside) == poison
    assert acknowledged >= count - len(poison)


def test_a_broker_that_ends_every_connection_costs_no_message():
    waiting = list(range(1, 20))
    suspects = Suspects()
    for _ in range(500):
        under_way, acknowledged = attempt(suspects, set(waiting), waiting, 0)
        assert acknowledged == 0
        assert suspects.note_loss(under_way, acknowledged) is None
    assert waiting == list(range(1, 20))


def test_three_attempts_are_needed():
    suspects = Suspects()
    assert suspects.note_loss([7, 8], 5) is None
    strikes = 0
    while suspects.note_loss([7], 5 + strikes) is None:
        strikes += 1
    assert strikes + 1 == STRIKES


def test_what_passes_later_is_cleared_of_its_strikes():
    suspects = Suspects()
    suspects.note_loss([7], 5)
    suspects.note_loss([7], 6)
    suspects.clear(7)
    assert suspects.note_loss([7], 9) is None
