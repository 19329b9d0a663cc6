"""What each verb does with a gateway that runs. What the configuration does not list is refused before it is begun."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bega.clock import Clock
from bega.mqtt import SessionLost
from bega_gateway.commands import order as orders
from bega_gateway.commands.desk import Ended, Work
from bega_gateway.commands.order import Order, Refused
from bega_gateway.lines.errand import DOWN, Done
from bega_gateway.lines.modbus_write import raw_of, writes_of
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega_gateway.config import Config, Device
    from bega_gateway.lines.station import Station
    from bega_gateway.revocation import Revocations

HALF_BLINK_S = 0.25
LARGEST_TO_NODE = 4_092  # bytes, topic and payload: firmware/node/mqtt.py reads past a larger packet, without a word
READ_WITHIN_S = 150.0  # a device that was silent is tried every two minutes


class Gateway(Protocol):
    """What commands need of it."""

    revocations: Revocations | None  # what knows who is revoked

    def config(self) -> Config:
        """Return the configuration that it runs by now."""

    def station(self, device: str) -> tuple[Any, Station] | None:
        """Return what drives the line of a device, and its station; None if it is not read now."""

    def line(self, name: str) -> Any:
        """Return what drives a line; None if it does not run."""

    async def restart_line(self, name: str) -> bool:
        """End a line and begin it anew; return whether it runs. Raises ConfigError where nothing was done."""

    def figures(self) -> dict[str, Any]:
        """Return how it is."""


class Acts:
    """The verbs."""

    def __init__(self, gateway: Gateway, led: str | None, wall_ms: Clock) -> None:
        self._gateway = gateway
        self._light = None if led is None else _Light(led)
        self._wall_ms = wall_ms
        self._verbs: Mapping[type[orders.Verb], Callable[[Order, Any], Work]] = {
            orders.Read: self._read,
            orders.Write: self._write,
            orders.Act: self._act,
            orders.Blink: self._blink,
            orders.RestartLine: self._restart_line,
            orders.ConfigureNode: self._configure_node,
            orders.RestartNode: self._restart_node,
            orders.Revoke: self._revoke,
            orders.Status: self._status,
        }

    def prepare(self, order: Order) -> Work:
        """Return what does `order`; raises Refused if it may not be done."""
        return self._verbs[type(order.keys)](order, order.keys)

    def _read(self, order: Order, keys: orders.Read) -> Work:
        self._device(keys.device)
        line, station = self._running(keys.device)
        if not hasattr(line, "read_now"):
            raise Refused("this device speaks by itself, it cannot be asked")

        async def work() -> Ended:
            try:
                async with asyncio.timeout(READ_WITHIN_S):
                    return Ended(await line.read_now(station))
            except TimeoutError:
                return Ended(Done(False, "the device was not asked in time: its line has too much to do"))

        return work

    def _write(self, order: Order, keys: orders.Write) -> Work:
        device = self._device(keys.device)
        write = writes_of(device.writes).get(keys.name)
        if write is None:
            raise Refused("nothing of this name may be written on this device")
        try:
            raw = raw_of(write, keys.value)
        except ValueError as error:
            raise Refused(str(error)) from None
        line, station = self._running(keys.device)
        unit = device.settings["address"]

        async def work() -> Ended:
            return Ended(await line.write(station, unit, write, raw, self._in_time(order)))

        return work

    def _act(self, order: Order, keys: orders.Act) -> Work:
        node, slash, theirs = keys.device.partition("/")
        if slash:  # what may be done there stands in the node's own configuration
            value = {} if keys.value is None else {"value": keys.value}
            return self._of_node(order, node, "act", {"device": theirs, "action": keys.action, **value})
        if keys.action not in self._device(keys.device).actions:
            raise Refused("this action may not be done on this device")
        line, station = self._running(keys.device)
        if not hasattr(line, "act"):
            raise Refused("this device speaks by itself, it cannot be told anything")

        async def work() -> Ended:
            return Ended(await line.act(station, keys.action, keys.value, self._in_time(order)))

        return work

    def _blink(self, order: Order, keys: orders.Blink) -> Work:
        if keys.node is not None:
            return self._of_node(order, keys.node, "blink", {"for_s": keys.for_s})
        if self._light is None:
            raise Refused("this gateway has no light: commands.led is not set")
        return partial(self._light.blink, keys.for_s)

    def _restart_line(self, order: Order, keys: orders.RestartLine) -> Work:
        if self._gateway.line(keys.line) is None:
            raise Refused("no such line")

        async def work() -> Ended:
            try:
                runs = await self._gateway.restart_line(keys.line)
            except ConfigError:
                return Ended(Done(False, "the line could not be restarted; nothing was done"))
            return Ended(Done(runs, "" if runs else "it could not be begun anew; see the log"))

        return work

    def _configure_node(self, order: Order, keys: orders.ConfigureNode) -> Work:
        return self._of_node(order, keys.node, "config", {"configuration": keys.configuration})

    def _restart_node(self, order: Order, keys: orders.RestartNode) -> Work:
        return self._of_node(order, keys.node, "restart", {})

    def _status(self, order: Order, keys: orders.Status) -> Work:
        async def work() -> Ended:
            return Ended(Done(True), self._gateway.figures())

        return work

    def _of_node(self, order: Order, node: str, verb: str, keys: dict[str, Any]) -> Work:
        table = self._gateway.config().nodes.get(node)
        if table is None:
            raise Refused("no such node")
        payload = json.dumps({"id": order.id, "expires": order.expires_s, **keys}).encode()
        if len(f"node/{node}/cmd/{verb}") + len(payload) > LARGEST_TO_NODE:
            raise Refused("it is longer than a node can take")

        async def work() -> Ended:
            line = self._gateway.line(table.line)
            if line is None:
                return Ended(DOWN)
            wait_s = max(0.0, order.expires_s - self._wall_ms() / 1000)
            try:
                async with asyncio.timeout(wait_s):
                    return _relayed(await line.command(node, verb, order.id, payload))
            except TimeoutError:
                return Ended(Done(False, "the node did not answer"))
            except SessionLost:
                return Ended(Done(False, "the way to the node is down, or does not let us command"))

        return work

    def _revoke(self, order: Order, keys: orders.Revoke) -> Work:
        revocations = self._gateway.revocations
        if revocations is None:
            raise Refused("this gateway has no [revocation]")
        try:
            found = revocations.understood(keys.list.encode(), "the list")
            found.require_begun(self._wall_ms(), "the list")
        except ConfigError as error:
            raise Refused(str(error)) from None

        async def work() -> Ended:
            facts = {"number": found.number, "revoked": len(found.entries)}
            try:
                has_broker = await revocations.take(found)
            except ConfigError as error:
                return Ended(Done(False, f"it holds until the next start: {error}"), facts)
            why = (
                "" if has_broker else "the gateway goes by it, its broker does not yet: see bega-broker-revoke.service"
            )
            return Ended(Done(has_broker, why), facts)

        return work

    def _in_time(self, order: Order) -> Callable[[], bool]:
        """Return what tells whether `order` may still be begun: others may be before it on its line, for minutes."""
        return lambda: self._wall_ms() < 1000 * order.expires_s

    def _device(self, name: str) -> Device:
        device = self._gateway.config().devices.get(name)
        if device is None:
            raise Refused("no such device")
        return device

    def _running(self, device: str) -> tuple[Any, Station]:
        found = self._gateway.station(device)
        if found is None:
            raise Refused("this device is not read at the moment")
        return found


def _relayed(result: dict[str, Any]) -> Ended:
    """Return what a node said: `done`, true or false, `reason`, and whatever else."""
    facts = {key: value for key, value in result.items() if key not in ("id", "done", "reason")}
    reason = result.get("reason")
    return Ended(Done(result.get("done") is True, reason if isinstance(reason, str) else ""), facts)


class _Light:
    """A light of the gateway. Who asks while it blinks must not take for its state what it shows just then."""

    def __init__(self, led: str) -> None:
        self._brightness = Path(led) / "brightness"
        self._before = ""
        self._blinking = 0  # commands that are at it

    async def blink(self, for_s: int) -> Ended:
        try:
            if not self._blinking:
                self._before = self._brightness.read_text()
            self._blinking += 1
            try:
                for turn in range(round(for_s / HALF_BLINK_S)):
                    self._brightness.write_text("0" if turn % 2 else "1")
                    await asyncio.sleep(HALF_BLINK_S)
            finally:
                self._blinking -= 1
                if not self._blinking:
                    self._brightness.write_text(self._before)
        except OSError as error:
            return Ended(Done(False, f"the light cannot be switched ({error.strerror})"))
        return Ended(Done(True))
