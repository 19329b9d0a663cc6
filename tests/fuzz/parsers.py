"""What is fuzzed: every device folder, by the one interface that all have, and the decoders that several share.

A target is a function of bytes that returns if all is well. A device's input begins with a byte that chooses: even,
and the rest is a stream, fed in pieces of that half; odd, and the rest is what a measurement is answered, each answer
behind its length (255: no answer).
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

from bega.devices import device_names, load_driver, with_profile
from bega_protocols import bthome, cobs, iec62056, mbus, mbus_records, modbus_rtu, modbus_tcp, obis, senml, uplink
from bega_protocols.checks import crc32
from bega_protocols.devices.dsmr_p1 import codec as dsmr_p1
from bega_protocols.devices.sml_meter import codec as sml
from bega_protocols.errors import WireError
from bega_protocols.reading import EXPONENT, GOOD, MANTISSA_DIGITS, QUANTITIES, STALE
from bega_protocols.uplink_node import NodeEnd
from tests.contract import BOOKS, NOW_MS, chunks_of, drive, make_sim, question_of, set_as_booked, through, who_offers

STEP_MS = 1000
NO_ANSWER = 255
ASKED = who_offers("measure")
SHARED = "shared decoders"


def targets() -> list[str]:
    """Return the names of all that is fuzzed."""
    return [*device_names(), SHARED]


def target(name: str) -> Callable[[bytes], None]:
    """Return what to call with one input; it raises whatever is wrong."""
    if name == SHARED:
        return _shared
    settings = with_profile(BOOKS[name]["sim"]["settings"])
    return lambda data: _device(name, settings, data)


def seeds(name: str) -> Iterator[bytes]:
    """Yield inputs to begin with: the vectors of the device, and a measurement as its simulator answers it."""
    if name == SHARED:
        yield from (bytes([kind]) + chunk for chunk in _all_chunks() for kind in range(len(DECODERS)))
        return
    for vector in BOOKS[name]["vectors"]:
        chunks = chunks_of(vector)
        yield b"\xfe" + b"".join(chunks)
        yield b"\x0e" + b"".join(chunks)
        yield b"\x01" + b"".join(map(_answered, chunks))
    if name in ASKED:
        yield b"\x01" + b"".join(map(_answered, _measured(name)))


def _device(name: str, settings: dict[str, object], data: bytes) -> None:
    driver = load_driver(name, settings)
    if not data:
        return
    if data[0] % 2 and name in ASKED:
        groups = drive(driver.measure(NOW_MS), _answers(data[1:], driver.line.split()[0]))
        longest = None
    else:
        size = data[0] // 2 or 1
        pieces = [data[at : at + size] for at in range(1, len(data), size)]
        groups = [group for count, piece in enumerate(pieces) for group in driver.feed(piece, NOW_MS + count * STEP_MS)]
        longest = len(data)
    for reading in (reading for group in groups for reading in group):
        assert reading.quantity in QUANTITIES, reading
        assert type(reading.value) is int and abs(reading.value) < 10**MANTISSA_DIGITS, reading
        assert -EXPONENT <= reading.exp10 <= EXPONENT and GOOD <= reading.quality <= STALE, reading
    for offset, error in driver.damaged:
        assert isinstance(error, WireError), error
        assert offset >= 0 and (longest is None or offset <= longest), (offset, error)
    assert len(driver.attributes) <= 100
    assert all(type(text) is str for text in driver.attributes.values()), driver.attributes


def _answers(data: bytes, wire: str) -> Callable[[object], bytes | None]:
    """Return what answers each question from `data`, one after the other; then nobody does."""
    at = [0]

    def answer(ask):
        length = data[at[0]] if at[0] < len(data) else NO_ANSWER
        start = at[0] + 1
        at[0] = start + (0 if length == NO_ANSWER else length)
        return through(ask, None if length == NO_ANSWER else data[start : at[0]], wire)

    return answer


def _answered(chunk: bytes) -> bytes:
    return bytes([min(len(chunk), NO_ANSWER - 1)]) + chunk[: NO_ANSWER - 1]


def _measured(name: str) -> list[bytes]:
    said = []
    sim = set_as_booked(name, make_sim(name))

    def answer(ask):
        said.append(sim.answer(question_of(ask)) or b"")
        return through(ask, said[-1], load_driver(name, BOOKS[name]["sim"]["settings"]).line.split()[0])

    drive(load_driver(name, BOOKS[name]["sim"]["settings"]).measure(NOW_MS), answer)
    return said


def _all_chunks() -> Iterator[bytes]:
    return (chunk for book in BOOKS.values() for vector in book["vectors"] for chunk in chunks_of(vector))


# The decoders behind the check values, which a mutated frame seldom passes. Each may raise WireError and nothing else.


def _bthome(data: bytes) -> None:
    packet = bthome.parse(data)
    if packet is not None:
        bthome.objects(packet.body)
    bthome.objects(data)


def _rtu(data: bytes) -> None:
    modbus_rtu.RtuListener().feed(data, [])
    modbus_rtu.unframe(data)


def _mbus(data: bytes) -> None:
    mbus.frame_in(data)
    mbus.read_telegram(mbus.long_frame(0x08, 1, mbus.VARIABLE, data[:240]))
    mbus_records.read_records(data)


def _iec62056(data: bytes) -> None:
    iec62056.identification(data)
    iec62056.readout_ends(data, 0, True)
    for code, values in iec62056.data_lines(iec62056.seven_bits(data).decode("ascii")):
        known = obis.electricity(code)
        if known is not None and values:
            obis.reading(*known, values[0])


def _p1(data: bytes) -> None:
    telegram = dsmr_p1.Telegram()
    for line in data.split(b"\n"):
        telegram.take(line + b"\n")
    telegram.stamped()


def _sml(data: bytes) -> None:
    inside = data.replace(sml.ESCAPE, 2 * sml.ESCAPE)
    sml.decode(sml.HEAD + inside + sml.ESCAPE + bytes([sml.FILE_END, 0, 0, 0]), lambda whole: 0)


def _uplink(data: bytes) -> None:
    with suppress(WireError):
        uplink.decode(data)
    sound = bytes((0x10 | len(data) & 0x0F,)) + data[:240]
    node = NodeEnd("n", "c", b"", bytes, lambda kind, payload: None, lambda: None)
    node.hear(uplink.encode(uplink.HELLO, bytes(8) + b"n"))
    node.hear(uplink.encode(uplink.POLL, uplink.session_of("n", bytes(8), bytes(8)) + b"\1" + data[:240]))
    node.hear(b"\0" + cobs.encode(sound + crc32(sound).to_bytes(4, "big")) + b"\0" + data)
    for _, payload in uplink.Messages().feed(data):
        uplink.read_record(payload)
        uplink.read_acknowledgement(payload)


DECODERS: list[Callable[[bytes], object]] = [
    _bthome,
    _rtu,
    _mbus,
    _iec62056,
    _p1,
    _sml,
    lambda data: modbus_tcp.TcpListener().feed(data, []),
    senml.decode,
    _uplink,
]


def _shared(data: bytes) -> None:
    if not data:
        return
    with suppress(WireError):
        DECODERS[data[0] % len(DECODERS)](data[1:])
