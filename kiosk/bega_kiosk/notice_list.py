"""The list of the notices that hold now, signed as a whole: who leaves one out, or shows an old list, is noticed.

It names each notice by the SHA-256 of its signed message, so that the list and what it lists cannot be of two days. Its
number rises with each, whatever a clock says; its time is when a person with the city's key last said "this is all".
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

import msgspec

from bega.clock import CLOCK_FLOOR_MS
from bega.tables import Name
from bega_kiosk import signed
from bega_protocols.errors import WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLISH, PUBLIC = "/v1/notices", "/public/v1/notices"  # at the desk (notice_routes.py)
MOST_LISTED = 250
LARGEST_BYTES = 32_768  # MOST_LISTED of 67 bytes each, and room
AHEAD_MS = 120_000  # a stamp farther ahead than this comes from a clock that is wrong
DAY_MS = 86_400_000
BELIEVED_DAYS = 7  # so long a list counts after a person signed it, where a kiosk does not say otherwise

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class NoticeList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All notices of a city at one time: not what is over, and not what was withdrawn."""

    city: Name
    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    follows: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]  # the number of the list that it was made from, 0 for none
    signed_ms: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    notices: Annotated[list[Digest], msgspec.Meta(max_length=MOST_LISTED)]

    def is_good(self, now_ms: int, limit_days: int) -> bool:
        """Return whether a person said so lately enough; without a clock nobody knows."""
        return now_ms >= CLOCK_FLOOR_MS and -AHEAD_MS <= now_ms - self.signed_ms <= limit_days * DAY_MS


LIST = signed.Kind("bega notices 1", "list", NoticeList, LARGEST_BYTES)


class Given(msgspec.Struct, frozen=True):
    """Signed messages on their way, in base64."""

    notices: list[str]
    listed: str | None = msgspec.field(
        default=None, name="list"
    )  # None: from a desk, or a command, that knows of no list


def read_given(body: bytes) -> tuple[list[bytes], bytes | None]:
    """Return (notices, list) as they were signed, the list None where who sent it knows of none; raises WireError."""
    try:
        given = msgspec.json.decode(body, type=Given)
        messages = [b64decode(notice, validate=True) for notice in given.notices[: 2 * MOST_LISTED]]
        return messages, None if given.listed is None else b64decode(given.listed, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:  # the last: no base64
        raise WireError(f"these are no notices: {error}") from None


def write_given(messages: Sequence[bytes], list_message: bytes) -> bytes:
    """Return the JSON that brings signed notices and their list."""
    given = Given([b64encode(message).decode() for message in messages], b64encode(list_message).decode())
    return msgspec.json.encode(given)


def digest(message: bytes) -> str:
    """Return the name that a list has for a signed notice."""
    return sha256(message).hexdigest()


def write_list(
    key: Ed25519PrivateKey, city: str, number: int, follows: int, signed_ms: int, messages: Iterable[bytes]
) -> bytes:
    """Return the signed message of a list of these signed notices; raises WireError for more than MOST_LISTED."""
    names = sorted({digest(message) for message in messages})
    if len(names) > MOST_LISTED:
        raise WireError(f"a list has at most {MOST_LISTED} notices, and these are {len(names)}")
    listed = NoticeList(city=city, number=number, follows=follows, signed_ms=signed_ms, notices=names)
    return signed.sign(key, LIST.signed_as, msgspec.json.encode(listed))


def read_list(keys: Sequence[Ed25519PublicKey], city: str, message: bytes) -> NoticeList:
    """Return a list of this city; raises WireError."""
    return signed.read(keys, LIST, city, message)
