"""What a recorded device said, as the readings that its driver makes of it. No IO, no clock.

A device that was asked is asked again by its driver's `measure`, as long as the driver asks what was asked then: only
the question tells what an answer is (an SCD41 gives its serial number in the form of a sample). Where the driver would
ask something else, because the recording began in the middle or the driver is another release's, the rest is read by
`feed`, as that of a device that talks by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bega.devices import asked, must_be_asked, wire_of
from bega_gateway.record_file import Row

if TYPE_CHECKING:
    from bega_protocols.ask import Ask
    from bega_protocols.driver import Driver
    from bega_protocols.errors import WireError
    from bega_protocols.reading import Reading

HEARD_BOTH_WAYS = ("modbus",)  # an answer does not say which registers it holds: its driver hears the question too


class Told(NamedTuple):
    """What came of some rows."""

    t_ms: int
    groups: list[list[Reading]]
    damaged: list[WireError]


class _Exchange(NamedTuple):
    """A question and what came upon it; b"" and None where there was none."""

    question: bytes
    answer: bytes | None
    t_ms: int


def retold(driver: Driver, rows: list[Row], from_ms: int) -> Iterator[Told]:
    """Yield what `driver` makes of the rows of its device; from_ms: when the recording began."""
    if must_be_asked(driver) and wire_of(type(driver)) not in HEARD_BOTH_WAYS:
        exchanges = list(_exchanges(rows))
        done = 0
        while done < len(exchanges):
            again = _measured_again(driver, exchanges[done:], from_ms)
            if again is None:
                break
            told, count = again
            yield told
            done += count
        rows = [Row(one.t_ms, "", "in", one.answer) for one in exchanges[done:] if one.answer is not None]
    both = wire_of(type(driver)) in HEARD_BOTH_WAYS
    for row in rows:
        if row.way == "in" or both:
            groups = driver.feed(row.octets, from_ms + row.t_ms)
            yield Told(row.t_ms, groups, _damage(driver))


def _measured_again(driver: Driver, exchanges: list[_Exchange], from_ms: int) -> tuple[Told, int] | None:
    """Return what one measurement gives and how many of `exchanges` it took; None if it asks for something else."""
    measurement = asked(driver).measure(from_ms + exchanges[0].t_ms)
    answer: bytes | None = None
    done = 0
    try:
        while True:
            try:
                ask = measurement.send(answer)
            except StopIteration as stop:
                last_ms = exchanges[max(0, done - 1)].t_ms
                return (Told(last_ms, stop.value or [], _damage(driver)), done) if done else None
            following = exchanges[done] if done < len(exchanges) else None
            nothing = b"" if ask.read == 0 else None
            if following is not None and _question(ask) == following.question:
                answer = nothing if following.answer is None else following.answer[_head_size(ask) :]
                done += 1
            elif following is None or not ask.write:  # what only listens and hears nothing leaves no row
                answer = nothing
            else:
                return None
    finally:
        measurement.close()
        driver.damaged.clear()


def _exchanges(rows: list[Row]) -> Iterator[_Exchange]:
    """Pair each question with what came upon it; what came without one was only listened for."""
    waiting: Row | None = None
    for row in rows:
        if row.way == "out":
            if waiting:
                yield _Exchange(waiting.octets, None, waiting.t_ms)
            waiting = row
        else:
            yield _Exchange(waiting.octets if waiting else b"", row.octets, row.t_ms)
            waiting = None
    if waiting:
        yield _Exchange(waiting.octets, None, waiting.t_ms)


def _question(ask: Ask) -> bytes:
    return _head(ask) + ask.write if ask.write else b""


def _head(ask: Ask) -> bytes:
    """Return what stands before the bytes of a Bluetooth characteristic: its number, as the line recorded it."""
    number = ask.line.get("characteristic")
    return b"" if number is None else number.to_bytes(2 if number < 1 << 16 else 16, "big")


def _head_size(ask: Ask) -> int:
    return len(_head(ask))


def _damage(driver: Driver) -> list[WireError]:
    damaged = [error for _, error in driver.damaged]
    driver.damaged.clear()
    return damaged
