"""When an SML meter speaks and which readings come out."""

from bega_protocols.checks import crc16_kermit, crc16_x25
from bega_protocols.devices.sml_meter.codec import HEAD, Push, decode, size_of
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.frames import Frames
from bega_protocols.reading import Reading
from bega_protocols.settings import only

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Settings

CHECKS = {"x25": crc16_x25, "kermit": crc16_kermit}


class Driver:
    """A meter that pushes SML through its optical port: every one to four seconds, we only listen.

    settings: `crc` ("x25"; "kermit" for a meter all of whose files are damaged otherwise)
    """

    line = "serial 9600 8N1"
    is_households = True

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "crc")
        crc = settings.get("crc", "x25")
        if not isinstance(crc, str) or crc not in CHECKS:
            raise ConfigError("crc must be x25 or kermit, not %r" % (crc,))
        self._check = CHECKS[crc]
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._frames = Frames(HEAD, size_of)

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each file that `chunk` completes, oldest first; `attributes` are the last one's."""
        groups = []
        for push in self._frames.feed(chunk, self._decode, self.damaged):
            if push.readings:
                self.attributes.clear()
                self.attributes.update(push.attributes)
                groups.append(push.readings)
        return groups

    def _decode(self, whole: bytes) -> Push:
        return decode(whole, self._check)
