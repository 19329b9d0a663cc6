"""What a node takes for the answer to its Modbus question, out of all that it hears."""

from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.modbus_rtu import answer_in, answer_size, frame

UNITS = st.integers(1, 247)
COUNTS = st.integers(1, 125)
QUESTION = bytes.fromhex("0300000002")


def answer_to(question: bytes, fill: int = 0x5A) -> bytes:
    size = 2 * question[4]
    return bytes((question[0], size)) + bytes((fill + index) % 256 for index in range(size))


def test_the_example_of_the_specification_is_an_answer():
    """MODBUS Application Protocol V1.1b3, section 6.3: registers 108 to 110 read 022B 0000 0064; CRC by hand."""
    question = bytes.fromhex("03006b0003")
    whole = bytes.fromhex("1103 06 022b 0000 0064".replace(" ", "")) + b"\xc8\xba"
    assert frame(0x11, whole[1:-2]) == whole
    assert answer_in(whole, 0x11, question) == bytes.fromhex("0306022b00000064")
    assert answer_size(question) == len(whole)


@given(
    unit=UNITS, function=st.sampled_from([3, 4]), count=COUNTS, noise=st.binary(max_size=30), tail=st.binary(max_size=9)
)
def test_an_answer_is_found_behind_any_noise(unit, function, count, noise, tail):
    question = bytes((function, 0, 1, 0, count))
    pdu = answer_to(question)
    assert answer_in(noise + frame(unit, pdu) + tail, unit, question) == pdu


@given(unit=UNITS, other=UNITS, count=COUNTS)
def test_an_answer_of_another_unit_of_another_function_or_of_another_length_is_none(unit, other, count):
    question = bytes((3, 0, 0, 0, count))
    late = frame(other, answer_to(question)) if other != unit else b""
    longer = frame(unit, answer_to(bytes((3, 0, 0, 0, count % 125 + 1))))
    assert answer_in(late + frame(unit, answer_to(bytes((4, 0, 0, 0, count)))) + longer, unit, question) is None
    assert answer_in(late + frame(unit, answer_to(question)), unit, question) == answer_to(question)


@given(unit=UNITS, code=st.integers(1, 11))
def test_a_refusal_is_an_answer(unit, code):
    assert answer_in(b"\x00" + frame(unit, bytes((0x83, code))), unit, QUESTION) == bytes((0x83, code))
    assert answer_in(frame(unit, bytes((0x84, code))), unit, QUESTION) is None


@given(unit=UNITS, count=COUNTS, bit=st.integers(0, 2100), cut=st.integers(0, 254))
def test_neither_a_flipped_bit_nor_a_cut_makes_an_answer(unit, count, bit, cut):
    question = bytes((4, 0, 0, 0, count))
    whole = bytearray(frame(unit, answer_to(question)))
    assert answer_in(bytes(whole[: cut % len(whole)]), unit, question) is None
    whole[bit // 8 % len(whole)] ^= 1 << bit % 8
    assert answer_in(bytes(whole), unit, question) is None


@given(heard=st.binary(max_size=300), unit=UNITS, count=COUNTS)
def test_whatever_is_heard_does_no_harm(heard, unit, count):
    found = answer_in(heard, unit, bytes((3, 0, 0, 0, count)))
    assert found is None or frame(unit, found) in heard
