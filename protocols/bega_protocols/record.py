"""A record: what one device said at one time. Node store, uplink, spool and message all carry it."""

from collections import namedtuple

SYNCHRONISED, ESTIMATED, UNKNOWN = 0, 1, 2

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    from bega_protocols.reading import Reading

    class Record(NamedTuple):
        """Identity is (source, boot, seq), never the clock.

        `time_ms` is Unix time in ms, or None while `time_quality` is UNKNOWN:
        readers then use the time of arrival, and mark it.
        """

        source: str
        boot: int
        seq: int
        device: str
        time_ms: int | None
        time_quality: int
        readings: list[Reading]

else:
    Record = namedtuple("Record", ("source", "boot", "seq", "device", "time_ms", "time_quality", "readings"))


def next_boot(last: int, unix_s: int) -> int:
    """Return the number of the boot that begins now: it rises at each start, whatever the clock says."""
    return max(last + 1, unix_s)
