"""A node on its own power reaches the gateway, and comes back when the power does."""

import pytest

from bega_protocols.reading import GOOD

pytestmark = pytest.mark.slow


def particulates(record):
    return [reading for reading in record.readings if reading.quantity == "pm2_5" and reading.quality == GOOD]


def test_air_node_reaches_gateway(gateway, air_node, eventually):
    def arrived():
        return [record for record in gateway.records(source=air_node.name) if particulates(record)]

    eventually(lambda: len(arrived()) >= 2, "good particulates of the node arrive at the broker", 90)  # warm-up: 30 s
    assert all(0 <= reading.value < 1000 for record in arrived() for reading in particulates(record))


def test_air_node_loses_nothing_over_a_power_cut(gateway, air_node, eventually):
    def boots():
        return sorted({record.boot for record in gateway.records(source=air_node.name)})

    eventually(boots, "the node is heard", 60)
    before = boots()[-1]
    air_node.restart()
    eventually(lambda: boots()[-1] > before, "the node's next boot is heard", 60)
    numbers = sorted(record.seq for record in gateway.records(source=air_node.name) if record.boot == before)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a record of the earlier boot is missing"
