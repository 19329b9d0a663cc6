"""Notices of a city that does not exist, for pictures: each says on the page that it is an example.

Made after real ones of Timișoara, not their facts; signed with a key that is thrown away.
"""

from __future__ import annotations

from pathlib import Path

from bega_kiosk.notice_list import write_list
from bega_kiosk.notices import Board, Notice, write_notice
from bega_kiosk.signed import new_key, read_private_key, read_public_keys

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DISTRICT = "Cetate"  # what is near, where a kiosk does not say where it is


def put_samples(board: Path, city: str, now_ms: int) -> Path:
    """Write a board of samples that a desk has given just now; return the public key that signed them."""
    secret = board.with_name("sample.key")
    public = new_key(secret)
    key = read_private_key(secret)
    secret.unlink()
    messages = [write_notice(key, notice) for notice in samples(city, now_ms)]
    known = Board(board, read_public_keys([public]), city, lambda: now_ms)
    known.take_all(messages, write_list(key, city, 1, 0, now_ms, messages))
    return public


def samples(city: str, now_ms: int) -> list[Notice]:
    """Return one that is so now, one of days to come, and one whose end nobody knows."""
    hour_ms = now_ms - now_ms % HOUR_MS
    return [
        Notice(
            id="sample-water",
            city=city,
            published_ms=now_ms - DAY_MS,
            effect="water_stop",
            streets=["Strada George Ardelean", "Strada Johann Wolf", "Strada Virgil Onițiu"],
            districts=["Circumvalațiunii", DISTRICT],
            from_ms=hour_ms - 2 * HOUR_MS,
            until_ms=hour_ms + 6 * HOUR_MS,
            reason="connection",
            is_example=True,
        ),
        Notice(
            id="sample-road",
            city=city,
            published_ms=now_ms - DAY_MS,
            effect="road_closed",
            streets=["Bulevardul Constantin Brâncoveanu"],
            districts=["Girocului"],
            section_from="Strada Drubeta",
            section_to="Calea Martirilor",
            from_ms=hour_ms + DAY_MS,
            until_ms=hour_ms + 21 * DAY_MS,
            detour=["Strada Mureș", "Bulevardul Liviu Rebreanu"],
            can_walk=True,
            reason="works",
            is_example=True,
        ),
        Notice(
            id="sample-tram",
            city=city,
            published_ms=now_ms - HOUR_MS,
            effect="transport_detour",
            streets=["Piața Libertății"],
            districts=[DISTRICT],
            lines=["1", "2"],
            from_ms=hour_ms,
            until_ms=hour_ms + DAY_MS,
            is_end_known=False,
            reason="event",
            is_example=True,
        ),
    ]
