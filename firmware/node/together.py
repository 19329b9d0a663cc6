"""Tasks that stand and fall together."""

import asyncio


async def until_first_ends(*works):
    """Run `works` side by side; when one of them ends, end the others and raise what ended it."""
    ended = asyncio.Event()
    causes = []

    async def watch(work):
        try:
            await work
        except Exception as error:  # whatever it is, the others must not go on without this one
            causes.append(error)
        ended.set()

    tasks = [asyncio.create_task(watch(work)) for work in works]
    try:
        await ended.wait()
    finally:
        for task in tasks:
            task.cancel()
    raise causes[0] if causes else OSError("the connection ended")
