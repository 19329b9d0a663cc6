"""The agent as a child of the pages: begun with them, begun again when it dies, ended with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys

from bega.clock import mono_s
from bega_kiosk.config import Config

log = logging.getLogger("bega.kiosk")

PARENT = "BEGA_PARENT"  # in the agent's environment: the process that it ends with
AGAIN_AFTER_S = 5.0
LIVED_S = 60.0  # an agent that ends after so long is news, whatever ended the one before
LOOK_EVERY_S = 1.0
STOP_S = 2.0


async def kept_running(config: Config) -> None:
    """Run the agent of this kiosk for ever; it ends with this task, whatever it ends of. The pages go on without it."""
    said = ""
    while True:
        begun_s = mono_s()
        why = await _run(config)
        if why != said or mono_s() - begun_s > LIVED_S:
            log.warning("agent ended, begun again every %g s %s", AGAIN_AFTER_S, why)
        said = why
        await asyncio.sleep(AGAIN_AFTER_S)


async def parent_ended() -> None:
    """Return when the kiosk that began this agent is no more, killed perhaps; never where nobody named one.

    Two agents of one kiosk would end each other's session at the broker for ever.
    """
    parent = os.environ.get(PARENT, "")
    while not parent or str(os.getppid()) == parent:  # noqa: ASYNC110 - a process has no event for it
        await asyncio.sleep(LOOK_EVERY_S)


async def _run(config: Config) -> str:
    """Run the agent once; return how it ended."""
    try:
        child = await asyncio.create_subprocess_exec(*command(config), env={**os.environ, PARENT: str(os.getpid())})
    except OSError as error:  # no memory, no room for a process
        return f"error={error.strerror}"
    try:
        return f"exit={await child.wait()}"
    finally:
        await _end(child)


def command(config: Config) -> list[str]:
    """Return the command that runs the agent. Files of certificates are named on it, none of their content is."""
    values = {
        "kiosk.name": config.kiosk.name,
        "kiosk.city": config.kiosk.city,
        "kiosk.state_dir": config.kiosk.state_dir,
        "reports.mqtt": config.reports.mqtt,
        "reports.ca_file": config.reports.ca_file,
        "reports.cert_file": config.reports.cert_file,
        "reports.key_file": config.reports.key_file,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]
    return [sys.executable, "-m", "bega", "kiosk", "agent", *(part for value in given for part in ("--set", value))]


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
