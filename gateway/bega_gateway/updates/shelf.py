"""Bundles and rollouts on the disk: `updates/` in the state directory, each file whole or not there.

`<hardware>.bega` and `<hardware>.json`: one bundle and its rollout for each board. What is not good at a start is set
aside, and said.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bega.update_bundle import LARGEST_FILE, NAME, Bundle, check, read, write
from bega_gateway.updates.rollout import Rollout, taken_up
from bega_protocols.errors import ConfigError, WireError

log = logging.getLogger(__name__)

BUNDLE, ROLLOUT, PART, ASIDE = ".bega", ".json", ".part", ".damaged"
LARGEST_ROLLOUT = 4_000_000  # bytes: some ten thousand nodes
MOST_BOARDS = 16


class Shelf:
    """The folder. Every method that writes may raise OSError: then nothing has changed."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing yet: the disk may take nothing at the moment."""
        self._folder = folder

    def bundles(self, keys: Sequence[bytes]) -> Iterator[Bundle]:
        """Yield the bundles that are whole and that one of `keys` signed; the others are set aside."""
        for file in self._files(BUNDLE):
            try:
                bundle = read(_octets(file, LARGEST_FILE))
                check(bundle, keys, now_s=0)  # one that has expired is offered to nobody, and pulled by who has begun
                if bundle.hardware != file.stem:
                    raise ConfigError(f"it is for {bundle.hardware}")
            except (OSError, ValueError, ConfigError) as error:
                self._set_aside(file, error)
                continue
            yield bundle

    def rollouts(self, now_ms: int) -> Iterator[Rollout]:
        """Yield the rollouts as they were written last."""
        for file in self._files(ROLLOUT):
            try:
                rollout = taken_up(_octets(file, LARGEST_ROLLOUT), now_ms)
                if rollout.hardware != file.stem:
                    raise ValueError(f"it is for {rollout.hardware}")
            except (OSError, ValueError, WireError, msgspec.MsgspecError) as error:
                self._set_aside(file, error)
                continue
            yield rollout

    def keep_bundle(self, bundle: Bundle) -> None:
        """Write a bundle, for good when this returns, in place of the one for the same board."""
        self._write(bundle.hardware + BUNDLE, write(bundle.text, bundle.signature, bundle.payload))

    def keep_rollout(self, hardware: str, text: bytes) -> None:
        """Write a rollout, for good when this returns; `text` as msgspec has it."""
        self._write(hardware + ROLLOUT, text)

    def _files(self, ending: str) -> list[Path]:
        try:
            found = sorted(path for path in self._folder.iterdir() if path.suffix == ending)
        except OSError:
            return []
        return [path for path in found if NAME.fullmatch(path.stem)][:MOST_BOARDS]

    def _set_aside(self, file: Path, error: Exception) -> None:
        log.error("update set aside, publish it again file=%s error=%s", file.name, error)
        try:
            file.replace(file.with_name(file.name + ASIDE))
        except OSError as failed:
            log.warning("update cannot be set aside file=%s error=%s", file.name, failed)

    def _write(self, name: str, octets: bytes) -> None:
        self._folder.mkdir(exist_ok=True)
        part = self._folder / (name + PART)
        with part.open("wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / name)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _octets(file: Path, most: int) -> bytes:
    with file.open("rb") as opened:
        octets = opened.read(most + 1)
    if len(octets) > most:
        raise ValueError("it is too large")
    return octets
