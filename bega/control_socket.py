"""Asking the gateway that runs on this machine: a Unix socket in its state directory (bega_gateway/control.py answers).

Here, since not only the gateway's own commands ask.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bega_protocols.errors import ConfigError

NAME = "control.sock"
UPDATE_WITHIN_S = 60.0  # a bundle is on its disk by then, or the disk hangs


class NoGateway(ConfigError):
    """No gateway runs with this state: what can be done without one may be done here."""


class NoAnswer(ConfigError):
    """A gateway runs with this state, and what it answers, if anything, is no answer."""


def asked(state: Path, question: bytes, within_s: float) -> bytes:
    """Return the line that the gateway with the state in `state` answers; raises OSError, see `unanswered`."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection, short(state) as folder:
        connection.settimeout(within_s)
        connection.connect(f"{folder}/{NAME}")
        connection.sendall(question)
        with connection.makefile("rb") as answers:
            return answers.readline()


def ask_update(state: Path, question: dict[str, Any], bundle: bytes = b"") -> dict[str, Any]:
    """Ask about updates of nodes; return what is said of it. Raises ConfigError if it refuses, or none answers."""
    head = b"update " + json.dumps({**question, "bytes": len(bundle)}).encode() + b"\n"
    try:
        answer = json.loads(asked(state, head + bundle, UPDATE_WITHIN_S))
    except (OSError, ValueError) as error:
        raise unanswered(state, error) from None
    if not isinstance(answer, dict) or not {"said", "refused"} & answer.keys():
        raise NoAnswer("the gateway that runs is of another release; restart it")
    if "refused" in answer:
        raise ConfigError(str(answer["refused"]))
    return answer


def unanswered(state: Path, error: Exception) -> ConfigError:
    """Return what to tell the operator where the gateway did not answer."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
        return NoGateway(f"no gateway runs with the state in {state}; start it, or give --config as it has it")
    if isinstance(error, PermissionError):
        return ConfigError(f"{state} may not be entered: run this as root, or as the gateway's user")
    return NoAnswer(f"the gateway ended without an answer ({error}); see its log")


@contextlib.contextmanager
def short(folder: Path) -> Iterator[str]:
    """Yield another name of `folder`: the name of a socket may have 107 bytes, that of a directory 4,095."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
