"""The search for meters: pure, with an answer of the wire for each question: 0 wins where several speak."""

import random
from itertools import zip_longest

import pytest

from bega_protocols.ask import Ask
from bega_protocols.devices.mbus_meter.driver import Driver
from bega_protocols.devices.mbus_meter.sim import Sim
from bega_protocols.mbus_search import MOST_SELECTIONS, Identity, PrimarySearch, SecondarySearch, secondary_text


def wire(sims: list[Sim], ask: Ask) -> bytes | None:
    """Return what the master hears when all speak in the same moment."""
    answers = [answer for answer in (sim.answer(ask.write) for sim in sims) if answer]
    if not answers:
        return None
    heard = bytearray(answers[0])
    for answer in answers[1:]:
        heard = bytearray(one & other for one, other in zip_longest(heard, answer, fillvalue=0xFF))
    return bytes(heard)


def carry_out(search: PrimarySearch | SecondarySearch, sims: list[Sim], noise: object = None) -> int:
    """Carry the search through; return how many questions it put."""
    asks = search.asks()
    questions, answer = 0, None
    try:
        while True:
            ask = asks.send(answer)
            questions += 1
            answer = noise(ask) if callable(noise) else wire(sims, ask)
    except StopIteration:
        return questions


def meters(*identifications: str, **settings: object) -> list[Sim]:
    """Meters that show different values: no two telegrams in a cellar are one."""
    sims = []
    for at, text in enumerate(identifications):
        sim = Sim({"identification": text, "primary": 1 + at, **settings}, at)
        sim.set("heat_energy", "", 3_600_000 * (1 + 7919 * at))
        sims.append(sim)
    return sims


def test_primary_search_finds_each_meter_at_its_address():
    sims = meters("12345678", "87654321", "11111111")
    search = PrimarySearch(2400)
    carry_out(search, sims)
    assert [identity.primary for identity in search.found] == [1, 2, 3]
    assert search.found[1] == Identity("87654321", "PAD", 1, 4, 2)
    assert search.done == search.total == 251
    assert not search.collisions


def test_primary_search_says_where_two_share_an_address():
    search = PrimarySearch(2400, first=1, last=3)
    carry_out(search, meters("12345678", "87654321", primary=2))
    assert search.collisions == [2]
    assert not search.found


def test_primary_search_shows_its_progress():
    search = PrimarySearch(2400, 1, 10)
    asks = search.asks()
    next(asks)
    for _ in range(4):
        asks.send(None)
    assert (search.done, search.total) == (4, 10)


@pytest.mark.parametrize(
    "identifications",
    [
        ["12345678"],
        ["12345678", "12345679"],
        ["00000000", "99999999", "12345678", "12340678", "02345678"],
        ["10000000", "20000000", "30000000"],
    ],
)
def test_secondary_search_finds_all_that_share_one_primary_address(identifications):
    search = SecondarySearch(2400)
    carry_out(search, meters(*identifications, primary=0))
    assert sorted(identity.identification for identity in search.found) == sorted(identifications)
    assert search.complete
    assert not search.collisions


def test_secondary_search_finds_hundred_meters_in_few_selections():
    rng = random.Random(4)
    identifications = [f"{number:08d}" for number in rng.sample(range(10**8), 100)]
    search = SecondarySearch(2400)
    carry_out(search, meters(*identifications, primary=0))
    assert sorted(identity.identification for identity in search.found) == sorted(identifications)
    assert search.done < 12 * 100


def test_secondary_search_leaves_nobody_selected():
    sims = meters("12345678", "12345679")
    carry_out(SecondarySearch(2400), sims)
    assert not any(sim.answer(bytes.fromhex("107bfd7816")) for sim in sims)


def test_two_meters_of_one_identification_are_a_collision():
    search = SecondarySearch(2400)
    sims = [Sim({"identification": "12345678", "medium": medium, "primary": medium}, 1) for medium in (4, 7)]
    carry_out(search, sims)
    assert search.collisions == ["12345678"]


def test_empty_bus_costs_one_selection():
    search = SecondarySearch(2400)
    assert carry_out(search, []) == 2
    assert search.complete


def test_noise_that_answers_everything_ends_the_search():
    rng = random.Random(2)
    search = SecondarySearch(2400)
    questions = carry_out(search, [], lambda ask: rng.randbytes(8))
    assert search.done == MOST_SELECTIONS
    assert questions == MOST_SELECTIONS + 1
    assert not search.complete
    assert not search.found


def test_what_is_found_can_be_written_as_an_address():
    search = SecondarySearch(2400)
    carry_out(search, meters("12345678"))
    text = secondary_text(search.found[0])
    assert text == "12345678.PAD.01.04"
    Driver({"address": text})


def test_address_of_a_meter_that_tells_little_has_wildcards():
    assert secondary_text(Identity("0000000A", "@@@", 0, 7, 1)) == "0000000A.FFF.00.07"
    assert secondary_text(Identity("12345678", "", None, None, 1)) == "12345678.FFF.FF.FF"
    Driver({"address": "0000000A.FFF.00.07"})
