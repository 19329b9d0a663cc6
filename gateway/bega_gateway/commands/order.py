"""A command's payload -> what it asks for; and the bytes that its signature covers. Pure.

A payload is one JSON object: `id`, `expires`, the keys of its verb, and `sig`
where the gateway wants one. It has no numbers with a point: 21.5 is written as
text, so that every program writes the same bytes of it for the signature.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec

LARGEST_BYTES = 8_192
LONGEST_NAME = 64
ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
LARGEST_NUMBER = 2**53
DEEPEST = 32  # objects and lists within each other: what reads and writes them deeper must not end in a defect

Named = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]


class Verb(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands beside `id` and `expires`."""


class Read(Verb, frozen=True, kw_only=True):
    """Measure a device now; its record goes the usual way."""

    device: Named


class Write(Verb, frozen=True, kw_only=True):
    """Set a register or a coil that the configuration lists under the device."""

    device: Named
    name: Named
    value: bool | int | Annotated[str, msgspec.Meta(max_length=40)]


class Act(Verb, frozen=True, kw_only=True):
    """Have a device do one of the actions that the configuration lists."""

    device: Named
    action: Named
    value: int | None = None


class Blink(Verb, frozen=True, kw_only=True):
    """Let a light blink: the gateway's, or that of a node."""

    node: Named | None = None
    for_s: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10


class RestartLine(Verb, frozen=True, kw_only=True):
    """Close a line and open it again."""

    line: Named


class ConfigureNode(Verb, frozen=True, kw_only=True):
    """Hand a node its configuration."""

    node: Named
    configuration: dict[str, Any]


class RestartNode(Verb, frozen=True, kw_only=True):
    """Have a node start anew."""

    node: Named


class Revoke(Verb, frozen=True, kw_only=True):
    """Go by a newer list of revoked certificates: signed by the authority itself, so that who sends it matters less."""

    list: str


class Status(Verb, frozen=True, kw_only=True):
    """Say how the gateway is."""


VERBS: dict[str, type[Verb]] = {
    "read": Read,
    "write": Write,
    "act": Act,
    "blink": Blink,
    "restart_line": RestartLine,
    "configure_node": ConfigureNode,
    "restart_node": RestartNode,
    "revoke": Revoke,
    "status": Status,
}


class Refused(Exception):
    """A command that is not done, with the reason in words and without any name of a device."""

    def __init__(self, why: str, status: str = "refused", kind: str = "malformed", ledger: str = "") -> None:
        """kind: one of a few words, by which refusals are counted; ledger: the one that it must name to be taken."""
        super().__init__(why)
        self.why = why
        self.status = status
        self.kind = kind
        self.ledger = ledger


class Order(NamedTuple):
    """A command that is well formed; nothing is said of whether it may be done."""

    id: str
    verb: str
    expires_s: int  # Unix time
    keys: Verb
    signature: str  # hex; '' without one
    canonical: bytes  # what the signature covers
    digest: bytes  # what tells this command from another with the same id; the ledger that it names is no part of it
    ledger: str = ""  # the one that it names

    def said(self) -> str:
        """Return what it asks for, for the audit trail: without a node's configuration, which may hold a key.

        A list of revoked certificates is left out as well, for its size.
        """
        keys = {k: value for k, value in msgspec.to_builtins(self.keys).items() if k not in ("configuration", "list")}
        return json.dumps(keys, sort_keys=True)


def canonical(topic: str, payload: dict[str, Any]) -> bytes:
    """Return the bytes that `sig` covers: the topic, a line feed, and the object without `sig`.

    JSON with keys in order, no spaces, and everything beyond ASCII escaped. The topic names gateway and verb, so that
    a command for one gateway is none for another.
    """
    rest = {key: value for key, value in payload.items() if key != "sig"}
    return f"{topic}\n{json.dumps(rest, sort_keys=True, separators=(',', ':'))}".encode()


def id_of(payload: bytes) -> str:
    """Return the id in a payload that need not be good otherwise, '' if there is none."""
    try:
        id_ = _object(payload).get("id")
    except Refused:
        return ""
    return id_ if isinstance(id_, str) and ID.fullmatch(id_) else ""


def understand(root: str, topic: str, payload: bytes) -> Order:
    """Return the command that came on `topic`; raises Refused.

    root: "city/<city>/<gateway>/cmd/" of this gateway
    """
    if not topic.startswith(root):
        raise Refused("it is for another gateway")
    verb = topic.removeprefix(root)
    if verb not in VERBS:
        raise Refused(f"no such verb; there are {', '.join(VERBS)}")
    whole = _object(payload)
    keys = dict(whole)
    id_, expires_s, signature = keys.pop("id", None), keys.pop("expires", None), keys.pop("sig", "")
    ledger = keys.pop("ledger", "")
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise Refused("id must be text of 1 to 64 letters, digits and _.:-")
    if type(expires_s) is not int or not 0 < expires_s < LARGEST_NUMBER:
        raise Refused("expires must be a time in whole Unix seconds")
    if not isinstance(signature, str):
        raise Refused("sig must be text")
    if not isinstance(ledger, str):
        raise Refused("ledger must be text")
    try:
        asked = msgspec.convert(keys, VERBS[verb])
    except (msgspec.ValidationError, OverflowError) as error:
        raise Refused(_in_words(error)) from None
    meant = canonical(topic, {key: value for key, value in whole.items() if key != "ledger"})
    digest = hashlib.sha256(meant).digest()
    return Order(id_, verb, expires_s, asked, signature, canonical(topic, whole), digest, ledger)


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > LARGEST_BYTES:
        raise Refused(f"it is longer than {LARGEST_BYTES} bytes")
    try:
        whole = json.loads(
            payload.decode(),
            object_pairs_hook=_without_twins,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_whole,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise Refused("it is no JSON in UTF-8") from None
    if not isinstance(whole, dict):
        raise Refused("it is no JSON object")
    if _is_deeper(whole, DEEPEST):
        raise Refused(f"it is nested more than {DEEPEST} deep")
    try:
        json.dumps(whole, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, escaped: JSON lets it pass
        raise Refused("it is no JSON in UTF-8") from None
    return whole


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether `value` has more than so many objects and lists within each other."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("a key stands there twice")
    return found


def _no_float(text: str) -> NoReturn:
    raise Refused("a number with a point or an exponent is written as text")


def _whole(text: str) -> int:
    if len(text) > len(str(LARGEST_NUMBER)):
        raise Refused("a number is too large")
    return int(text)


def _in_words(error: Exception) -> str:
    """Return what is wrong, by key; a name that somebody else chose is not repeated."""
    said = str(error)
    if "unknown field" in said:
        return "it has a key that its verb does not know"
    return said.replace("Object", "it")[:200]
