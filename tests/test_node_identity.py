"""What lies in the authority's identities/ID when a board comes: brought, made anew, or refused in a sentence.

The board is a table of files: over a real one's cable all of this is in test_provision.py.
"""

from pathlib import Path

import pytest
from cryptography import x509

from bega_firmware import node_identity
from bega_firmware.ca_folder import CaFolder
from bega_protocols.errors import ConfigError
from tests.test_ca_revoke import DAY_MS, NAME, NOW_MS, ask

NODE, CHIP = "air-7", "a1b2c3"


class Board:
    """Its files, and the port at which it is."""

    port = "/dev/ttyUSB0"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def listing(self) -> dict[str, int]:
        return {path: len(content) for path, content in self.files.items()}

    def get(self, path: str, is_secret: bool = False) -> bytes:
        return self.files[path]

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content


@pytest.fixture
def city(tmp_path) -> Path:
    assert ask(tmp_path / "ca", "init", "--name", NAME) == 0
    return tmp_path / "ca"


def brought(board: Board, city: Path, *, again: bool = False, now_ms: int = NOW_MS) -> node_identity.Identity:
    return node_identity.bring(board, CaFolder(city), NODE, CHIP, again, now_ms)


def serial_on(board: Board) -> str:
    return f"{x509.load_der_x509_certificate(board.files['/tls/node.der']).serial_number:x}"


def test_identity_that_was_revoked_before_it_was_brought_goes_to_no_board(city):
    """It was called new and good, and no broker let the node in."""
    assert ask(city, "issue", NODE) == 0
    assert ask(city, "revoke", NODE) == 0
    board = Board()
    with pytest.raises(ConfigError, match="air-7 was revoked: --again"):
        brought(board, city)
    assert board.files == {}
    identity = brought(board, city, again=True)
    assert CaFolder(city).revocation_of(x509.load_der_x509_certificate(board.files["/tls/node.der"])) is None
    assert identity.serial == serial_on(board)


def test_identity_that_ended_before_it_was_brought_is_made_anew(city):
    assert ask(city, "issue", NODE, "--days", 1) == 0
    board = Board()
    identity = brought(board, city, now_ms=NOW_MS + 5 * DAY_MS)
    assert identity.serial == serial_on(board)
    assert len(CaFolder(city).issued(NODE)) == 2


def test_identity_of_a_gateway_goes_to_no_board(city):
    assert ask(city, "issue", NODE, "--for", "gateway") == 0
    before = sorted((city / "identities" / NODE).iterdir())
    with pytest.raises(ConfigError, match="holds no node's identity"):
        brought(Board(), city)
    assert sorted((city / "identities" / NODE).iterdir()) == before


def test_renewed_certificate_is_brought_when_it_is_asked_for(city):
    board = Board()
    node_identity.clear(brought(board, city))
    first = serial_on(board)
    assert ask(city, "renew", NODE) == 0
    assert not brought(board, city).is_new
    assert brought(board, city, again=True).serial == serial_on(board) != first
    assert len(CaFolder(city).issued(NODE)) == 2, "the renewed one, and no third"


def test_board_whose_issuing_key_was_stolen_gets_another_identity(city):
    board = Board()
    node_identity.clear(brought(board, city))
    first = serial_on(board)
    assert ask(city, "issuing", "--stolen", 1) == 0
    assert brought(board, city).is_new
    assert serial_on(board) != first
