"""The node's ring: nothing stored is lost or freed too early, a power cut at any flash operation included."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bega_protocols
from bega_protocols.reading import Reading
from bega_protocols.record import ESTIMATED, SYNCHRONISED, UNKNOWN
from bega_protocols.ring import DECLARED_AT_MOST, START, Held, Ring, Window
from bega_protocols.stored import WAITING, Stored, restore, store

MICROPYTHON = Path(sys.executable).with_name("micropython")
SHAPE = b"pms|pm2_5,,0,0"


class Files:
    """Segments in memory, as a flash that loses nothing."""

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}
        self.full = False
        self.appends = 0

    def numbers(self) -> list[int]:
        return list(self.files)

    def read(self, number: int) -> bytes:
        if number not in self.files:
            raise OSError(2)
        return self.files[number]

    def append(self, number: int, data: bytes) -> None:
        if self.full:
            raise OSError(28)
        self.appends += 1
        self.files[number] = self.files.get(number, b"") + data

    def remove(self, number: int) -> None:
        self.files.pop(number, None)


def ring_on(files: Files, segments: int = 8, segment_bytes: int = 256) -> Ring:
    return Ring(files, segments, segment_bytes)


def fill(ring: Ring, boot: int, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        ring.append([(boot, seq, SHAPE, b"body %d" % seq)])


def everything(ring: Ring) -> list[tuple[int, int]]:
    found = []
    held = ring.next()
    while held is not None:
        assert held.shape == SHAPE
        assert held.body == b"body %d" % held.seq
        found.append((held.boot, held.seq))
        held = ring.next(held.after)
    return found


def test_ring_gives_back_what_was_stored_in_order():
    ring = ring_on(Files())
    fill(ring, 5, 1, 30)
    assert everything(ring) == [(5, seq) for seq in range(1, 31)]
    assert ring.holds() == [[5, 1, 30]]
    assert ring.dropped() == []


def test_ring_survives_a_restart():
    files = Files()
    fill(ring_on(files), 5, 1, 20)
    fill(ring_on(files), 6, 1, 3)
    ring = ring_on(files)
    assert ring.holds() == [[5, 1, 20], [6, 1, 3]]
    assert everything(ring) == [(5, seq) for seq in range(1, 21)] + [(6, 1), (6, 2), (6, 3)]
    assert ring.last_boot() == 6


def test_restarts_fill_segments_instead_of_beginning_new_ones():
    files = Files()
    for boot in range(1, 8):
        fill(ring_on(files), boot, 1, 1)
    assert len(files.files) <= 2


def test_records_of_one_moment_are_one_write():
    files = Files()
    ring_on(files).append([(1, 1, SHAPE, b"body 1"), (1, 2, SHAPE, b"body 2")])
    assert files.appends == 1


def test_acknowledgement_frees_its_own_boot_only():
    ring = ring_on(Files())
    fill(ring, 5, 1, 10)
    fill(ring, 6, 1, 10)
    assert ring.free([(6, 4)]) == 4
    assert ring.holds() == [[5, 1, 10], [6, 5, 10]]
    assert ring.free([(5, 10), (6, 4)]) == 10
    assert ring.holds() == [[6, 5, 10]]


def test_acknowledgement_of_what_was_never_stored_frees_nothing_that_comes():
    ring = ring_on(Files())
    fill(ring, 5, 1, 3)
    ring.free([(5, 1000), (9, 1000)])
    fill(ring, 5, 4, 6)
    assert ring.holds() == [[5, 4, 6]]


def test_segments_are_removed_once_all_in_them_is_freed():
    files = Files()
    ring = ring_on(files)
    fill(ring, 5, 1, 40)
    before = len(files.files)
    ring.free([(5, 40)])
    assert before > 4
    assert len(files.files) == 1
    assert everything(ring) == []


def test_full_ring_drops_its_oldest_and_declares_them():
    files = Files()
    ring = ring_on(files, segments=3)
    fill(ring, 5, 1, 60)
    ((boot, first, last),) = ring.holds()
    assert (boot, last) == (5, 60)
    assert first > 1
    assert ring.dropped() == [[5, 1, first - 1]]
    assert len(files.files) == 3
    assert ring_on(files, segments=3).dropped() == [[5, 1, first - 1]]


def test_declaration_stands_until_the_gateway_has_passed_it():
    files = Files()
    ring = ring_on(files, segments=3)
    fill(ring, 5, 1, 20)
    fill(ring, 6, 1, 60)
    gone = ring.dropped()
    assert gone[0] == [5, 1, 20]
    ring.free([(5, 19)])
    assert ring.dropped() == gone, "the gateway has not passed the end of the range"
    ring.free([(5, 20)])
    assert ring.dropped() == gone[1:]


def test_declarations_are_carried_on_when_their_segment_goes():
    files = Files()
    ring = ring_on(files, segments=3)
    fill(ring, 5, 1, 20)
    fill(ring, 6, 1, 300)
    assert ring.dropped()[0] == [5, 1, 20]
    assert ring_on(files, segments=3).dropped() == ring.dropped()


def test_number_of_declarations_is_bounded():
    ring = ring_on(Files(), segments=2)
    for boot in range(1, 400):
        fill(ring, boot, 1, 1)
    assert len(ring.dropped()) <= DECLARED_AT_MOST
    assert ring.dropped()[-1][0] + 1 == ring.holds()[0][0]


def test_rotten_record_is_declared_and_the_others_come():
    files = Files()
    fill(ring_on(files), 5, 1, 30)
    number = sorted(files.files)[1]
    whole = bytearray(files.files[number])
    whole[whole.index(b"body") + 2] ^= 4
    files.files[number] = bytes(whole)
    ring = ring_on(files)
    ((_, lost, last),) = ring.dropped()
    assert lost == last
    assert everything(ring) == [(5, seq) for seq in range(1, 31) if seq != lost]
    assert ring.damaged == 1


def test_rotten_shape_loses_its_segment_and_says_so():
    files = Files()
    fill(ring_on(files), 5, 1, 30)
    number = sorted(files.files)[1]
    files.files[number] = files.files[number].replace(b"pms", b"PMS")
    ring = ring_on(files)
    ((_, first, last),) = ring.dropped()
    assert last - first > 2
    assert everything(ring) == [(5, seq) for seq in range(1, 31) if not first <= seq <= last]


def test_missing_segment_is_declared():
    files = Files()
    fill(ring_on(files), 5, 1, 30)
    files.remove(sorted(files.files)[1])
    ring = ring_on(files)
    ((_, first, last),) = ring.dropped()
    assert everything(ring) == [(5, seq) for seq in range(1, 31) if not first <= seq <= last]
    assert ring.free([(5, 30)]) > 0
    assert everything(ring) == []


def test_torn_tail_is_left_alone_and_a_new_segment_begun():
    files = Files()
    fill(ring_on(files), 5, 1, 3)
    (number,) = files.files
    files.files[number] = files.files[number][:-5]
    ring = ring_on(files)
    assert ring.holds() == [[5, 1, 2]]
    fill(ring, 6, 1, 2)
    assert everything(ring_on(files)) == [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert len(files.files) == 2


def test_full_flash_is_an_error_and_the_ring_goes_on_when_there_is_room():
    files = Files()
    ring = ring_on(files)
    fill(ring, 5, 1, 3)
    files.full = True
    with pytest.raises(OSError, match="28"):
        ring.append([(5, 4, SHAPE, b"body 4")])
    files.full = False
    fill(ring, 5, 5, 6)
    assert everything(ring) == [(5, 1), (5, 2), (5, 3), (5, 5), (5, 6)]
    assert ring.dropped() == [[5, 4, 4]]


def test_marks_live_as_long_as_records_of_their_boot():
    files = Files()
    ring = ring_on(files)
    fill(ring, 5, 1, 3)
    ring.mark(5, b"noon")
    fill(ring, 5, 4, 40)
    ring.free([(5, 35)])
    assert ring.marks() == [(5, b"noon")]
    assert ring_on(files).marks() == [(5, b"noon")]
    fill(ring, 6, 1, 40)
    ring.free([(5, 40), (6, 39)])
    assert ring.marks() == []
    assert ring_on(files).marks() == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 6)),
            st.tuples(st.just("free"), st.integers(0, 60)),
            st.tuples(st.just("restart"), st.just(0)),
            st.tuples(st.just("boot"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_whatever_happens_each_record_is_held_or_freed_or_declared(steps):
    files = Files()
    ring, boot, seq = ring_on(files, segments=4), 1, 0
    acknowledged: dict[int, int] = {}
    written: dict[int, int] = {}
    for step, number in steps:
        if step == "append":
            ring.append([(boot, seq + more, SHAPE, b"body %d" % (seq + more)) for more in range(1, number + 1)])
            seq += number
            written[boot] = seq
        elif step == "free":
            held = everything(ring)
            if held:
                up_to = held[min(number, len(held) - 1)]
                ring.free([up_to])
                acknowledged[up_to[0]] = max(up_to[1], acknowledged.get(up_to[0], 0))
        elif step == "boot":
            ring, boot, seq = ring_on(files, segments=4), boot + 1, 0
        else:
            ring = ring_on(files, segments=4)
    held = set(everything(ring))
    declared = {(row[0], seq) for row in ring.dropped() for seq in range(row[1], row[2] + 1)}
    for one, last in written.items():
        for number in range(1, last + 1):
            had = number <= acknowledged.get(one, 0)
            assert had or (one, number) in held | declared
    assert len(files.files) <= 5


# What is on its way


def test_window_sends_oldest_first_and_no_more_than_its_size():
    ring = ring_on(Files())
    fill(ring, 5, 1, 10)
    window = Window(ring, size=4, patience_ms=15_000)
    window.restart(0)
    assert send_all(window, 0) == [1, 2, 3, 4]
    assert window.acknowledged([(5, 2)], 10)
    assert send_all(window, 20) == [5, 6]


def test_window_begins_again_with_the_oldest_when_nothing_was_acknowledged():
    ring = ring_on(Files())
    fill(ring, 5, 1, 3)
    window = Window(ring, size=20, patience_ms=15_000)
    window.restart(0)
    assert send_all(window, 0) == [1, 2, 3]
    assert not window.stalled(14_999)
    assert window.stalled(15_000)
    window.resend(15_000)
    assert send_all(window, 15_000) == [1, 2, 3]
    window.acknowledged([(5, 3)], 15_100)
    assert not window.stalled(99_000)


def test_window_repeats_itself_ever_more_rarely_until_the_gateway_is_heard():
    ring = ring_on(Files())
    fill(ring, 5, 1, 3)
    window = Window(ring, size=20, patience_ms=15_000)
    window.restart(0)
    now_ms, pauses = 0, []
    for _ in range(8):
        send_all(window, now_ms)
        pause_ms = next(ms for ms in range(0, 10**6, 5000) if window.stalled(now_ms + ms))
        pauses.append(pause_ms // 1000)
        now_ms += pause_ms
        window.resend(now_ms)
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    send_all(window, now_ms)
    assert not window.stalled(now_ms + 15_000)
    window.acknowledged([(4, 1)], now_ms)  # frees nothing, and is a sign of life
    assert window.stalled(now_ms + 15_000)


def test_window_begins_again_for_a_boot_that_is_stuck_while_a_newer_one_flows():
    """The newer one may flow for months, and the full ring would give up the older one meanwhile."""
    ring = ring_on(Files())
    fill(ring, 5, 1, 2)
    fill(ring, 6, 1, 4)
    window = Window(ring, size=4, patience_ms=15_000)
    window.restart(0)
    assert send_all(window, 0) == [1, 2, 1, 2]
    assert not window.acknowledged([(6, 2)], 10_000), "the oldest did not move on"
    assert send_all(window, 10_000) == [3, 4]
    assert window.stalled(15_000)
    window.resend(15_000)
    assert send_all(window, 15_000) == [1, 2, 3, 4]


@pytest.mark.parametrize("rots", ["a record", "a shape", "the whole file"])
def test_what_rots_while_the_node_runs_is_declared_and_blocks_nobody(rots):
    files = Files()
    ring = ring_on(files)
    fill(ring, 5, 1, 40)
    fill(ring, 6, 1, 3)
    middle = files.files[2]
    at = {"a record": 120, "a shape": 5}.get(rots)
    if at is None:
        del files.files[2]
    else:
        files.files[2] = middle[:at] + bytes([middle[at] ^ 1]) + middle[at + 1 :]
    window = Window(ring, size=50, patience_ms=15_000)
    window.restart(0)
    head = 0
    for now_ms in (0, 15_000, 30_000, 60_000):
        head = max(head, ring.holds()[0][1] - 1)
        for seq in send_all(window, now_ms)[:-3]:  # as the gateway takes them: in order, beyond holes declared
            head = max([head] + [to for boot, start, to in ring.dropped() if boot == 5 and start == head + 1])
            head = seq if seq == head + 1 else head
        window.acknowledged([(5, head)], now_ms)
        if window.stalled(now_ms + 15_000):
            window.resend(now_ms + 15_000)
    assert head == 40
    assert ring.holds() == [[6, 1, 3]]
    assert ring.damaged == 1


def test_window_skips_what_was_acknowledged_before_it_was_sent():
    ring = ring_on(Files())
    fill(ring, 5, 1, 10)
    window = Window(ring, size=20, patience_ms=15_000)
    window.restart(0)
    window.acknowledged([(5, 7)], 0)
    assert send_all(window, 0) == [8, 9, 10]


def send_all(window: Window, now_ms: int) -> list[int]:
    sent = []
    held = window.next()
    while held is not None:
        window.sent(held, now_ms)
        sent.append(held.seq)
        held = window.next()
    return sent


# A record as it lies in the ring


@given(
    values=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=9),
    time_ms=st.integers(0, 2**48),
    quality=st.sampled_from([SYNCHRONISED, ESTIMATED, WAITING]),
)
def test_record_comes_back_as_it_was_stored(values, time_ms, quality):
    readings = [Reading("active_energy_total", value, -3, "t1", 1) for value in values]
    stored = Stored("meter", time_ms, quality, readings)
    assert restore(*store(stored)) == stored


def test_record_without_a_time_comes_back_without():
    stored = Stored("pms", None, UNKNOWN, [Reading("pm2_5", 12)])
    assert restore(*store(stored)) == stored


def test_body_of_a_dust_record_is_small():
    counts = ["particles_0_3", "particles_0_5", "particles_1", "particles_2_5", "particles_5", "particles_10"]
    readings = [Reading(mass, 40) for mass in ("pm1", "pm2_5", "pm10")] + [Reading(name, 8000, -2) for name in counts]
    _, body = store(Stored("pms", 1_790_000_000_000, SYNCHRONISED, readings))
    assert len(body) <= 9 + 3 + 6 * 2 + 6


# On the real littlefs


@pytest.mark.parametrize("torn", ["clean", "torn"])
def test_power_cut_at_every_flash_operation_loses_nothing(torn):
    """Real VfsLfs2 on a flash that dies at its n-th operation, for every n: see the script."""
    if not MICROPYTHON.exists():
        pytest.skip("no MicroPython for this machine: its wheel is for x86-64 Linux")
    script = Path(__file__).parent / "micropython" / "ring_powercut.py"
    node = Path(__file__).parent.parent / "firmware" / "node"
    protocols = Path(bega_protocols.__file__).parent.parent
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=8m", script, torn],
        env={"MICROPYPATH": f"{protocols}:{node}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    cuts = int(outcome.stdout.splitlines()[-1].split()[0])
    assert cuts > 100, outcome.stdout


def test_start_is_where_reading_begins():
    ring = ring_on(Files())
    fill(ring, 5, 1, 1)
    assert ring.next(START) == ring.next() == Held((1, len(ring._storage.files[1])), 5, 1, SHAPE, b"body 1")
