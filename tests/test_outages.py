"""What the gateway has committed arrives, whatever happens to broker, network and gateway. Counted, not believed."""

import sqlite3
import time
from collections import Counter

import pytest

from bega_protocols import senml
from tests.conftest import IS_NIGHT

AWAY_S = 30 if IS_NIGHT else 8
CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.1
[uplink]
brokers = ["{broker}"]
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.001
"""


def missing(identities: Counter[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the holes: each boot's numbers begin at 1 and rise by one."""
    highest: dict[tuple[str, int], int] = {}
    for source, boot, seq in identities:
        highest[source, boot] = max(seq, highest.get((source, boot), 0))
    return [
        (source, boot, seq)
        for (source, boot), last in highest.items()
        for seq in range(1, last + 1)
        if (source, boot, seq) not in identities
    ]


def committed(gateway) -> set[tuple[str, int, int]]:
    """Return what the gateway's spool holds."""
    with sqlite3.connect(f"file:{gateway.state}/spool.db?mode=ro", uri=True) as database:
        records = [senml.decode(payload) for (payload,) in database.execute("SELECT payload FROM outbox")]
    return {(record.source, record.boot, record.seq) for record in records}


@pytest.mark.slow
def test_broker_killed_for_a_while_costs_no_record(broker, sensor, make_gateway, make_reader, eventually):
    gateway = make_gateway(CONFIGURATION.format(broker=broker.url, port=sensor.port))
    reader = make_reader(broker.url)
    gateway.start()
    eventually(lambda: len(reader.records) > 20, "records flow")
    broker.kill()
    time.sleep(AWAY_S)
    broker.start()
    eventually(lambda: len(reader.identities()) > AWAY_S * 15, "what was measured meanwhile arrives", 60)
    assert gateway.stop() == 0
    left = committed(gateway)
    identities = reader.identities()
    assert not [identity for identity in missing(identities) if identity not in left]


@pytest.mark.slow
def test_gateway_killed_twice_while_the_broker_is_away_loses_nothing_committed(
    broker, sensor, make_gateway, make_reader, eventually
):
    gateway = make_gateway(CONFIGURATION.format(broker=broker.url, port=sensor.port))
    reader = make_reader(broker.url)
    gateway.start()
    eventually(lambda: len(reader.records) > 10, "records flow")
    broker.kill()
    promised: set[tuple[str, int, int]] = set()
    boots = [gateway.boot]
    for _ in range(2):
        already = len(committed(gateway))
        eventually(lambda already=already: len(committed(gateway)) > already + 30, "it stores")
        gateway.kill()
        promised |= committed(gateway)
        gateway.start()
        boots.append(gateway.boot)
    time.sleep(1)
    broker.start()
    eventually(lambda: promised <= set(reader.identities()), "all that was committed arrives", 60)
    eventually(lambda: any(boot == boots[-1] for _, boot, _ in reader.identities()), "and what is new", 30)
    assert boots == sorted(set(boots)), "the boot number rises at each start"
    assert len(promised) > 2 * 30
    assert gateway.stop() == 0
    left = committed(gateway)
    assert not [identity for identity in missing(reader.identities()) if identity not in left]


@pytest.mark.slow
def test_black_hole_deletes_nothing_that_was_not_acknowledged(
    embedded, sensor, make_gateway, make_reader, make_relay, eventually
):
    """The socket stays open, no PUBACK comes, then a reset: the mobile network's way of failing."""
    relay = make_relay(embedded.port)
    gateway = make_gateway(CONFIGURATION.format(broker=relay.url, port=sensor.port))
    reader = make_reader(embedded.url)
    gateway.start()
    eventually(lambda: len(reader.records) > 20, "records flow")
    relay.stall()
    time.sleep(1)
    arrived = set(reader.identities())
    time.sleep(14)
    assert set(reader.identities()) - arrived == set(), "a black hole lets nothing pass"
    relay.reset()
    eventually(lambda: len(reader.identities()) > len(arrived) + 14 * 15, "what was measured meanwhile arrives", 60)
    assert gateway.stop() == 0
    left = committed(gateway)
    assert not [identity for identity in missing(reader.identities()) if identity not in left]


@pytest.mark.slow
def test_gateway_polls_and_stores_before_the_first_connection(embedded, sensor, make_gateway, make_reader, eventually):
    embedded.stop()
    gateway = make_gateway(CONFIGURATION.format(broker=embedded.url, port=sensor.port))
    gateway.start()
    eventually(lambda: len(committed(gateway)) > 30, "it stores")
    gateway.kill()
    stored = committed(gateway)
    embedded.start()
    reader = make_reader(embedded.url)
    gateway.start()
    eventually(lambda: stored <= set(reader.identities()), "what was stored before any broker answered arrives")


def test_readers_drop_what_they_have_seen_by_source_boot_and_seq(
    embedded, sensor, make_gateway, make_reader, eventually
):
    """Killed between PUBACK and delete a gateway sends again; the record is the same one, to the byte."""
    gateway = make_gateway(CONFIGURATION.format(broker=embedded.url, port=sensor.port))
    reader = make_reader(embedded.url)
    gateway.start()
    eventually(lambda: len(reader.records) > 20, "records flow")
    gateway.kill()
    gateway.start()
    eventually(lambda: any(boot == gateway.boot for _, boot, _ in reader.identities()), "it comes back")
    packs: dict[tuple[str, int, int], set[bytes]] = {}
    for _, pack in reader.packs:
        record = senml.decode(pack)
        packs.setdefault((record.source, record.boot, record.seq), set()).add(pack)
    assert all(len(copies) == 1 for copies in packs.values())
