"""The cable to a board: its files, its prompt and its console, by mpremote's own transport (MIT).

The raw REPL is MicroPython's (docs.micropython.org, "The MicroPython Interactive Interpreter Mode", section "Raw Mode
and Raw-paste Mode"). A port is a device (/dev/ttyUSB0), socket://HOST:PORT or rfc2217://HOST:PORT.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterator
from types import TracebackType

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from bega.clock import mono_s
from bega_firmware.cable_faults import no_answer, no_port, pulled, refusal, too_slow
from bega_protocols.errors import ConfigError

BAUD = 115200  # of the console of every stock interpreter
RAW_REPL = b"raw REPL; CTRL-B to exit\r\n"
STOP = b"\r\x03\x01"  # a program ends by Ctrl-C, Ctrl-A is the raw REPL
SOFT_RESET = END = b"\x04"
STOPPED_WITHIN_S, ASK_AGAIN_S, QUIET_S, LOOK_AGAIN_S = 12.0, 2.0, 0.1, 0.01
BYTE_WITHIN_S = 3.0  # of what the transport waits for byte by byte
PIECE_BYTES = 1024  # a whole number of AES blocks
CBC = 2  # cryptolib's number for it
# Neither Ctrl-C nor a soft reset stops an ESP32's watchdog, but who makes it anew sets its time. So it does not bite
# who works at the prompt, and it restarts a node whose cable was pulled there.
WATCHDOG = """
try:
 import machine
 machine.WDT(timeout=%d)
except Exception:
 pass
"""
WATCHDOG_S, FEED_EVERY_S = 120.0, 20.0
# A restart by us is no crash: the counts of starts go, since five in a row are a node in safe mode (node/starts.py); a
# version on trial has back the start that this one takes (node/pick.py), else the third cable would end it; and a new
# configuration whose trial we cut off is tried again (node/choice.py).
FORGIVE = """
import os, binascii
def is_there(path):
 try:
  os.stat(path)
  return True
 except OSError:
  return False
try:
 if is_there("/state/starts"):
  os.remove("/state/starts")
 if is_there("/config.trial") and not is_there("/config.new"):
  os.rename("/config.trial", "/config.new")
 with open("/state/slot", "rb") as f:
  text, _, check = f.read().rpartition(b" ")
 row = text.split(b" ")
 if int(check, 16) == binascii.crc32(text) and row[1] != b"-":
  row[1] = b"%d" % (int(row[1]) + 1)
  text = b" ".join(row)
  with open("/state/slot~", "wb") as f:
   f.write(b"%s %08x" % (text, binascii.crc32(text)))
  os.rename("/state/slot~", "/state/slot")
except (OSError, ValueError, IndexError):
 pass
"""
RESTART = "import machine\nmachine.reset()"
LISTING = """
import os
def walk(folder):
 for row in os.ilistdir(folder or "/"):
  path = folder + "/" + row[0]
  if row[1] & 0x4000:
   walk(path)
  else:
   print(row[3], path)
walk("")
"""
FORMAT = """
import os, vfs, esp32
place = esp32.Partition.find(esp32.Partition.TYPE_DATA, label="vfs")[0]
try:
 vfs.umount("/")
except OSError:
 pass
vfs.VfsLfs2.mkfs(place)
vfs.mount(vfs.VfsLfs2(place), "/")
os.chdir("/")
"""


class CableError(ConfigError):
    """A sentence: what happened at which port, and what to do. traceback: the board's own words, if it has any."""

    def __init__(self, why: str, traceback: str = "") -> None:
        super().__init__(why)
        self.traceback = traceback


class Cable:
    """A board at a port. The program on it runs until the first thing is asked of the board, and again at the end."""

    def __init__(self, port: str, baud: int = BAUD) -> None:
        """Opens nothing yet."""
        self.port = port
        self.reset_cause: int | None = None  # of the start whose program was stopped: ours is a soft reset
        self._baud = baud
        self._transport: SerialTransport | None = None
        self._is_stopped = False  # its program, by us
        self._is_at_prompt = False
        self._fed_s, self._watchdog_s = 0.0, 0.0

    def __enter__(self) -> Cable:
        """Open the port; the program goes on. Raises CableError."""
        try:
            self._transport = SerialTransport(self.port, baudrate=self._baud, timeout=BYTE_WITHIN_S)
        except (TransportError, OSError, ValueError):  # ValueError: no such kind of URL
            raise CableError(no_port(self.port)) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the program that was stopped start again, and close."""
        if self._is_stopped:
            with contextlib.suppress(CableError):
                self.restart()
        if self._transport is not None:
            with contextlib.suppress(OSError, ValueError):
                self._transport.close()  # it lowers DTR and RTS in the order in which no board is reset
            with contextlib.suppress(OSError, ValueError):
                self._transport.serial.close()
            self._transport = None

    def run(self, source: str, within_s: float = 10.0) -> str:
        """Run MicroPython on the board, its program being stopped, and return what it prints.

        The heap is a fresh one at the first call, and shared by those that follow. Raises CableError: with the board's
        traceback if that is what came of it, without if there was no answer within `within_s`.
        """
        self._come_to_prompt()
        self._feed(within_s)
        return self._exec(source, within_s)

    def listing(self) -> dict[str, int]:
        """Return the size of every file, by its path from / on."""
        rows = [line.partition(" ") for line in self.run(LISTING, 30).splitlines()]
        return {path: int(size) for size, _, path in rows}

    def get(self, path: str, is_secret: bool = False) -> bytes:
        """Return what is in a file. is_secret: it passes the cable so that whoever logs its console learns nothing."""
        key, first = secrets.token_bytes(16), secrets.token_bytes(16)  # of AES, block size 16
        sealed = f"\nimport cryptolib\nseal = cryptolib.aes({key!r}, {CBC}, {first!r}).encrypt" if is_secret else ""
        self.run(f"import binascii\nf = open({path!r}, 'rb'){sealed}")
        octets = "seal(b + bytes(-len(b) % 16))" if is_secret else "b"
        ask = f"b = f.read({PIECE_BYTES})\nprint(len(b), binascii.b2a_base64({octets}).decode() if b else '')"
        content, size = b"", 0
        while True:
            count, _, text = self.run(ask).partition(" ")
            if count == "0":
                break
            size += int(count)
            content += binascii.a2b_base64(text)
        self.run("f.close()")
        if is_secret and content:
            opened = Cipher(AES(key), modes.CBC(first)).decryptor()
            content = (opened.update(content) + opened.finalize())[:size]
        return content

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole or not at all: under another name, compared by its hash, and renamed."""
        part = f"{path}~"
        folders = [path[:at] for at in range(1, len(path)) if path[at] == "/"]
        made = "".join(f"try:\n os.mkdir({folder!r})\nexcept OSError:\n pass\n" for folder in folders)
        self.run(f"import os, binascii, hashlib\n{made}f = open({part!r}, 'wb')")
        for at in range(0, len(content), PIECE_BYTES):
            piece = binascii.b2a_base64(content[at : at + PIECE_BYTES], newline=False)
            self.run(f"_ = f.write(binascii.a2b_base64({piece!r}))")
        self.run("f.close()")
        if self.hash_of(part) != hashlib.sha256(content).hexdigest():
            raise CableError(f"{path} did not arrive at {self.port} as it was sent: again, and with another cable")
        self.run(f"os.rename({part!r}, {path!r})")

    def hash_of(self, path: str) -> str:
        """Return the SHA-256 of a file, in hex: the board reads it, and it does not pass the cable."""
        pieces = f"b = f.read({PIECE_BYTES})\nwhile b:\n h.update(b)\n b = f.read({PIECE_BYTES})\n"
        begin = f"import hashlib, binascii\nh = hashlib.sha256()\nf = open({path!r}, 'rb')\n"
        return self.run(f"{begin}{pieces}f.close()\nprint(binascii.hexlify(h.digest()).decode())", 60).strip()

    def remove(self, *paths: str) -> None:
        """Remove files, those that are there."""
        steps = "".join(f"try:\n os.remove({path!r})\nexcept OSError:\n pass\n" for path in paths)
        self.run(f"import os\n{steps}")

    def set_clock(self, unix_ms: int) -> None:
        """Set the chip's clock, which outlives a reset and no power cut."""
        moment = time.gmtime(unix_ms // 1000)
        fields = (*moment[:3], moment.tm_wday, *moment[3:6], unix_ms % 1000 * 1000)
        self.run(f"import machine\nmachine.RTC().datetime({fields!r})")

    def make_file_system(self) -> None:
        """Make an empty file system in the place of what is there; only who was asked for it calls this."""
        self.run(FORMAT, 120)

    def hand_over(self, for_s: float) -> SerialTransport:
        """Return mpremote's transport at the prompt for people; the watchdog waits so long for who types there."""
        self._come_to_prompt()
        self._set_watchdog(for_s)
        try:
            self._wire.exit_raw_repl()
        except OSError as error:
            raise CableError(pulled(self.port, error)) from None
        self._is_at_prompt = False
        return self._wire

    def restart(self) -> None:
        """Reset the chip: its program starts again. What it says from then on can be read by `lines`."""
        self._come_to_prompt()
        try:
            self._exec(FORGIVE, 10)
        except CableError as error:
            if not error.traceback:
                raise  # the cable; a board that only has no memory for it is restarted all the same
        try:
            self._wire.exec_raw_no_follow(RESTART)
        except TransportError:
            raise CableError(no_answer(self.port, b"", "to be restarted")) from None
        except OSError as error:
            raise CableError(pulled(self.port, error)) from None
        self._is_stopped = self._is_at_prompt = False

    def lines(self, for_s: float | None = None) -> Iterator[str]:
        """Yield what the running program says, line by line, for so long; it is not stopped. None: for ever."""
        end_s = None if for_s is None else mono_s() + for_s
        unfinished = b""
        while end_s is None or mono_s() < end_s:
            *whole, unfinished = (unfinished + self._read()).split(b"\n")
            yield from (line.decode("utf-8", "replace").rstrip("\r") for line in whole)
            unfinished = unfinished[-PIECE_BYTES:]
        if unfinished:
            yield unfinished.decode("utf-8", "replace")

    @property
    def _wire(self) -> SerialTransport:
        assert self._transport is not None, "a Cable is opened by `with`"
        return self._transport

    def _come_to_prompt(self) -> None:
        """Stop the program and give the prompt a fresh heap: the one of a node at work has no room for anybody."""
        if self._is_at_prompt:
            return
        try:
            self._call(STOP, "")
            self._is_stopped = True
            self._set_watchdog(WATCHDOG_S)  # now: the program's own may be of five seconds
            if self.reset_cause is None:
                self.reset_cause = self._cause()
            self._call(SOFT_RESET, "after it was reset")
        except OSError as error:
            raise CableError(pulled(self.port, error)) from None
        self._is_at_prompt = True

    def _call(self, keys: bytes, when: str) -> None:
        """Type `keys` until the raw REPL says that it is there, its prompt yet to be read."""
        began_s, said = mono_s(), b""
        while True:
            self._type(keys)
            keys = STOP  # a start-up file holds it, or a file system that cannot be read
            heard, asked_s = b"", mono_s()
            while RAW_REPL not in heard and mono_s() - asked_s < ASK_AGAIN_S:
                heard += self._read()
            said = (said + heard)[-PIECE_BYTES:]
            if RAW_REPL in heard and self._is_quiet():
                self._type(b"\x01")
                if self._until(RAW_REPL, ASK_AGAIN_S).endswith(RAW_REPL):
                    self._wire.in_raw_repl = True
                    return
            if mono_s() - began_s > STOPPED_WITHIN_S:
                raise CableError(no_answer(self.port, said, when, self._ask_rom()))

    def _is_quiet(self) -> bool:
        """Read what still comes; return whether it ended, and no program runs again."""
        began_s = quiet_s = mono_s()
        while mono_s() - quiet_s < QUIET_S:
            if self._read():
                quiet_s = mono_s()
            if mono_s() - began_s > ASK_AGAIN_S:
                return False
        return True

    def _type(self, keys: bytes) -> None:
        self._wire.serial.write(keys)

    def _ask_rom(self) -> bytes:
        """Return what comes back when a ROM is asked to synchronise (esptool's serial protocol, "Initial Sync")."""
        body = b"\x07\x07\x12\x20" + 32 * b"\x55"
        for _ in range(4):
            self._type(b"\xc0\x00\x08" + len(body).to_bytes(2, "little") + bytes(4) + body + b"\xc0")
        heard, asked_s = b"", mono_s()
        while mono_s() - asked_s < 0.5:
            heard += self._read()
        return heard

    def _cause(self) -> int | None:
        try:
            return int(self._exec("import machine\nprint(machine.reset_cause())", 5))
        except (CableError, ValueError):  # no room for it, or no such chip
            return None

    def _until(self, ending: bytes, within_s: float) -> bytes:
        """Return what comes up to `ending`, nothing behind it being read; or what came within that time.

        mpremote's own looks at the time in pauses alone, and a program that prints makes none.
        """
        heard, asked_s = bytearray(), mono_s()
        while not heard.endswith(ending) and mono_s() - asked_s < within_s:
            heard += self._read(1)
        return bytes(heard)

    def _read(self, most: int | None = None) -> bytes:
        """Return what has come; b"" after a moment in which nothing did."""
        serial = self._wire.serial
        try:
            if not serial.in_waiting:
                time.sleep(LOOK_AGAIN_S)
            waiting = min(serial.in_waiting, most or PIECE_BYTES)
            return bytes(serial.read(waiting)) if waiting else b""
        except OSError as error:
            raise CableError(pulled(self.port, error)) from None

    def _feed(self, within_s: float) -> None:
        wanted_s = max(WATCHDOG_S, within_s + FEED_EVERY_S)
        if wanted_s > self._watchdog_s or mono_s() - self._fed_s > FEED_EVERY_S:
            self._set_watchdog(wanted_s)

    def _set_watchdog(self, for_s: float) -> None:
        self._exec(WATCHDOG % int(for_s * 1000), 10)
        self._fed_s, self._watchdog_s = mono_s(), for_s

    def _exec(self, source: str, within_s: float) -> str:
        try:
            self._wire.exec_raw_no_follow(source)
            said = self._until(END, within_s)
            wrong = self._until(END, BYTE_WITHIN_S) if said.endswith(END) else b""
        except TransportError:
            wrong = b""
        except OSError as error:
            self._is_at_prompt = self._is_stopped = False
            raise CableError(pulled(self.port, error)) from None
        except KeyboardInterrupt:
            self._is_at_prompt = False  # it is still at work: who puts things back on the way out stops it first
            raise
        if not wrong.endswith(END):
            self._is_at_prompt = False  # whatever it does: the next one stops it again
            raise CableError(too_slow(self.port, within_s))
        if len(wrong) > 1:
            text = wrong[:-1].decode("utf-8", "replace").strip()
            raise CableError(refusal(self.port, text), text)
        return str(said[:-1].decode("utf-8", "replace").replace("\r\n", "\n"))
