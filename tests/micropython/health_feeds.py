# The watchdog is fed while every task moves, and no longer once one does not. Run as: micropython health_feeds.py
import asyncio
import sys


class FakeMachine:
    """Stands for the module `machine`: a watchdog that counts."""

    feeds = 0

    class WDT:
        def __init__(self, timeout):
            FakeMachine.timeout_ms = timeout

        def feed(self):
            FakeMachine.feeds += 1


sys.modules["machine"] = FakeMachine
import health  # noqa: E402

health.EVERY_MS = 5
now_ms = [0]


async def main():
    watched = health.Health(lambda: now_ms[0], 7000)
    watched.expect("store", 100)
    watched.expect("link", 300)
    feeding = asyncio.create_task(watched.run())
    fed = []
    for moment_ms, moves in ((50, "store"), (150, "link"), (151, ""), (160, "store"), (470, "store"), (471, "link")):
        now_ms[0] = moment_ms
        if moves:
            watched.moved(moves)
        before = FakeMachine.feeds
        await asyncio.sleep_ms(30)
        fed.append((moment_ms, watched.late(), FakeMachine.feeds > before))
    feeding.cancel()
    print(FakeMachine.timeout_ms, fed)


asyncio.run(main())
