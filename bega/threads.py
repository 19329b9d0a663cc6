"""Threads that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class UnwaitedThreads(ThreadPoolExecutor):
    """An event loop's default executor whose work is left behind at the end, a thread for each piece.

    asyncio connects and looks up names in threads, and at the end waits for all of them: with a name server or a
    broker that does not answer, that takes half a minute, and a process that is told to stop has two seconds.
    A ThreadPoolExecutor by name only, because asyncio takes no other.
    """

    def submit(
        self, work: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """Begin `work` in a thread of its own."""
        outcome: Future[Result] = Future()

        def run() -> None:
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                outcome.set_result(work(*args, **kwargs))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the threads to themselves; they end with the process."""
