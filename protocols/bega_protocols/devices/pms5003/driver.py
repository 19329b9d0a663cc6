"""When a PMS5003 speaks and which readings come out."""

from bega_protocols.devices.pms5003.codec import HEAD, Dust, decode, size_of
from bega_protocols.errors import WireError
from bega_protocols.frames import Frames
from bega_protocols.reading import Reading
from bega_protocols.settings import only

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Settings


class Driver:
    """A PMS5003 in active mode: it speaks about once a second, we only listen."""

    line = "serial 9600 8N1"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._frames = Frames(HEAD, size_of)

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each data frame that `chunk` completes, oldest first."""
        return [_readings(dust) for dust in self._frames.feed(chunk, decode, self.damaged) if dust]


def _readings(dust: Dust) -> "list[Reading]":
    """Masses as they come; counts per 0.1 L are hundredths of a count per cm³."""
    return [
        Reading("pm1", dust.pm1_ugm3),
        Reading("pm2_5", dust.pm2_5_ugm3),
        Reading("pm10", dust.pm10_ugm3),
        Reading("particles_0_3", dust.over_0_3_um, -2),
        Reading("particles_0_5", dust.over_0_5_um, -2),
        Reading("particles_1", dust.over_1_um, -2),
        Reading("particles_2_5", dust.over_2_5_um, -2),
        Reading("particles_5", dust.over_5_um, -2),
        Reading("particles_10", dust.over_10_um, -2),
    ]
