"""An I2C bus with simulated devices on it: acknowledges, measures as long as the device does, and refuses meanwhile."""

from __future__ import annotations

from typing import Protocol

from bega.clock import Clock


class Addressed(Protocol):
    """What a device's Sim offers to a bus."""

    @property
    def faults(self) -> set[str]:
        """Return in what ways it fails."""

    def tick(self, now_ms: int) -> bytes:
        """Let it be `now_ms`."""

    def busy_us(self, request: bytes) -> int:
        """Return how many microseconds after `request` a read is not acknowledged."""

    def answer(self, request: bytes) -> bytes | None:
        """Return what can be read after `request`, b"" where nothing can, None where it is not acknowledged."""


class NotAcknowledged(Exception):
    """Nobody answers to the address, or not now."""


class I2cBus:
    """Devices by address. A device whose faults hold "silent" does not acknowledge its address."""

    def __init__(self, devices: dict[int, Addressed], mono_us: Clock) -> None:
        self._devices = devices
        self._mono_us = mono_us
        self._ready_us: dict[int, int] = {}
        self._answers: dict[int, bytes] = {}

    def scan(self) -> list[int]:
        """Return the addresses that acknowledge."""
        return [address for address in sorted(self._devices) if "silent" not in self._devices[address].faults]

    def write(self, address: int, data: bytes) -> None:
        """Carry a write to the device; raises NotAcknowledged."""
        device = self._device(address)
        self._answers.pop(address, None)
        answer = device.answer(data)
        if answer is None:
            raise NotAcknowledged
        self._answers[address] = answer
        self._ready_us[address] = self._mono_us() + device.busy_us(data)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes, ones where the device drives none (the bus is pulled up); raises NotAcknowledged.

        A read that comes too early takes nothing: the answer still waits.
        """
        self._device(address)
        if not self._answers.get(address) or self._mono_us() < self._ready_us[address]:
            raise NotAcknowledged
        return self._answers.pop(address)[:size].ljust(size, b"\xff")

    def _device(self, address: int) -> Addressed:
        if address not in self.scan():
            raise NotAcknowledged
        device = self._devices[address]
        device.tick(self._mono_us() // 1000)
        return device
