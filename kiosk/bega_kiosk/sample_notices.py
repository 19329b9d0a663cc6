"""Notices of a city that does not exist, for pictures: each says on the page that it is an example.

Made after real ones of Timișoara, not their facts; signed with a key that is thrown away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bega_kiosk.notice_list import write_list
from bega_kiosk.notices import Board, Effect, Notice, write_notice
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

    def sample(name: str, effect: Effect, street: str, begins_h: int, ends_h: int, **more: Any) -> Notice:
        return Notice(
            id=f"sample-{name}",
            city=city,
            published_ms=now_ms - DAY_MS,
            effect=effect,
            streets=street.split(", "),
            from_ms=hour_ms + begins_h * HOUR_MS,
            until_ms=hour_ms + ends_h * HOUR_MS,
            is_example=True,
            **more,
        )

    water = "Strada George Ardelean, Strada Johann Wolf, Strada Virgil Onițiu"
    section = {"districts": ["Girocului"], "section_from": "Strada Drubeta", "section_to": "Calea Martirilor"}
    road = {"detour": ["Strada Mureș", "Bulevardul Liviu Rebreanu"], "can_walk": True, "reason": "works"}
    tram = {"districts": [DISTRICT], "lines": ["1", "2"], "is_end_known": False, "reason": "event"}
    return [
        sample("water", "water_stop", water, -2, 6, districts=["Circumvalațiunii", DISTRICT], reason="connection"),
        sample("road", "road_closed", "Bulevardul Constantin Brâncoveanu", 24, 21 * 24, **road | section),
        sample("tram", "transport_detour", "Piața Libertății", 0, 24, **tram),
    ]
