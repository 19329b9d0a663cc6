"""What every driver and every simulator of a device looks like, for the type checker and for the reader.

Nothing here runs on a board: hosts load `devices.<name>.driver.Driver` by
name, and a driver needs no base class.
"""

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any, Protocol

    from bega_protocols.ask import Ask
    from bega_protocols.errors import WireError
    from bega_protocols.reading import Reading

    Settings = Mapping[str, Any]  # the device's table of the configuration; under "profile" the parsed register map
    Aes = Callable[[bytes], Callable[[bytes], bytes]]  # key -> function that enciphers one block of 16 bytes
    Exchange = Generator[Ask, "bytes | None", "list[list[Reading]]"]
    Command = Generator[Ask, "bytes | None", bool]

    class Driver(Protocol):
        """Bytes to readings, for one device; no IO, no clock.

        `now_ms` is for ages and pauses: it only ever rises, from an arbitrary start, and says no time of day.
        """

        line: str  # kind of wire, then its usual settings: "serial 9600 8N1", "mbus 2400 8E1", "modbus", "ble"
        damaged: list[tuple[int, WireError]]  # (offset in the stream, what was wrong); the host empties it
        attributes: dict[str, str]  # texts and dates that a device tells of itself

        def __init__(self, settings: Settings, state: bytes = b"", aes: Aes | None = None) -> None:
            """Raise ConfigError if `settings` cannot be: a key missing, unknown, or of the wrong kind."""

        def feed(self, chunk: bytes, now_ms: int) -> list[list[Reading]]:
            """Return one list of readings for each frame that `chunk` completes; never raise on wire bytes."""

    class AskedDriver(Driver, Protocol):
        """A driver whose device speaks only when asked."""

        def measure(self, now_ms: int) -> Exchange:
            """Yield each Ask, be sent its answer or None, and return the groups of readings."""

    class ActingDriver(Driver, Protocol):
        """A driver that can also change something in its device; nothing of it happens by itself."""

        actions: tuple[str, ...]  # their names

        def act(self, name: str, value: int | None) -> Command:
            """Yield each Ask, be sent its answer or None; return whether the device took it, as far as it tells.

            value: None where the action takes none.

            Raises ConfigError, before anything is sent, if there is no such action or it cannot take this value.
            """

    class PeriodicDriver(Driver, Protocol):
        """A driver whose device has a rhythm of its own: between two values it gives none, and is well."""

        period_ms: int  # 0: as often as it is asked

    class CompensatedDriver(Driver, Protocol):
        """A driver whose device weighs in what another one measures: the pressure, say."""

        def beside(self, readings: list[Reading]) -> None:
            """Take note of what a device at the same place has measured just now; what it cannot use it leaves."""

    class AdvertisedDriver(Driver, Protocol):
        """A driver on a Bluetooth line, which finds its device by this address."""

        address: bytes  # six bytes, in the order in which an address is written

        @staticmethod
        def recognises(chunk: bytes) -> bool:
            """Return whether a row of advertising structures is of a device like this; never raise."""

    class StatefulDriver(Driver, Protocol):
        """A driver that needs something kept over a restart, such as a replay counter."""

        def state(self) -> bytes:
            """Return what to give back at the next start; stored in the commit that stores the record."""
