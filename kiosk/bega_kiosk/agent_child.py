"""The agent as a child of the pages: begun with them, begun again when it dies, ended with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys

from bega_kiosk.config import Config

log = logging.getLogger("bega.kiosk")

AGAIN_AFTER_S = 5.0
STOP_S = 2.0


async def kept_running(config: Config) -> None:
    """Run the agent of this kiosk for ever; it ends with this task."""
    while True:
        child = await asyncio.create_subprocess_exec(*command(config))
        try:
            code = await child.wait()
            log.warning("agent ended, begun again exit=%d", code)
        finally:
            await _end(child)
        await asyncio.sleep(AGAIN_AFTER_S)


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
