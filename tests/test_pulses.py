"""What is a pulse and what is not, and what pulses add up to."""

import itertools
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.errors import ConfigError, WireError
from bega_protocols.pulses import Contact, Total, newest, read_settings, read_total, unpack
from bega_protocols.reading import Reading, decimal_text

SHORTEST_MS = 20
FIRST_MS = 1000
# IEC 62053-31: 30 ms and more, closed and open.
PULSES = st.lists(st.tuples(st.integers(30, 400), st.integers(30, 400)), max_size=12)
TIGHT = st.lists(st.integers(1, 4), min_size=1, max_size=7)
LOOSE = st.lists(st.integers(1, 900), min_size=1, max_size=7)


class Wire:
    """A contact as a script closes it, counted by hardware, looked at now and then."""

    def __init__(self) -> None:
        self.edges: list[tuple[int, bool]] = []  # (when in us, closed)
        self.end_us = FIRST_MS * 1000

    def hold(self, closed: bool, us: int) -> None:
        self.edges.append((self.end_us, closed))
        self.end_us += us

    def bounce(self, gaps_us: list[int]) -> None:
        for index, gap in enumerate(gaps_us):
            self.hold(index % 2 == 0, gap)

    def is_closed(self, us: int) -> bool:
        at = bisect_right(self.edges, (us, True))
        return at > 0 and self.edges[at - 1][1]

    def closings(self, after_us: int, until_us: int) -> int:
        was, count = self.is_closed(after_us), 0
        for at in range(bisect_right(self.edges, (after_us, True)), bisect_right(self.edges, (until_us, True))):
            closed = self.edges[at][1]
            count += closed and not was
            was = closed
        return count


def counted(wire: Wire, steps_ms: list[int], is_reed: bool = False, is_counter: bool = True) -> tuple[int, Contact]:
    """Return how many pulses were told from looks at these distances, and who told them."""
    contact = Contact(SHORTEST_MS, is_reed, FIRST_MS, wire.is_closed(FIRST_MS * 1000))
    now_ms, pulses = FIRST_MS, 0
    for step in itertools.cycle(steps_ms):
        closings = wire.closings(now_ms * 1000, (now_ms + step) * 1000) if is_counter else 0
        now_ms += step
        if is_counter and contact.is_quiet() and not closings:
            contact.rest(now_ms)  # the counter says that nothing was
        else:
            pulses += contact.look(now_ms, closings, wire.is_closed(now_ms * 1000))
        if now_ms * 1000 > wire.end_us + 100_000:
            return pulses, contact
    raise AssertionError


def wire_of(pulses: list[tuple[int, int]]) -> Wire:
    wire = Wire()
    wire.hold(False, 50_000)
    for closed_ms, open_ms in pulses:
        wire.hold(True, closed_ms * 1000)
        wire.hold(False, open_ms * 1000)
    return wire


# ------------------------------------------------------------------ what is a pulse


@given(pulses=PULSES, steps_ms=LOOSE)
def test_every_pulse_of_a_clean_contact_is_counted_however_late_one_looks(pulses, steps_ms):
    total, contact = counted(wire_of(pulses), steps_ms)
    assert total == len(pulses)
    assert contact.noise == 0


@given(pulses=PULSES, steps_ms=TIGHT)
def test_without_a_counter_looks_alone_count_every_pulse(pulses, steps_ms):
    assert counted(wire_of(pulses), steps_ms, is_counter=False)[0] == len(pulses)


@given(
    pulses=st.lists(
        st.tuples(
            st.lists(st.integers(20, 600), max_size=4), st.integers(30, 200),
            st.lists(st.integers(20, 600), max_size=4), st.integers(30, 200),
        ),
        max_size=8,
    ),
    steps_ms=TIGHT,
    is_reed=st.booleans(),
)  # fmt: skip
def test_a_contact_that_bounces_at_both_ends_counts_once(pulses, steps_ms, is_reed):
    """Less than 5 ms at each change, section 4.1.3.4; within the 30 ms."""
    wire = Wire()
    wire.hold(False, 50_000)
    for closing, closed_ms, opening, open_ms in pulses:
        for gaps, is_closing, whole_ms in ((closing, True, closed_ms), (opening, False, open_ms)):
            for index, gap in enumerate(gaps[: len(gaps) // 2 * 2]):
                wire.hold((index % 2 == 0) == is_closing, gap)
            wire.hold(is_closing, whole_ms * 1000 - sum(gaps[: len(gaps) // 2 * 2]))
    assert counted(wire, steps_ms, is_reed)[0] == len(pulses)


@given(steps_ms=TIGHT, hertz=st.sampled_from([50, 60, 100]), seconds=st.integers(1, 4))
def test_mains_hum_on_a_long_wire_is_no_pulse(steps_ms, hertz, seconds):
    wire = Wire()
    for _ in range(hertz * seconds):
        wire.hold(True, 500_000 // hertz)
        wire.hold(False, 500_000 // hertz)
    total, contact = counted(wire, steps_ms)
    assert total == 0
    assert contact.noise >= hertz * seconds // 2


@given(steps_ms=TIGHT, late_ms=st.lists(st.integers(20, 3000), min_size=1, max_size=5))
def test_mains_hum_is_no_pulse_either_where_one_looks_late_now_and_then(steps_ms, late_ms):
    wire = Wire()
    for _ in range(500):
        wire.hold(True, 10_000)
        wire.hold(False, 10_000)
    steps = [*(steps_ms * 20)[:30], *itertools.chain.from_iterable([late, *(steps_ms * 5)] for late in late_ms)]
    assert counted(wire, steps)[0] == 0


@given(pulses=PULSES, steps_ms=LOOSE)
def test_of_a_reed_never_more_is_counted_than_there_was(pulses, steps_ms):
    assert counted(wire_of(pulses), steps_ms, is_reed=True)[0] <= len(pulses)


@given(steps_ms=TIGHT, glitch_us=st.integers(1, 11_000))
def test_a_glitch_of_ten_milliseconds_after_a_long_pause_is_no_pulse(steps_ms, glitch_us):
    """With looks 4 ms apart it is seen to last 19 ms at most. Looks that come later may take it for a pulse of 20."""
    wire = Wire()
    wire.hold(False, 1_700_000)
    wire.hold(True, glitch_us)
    wire.hold(False, 1000)
    total, contact = counted(wire, steps_ms)
    assert total == 0 and contact.noise <= 1


def test_a_contact_that_is_closed_at_the_start_is_no_pulse():
    wire = Wire()
    wire.edges.append((0, True))
    wire.hold(True, 300_000)
    wire.hold(False, 300_000)
    assert counted(wire, [3])[0] == 0


def test_the_first_pulse_after_a_long_pause_counts():
    wire = Wire()
    for pause_s in (5, 86_400, 3):
        wire.hold(False, pause_s * 1_000_000)
        wire.hold(True, 30_000)
    contact = Contact(SHORTEST_MS, False, FIRST_MS, False)
    pulses = now_ms = 0
    for at_us, closed in wire.edges[1:]:
        now_ms = at_us // 1000
        pulses += contact.look(now_ms, int(closed), closed)
    assert pulses + contact.look(now_ms + 40, 0, False) == 3


@given(looks=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 100), st.booleans()), max_size=40))
def test_whatever_the_wire_does_no_more_pulses_come_than_time_allows(looks):
    contact = Contact(SHORTEST_MS, False, 0, False)
    now_ms = pulses = 0
    for step_ms, closings, closed in looks:
        now_ms += step_ms
        pulses += contact.look(now_ms, closings, closed)
    assert pulses <= 1 + now_ms // (2 * SHORTEST_MS) + len(looks)
    assert contact.noise >= 0


# ------------------------------------------------------------------ what they add up to


def test_123456_789_kwh_is_shown_as_123456_789():
    total, _, _ = read_settings({"pulses_per_kwh": 1000, "start": "123456.789"})
    assert decimal_text(*total.shows()) == "123456.789"
    total.add(1)
    assert decimal_text(*total.shows()) == "123456.790"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"pulses_per_kwh": 1000}, "0.007"),
        ({"pulses_per_kwh": 800}, "0.00875"),
        ({"pulses_per_kwh": 375}, "0.018666"),  # 18.67 Wh, rounded down
        ({"pulses_per_kwh": 100000, "quantity": "active_energy_export"}, "0.00007"),
        ({"pulses_per_m3": 100, "quantity": "gas_volume"}, "0.07"),
        ({"litres_per_pulse": 10}, "0.07"),
        ({"litres_per_pulse": 1, "start": "12.5"}, "12.507"),
        ({"litres_per_pulse": 1000, "start": "12.5"}, "19.5"),
        ({}, "7"),
    ],
)
def test_seven_pulses_weigh_what_the_meters_label_says(settings, shown):
    total, _, _ = read_settings(settings)
    total.add(7)
    assert decimal_text(*total.shows()) == shown


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"pulses_per_kwh": 0}, "pulses_per_kwh must be a whole number"),
        ({"pulses_per_kwh": 0.5}, "pulses_per_kwh must be a whole number"),
        ({"pulses_per_kwh": 1000, "litres_per_pulse": 1}, "give one of pulses_per_kwh and litres_per_pulse"),
        ({"pulses_per_kwh": 1000, "quantity": "water_volume"}, "quantity must be one of active_energy_import"),
        ({"quantity": "water_volume"}, "quantity must be one of count"),
        ({"start": 12.5}, "digits in quotes"),
        ({"start": "-1"}, "no meter shows -1"),
        ({"start": "1e9"}, "no meter shows"),
        ({"contact": "mercury"}, "contact must be one of switch, reed"),
        ({"shortest_ms": 0}, "shortest_ms must be"),
        ({"pulse_per_kwh": 1000}, "unknown setting pulse_per_kwh"),
    ],
)
def test_settings_that_cannot_be_say_why(settings, why):
    with pytest.raises(ConfigError, match=why):
        read_settings(settings)


@given(
    per_unit=st.integers(1, 1_000_000),
    start=st.tuples(st.integers(0, 10**14), st.integers(-9, 0)),
    steps=st.lists(st.integers(0, 1000), max_size=10),
)
def test_a_total_never_goes_back_and_loses_less_than_one_step_of_its_last_place(per_unit, start, steps):
    total = Total("active_energy_import", 1, per_unit, *start)
    before = total.shows()
    for pulses in steps:
        total.add(pulses)
        value, exp10 = total.shows()
        assert exp10 == before[1] and value >= before[0]
        before = (value, exp10)
    exact = start[0] * 10 ** (start[1] - exp10) if steps else 0
    if steps:
        missing = exact * per_unit + sum(steps) * 10**-exp10 - before[0] * per_unit
        assert 0 <= missing < per_unit


def test_power_and_flow_come_from_the_time_between_pulses():
    energy = Total("active_energy_import", 1, 1000)
    assert energy.rate(1, 3600) == Reading("active_power", 1000)
    assert energy.rate(5, 18_001) == Reading("active_power", 1000)
    assert Total("active_energy_export", 1, 1000).rate(1, 3600) == Reading("active_power", -1000)
    assert Total("water_volume", 1, 1000).rate(1, 6000) == Reading("volume_flow", 600, -3)  # 10 l a minute
    assert Total("count", 1, 1).rate(1, 1000) is None


# ------------------------------------------------------------------ how it is kept


@given(
    number=st.integers(1, 10**9),
    parts=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**15), st.integers(-9, 0)),
    since=st.integers(0, 10**12),
    series=st.integers(0, 2**32),
)
def test_a_copy_gives_back_what_was_kept(number, parts, since, series):
    kept = Total("gas_volume", *parts, since, series)
    found, total = unpack(kept.pack(number))
    assert found == number and total.shows() == kept.shows() and total.weighs_as(kept)
    assert total.series == series


@given(cut=st.integers(0, 60), flip=st.integers(0, 400), noise=st.binary(max_size=60))
def test_a_damaged_copy_is_none_and_the_other_one_is_used(cut, flip, noise):
    older = Total("count", 1, 1, since=41).pack(6)
    whole = bytearray(Total("count", 1, 1, since=42).pack(7))
    whole[flip // 8 % len(whole)] ^= 1 << flip % 8
    for damaged in (bytes(whole), Total("count", 1, 1).pack(7)[: min(cut, 27)], noise):
        with pytest.raises(WireError):
            unpack(damaged)
        number, total = newest([damaged, older])
        assert (number, total.since) == (6, 41)
    assert newest([b"", noise]) == (0, None)


def test_a_total_as_a_person_types_it():
    assert read_total("123456.789") == (123456789, -3)
    for text in ("", "12,5", "0x12", "1e3", " 1", "1" * 16, "-0.5", 7, None):
        with pytest.raises(ConfigError):
            read_total(text)
