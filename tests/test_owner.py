"""Files of root in the state of the service, and the other way round. Owners are real where the test is root's."""

import os

import pytest

from bega_gateway.owner import require_owner
from bega_protocols.errors import ConfigError
from tests.test_gateway_command import refused

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def state(tmp_path):
    place = tmp_path / "state"
    place.mkdir()
    return place


@needs_root
def test_root_spoils_no_state_of_another_user(state, tmp_path):
    os.chown(state, NOBODY, NOBODY)
    said = refused(tmp_path)
    assert said == (
        f"gateway.state_dir: {state} belongs to nobody, who could not open what root writes there;"
        " run it as that user: sudo -u nobody ..."
    )
    assert list(state.iterdir()) == []


@needs_root
@pytest.mark.parametrize("name", ["spool.db", "spool.db-wal", "feed.db", "boot.a"])
def test_a_file_that_root_left_is_named_with_what_to_do(name, state):
    (state / name).touch(0o600)
    os.chown(state, NOBODY, NOBODY)
    said = f"{state}/{name} belongs to root, not to nobody, who runs this: sudo chown -R nobody: {state}"
    with pytest.raises(ConfigError, match=said):
        require_owner(state, NOBODY)
    os.chown(state / name, NOBODY, NOBODY)
    require_owner(state, NOBODY)


@pytest.mark.parametrize("name", ["spool.db.damaged-1", "notes.txt", "control.sock"])
def test_other_files_are_no_reason_to_stop(name, state):
    (state / name).touch(0o600)
    require_owner(state, os.geteuid())
    require_owner(state, os.geteuid() + 1)


def test_what_is_shared_with_a_group_is_left_to_whoever_opens_it(state):
    (state / "spool.db").touch()
    (state / "spool.db").chmod(0o660)
    require_owner(state, os.geteuid() + 1)
    require_owner(state / "none", 0)
