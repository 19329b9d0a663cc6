# When a node says its status: at connects, on changes, each hour, and while its oldest record is stuck.
# Run as: micropython link_status.py
import asyncio
import json

import link

now_ms = [1000]


said = []


class Way:
    async def send(self, kind, payload):
        said.append((now_ms[0], kind, json.loads(payload)))


class Ring:
    held = 0
    drops = ()

    def dropped(self):
        return list(self.drops)

    def held_count(self):
        return self.held

    def holds(self):
        return []


class Store:
    ring = Ring()

    def pack(self, held):
        pass


def nothing(*_):
    pass


tested = link.Link(Way(), Store(), None, lambda: now_ms[0], lambda: {"firmware": "test"}, None, nothing)


async def said_at(moments_ms):
    said.clear()
    for now_ms[0] in moments_ms:
        await tested._send_status()
    return [moment_ms for moment_ms, kind, _ in said if kind == "status"]


async def main():
    tested.say_status()
    print(await said_at([2000, 3000, 3602000 - 1, 3602000, 3603000, 7202000]))
    Ring.drops = [[1, 2, 3]]
    print(await said_at([7203000, 7204000]))
    Ring.held = 1
    print(await said_at([7204000 + number * 10000 for number in range(8)]))


asyncio.run(main())
