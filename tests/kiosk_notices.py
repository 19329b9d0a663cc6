"""Notices to look at, signed by a city that exists in tests only; made after real ones, not their facts."""

from itertools import count

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bega_kiosk.notice_list import write_list
from bega_kiosk.notices import Notice, read_notice, write_notice
from bega_protocols.errors import WireError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = [KEY.public_key()]
CITY = "timisoara"
NUMBERS = count(1)  # of lists: each is later than all before it
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MANY = [
    *("Strada George Ardelean", "Strada Johann Wolf", "Strada Karoly Kós", "Strada Constantin Diaconovici Loga"),
    *(
        "Bulevardul 16 Decembrie 1989",
        "Calea Circumvalațiunii",
        "Piața Consiliul Europei",
        "Splaiul Tudor Vladimirescu",
    ),
    *("Strada Virgil Onițiu", "Strada Coriolan Brediceanu", "Intrarea Doinei"),
]


def public_key() -> bytes:
    """Return what the kiosk is given: the PEM of the public key."""
    return KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def notice(now_ms, **more):
    """Return a notice that begins now; `more` says otherwise."""
    said = {"id": "water-1", "city": CITY, "published_ms": now_ms, "effect": "water_stop", "is_example": True}
    said |= {"streets": ["Strada George Ardelean"], "from_ms": now_ms, "until_ms": now_ms + 8 * HOUR_MS}
    return Notice(**said | more)


def listed(messages, now_ms, number=None):
    """Return (messages, list) as a desk gives them out, with a list that names them all."""
    number = number or next(NUMBERS)
    return messages, write_list(KEY, CITY, number, number - 1, now_ms, messages)


def publish(board, message, now_ms):
    """Publish on a board as staff do at a desk: with the list that holds then."""
    held = {}
    for one in board.messages():
        said = read_notice(KEYS, CITY, one)
        if board.find(said.id) == said:
            held[said.id] = one
    try:
        said = read_notice(KEYS, CITY, message)
    except WireError:  # a stranger's
        pass
    else:
        held.pop(said.id, None)
        held |= {} if said.is_withdrawn else {said.id: message}
    last = board.listed.number if board.listed else 0
    return board.publish([message], write_list(KEY, CITY, last + 1, last, now_ms, held.values()))


def samples(now_ms):
    """Return signed notices of every length and of most kinds."""
    began_ms, tomorrow_ms = now_ms - 5 * HOUR_MS, now_ms + DAY_MS
    made = [
        notice(
            now_ms,
            id="water-many",
            streets=MANY,
            districts=["Circumvalațiunii", "Cetate"],
            from_ms=began_ms,
            until_ms=began_ms + 8 * HOUR_MS,
            reason="connection",
            who="Aquatim",
        ),
        notice(
            now_ms,
            id="road-section",
            effect="road_closed",
            streets=["Bulevardul Constantin Brâncoveanu"],
            districts=["Girocului"],
            section_from="Strada Drubeta",
            section_to="Calea Martirilor",
            from_ms=tomorrow_ms,
            until_ms=tomorrow_ms + 20 * DAY_MS,
            detour=["Strada Mureș", "Bulevardul Liviu Rebreanu"],
            can_walk=True,
            reason="works",
            who="Societatea Drumuri Municipale",
        ),
        notice(
            now_ms,
            id="tram",
            effect="transport_detour",
            is_end_known=False,
            streets=["Piața Libertății", "Strada Mihail Kogălniceanu"],
            districts=["Cetate"],
            lines=["1", "2", "4"],
            from_ms=now_ms + 3 * DAY_MS,
            until_ms=now_ms + 4 * DAY_MS,
            reason="event",
        ),
    ]
    return [write_notice(KEY, one) for one in made]
