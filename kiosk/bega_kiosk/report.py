"""What a citizen sends, and what the desk says of it: the messages between a kiosk and the desk, as JSON.

    city/<city>/<kiosk>/report       Report or Ask, from the kiosk
    city/<city>/<kiosk>/cmd/report   Status, from the desk: it acknowledges a report, and tells each change
    city/<city>/<kiosk>/cmd/notices  nothing but the hint that there are other notices to fetch

A report's identity is (source, boot, seq), as a record's; its *code* is what the citizen holds: whoever has it may ask
for the state and nothing else, so it cannot be guessed. Everything that arrives is untrusted, and bounded here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from bega_protocols.errors import WireError

REPORT, STATUS, HINT = "report", "cmd/report", "cmd/notices"  # the ends of the topics
# Letters and digits that nobody mistakes for others when they are read aloud or from paper: no 0 O, 1 I L, 2 Z, 5 S,
# 8 B, V beside U. Eight of them: 24^8 = 1.1e11, so that a million reports leave a guess one chance in 110,000.
ALPHABET = "34679ACDEFGHJKMNPQRTUWXY"
CODE_LETTERS = 8
LONGEST_ANSWER = 10_000  # letters
LONGEST_SHORT = 200
LARGEST_BYTES = 64_000
PERSONAL = ("person", "contact")  # answers that say who wrote it
STATES = ("received", "forwarded", "work", "done", "refused", "unknown")

Chance = Callable[[int], bytes]  # so many random bytes
Code = Annotated[str, msgspec.Meta(pattern=rf"^[{ALPHABET}]{{{CODE_LETTERS}}}\Z")]
Segment = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Kind = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,32}\Z")]
Answer = Annotated[str, msgspec.Meta(max_length=LONGEST_ANSWER)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Short = Annotated[str, msgspec.Meta(max_length=LONGEST_SHORT)]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report", tag_field="type"):
    """What was sent: a kind ("problem", "callback"), the answers by question, and when."""

    source: Segment
    boot: Number
    seq: Number
    code: Code
    kind: Kind
    language: Annotated[str, msgspec.Meta(max_length=16)]
    time_ms: Number
    time_quality: Literal[0, 2] = 0  # 2: the kiosk's clock was not set
    answers: Annotated[dict[Kind, Answer], msgspec.Meta(max_length=20)]


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask", tag_field="type"):
    """How is the report with this code?"""

    code: Code


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a report is. `number` is city hall's own, "" until there is one; `detail`: to which office, or why not.

    `is_owed`: its writer gave a name and a contact, so the law gives them an answer (OG 27/2002, articles 7 and 8).
    """

    code: Code
    state: Literal["received", "forwarded", "work", "done", "refused", "unknown"]
    number: Short = ""
    detail: Short = ""
    changed_ms: Number = 0
    is_owed: bool = False


SAID = ("code", "state", "number", "detail", "changed_ms")  # of a Status, in the order in which files keep it


def make_code(chance: Chance) -> str:
    """Return a new code. Bytes that would favour some letters are thrown away."""
    letters: list[str] = []
    fair = 256 - 256 % len(ALPHABET)
    while len(letters) < CODE_LETTERS:
        letters += [ALPHABET[byte % len(ALPHABET)] for byte in chance(CODE_LETTERS) if byte < fair]
    return "".join(letters[:CODE_LETTERS])


def spaced(code: str) -> str:
    """Return a code as people read it: in two halves."""
    return f"{code[:4]} {code[4:]}"


def read_code(text: str) -> str | None:
    """Return the code that somebody typed, with spaces and in small letters as it may be; None if it is none."""
    code = "".join(letter for letter in text.upper() if letter.isalnum())
    return code if len(code) == CODE_LETTERS and set(code) <= set(ALPHABET) else None


def encode(message: Report | Ask | Status) -> bytes:
    """Return the bytes of a message."""
    return msgspec.json.encode(message)


def read_sent(payload: bytes) -> Report | Ask:
    """Return what a kiosk sent; raises WireError if it is nothing of the kind, or too much of it."""
    message: Report | Ask = _read(payload, Report | Ask)
    return message


def read_status(payload: bytes) -> Status:
    """Return what the desk says; raises WireError if it is nothing of the kind."""
    status: Status = _read(payload, Status)
    return status


def _read(payload: bytes, kind: Any) -> Any:
    if len(payload) > LARGEST_BYTES:
        raise WireError("a message of %d bytes" % len(payload))
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("no message of a kiosk: %s" % error) from None  # its bytes may hold a name: they stay out
