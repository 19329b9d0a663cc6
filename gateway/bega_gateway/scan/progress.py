"""How far a scan is: on a terminal one line that is rewritten, elsewhere a line for each step."""

from __future__ import annotations

import shutil
from typing import TextIO


class Progress:
    """Takes what each place is busy with."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._busy: dict[str, str] = {}
        self._step: dict[str, str] = {}

    def step(self, place: str, what: str, done: int = 0, of: int = 0) -> None:
        """Say that `place` is busy with `what`, and has `done` `of` it."""
        if not self._is_terminal:
            if self._step.get(place) != what:
                self._step[place] = what
                self._print(f"{place}: {what}")
            return
        share = f" {done}/{of}" if of else ""
        self._busy[place] = f"{place}: {what}{share}"
        self._rewrite()

    def say(self, text: str) -> None:
        """Say something that stays to be read."""
        self._print(("\r\x1b[K" if self._is_terminal else "") + text)
        if self._is_terminal:
            self._rewrite()

    def done(self, place: str) -> None:
        """`place` is through."""
        self._busy.pop(place, None)
        if self._is_terminal:
            self._rewrite()

    def _rewrite(self) -> None:
        wide = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + " | ".join(self._busy.values())[:wide])
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
