"""Every frame that others captured from real devices is some device's own, and reads as they say it reads.

The frames stay outside the repository, in the folder that BEGA_VECTORS names; `outside` in a device's vectors.json
says which are its own and what they read (the header of test_devices.py has the form).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.devices import load_driver, with_profile
from tests.contract import CAPTURED, NO_CAPTURED, captured, claimed_files, exact, hear, is_stream
from tests.test_devices import on_micropython

NOT_FRAMES = (".md", ".xml")  # what the frames read, in words and by another program
CASES = [pytest.param(case, id=f"{case.device}-{case.name}") for case in captured()]

pytestmark = pytest.mark.skipif(not CAPTURED.is_dir(), reason=NO_CAPTURED)
each_case = pytest.mark.parametrize("case", CASES)


@each_case
def test_captured_frame_reads_as_its_owner_says(case):
    driver = load_driver(case.device, case.settings)
    groups = hear(driver, case.chunks)
    assert not driver.damaged
    assert groups or case.groups == 0
    if case.groups is not None:
        assert len(groups) == case.groups
    heard = {(reading.quantity, reading.part): reading for group in groups for reading in group}
    for quantity, part, value, differs_by in case.reads:
        assert abs(exact(heard[quantity, part]) - value) <= differs_by, (quantity, part)


@each_case
@given(data=st.data())
def test_captured_frame_comes_through_any_chunking_and_noise(case, data):
    expected = hear(load_driver(case.device, case.settings), case.chunks)
    whole = b"".join(case.chunks)
    driver = load_driver(case.device, case.settings)
    hear(driver, [data.draw(st.binary(max_size=40)), whole])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8))) if is_stream(case.device) else []
    heard = hear(driver, [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)])
    values = [[reading[:4] for reading in group] for group in expected]
    if case.groups != 0:
        assert [group for group in ([reading[:4] for reading in group] for group in heard) if group in values]


@pytest.mark.parametrize("device", sorted({case.device for case in captured()}))
def test_captured_frames_read_the_same_on_micropython(device, tmp_path):
    cases = [
        {
            "name": case.name,
            "settings": with_profile(case.settings),
            "chunks": [chunk.hex() for chunk in case.chunks],
            "groups": [list(map(list, group)) for group in hear(load_driver(device, case.settings), case.chunks)],
        }
        for case in captured()
        if case.device == device
    ]
    said = on_micropython({"device": device, "stream": is_stream(device), "cases": cases}, tmp_path)
    assert f"{len(cases)} vectors hold" in said


def test_every_captured_file_belongs_to_a_device():
    frames = {file for file in CAPTURED.rglob("*") if file.is_file() and file.suffix not in NOT_FRAMES}
    assert not sorted(str(file.relative_to(CAPTURED)) for file in frames - claimed_files())
