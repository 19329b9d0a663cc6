"""Notices to look at, signed by a city that exists in tests only; made after real ones, not their facts."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bega_kiosk.notices import Notice, write_notice

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
CITY = "timisoara"
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
