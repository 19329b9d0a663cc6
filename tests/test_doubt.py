"""What came whole and may still not be true: warming, stuck and saturated sensors."""

from bega_protocols.doubt import NO_CLOCK_MS, NOTHING, SATURATED, STUCK, WARMING, Doubt
from bega_protocols.reading import GOOD, SUSPECT, Reading

START_MS = 1_000_000


def dust(value: int = 7, quality: int = GOOD) -> list[Reading]:
    return [Reading("pm2_5", value, 0, "", quality), Reading("pm10", 9, 0, "", quality)]


def qualities(readings: list[Reading]) -> list[int]:
    return [reading.quality for reading in readings]


def test_nothing_is_doubted_without_a_rule():
    doubt = Doubt()
    for second in range(100):
        assert doubt.judge(dust(), b"same", START_MS + 1000 * second) == dust()
    assert doubt.why == ""


def test_warm_up_begins_with_the_first_frame_and_ends():
    doubt = Doubt(warm_up_ms=30_000)
    for second in range(30):
        assert doubt.judge(dust(), b"%d" % second, START_MS + 1000 * second) == dust(quality=SUSPECT)
        assert doubt.why == WARMING
    assert doubt.judge(dust(), b"x", START_MS + 30_000) == dust()
    assert doubt.why == ""


def test_warm_up_begins_again_after_silence_and_after_a_wake():
    doubt = Doubt(warm_up_ms=30_000, quiet_ms=10_000)
    doubt.judge(dust(), b"0", START_MS)
    for second in range(10, 50, 10):
        doubt.judge(dust(), b"%d" % second, START_MS + 1000 * second)
    assert doubt.why == ""
    doubt.judge(dust(), b"a", START_MS + 50_001)
    assert doubt.why == WARMING
    for second in range(55, 90, 5):
        doubt.judge(dust(), b"%d" % second, START_MS + 1000 * second)
    assert doubt.why == ""
    doubt.woke(START_MS + 90_000)
    for second in range(91, 120, 7):
        doubt.judge(dust(), b"%d" % second, START_MS + 1000 * second)
        assert doubt.why == WARMING
    doubt.judge(dust(), b"c", START_MS + 120_000)
    assert doubt.why == ""


def test_sensor_that_did_not_answer_may_have_been_without_power():
    doubt = Doubt(warm_up_ms=30_000)
    doubt.woke(START_MS)
    doubt.judge(dust(), b"1", START_MS + 60_000)
    assert doubt.why == ""
    doubt.lost()
    doubt.judge(dust(), b"2", START_MS + 120_000)
    assert doubt.why == WARMING


def test_same_frame_is_doubted_when_it_came_long_and_often_enough():
    doubt = Doubt(stuck_ms=600_000, stuck_frames=8)
    whys = []
    for minute in range(12):
        assert qualities(doubt.judge(dust(), b"same", START_MS + 60_000 * minute))[0] == int(minute >= 10)
        whys.append(doubt.why)
    assert whys == [""] * 10 + [STUCK] * 2
    assert doubt.judge(dust(), b"other", START_MS + 13 * 60_000) == dust()


def test_few_frames_far_apart_are_not_yet_stuck():
    doubt = Doubt(stuck_ms=600_000, stuck_frames=8)
    found = [qualities(doubt.judge(dust(), b"same", START_MS + 3_600_000 * hour))[0] for hour in range(8)]
    assert found == [GOOD] * 7 + [SUSPECT]


def test_sensor_that_is_woken_for_each_measurement_is_found_out_too():
    doubt = Doubt(warm_up_ms=30_000, stuck_ms=600_000, stuck_frames=8)
    whys = []
    for number in range(10):
        woken_ms = START_MS + 300_000 * number
        doubt.woke(woken_ms)
        doubt.judge(dust(), b"same", woken_ms + 30_000)
        whys.append(doubt.why)
    assert whys == [""] * 7 + [STUCK] * 3


def test_only_the_quantity_at_its_end_is_doubted():
    doubt = Doubt(ends={"pm2_5": (-1, 1000)})
    assert qualities(doubt.judge(dust(999), b"a", START_MS)) == [GOOD, GOOD]
    assert qualities(doubt.judge(dust(1000), b"b", START_MS)) == [SUSPECT, GOOD]
    assert doubt.why == SATURATED + ": pm2_5"


def test_sensor_that_sees_nothing_at_all_is_doubted():
    doubt = Doubt(sees_always=("pm2_5", "particles_0_3"))
    blind = [Reading("pm2_5", 0), Reading("particles_0_3", 0, -2), Reading("temperature", 215, -1)]
    assert qualities(doubt.judge(blind, b"a", START_MS)) == [SUSPECT] * 3
    assert doubt.why == NOTHING
    clean = [Reading("pm2_5", 0), Reading("particles_0_3", 1, -2), Reading("temperature", 215, -1)]
    assert qualities(doubt.judge(clean, b"b", START_MS)) == [GOOD] * 3


def test_capture_without_a_clock_is_judged_by_its_values_only():
    doubt = Doubt(warm_up_ms=30_000, stuck_ms=1, stuck_frames=2, ends={"pm2_5": (-1, 1000)})
    assert [qualities(doubt.judge(dust(), b"same", NO_CLOCK_MS)) for _ in range(5)] == [[GOOD, GOOD]] * 5
    assert qualities(doubt.judge(dust(2000), b"same", NO_CLOCK_MS)) == [SUSPECT, GOOD]
