"""The file system of a node, as the bytes that go into its flash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from bega_protocols.errors import ConfigError

BLOCK_BYTES = 4096  # an erase of an ESP32's flash
DISK_VERSION = 0x00020000  # the format that MicroPython writes itself; littlefs before 2.6 does not mount 2.1
# As MicroPython mounts it (extmod/vfs_lfsx.c): its cache is four times the unit of reading. What fits the cache is kept
# in its directory's own block.
UNIT_BYTES, CACHE_BYTES, LOOKAHEAD_BYTES = 32, 128, 32


def make_image(contents: Mapping[str, bytes], size_bytes: int) -> bytes:
    """Return a littlefs of `size_bytes` with these files ({"/lib/x.mpy": bytes}); the same files give the same bytes.

    Raises ConfigError if they do not fit.
    """
    from littlefs import LittleFS, LittleFSError

    system = LittleFS(
        block_size=BLOCK_BYTES,
        block_count=size_bytes // BLOCK_BYTES,
        disk_version=DISK_VERSION,
        read_size=UNIT_BYTES,
        prog_size=UNIT_BYTES,
        cache_size=CACHE_BYTES,
        lookahead_size=LOOKAHEAD_BYTES,
    )
    try:
        for path in sorted(contents):
            system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            with system.open(path, "wb") as file:
                file.write(contents[path])
    except LittleFSError as error:
        raise ConfigError(f"the files do not fit into {size_bytes // 1024} kB: {error}") from None
    return bytes(system.context.buffer)


def read_image(image: bytes) -> dict[str, bytes]:
    """Return the files of an image, as MicroPython would find them."""
    from littlefs import LittleFS

    system = LittleFS(block_size=BLOCK_BYTES, block_count=len(image) // BLOCK_BYTES, mount=False)
    system.context.buffer[:] = image
    system.mount()
    found = {}
    for folder, _, names in system.walk("/"):
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            with system.open(path, "rb") as file:
                found[path] = file.read()
    return found
