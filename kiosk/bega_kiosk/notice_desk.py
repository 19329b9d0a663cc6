"""What who publishes asks of a desk and hands to it: each change of the notices is a new list, signed here.

The city's key is where a person is, and on no desk. So the next list is made here, from the list that the desk gives:
that one is believed by its signature, and by its number, which is never behind the last one that was signed with this
key (FILE.number beside it). A desk that gives an old list is found out by the person, before anything is signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx

from bega_kiosk.feed import FAILURES
from bega_kiosk.notice_feed import asked, require_list
from bega_kiosk.notice_list import PUBLIC, PUBLISH, NoticeList, digest, read_given, read_list, write_list
from bega_kiosk.notices import Notice, read_notice
from bega_protocols.errors import ConfigError, WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ANSWER_S = 10.0
LONGEST_SAID = 200  # bytes of why a desk refuses
TRIES = 3  # where two people publish in one moment


class Known(NamedTuple):
    """What holds now, as it was signed: by id, and the list that says so."""

    notices: dict[str, tuple[Notice, bytes]]
    listed: NoticeList | None


def read_known(keys: Sequence[Ed25519PublicKey], city: str, body: bytes) -> Known:
    """Return what a desk gave out; raises WireError if a list is not the city's, or a notice of it is missing.

    Without a list, on a desk that was just brought up to date, every notice holds that was not withdrawn.
    """
    messages, list_message = read_given(body)
    if list_message is None:
        require_list(None)
    listed = read_list(keys, city, list_message) if list_message else None
    names = {*listed.notices} if listed else {digest(message) for message in messages}
    held = {}
    for message in messages:
        if digest(message) in names:
            notice = read_notice(keys, city, message)
            if not notice.is_withdrawn:
                held[notice.id] = (notice, message)
    if listed is not None and len(held) < len(names):
        raise WireError(f"of the {len(names)} notices of list {listed.number} {len(names) - len(held)} are missing")
    return Known(held, listed)


def fetch_known(desk: str) -> bytes:
    """Return what a desk gives out; raises ConfigError."""
    url = desk.rstrip("/") + PUBLIC
    try:
        return asyncio.run(asked(desk))
    except FAILURES as error:
        why = str(error) or type(error).__name__
        raise ConfigError(f"{url} does not answer ({why}); is the desk running? Nothing was published") from None


def post(desk: str, body: bytes) -> bool:
    """Hand notices and their list to a desk; return False where another list came meanwhile; raises ConfigError."""
    url = desk.rstrip("/") + PUBLISH
    try:
        with httpx.stream("POST", url, content=body, timeout=ANSWER_S, trust_env=False) as answer:
            said = next(answer.iter_raw(), b"")[:LONGEST_SAID]  # a sentence: no more of it is read
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"{url} does not answer ({error}); was it published? `confirm` shows the list") from None
    if answer.status_code == httpx.codes.CONFLICT:
        return False
    if answer.status_code != httpx.codes.CREATED:
        why = "".join(letter for letter in said.decode("utf-8", "replace").strip() if letter.isprintable())
        raise ConfigError(f"{url} refuses it: {why or answer.status_code}")
    return True


def next_list(key: Ed25519PrivateKey, city: str, known: Known, last: int, now_ms: int) -> tuple[int, bytes]:
    """Return (number, signed message) of the list that follows, of what is known and not over."""
    follows = known.listed.number if known.listed else 0
    number = max(follows, last) + 1  # beyond `last` where a desk came back from a backup: kiosks have that list
    held = [message for notice, message in known.notices.values() if not notice.is_over(now_ms)]
    return number, write_list(key, city, number, follows, now_ms, held)


def require_taken(keys: Sequence[Ed25519PublicKey], city: str, messages: Sequence[bytes], list_message: bytes) -> None:
    """Raise WireError for what a desk would refuse: it may be days until somebody has carried it there."""
    for message in messages:
        read_notice(keys, city, message)
    read_list(keys, city, list_message)


def last_number(key: Path) -> int:
    """Return the number of the last list that was signed with this key on this machine, 0 for none."""
    try:
        said = _number_file(key).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return 0
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_number_file(key)} cannot be read: {error}") from None
    if not said.isdecimal() or len(said) > 15:
        raise ConfigError(f"{_number_file(key)} holds no number; put that of the desk's list there, see `confirm`")
    return int(said)


def note_number(key: Path, number: int) -> None:
    """Remember it; raises ConfigError."""
    try:
        _number_file(key).write_text(f"{number}\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(
            f"{_number_file(key)} cannot be written: {error.strerror}; list {number} was signed"
        ) from None


def _number_file(key: Path) -> Path:
    return key.with_name(key.name + ".number")
