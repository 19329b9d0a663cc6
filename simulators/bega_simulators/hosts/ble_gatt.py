"""Sensors that can be connected to: a GATT server on Bumble's own stack, whose values a device's simulator gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bumble.att import ATT_Error, ErrorCode
from bumble.controller import Controller
from bumble.device import Device, DeviceConfiguration
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.hci import Address
from bumble.host import Host

from bega_simulators.hosts.ble_air import Air

Services = Mapping[str, Iterable[str]]  # UUID of a service: UUIDs of its characteristics, as they are written
Answer = Callable[[bytes], bytes | None]


async def connectable(
    air: Air, address: str, tick: Callable[[int], bytes], services: Services, answer: Answer
) -> Device:
    """Put a sensor into the air that advertises what `tick(now_ms)` says and can be connected to while it does.

    answer: takes the UUID of a characteristic, two bytes as written, and gives its value; None for one it has not.
    """
    controller = Controller(address, link=air)
    configuration = DeviceConfiguration(name="", address=Address(address))
    device = Device(config=configuration, host=Host(controller, controller))
    for service, characteristics in services.items():
        device.add_service(Service(service, [_characteristic(uuid, answer) for uuid in characteristics]))
    await device.power_on()
    air.place(address, tick, controller)
    return device


def _characteristic(uuid: str, answer: Answer) -> Characteristic[bytes]:
    def read(_connection: object) -> bytes:
        value = answer(bytes.fromhex(uuid))
        if value is None:
            raise ATT_Error(ErrorCode.UNLIKELY_ERROR)
        return value

    return Characteristic(uuid, Characteristic.Properties.READ, Characteristic.READABLE, CharacteristicValue(read=read))
