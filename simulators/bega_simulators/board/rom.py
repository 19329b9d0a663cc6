"""The ROM bootloader: what the chip answers while it is held in download mode or its flash is blank.

The chip itself (its registers, its identity, loading a program into its RAM) is the program `esp32-mock-bootloader`,
run as a process: it imports esptool, which is GPL, so nothing here imports it. Its flash lies in its memory only, so
commands on the flash are answered here, from the board's own flash file, byte by byte what then boots.

Spec: Espressif, "Serial Protocol" of esptool's documentation. A request is 0, opcode, length of the data (16 bits),
checksum (32), data; an answer 1, opcode, length, value, data, status. All words are little-endian.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from bega_protocols.errors import ConfigError
from bega_simulators.board.line import LOOK_AGAIN_S, SerialLine
from bega_simulators.board.slip import Frames, framed

SECTOR = 4096
SLOW_READ_BYTES = 64  # of READ_FLASH_SLOW, whatever it asks for
QUEUED_PACKETS = 256  # more than a loader sends before it waits for an answer
PIECE_BYTES = 65536
ACKNOWLEDGED_WITHIN_S = 3.0  # each piece of a flash that is read
FAILED, INVALID, BAD_CHECKSUM = 1, 0x05, 0x07  # status, and its reasons
CHECKSUM_SEED = 0xEF
MAC_WORDS = (0x3FF5A004, 0x3FF5A008)  # EFUSE_BLK0_RDATA1 and 2 of an ESP32: the MAC, last four bytes first
# EFUSE_BLK3_RDATA6 and 7, the end of the block that is its user's (ESP32 TRM 20.3.2.1): zeros from the factory. Here
# they say that the board brings its interpreter, to whoever would write one.
USER_WORDS, STATEMENT = (0x3FF5A090, 0x3FF5A094), b"BEGA-SIM"

FLASH_BEGIN, FLASH_DATA, FLASH_END = 0x02, 0x03, 0x04
MEM_END, SYNC, READ_REG = 0x06, 0x08, 0x0A
SYNC_ANSWERS, SYNC_VALUE = 8, 0x20120707  # of the ROM; a stub's value is 0, by which the loader knows it
READ_FLASH_SLOW = 0x0E
FLASH_DEFL_BEGIN, FLASH_DEFL_DATA, FLASH_DEFL_END = 0x10, 0x11, 0x12
SPI_FLASH_MD5 = 0x13
ERASE_FLASH, ERASE_REGION, READ_FLASH = 0xD0, 0xD1, 0xD2
LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")
WAITING = b"rst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\nwaiting for download\r\n"


class Refused(Exception):
    """What the loader asked for cannot be; it is answered with a status that says so."""


class Flash:
    """The flash as the loader's commands see it, on the board's file. Written through: a power cut keeps the rest."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._size = os.fstat(self._file).st_size
        self._place = self._end = 0
        self._inflate: zlib._Decompress | None = None

    def close(self) -> None:
        os.close(self._file)

    def read(self, start: int, size: int) -> bytes:
        self._check(start, size)
        return os.pread(self._file, size, start)

    def erase(self, start: int, size: int) -> None:
        """Erase the sectors that these bytes lie in."""
        self._check(start, size)
        first, last = start - start % SECTOR, min(self._size, start + size + -(start + size) % SECTOR)
        os.pwrite(self._file, b"\xff" * (last - first), first)

    def erase_all(self) -> None:
        self.erase(0, self._size)

    def begin(self, size: int, start: int, compressed: bool) -> None:
        """Erase room for `size` bytes, as the ROM does up front; they follow."""
        if size:
            self.erase(start, size)
        self._place, self._end = start, start + size
        self._inflate = zlib.decompressobj() if compressed else None

    def take(self, block: bytes) -> None:
        """Write the next bytes of what was begun. What goes beyond it is refused, unless it fills up the last block."""
        if self._inflate is not None:
            block = self._inflate.decompress(block, self._end - self._place + 1)
        room = self._end - self._place
        if block[room:].strip(b"\xff"):
            raise Refused
        os.pwrite(self._file, block[:room], self._place)
        self._place += len(block[:room])

    def _check(self, start: int, size: int) -> None:
        if start + size > self._size:
            raise Refused


class Chip:
    """The chip's ROM apart from its flash: the program that plays it, and the connection to it."""

    def __init__(self, scratch: Path) -> None:
        """scratch: a folder in which the program may note that it runs."""
        self._scratch = scratch
        self._program: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._said = Frames()

    async def start(self) -> None:
        """Start it, or let it begin anew: whatever ran in its RAM is gone. Raises ConfigError if it cannot be."""
        await self.stop()
        self._program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "esp32_mock_bootloader.cli", "run", "--daemon-child", "--exit-on-disconnect"),
            *("--chip", "esp32", "--port", "0"),
            env={**os.environ, "ESP32_MOCK_BOOTLOADER_STATE_DIR": str(self._scratch)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._said = Frames()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", await self._port(self._program))

    async def stop(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._program is not None:
            with contextlib.suppress(ProcessLookupError):
                self._program.kill()
            await self._program.wait()
        self._program = self._reader = self._writer = None

    def ask(self, packet: bytes) -> None:
        if self._writer is not None:
            self._writer.write(framed(packet))

    async def answers(self) -> AsyncIterator[bytes]:
        """Yield each packet that it says, over all its resets."""
        while True:
            octets = await self._reader.read(PIECE_BYTES) if self._reader is not None else b""
            for packet in self._said.feed(octets):
                yield packet
            if not octets:
                await asyncio.sleep(LOOK_AGAIN_S)  # it is being reset

    async def _port(self, program: asyncio.subprocess.Process) -> int:
        assert program.stdout is not None
        said = b""
        while line := await program.stdout.readline():
            if found := LISTENING.search(line):
                return int(found[1])
            said = line
        raise ConfigError(f"the ROM (program esp32-mock-bootloader) did not start: {said.decode().strip()}")


class DownloadMode:
    """One stay of the board in its ROM."""

    def __init__(self, line: SerialLine, flash: Path, mac: bytes, scratch: Path) -> None:
        """mac: the chip's own address, six bytes, which the loader reads as the firmware does; scratch: see Chip."""
        self._line = line
        self._path = flash
        words = struct.unpack("<IIII", bytes(reversed(mac)) + bytes(2) + STATEMENT)
        self._registers = dict(zip(MAC_WORDS + USER_WORDS, words, strict=True))
        self._chip = Chip(scratch)
        self._asked = Frames()
        self._packets: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_PACKETS)
        self._has_stub = self._has_written = False
        self._has_started = asyncio.Event()

    async def run(self, waits: Callable[[], None]) -> None:
        """Answer until the loader leaves the ROM for the program in the flash; `waits` is called once it listens.

        Raises ConfigError if the ROM's program is not there.
        """
        self.begin()
        tasks = [asyncio.create_task(work()) for work in (self._serve, self._listen, self._hand_back)]
        try:
            await self._line.write(WAITING)
            await self._chip.start()
            self._has_started.set()
            waits()
            await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._chip.stop()
            self.end()

    def begin(self) -> None:
        """Take the flash."""
        self._flash = Flash(self._path)

    def end(self) -> None:
        self._flash.close()

    async def answer(self, packet: bytes) -> bool:
        """Answer one request; return whether it leaves the ROM."""
        if len(packet) < 8 or packet[0] != 0:
            return False  # noise, an answer's echo, or what was meant for another program
        opcode, data = packet[1], packet[8 : 8 + struct.unpack_from("<H", packet, 2)[0]]
        if opcode in (FLASH_END, FLASH_DEFL_END):
            return await self._finish(opcode, data)
        if opcode == SYNC:
            for _ in range(SYNC_ANSWERS):
                await self._say(opcode, value=0 if self._has_stub else SYNC_VALUE)
        elif opcode == READ_FLASH:
            await self._stream(data)
        elif command := self._commands().get(opcode):
            await self._obey(opcode, command, packet, data)
        elif opcode == READ_REG and data[:4] in (struct.pack("<I", word) for word in self._registers):
            await self._say(opcode, value=self._registers[struct.unpack_from("<I", data)[0]])
        else:
            if opcode == MEM_END and len(data) >= 8:
                stays, entry = struct.unpack_from("<II", data)
                self._has_stub = self._has_stub or (not stays and entry != 0)
            self._chip.ask(packet)
        return False

    async def _serve(self) -> None:
        """Answer until the ROM is left; to synchronise at once, or the loader would reset a chip that is starting."""
        while True:
            packet = await self._packets.get()
            if packet[1:2] != bytes([SYNC]):
                await self._has_started.wait()
            if await self.answer(packet):
                return

    async def _listen(self) -> None:
        while True:
            for packet in self._asked.feed(await self._line.read()):
                await self._packets.put(packet)

    async def _hand_back(self) -> None:
        """Say what the chip says, frame by frame: it must not fall between the halves of one of ours."""
        async for packet in self._chip.answers():
            await self._line.write(framed(packet))

    def _commands(self) -> dict[int, Callable[[bytes], bytes]]:
        stubs = {ERASE_FLASH: self._erase_flash, ERASE_REGION: self._erase_region} if self._has_stub else {}
        return {
            FLASH_BEGIN: lambda data: self._begin(data, compressed=False),
            FLASH_DEFL_BEGIN: lambda data: self._begin(data, compressed=True),
            FLASH_DATA: self._take,
            FLASH_DEFL_DATA: self._take,
            SPI_FLASH_MD5: self._md5,
            READ_FLASH_SLOW: self._read_slowly,
            **stubs,
        }

    async def _obey(self, opcode: int, command: Callable[[bytes], bytes], packet: bytes, data: bytes) -> None:
        if opcode in (FLASH_DATA, FLASH_DEFL_DATA) and checksum(data[16:]) != packet[4]:
            return await self._say(opcode, reason=BAD_CHECKSUM)
        try:
            await self._say(opcode, command(data))
        except (Refused, struct.error, zlib.error):
            await self._say(opcode, reason=INVALID)

    def _begin(self, data: bytes, compressed: bool) -> bytes:
        size, _, _, start = struct.unpack_from("<IIII", data)
        self._flash.begin(size, start, compressed)
        return b""

    def _take(self, data: bytes) -> bytes:
        (size,) = struct.unpack_from("<I", data)
        self._has_written = True
        self._flash.take(data[16 : 16 + size])
        return b""

    def _md5(self, data: bytes) -> bytes:
        digest = hashlib.md5(self._flash.read(*struct.unpack_from("<II", data)), usedforsecurity=False)
        return digest.digest() if self._has_stub else digest.hexdigest().encode()

    def _read_slowly(self, data: bytes) -> bytes:
        start, _ = struct.unpack_from("<II", data)
        return self._flash.read(start, SLOW_READ_BYTES)

    def _erase_flash(self, data: bytes) -> bytes:
        self._flash.erase_all()
        return b""

    def _erase_region(self, data: bytes) -> bytes:
        self._flash.erase(*struct.unpack_from("<II", data))
        return b""

    async def _stream(self, data: bytes) -> None:
        """READ_FLASH, of the stub only: pieces, each acknowledged by how much has come; then the MD5 of all."""
        try:
            start, size, piece_bytes, ahead = struct.unpack_from("<IIII", data)
            content = self._flash.read(start, size)
            if not self._has_stub or not 0 < piece_bytes <= SECTOR or not ahead:
                raise Refused
        except (Refused, struct.error):
            return await self._say(READ_FLASH, reason=INVALID)
        await self._say(READ_FLASH)
        sent = had = 0
        while had < size:
            while sent < size and sent - had < ahead * piece_bytes:
                await self._line.write(framed(content[sent : min(sent + piece_bytes, size)]))
                sent = min(sent + piece_bytes, size)
            try:
                acknowledged = await asyncio.wait_for(self._packets.get(), ACKNOWLEDGED_WITHIN_S)
            except TimeoutError:
                return None
            if len(acknowledged) != 4:
                return None  # it asks for something else: this reading is given up
            had = struct.unpack("<I", acknowledged)[0]
        await self._line.write(framed(hashlib.md5(content, usedforsecurity=False).digest()))
        return None

    async def _finish(self, opcode: int, data: bytes) -> bool:
        """FLASH_END, FLASH_DEFL_END: 0 asks for a reset, 1 for the program in the flash.

        A reset that the stub makes finds the chip's strapping as it was: it is the ROM again. What follows a write is
        esptool's way to end that, and the stub stays; after it esptool pulls RTS. A port without RTS is left by
        `esptool run`, which asks with nothing written before.
        """
        await self._say(opcode)
        has_written, self._has_written = self._has_written, False
        if not self._has_stub or (data[:1] == b"\1" and not has_written):
            return True
        if data[:4] == bytes(4):
            self._has_stub = False
            await self._chip.start()
        return False

    async def _say(self, opcode: int, data: bytes = b"", value: int = 0, reason: int = 0) -> None:
        status = bytes([FAILED if reason else 0, reason]) + (b"" if self._has_stub else bytes(2))
        body = data + status
        await self._line.write(framed(struct.pack("<BBHI", 1, opcode, len(body), value) + body))


def checksum(block: bytes) -> int:
    """Return the protocol's checksum: all bytes and its seed, XORed."""
    check = CHECKSUM_SEED
    for octet in block:
        check ^= octet
    return check
