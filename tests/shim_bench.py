"""What the tests of the virtual chip share: a few lines of MicroPython on the shims and the simulator's peripherals."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bega_simulators.board
from bega_simulators.board.peripherals import PWRON_RESET, AirPeripherals

SHIM = Path(bega_simulators.board.__file__).parent / "shim"
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
UARTS = ("uart1", "uart2")
LIMIT_S = 20


class Bench:
    """One chip; `run` gives it a program, `reboot` lets it begin again with what a reset leaves."""

    def __init__(self, *sensors: str, seed: int = 1, flash: Path | None = None) -> None:
        self.peripherals = AirPeripherals(seed, dict, sensors)
        if flash:
            self.peripherals.insert_flash(flash)
            self.peripherals.power_on(PWRON_RESET)

    def run(self, program: str, meanwhile: Callable[[AirPeripherals], Any] | None = None) -> Any:
        """Return what the program printed as its last line, in JSON, or None if a reset ended it.

        meanwhile(peripherals) is awaited, if it is a coroutine function, once the program printed "go".
        """
        return asyncio.run(self.running(program, meanwhile))

    def reboot(self, cause: int | None = None) -> None:
        """Reset, as the program or the bench asked for it, or with this cause."""

        async def rest() -> int:
            return await self.peripherals.rest()

        self.peripherals.power_on(asyncio.run(rest()) if cause is None else cause)

    async def running(self, program: str, meanwhile: Callable[[AirPeripherals], Any] | None = None) -> Any:
        """See run."""
        control, control_end = socket.socketpair()
        wires = {uart: socket.socketpair() for uart in UARTS}
        ends = {"control": control_end, **self.peripherals.listen(), **{uart: far for uart, (_, far) in wires.items()}}
        for _, far in wires.values():
            far.setblocking(False)
        fds = {name: end.fileno() for name, end in ends.items()}
        child = await asyncio.create_subprocess_exec(
            *(str(MICROPYTHON), "-X", "heapsize=120wk", "-c", "import _board\n" + program),
            env={"MICROPYPATH": f"{SHIM}:.frozen", "BEGA_BOARD_FDS": json.dumps(fds)},
            pass_fds=list(fds.values()),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for end in ends.values():
            end.close()
        works = [asyncio.create_task(self._answer(control))]
        works += [asyncio.create_task(self.peripherals.serial(uart, near)) for uart, (near, _) in wires.items()]
        works.append(asyncio.create_task(self._pull_the_plug(child)))
        said: list[str] = []
        try:
            async with asyncio.timeout(LIMIT_S):
                while line := (await child.stdout.readline()).decode().strip():
                    said.append(line)
                    if line == "go" and meanwhile:
                        outcome = meanwhile(self.peripherals)
                        if asyncio.iscoroutine(outcome):
                            await outcome
                await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            control.close()
        if self.peripherals.reset_asked:
            return None
        assert child.returncode == 0, said
        return json.loads(said[-1])

    async def _answer(self, control: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=control)
        while line := await reader.readline():
            try:
                answer = {"ok": self.peripherals.answer(json.loads(line))}
            except OSError as error:
                answer = {"errno": error.errno, "text": error.strerror}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _pull_the_plug(self, child: asyncio.subprocess.Process) -> None:
        while not self.peripherals.reset_asked:  # noqa: ASYNC110 - as the board does
            await asyncio.sleep(0.01)
        child.kill()
