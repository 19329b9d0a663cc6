"""The technician's page without a browser: passwords, pauses, sessions, the last hour, live bytes, alarms."""

import asyncio
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.listen import is_this_machine
from bega_gateway import config
from bega_gateway.edge.derive import ThresholdAlarm
from bega_gateway.edge.tables import Alarm
from bega_gateway.health import Watched
from bega_gateway.lines.station import Station
from bega_gateway.page import listening, password, recent, words, wrong
from bega_gateway.page.attempts import FORGOTTEN_AFTER_MS, FREE, LONGEST_PAUSE_MS, MOST_ADDRESSES, Attempts
from bega_gateway.page.hour import HOUR_MS, hour_svg
from bega_gateway.page.listening import Listening
from bega_gateway.page.password import hashed, is_hash, is_password
from bega_gateway.page.recent import STEP_MS, Recent, Sample, Series
from bega_gateway.page.sessions import IDLE_MS, LONGEST_MS, MOST, Sessions
from bega_protocols import senml
from bega_protocols.devices.pms5003.driver import Driver as Pms5003
from bega_protocols.devices.pms5003.sim import Sim
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, SUSPECT, Reading
from bega_protocols.record import SYNCHRONISED, Record

NOW_MS = 1_795_000_000_000
PASSWORD = "correct horse 7"
HASH = hashed(PASSWORD)

# ------------------------------------------------------------------ password


def test_password_is_known_by_its_hash_and_no_other_is():
    assert is_password(PASSWORD, HASH)
    assert not is_password(PASSWORD + " ", HASH)
    assert not is_password("", HASH)
    assert hashed(PASSWORD) != HASH, "two hashes of one password have salts of their own"


def test_hash_is_the_scrypt_of_rfc_7914():
    """The third vector of its section 12; of the key we keep the first half."""
    kept = password._Kept(16384, 8, 1, b"SodiumChloride", b"")
    expected = "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
    assert password._key("pleaseletmein", kept).hex() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "scrypt$2$8$1$" + HASH.split("$", 4)[4],  # weaker than ours
        "scrypt$16383$8$1$" + HASH.split("$", 4)[4],
        "scrypt$8388608$8$1$" + HASH.split("$", 4)[4],  # 8 GB
        "scrypt$16384$8$9$" + HASH.split("$", 4)[4],
        "scrypt$16384$8$1$AAAA$" + HASH.split("$")[5],
        HASH[:-4],
        HASH.replace("scrypt", "md5"),
        HASH.replace("16384", "１６３８４"),
    ],
    ids=["nothing", "no hash", "weak", "odd cost", "8 GB", "nine times", "short salt", "cut", "md5", "wide digits"],
)
def test_what_is_no_hash_of_ours_opens_nothing(text):
    assert not is_hash(text)
    assert not is_password(PASSWORD, text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reading_of_a_hash(text):
    assert not is_hash(text)


@pytest.mark.parametrize("given_password", ["", "short", "x" * 201])
def test_a_password_that_cannot_be_is_refused(given_password):
    with pytest.raises(ConfigError, match="10 to 200"):
        hashed(given_password)


def test_command_prints_a_hash_that_opens():
    command = [sys.executable, "-m", "bega", "gateway", "password"]
    told = subprocess.run(command, input=PASSWORD + "\n", capture_output=True, text=True, timeout=30)
    assert told.returncode == 0, told.stderr
    text = told.stdout.strip().removeprefix('password_hash = "').removesuffix('"')
    assert is_password(PASSWORD, text)


# ------------------------------------------------------------------ configuration


def problems_of(page, **more):
    whole = {
        "gateway": {"name": "gw", "city": "timisoara"},
        "uplink": {"brokers": ["mqtt://127.0.0.1"]},
        "page": page,
        **more,
    }
    return config.examine(Path("/dev/null"), whole)


@pytest.mark.parametrize("listen", ["0.0.0.0:8090", "192.168.1.4:8090", "[::]:8090", "gateway.local:8090"])
def test_a_page_that_others_can_ask_needs_a_password(listen):
    _, (problem,) = problems_of({"listen": listen})
    assert "page.listen: others than this machine can ask there: set page.password_hash" in problem
    good, _ = problems_of({"listen": listen, "password_hash": HASH})
    assert good and any("the password can be read on the way" in caution for caution in config.cautions(good))


def test_a_page_for_this_machine_needs_none_and_its_mistakes_are_named():
    good, _ = problems_of({})
    assert good and good.page.listen == "127.0.0.1:8090" and config.cautions(good) == []
    _, (problem,) = problems_of({"password_hash": "my cat's name"})
    assert problem.endswith("page.password_hash: is none; `bega gateway password` prints one")
    _, (problem,) = problems_of({"listen": "127.0.0.1:8080"}, feed={"listen": "127.0.0.1:8080"})
    assert problem.endswith("page.listen: feed.listen has 127.0.0.1:8080 already")


# ------------------------------------------------------------------ pauses


def test_five_failures_mean_a_pause_that_doubles():
    attempts = Attempts()
    pauses = []
    now_ms = 0
    for _ in range(FREE + 10):
        assert attempts.wait_ms("a", now_ms) == 0
        attempts.failed("a", now_ms)
        pauses.append(attempts.wait_ms("a", now_ms))
        now_ms += pauses[-1]
    assert pauses[: FREE - 1] == [0] * (FREE - 1)
    assert pauses[FREE - 1 : FREE + 3] == [30_000, 60_000, 120_000, 240_000]
    assert pauses[-1] == LONGEST_PAUSE_MS


def test_failures_from_everywhere_make_everybody_wait_and_not_long():
    attempts = Attempts()
    for number in range(100):
        attempts.failed(f"10.0.0.{number}", 0)
    assert attempts.wait_ms("192.168.1.1", 0) == 60_000, "somebody who never failed"
    assert attempts.wait_ms("192.168.1.1", 60_000) == 0


def test_a_host_with_a_whole_network_is_one_stranger():
    """An IPv6 host has 2**64 addresses: counted one by one each gave it five guesses more."""
    attempts = Attempts()
    for number in range(FREE):
        attempts.failed(f"2001:db8:7:1::{number}", 0)
    assert attempts.wait_ms("2001:db8:7:1:ffff::1", 0) == 30_000
    assert attempts.wait_ms("2001:db8:7:2::1", 0) == 2_000, "the neighbour waits as all do"
    assert attempts.wait_ms("fe80::1%eth0", 0) == 2_000


def test_addresses_of_ipv4_on_a_socket_of_ipv6_are_not_one_network():
    attempts = Attempts()
    for _ in range(FREE):
        attempts.failed("::ffff:10.0.0.1", 0)
    assert attempts.wait_ms("::ffff:10.0.0.1", 0) == attempts.wait_ms("10.0.0.1", 0) == 30_000
    assert attempts.wait_ms("::ffff:10.0.0.2", 0) == 2_000


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_strangers_keep_nobody_out_who_comes_by_a_tunnel(address):
    attempts = Attempts()
    for number in range(100):
        attempts.failed(f"10.0.0.{number}", 0)
    assert attempts.wait_ms("192.168.1.1", 0) > 0 == attempts.wait_ms(address, 0)
    for _ in range(FREE):
        attempts.failed(address, 0)
    assert attempts.wait_ms(address, 0) == 30_000, "his own failures count"


@given(st.text(max_size=50))
def test_any_address_can_be_counted(address):
    attempts = Attempts()
    for _ in range(FREE):
        attempts.failed(address, 0)
    assert attempts.wait_ms(address, 0) == 30_000
    attempts.succeeded(address)
    assert attempts.wait_ms(address, 0) == 0


def test_success_and_a_quiet_time_forgive():
    attempts = Attempts()
    for _ in range(FREE - 1):
        attempts.failed("a", 0)
    attempts.failed("a", FORGOTTEN_AFTER_MS + 1)
    assert attempts.wait_ms("a", FORGOTTEN_AFTER_MS + 1) == 0
    for _ in range(FREE):
        attempts.failed("a", FORGOTTEN_AFTER_MS + 1)
    attempts.succeeded("a")
    assert attempts.wait_ms("a", FORGOTTEN_AFTER_MS + 1) == 0


def test_addresses_without_end_are_not_remembered_without_end():
    attempts = Attempts()
    for number in range(3 * MOST_ADDRESSES):
        attempts.failed(str(number), number)
    assert len(attempts._of) == MOST_ADDRESSES


# ------------------------------------------------------------------ sessions


def test_a_session_rests_and_ends():
    sessions = Sessions()
    cookie = sessions.begin(0)
    assert sessions.is_open(cookie, IDLE_MS)
    assert not sessions.is_open(cookie, 2 * IDLE_MS + 1)
    assert not sessions.is_open("", 0) and not sessions.is_open(sessions.new_cookie(), 0)
    cookie = sessions.begin(0)
    for now_ms in range(0, LONGEST_MS + 1, IDLE_MS):
        assert sessions.is_open(cookie, now_ms)
    assert not sessions.is_open(cookie, LONGEST_MS + 1), "who never rests logs in again after twelve hours"


def test_a_page_that_only_refreshes_itself_is_not_used():
    sessions = Sessions()
    cookie = sessions.begin(0)
    for now_ms in range(0, IDLE_MS + 1, 4_000):
        assert sessions.is_open(cookie, now_ms, is_used=False)
    assert not sessions.is_open(cookie, IDLE_MS + 1, is_used=False)


def test_the_session_that_rests_longest_makes_room():
    sessions = Sessions()
    first, second = sessions.begin(0), sessions.begin(0)
    assert sessions.is_open(first, 1)
    for _ in range(MOST - 1):
        sessions.begin(2)
    assert sessions.is_open(first, 3) and not sessions.is_open(second, 3)


def test_a_token_is_of_one_cookie():
    sessions = Sessions()
    one, other = sessions.new_cookie(), sessions.new_cookie()
    assert sessions.is_token(one, sessions.token(one))
    assert not sessions.is_token(one, sessions.token(other))
    assert not sessions.is_token("", sessions.token("")), "who has no cookie has no token"
    assert not Sessions().is_token(one, sessions.token(one)), "nor does one of before the restart count"
    assert not sessions.is_token(one, "ü")


# ------------------------------------------------------------------ the last hour


@given(
    samples=st.lists(st.tuples(st.integers(0, 4 * HOUR_MS), st.floats(-1e6, 1e6)), max_size=300),
    later_ms=st.integers(0, HOUR_MS),
)
def test_an_hour_holds_the_last_value_of_each_half_minute(samples, later_ms):
    samples = sorted(samples, key=lambda sample: sample[0])
    series = Series()
    steps = {}
    for time_ms, value in samples:
        series.add(NOW_MS + time_ms, value)
        steps[(NOW_MS + time_ms) // STEP_MS] = value
    now_ms = NOW_MS + (samples[-1][0] if samples else 0) + later_ms
    oldest = now_ms // STEP_MS - recent.STEPS
    found = [(point.time_ms, point.value) for point in series.points(now_ms)]
    assert found == [(step * STEP_MS, value) for step, value in steps.items() if step > oldest]


@given(times=st.lists(st.integers(0, 10**15), max_size=50))
def test_a_clock_that_leaps_costs_points_and_nothing_else(times):
    series = Series()
    for time_ms in times:
        series.add(time_ms, 1.0)
        points = series.points(time_ms)
        assert points[-1] == (time_ms // STEP_MS * STEP_MS, 1.0, False)
        assert len(points) <= recent.STEPS


def record(device="air", *readings, source="gw", time_ms=NOW_MS):
    return Record(source, 1, 1, device, time_ms, SYNCHRONISED, list(readings))


def test_memory_is_bounded_whatever_is_said(monkeypatch):
    monkeypatch.setattr(recent, "MOST_SERIES", 10)
    monkeypatch.setattr(recent, "MOST_DEVICES", 5)
    monkeypatch.setattr(recent, "MOST_READINGS", 4)
    seen = Recent()
    for number in range(20):
        readings = [Reading("pm1", 1, 0, f"p{part}") for part in range(9)]
        seen.take(record(f"d{number}", *readings), NOW_MS, False)
    assert len(seen.devices()) == 5
    assert all(len(seen.last(device)) == 4 for device in seen.devices())
    assert seen._series == 10
    for device in seen.devices():
        seen.forget(device)
    assert seen._series == 0 and not seen.devices()


def test_an_older_record_replaces_nothing_but_is_in_the_hour():
    seen = Recent()
    seen.take(record("air", Reading("pm1", 7)), NOW_MS, False)
    seen.take(record("air", Reading("pm1", 3), time_ms=NOW_MS - 600_000), NOW_MS, False)
    assert seen.last(("gw", "air"))[0].reading.value == 7
    assert [point.value for point in seen.points(("gw", "air"), "pm1", "", NOW_MS)] == [3.0, 7.0]


def test_a_backlog_of_yesterday_leaves_the_hour_as_it_is():
    """It was taken for a clock that was set back, and the hour began anew."""
    seen = Recent()
    seen.take(record("air", Reading("pm1", 7)), NOW_MS, False)
    seen.take(record("air", Reading("pm1", 3), time_ms=NOW_MS - 86_400_000), NOW_MS, False)
    assert [point.value for point in seen.points(("gw", "air"), "pm1", "", NOW_MS)] == [7.0]
    earlier_ms = NOW_MS - 86_400_000
    seen.take(record("air", Reading("pm1", 4), time_ms=earlier_ms), earlier_ms, False)
    assert [point.value for point in seen.points(("gw", "air"), "pm1", "", earlier_ms)] == [4.0], "here it was"


def test_a_suspect_value_is_a_ring_and_is_said():
    seen = Recent()
    for minute in range(10):
        quality = SUSPECT if minute in (3, 4) else GOOD
        time_ms = NOW_MS - 60_000 * (10 - minute)
        seen.take(record("air", Reading("pm1", minute, 0, "", quality), time_ms=time_ms), time_ms, False)
    picture = hour_svg(seen.points(("gw", "air"), "pm1", "", NOW_MS), NOW_MS, "pm1", "", 180_000)
    assert picture.count('class="suspect"') == 2
    assert "2 of 10 values are suspect" in picture


@pytest.mark.parametrize(("gap_ms", "lines"), [(30_000, 2), (300_000, 1)])
def test_the_line_is_broken_where_a_device_was_not_heard(gap_ms, lines):
    """Five minutes of silence of a device that is asked each ten seconds; of one on change they are none."""
    minutes = [*range(60, 40, -1), *range(35, 0, -1)]
    points = [Sample(NOW_MS - minute * 60_000 + shift_ms, 1.0) for minute in minutes for shift_ms in (0, 30_000)]
    assert hour_svg(points, NOW_MS, "pm1", "", gap_ms).count("<polyline") == lines


@given(
    points=st.lists(st.tuples(st.integers(0, 2 * HOUR_MS), st.floats(-1e12, 1e12)), max_size=40),
    part=st.sampled_from(["", "l1", "<b>&\"'"]),
)
def test_any_hour_can_be_drawn(points, part):
    points = [Sample(NOW_MS - time_ms, value, time_ms % 2 == 1) for time_ms, value in points]
    picture = hour_svg(points, NOW_MS, "active_power", part, 60_000)
    if not any(point.time_ms >= NOW_MS - HOUR_MS for point in points):
        assert picture == ""
        return
    root = ElementTree.fromstring(picture)
    assert part in root.get("aria-label")
    coordinates = [float(root.find(".//*[@class='now']").get(key)) for key in ("cx", "cy")]
    assert all(map(math.isfinite, coordinates)) and 0 <= coordinates[1] <= 150


def test_an_axis_of_small_changes_shows_them():
    """A register that counted from 123456 to 123457 would be a flat line on an axis that begins at 0."""
    points = [Sample(NOW_MS - minutes * 60_000, 123456 + (60 - minutes) / 60) for minutes in range(60, 0, -1)]
    root = ElementTree.fromstring(hour_svg(points, NOW_MS, "active_energy_import", "", 60_000))
    values = [
        float(text.text) for text in root.iter("{http://www.w3.org/2000/svg}text") if text.text[0] in "0123456789"
    ]
    values += [float(text.text) for text in root.iter("text") if text.text[0].isdigit()]
    assert len(values) >= 2 and all(120_000 < value < 127_000 for value in values)


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (Reading("voltage", 2301, -1, "l1"), "230.1 V"),
        (Reading("active_energy_import", 12, 3), "12000 kWh"),
        (Reading("pm2_5", 7), "7 µg/m³"),
        (Reading("alarm", 1), "1"),
        (Reading("count", 1, 99), "1e99"),
        (Reading("temperature", -52, -1), "-5.2 °C"),
    ],
)
def test_a_value_is_said_with_its_unit(reading, said):
    assert words.value(reading) == said


def test_bytes_are_said_in_pairs_and_times_to_the_millisecond():
    assert words.hexed(bytes(range(10))) == ["00 01 02 03 04 05 06 07", "08 09"]
    assert words.clock(NOW_MS + 7, None)[-4:] == ".007"
    assert words.clock(10**18, None) == ""
    assert [words.lasting(ms) for ms in (-5, 3000, 119_000, 600_000, 10_000_000, 10**9)] == [
        "0 s", "3 s", "119 s", "10 min", "2 h", "11 days",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("127.8.8.8", True),
        ("0.0.0.0", False), ("", False), ("192.168.1.4", False), ("localhost.evil.example", False), ("[::]", False),
    ],
)  # fmt: skip
def test_what_names_this_machine(host, is_ours):
    assert is_this_machine(host) is is_ours


# ------------------------------------------------------------------ what is wrong


def watched(name, line, silent, heard_ms=None):
    return Watched(line, "device", name, 10.0, lambda: heard_ms, silent=silent)


def test_a_line_on_which_all_are_silent_is_one_finding():
    everyone = [watched(f"m{number}", "cellar", True, 1000) for number in range(9)] + [
        watched("hall", "b", False, 1000)
    ]
    (finding,) = wrong.silent(everyone, {"cellar": "Modbus on /dev/rs485"}, 61_000)
    assert finding.where == "lines.cellar" and "60 s" in finding.evidence and "/dev/rs485" in finding.remedy


def test_one_silent_device_among_living_ones_is_named():
    everyone = [watched("m1", "cellar", True), watched("m2", "cellar", False, 1000)]
    (finding,) = wrong.silent(everyone, {}, 61_000)
    assert finding.what == "m1 is silent" and "never" in finding.evidence and "others" in finding.remedy


def test_a_gateway_says_what_it_lacks():
    found = list(wrong.of_gateway(True, 7, False, False, 9, 0))
    assert [finding.stops_readings for finding in found] == [True, False, True], "what waits does not arrive"
    assert list(wrong.of_gateway(False, 0, False, True, 0, NOW_MS)) == [], "a start is given its time"


# ------------------------------------------------------------------ live bytes


class Line:
    """One talking sensor, heard as lines/serial.py hears it."""

    def __init__(self):
        self.now_ms = 0
        self.delivered = []
        self.sim = Sim({}, seed=1)
        self.station = Station("air", Pms5003({}, b""), 1.0, self.deliver)

    async def deliver(self, groups, wall_ms):
        self.delivered.append(groups)

    async def hear(self, chunk):
        if self.station.tap:
            self.station.tap("in", chunk)
        groups = self.station.driver.feed(chunk, 0)
        self.station.take_damage()
        if groups:
            await self.station.deliver(groups, NOW_MS)

    def listen(self, joins=False):
        return Listening([self.station], lambda: self.now_ms, lambda: NOW_MS, joins=joins)


def test_bytes_stand_beside_what_they_were_read_as():
    line = Line()
    tape = line.listen()
    frame = line.sim.tick(0)
    asyncio.run(line.hear(frame))
    asyncio.run(line.hear(frame[:-1] + b"\xff" + frame))  # a wrong check word, and a whole frame behind it
    tape.settle()
    good, damaged = tape.rows
    assert good.octets == frame and "pm2_5" in [reading.quantity for reading in good.readings] and not good.damaged
    assert damaged.damaged == 1
    assert len(line.delivered) >= 1, "the line works as ever"
    tape.end()
    before = len(tape.rows)
    asyncio.run(line.hear(frame))
    assert len(tape.rows) == before and line.station.tap is None
    assert line.station.deliver == line.deliver


def test_a_frame_that_comes_in_pieces_is_one_row():
    """A serial port gives 4 or 5 bytes at a time: 8 rows a frame, the last of which alone would have had readings."""
    line = Line()
    tape = line.listen(joins=True)
    frame = line.sim.tick(0)
    for _ in range(3):
        for at in range(0, len(frame), 4):
            asyncio.run(line.hear(frame[at : at + 4]))
            line.now_ms += 4
        line.now_ms += 900
    assert [row.octets for row in tape.rows] == [frame] * 3 and all(row.readings for row in tape.rows)
    asyncio.run(line.hear(frame[:9]))
    line.now_ms += listening.JOINED_WITHIN_MS + 1
    asyncio.run(line.hear(frame[9:]))
    assert [row.size for row in tape.rows][-2:] == [9, 23], "a pause is seen"


@given(sizes=st.lists(st.integers(1, 3000), max_size=60), pause_ms=st.integers(0, 120))
def test_noise_without_a_pause_is_counted_whole_and_kept_in_part(sizes, pause_ms):
    line = Line()
    tape = line.listen(joins=True)
    for size in sizes:
        line.station.tap("in", b"\xff" * size)
        line.now_ms += pause_ms
    assert sum(row.size for row in tape.rows) == sum(sizes)
    assert all(len(row.octets) == min(row.size, listening.MOST_BYTES) for row in tape.rows)
    assert all(row.size < listening.MOST_JOINED + 3000 for row in tape.rows)


def test_a_line_is_listened_to_once_and_within_bounds():
    line = Line()
    tape = line.listen()
    with pytest.raises(ConfigError, match="one at a time"):
        line.listen()
    for _ in range(3 * listening.MOST_ROWS):
        line.station.tap("in", b"\x00" * 5000)
    assert len(tape.rows) == listening.MOST_ROWS
    assert {len(row.octets) for row in tape.rows} == {listening.MOST_BYTES} and tape.rows[0].size == 5000
    tape.end()
    line.listen().end()


# ------------------------------------------------------------------ alarms

LEAK = Alarm(input="zone", quantity="net_night_flow", above=0.5, clear=0.25)


def take(alarm, tenths):
    flow = Reading("net_night_flow", tenths, -1)
    return [given.readings[0] for given in alarm.take(("gw", "zone"), [flow], NOW_MS, "")]


def test_an_acknowledged_alarm_stays_raised_and_is_kept_over_a_restart():
    alarm = ThresholdAlarm(LEAK)
    assert take(alarm, 9) == [Reading("alarm", 1)]
    assert not alarm.is_acknowledged
    assert alarm.acknowledge() == Reading("alarm", 1, 0, "acknowledged")
    again = ThresholdAlarm(LEAK, alarm.state())
    assert again.is_raised and again.is_acknowledged
    assert take(again, 9) == [], "it is not raised a second time"
    assert take(again, 1) == [Reading("alarm", 0)]
    assert take(again, 9) == [Reading("alarm", 1)] and not again.is_acknowledged, "the next one is a new one"


def test_the_state_of_an_older_release_is_read():
    alarm = ThresholdAlarm(LEAK, msgspec.msgpack.encode({"is_raised": True}))
    assert alarm.is_raised and not alarm.is_acknowledged


def test_an_acknowledgement_travels_as_a_record_like_any_other():
    said = record("leak", Reading("alarm", 1, 0, "acknowledged"))
    assert senml.decode(senml.Encoder().encode(said)).readings == said.readings
