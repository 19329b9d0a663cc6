"""The boot number rises at each start, whatever the clock says and wherever the power fails."""

import contextlib
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.outbox import boot as boot_module
from bega.outbox.boot import COPIES, raise_boot
from bega_protocols.errors import ConfigError

NOW_S = 1_795_300_000


class PowerCut(BaseException):
    pass


def test_first_boot_is_the_clock_and_every_later_one_is_higher(tmp_path):
    assert raise_boot(tmp_path, NOW_S) == NOW_S
    assert raise_boot(tmp_path, NOW_S) == NOW_S + 1
    assert raise_boot(tmp_path, NOW_S + 100) == NOW_S + 100


@given(clocks=st.lists(st.integers(0, 2**40), min_size=2, max_size=6))
def test_it_rises_whatever_the_clock_does(tmp_path_factory, clocks):
    directory = tmp_path_factory.mktemp("boot")
    boots = [raise_boot(directory, clock) for clock in clocks]
    assert boots == sorted(set(boots))


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"1795400000 00000000\n", b"9" * 5000, b"1 2 3", b"x y"])
def test_one_damaged_copy_costs_nothing(tmp_path, copy, damage):
    first = raise_boot(tmp_path, NOW_S)
    (tmp_path / copy).write_bytes(damage)
    assert raise_boot(tmp_path, 0) == first + 1
    (tmp_path / copy).unlink()
    assert raise_boot(tmp_path, 0) == first + 2


def test_two_damaged_copies_begin_anew_with_the_clock_and_it_is_said(tmp_path, caplog):
    raise_boot(tmp_path, NOW_S)
    assert "damaged" not in caplog.text
    for copy in COPIES:
        (tmp_path / copy).write_bytes(b"junk")
    assert raise_boot(tmp_path, NOW_S + 5) == NOW_S + 5
    assert f"both copies are damaged; the clock gives a new one boot={NOW_S + 5}" in caplog.text


def test_a_copy_on_a_sector_that_cannot_be_read_costs_nothing(tmp_path, monkeypatch):
    first = raise_boot(tmp_path, NOW_S)
    read = boot_module.Path.read_text

    def failing(self, **options):
        if self.name == COPIES[0]:
            raise OSError(5, "Input/output error")
        return read(self, **options)

    monkeypatch.setattr(boot_module.Path, "read_text", failing)
    assert raise_boot(tmp_path, 0) == first + 1


@given(cut=st.integers(0, 9))
def test_a_power_cut_at_any_step_leaves_a_boot_that_was_never_given(tmp_path_factory, cut):
    """The steps that reach the disk: write and flush, fsync, replace, fsync of the directory, for each copy."""
    directory = tmp_path_factory.mktemp("boot")
    given_out = [raise_boot(directory, NOW_S)]
    steps = 0
    sync, replace = os.fsync, boot_module.Path.replace

    def step(work, *arguments):
        nonlocal steps
        steps += 1
        if steps > cut:
            raise PowerCut
        return work(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: step(sync, descriptor))
        patch.setattr(boot_module.Path, "replace", lambda self, target: step(replace, self, target))
        with contextlib.suppress(PowerCut):
            given_out.append(raise_boot(directory, 0))
    given_out.append(raise_boot(directory, 0))
    assert given_out == sorted(set(given_out))
    assert given_out[-1] <= NOW_S + 2


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "state").write_text("a file where a directory should be")
    with pytest.raises(ConfigError, match=r"boot number cannot be kept .*state_dir"):
        raise_boot(tmp_path / "state", NOW_S)


def test_both_copies_are_synced_before_it_is_given(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(1) or sync(descriptor))
    raise_boot(tmp_path, NOW_S)
    assert len(synced) == 4, "each copy, and after each its directory"
    assert (tmp_path / COPIES[0]).read_bytes() == (tmp_path / COPIES[1]).read_bytes()


@contextlib.contextmanager
def refusing(number: int, *names: str):
    """Have opening for writing fail with an error `number`, but for what exists already if it is a full disk."""
    opening = boot_module.Path.open

    def refuse(self, mode="r", **options):
        in_place = mode == "r+b" and number == errno.ENOSPC and self.exists()
        if mode != "r" and self.name.startswith(names or COPIES) and not in_place:
            raise OSError(number, os.strerror(number))
        return opening(self, mode, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boot_module.Path, "open", refuse)
        patch.setattr(boot_module.time, "sleep", lambda seconds: None)
        yield


@pytest.mark.parametrize("copy", COPIES)
def test_one_copy_that_cannot_be_written_costs_nothing(tmp_path, copy):
    first = raise_boot(tmp_path, NOW_S)
    with refusing(errno.EIO, copy):
        assert raise_boot(tmp_path, 0) == first + 1
    assert raise_boot(tmp_path, 0) == first + 2


def test_full_disk_has_room_for_the_number_in_its_old_place(tmp_path):
    first = raise_boot(tmp_path, NOW_S)
    with refusing(errno.ENOSPC):
        assert raise_boot(tmp_path, 0) == first + 1
        assert raise_boot(tmp_path, 0) == first + 2
    assert sorted(file.name for file in tmp_path.iterdir()) == list(COPIES)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ENOSPC])
def test_disk_that_takes_nothing_leaves_the_time_as_the_number_and_it_is_said(tmp_path, number, caplog):
    with refusing(number):
        assert raise_boot(tmp_path, NOW_S) == NOW_S
    assert "boot number cannot be kept, the clock stands in for it" in caplog.text


@pytest.mark.parametrize(("last", "clock"), [(NOW_S, NOW_S), (NOW_S + 100, NOW_S), (0, 5)])
def test_without_a_disk_and_without_a_clock_no_number_is_given_twice(tmp_path, last, clock):
    """It would be last + 1 at each start: records of two starts would have one identity, and readers drop one."""
    if last:
        raise_boot(tmp_path, last)
    with refusing(errno.EROFS), pytest.raises(ConfigError, match="the clock cannot stand in"):
        raise_boot(tmp_path, clock)


def test_two_starts_on_a_disk_that_takes_nothing_are_in_two_seconds(tmp_path):
    slept = []
    # Undone in the order in which it was done: a fixture's would end last, and leave all later tests without sleep.
    with refusing(errno.EROFS), pytest.MonkeyPatch.context() as patch:
        patch.setattr(boot_module.time, "sleep", slept.append)
        raise_boot(tmp_path, NOW_S)
    assert slept == [1]
