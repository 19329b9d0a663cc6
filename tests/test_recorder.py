"""The public and the indices hear of a node's record when it is stored: one that is refused comes again."""

import asyncio

from bega.outbox.spool import Head, SpoolFull
from bega_gateway.config import Config, Gateway, Uplink
from bega_gateway.recorder import Recorder
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record

NOW_MS = 1_795_300_000_000
RECORD = Record("air-1", 7, 5, "pms", NOW_MS, SYNCHRONISED, [Reading("pm2_5", 1)])

CONFIG = Config(
    gateway=Gateway(name="gw", city="t"),
    uplink=Uplink(brokers=["mqtt://broker"]),
    feed=None,
    lines={},
    devices={},
    nodes={},
    edge={},
)


class Answering:
    """A spool that answers when and what it is told to."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []

    def add(self, *_, **__) -> asyncio.Future[None]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]


def test_a_record_of_a_node_is_shown_once_when_it_is_stored_however_often_it_came():
    async def work():
        spool, heard = Answering(), []
        recorder = Recorder(CONFIG, 1, spool, None)
        recorder.listen(lambda record, arrival_ms, simulated: heard.append((record.seq, arrival_ms)))
        for number in range(4):
            recorder.record_of_node(RECORD, b"", Head("air-1", 7, 5), NOW_MS + number)
        await asyncio.sleep(0)
        assert heard == [], "before the spool has answered"
        first, second, third, last = spool.asked
        first.set_exception(SpoolFull("no room"))
        second.set_exception(SpoolFull("no room"))
        third.cancel()
        last.set_result(None)
        await asyncio.sleep(0)
        assert heard == [(5, NOW_MS + 3)]

    asyncio.run(work())
