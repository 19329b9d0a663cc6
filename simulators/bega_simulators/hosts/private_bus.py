"""A D-Bus of our own: dbus-daemon as a child, on a socket that nobody else knows.

Whoever is started with DBUS_SYSTEM_BUS_ADDRESS=<address> takes it for the system bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import shutil
import signal
import tempfile
from pathlib import Path

STARTED_WITHIN_S = 5.0
ENDED_WITHIN_S = 1.0
PR_SET_PDEATHSIG = 1  # prctl(2)

# No service files, no other policy than: whoever reaches the socket may talk. The directory is for this user alone.
CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
"""


class BusMissing(Exception):
    """There is no dbus-daemon to start; the text says how to bring it."""


class PrivateBus:
    """`start` and `stop` may be repeated: the address stays, as it does when a real system bus is restarted."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="bega-bus-"))
        self.address = f"unix:path={self._directory / 'bus'}"
        self._log = self._directory / "log"
        self._daemon: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once clients may connect; raises BusMissing if dbus-daemon is not there or does not start."""
        program = shutil.which("dbus-daemon")
        if program is None:
            raise BusMissing("dbus-daemon is missing, which simulated Bluetooth needs: apt-get install dbus")
        (self._directory / "bus").unlink(missing_ok=True)  # a daemon that was killed leaves its socket behind
        configuration = self._directory / "bus.conf"
        configuration.write_text(CONFIGURATION.format(address=self.address), encoding="utf-8")
        with self._log.open("wb") as log:  # in a container it complains of limits that it may not raise, and runs
            self._daemon = await asyncio.create_subprocess_exec(
                program, f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address=1",
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        assert self._daemon.stdout
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                said = await self._daemon.stdout.readline()
        except TimeoutError:
            said = b""
        if not said:
            await self.stop()
            why = self._log.read_text(errors="replace").strip() or "it says nothing"
            raise BusMissing(f"dbus-daemon does not start ({why}); apt-get install --reinstall dbus")

    async def stop(self) -> None:
        """End the daemon, if it runs: every client loses its connection."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        with contextlib.suppress(ProcessLookupError):
            daemon.terminate()
        try:
            async with asyncio.timeout(ENDED_WITHIN_S):
                await daemon.wait()
        except TimeoutError:
            daemon.kill()
            await daemon.wait()

    async def close(self) -> None:
        """End the daemon and remove what it left on disk."""
        await self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


_libc = ctypes.CDLL(None)  # loaded before any fork: dlopen between fork and exec may deadlock


def _die_with_parent() -> None:
    """A simulator that is killed outright leaves no daemon behind (Linux)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
