"""All that is looked at, put together: causes before what they explain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from bega_gateway import config as settings
from bega_gateway.doctor import heard, machine, nodes, ports
from bega_gateway.doctor.certificates import Credentials, of_files
from bega_gateway.doctor.finding import UPLINK, WARNING, Finding, in_order
from bega_gateway.doctor.look import Look
from bega_gateway.doctor.told import of_home_assistant, of_updates
from bega_gateway.status import Status

YOUNG_S = 20.0  # a gateway that was just begun has had no time to connect


async def findings(
    config: settings.Config,
    status: Status | None,
    look: Look | None = None,
    *,
    closely: bool = False,
    unanswered: str = "",
) -> list[Finding]:
    """Return what is wrong, first what stops readings now; nothing is opened, but connections to brokers.

    status: what the gateway that runs says of itself, None if none runs. closely: lines on which nobody is heard are
    taken from the gateway for a while and tried, where it lends them. unanswered: why one that runs says nothing of
    itself, '' where that is not so
    """
    look = look or Look()
    found = await asyncio.to_thread(_of_machine, config, status, look, unanswered)
    found += await _of_brokers(config, status, look)
    explained = _lines_of(found)
    nearer: list[Finding] = []
    if closely:
        from bega_gateway.doctor.closely import of_wires

        nearer = await of_wires(config, status, look, explained)
        explained |= _lines_of(nearer) | {
            config.devices[name].line for name in _devices_of(nearer) if name in config.devices
        }
    counted = heard.of_devices(config, status) if status else ()
    found += [finding for finding in counted if not _is_explained(config, finding, explained)]
    said = nodes.of_nodes(status) if status else ()
    found += [finding for finding in said if not _is_explained(config, finding, explained)]
    found += [*of_home_assistant(status), *of_updates(status)] if status else ()
    return in_order(found + nearer)


def _of_machine(config: settings.Config, status: Status | None, look: Look, unanswered: str) -> list[Finding]:
    return [
        *machine.of_disk(config, status, look),
        *(machine.of_silence(unanswered) if unanswered else machine.of_state(config, status, look)),
        *machine.of_clock(config, look),
        *machine.of_supply(look),
        *machine.of_local_broker(config, look),
        *ports.of_ports(config, look),
    ]


def _lines_of(findings: Iterable[Finding]) -> set[str]:
    """Return the names of the lines that findings are about."""
    return {finding.where.split(".")[1] for finding in findings if finding.where.startswith("lines.")}


def _devices_of(findings: Iterable[Finding]) -> set[str]:
    """Return the names of the devices that findings are about."""
    return {finding.where.split(".")[1] for finding in findings if finding.where.startswith("devices.")}


def _is_explained(config: settings.Config, finding: Finding, lines: set[str]) -> bool:
    """Return whether a finding is but what follows from another one on its line."""
    table, _, rest = finding.where.partition(".")
    name = rest.split(".")[0]
    if table == "lines":
        return name in lines
    if table == "devices" and name in config.devices:
        return config.devices[name].line in lines
    return table == "nodes" and name in config.nodes and config.nodes[name].line in lines


async def _of_brokers(config: settings.Config, status: Status | None, look: Look) -> list[Finding]:
    from bega_gateway.doctor.broker import of_broker

    name, city = config.gateway.name, config.gateway.city
    now_ms = look.wall_ms()
    places: list[tuple[str, list[str], Credentials, str]] = [
        ("uplink", config.uplink.brokers, config.uplink, f"city/{city}/{name}/probe")
    ]
    for line_name, line in config.lines.items():
        if isinstance(line, settings.MqttLine):
            places.append((f"lines.{line_name}", [line.broker], line, ""))
    found = []
    for place, brokers, table, probe_topic in places:
        files = list(of_files(place, table, name, now_ms))
        if _is_served(place, status):  # what it has lasts until the connection ends
            found += [replace(finding, stops_readings=False, rank=WARNING) for finding in files]
            continue
        found += files
        if any(finding.stops_readings for finding in files):
            continue
        refused = [await of_broker(place, broker, table, name, probe_topic) for broker in brokers]
        if all(refused):
            found += [finding for finding in refused if finding]
        if place == "uplink" and status and not all(refused) and status.up_s > YOUNG_S:
            found.append(_not_sent(status))
    return found


def _is_served(place: str, status: Status | None) -> bool:
    """Return whether the gateway that runs has a connection there, so that there is nothing to try."""
    if status is None:
        return False
    if place == "uplink":
        return status.uplink.connected_to is not None
    devices = [device for device in status.devices if f"lines.{device.line}" == place]
    return any(device.is_heard for device in devices)


def _not_sent(status: Status) -> Finding:
    return Finding(
        "uplink down",
        "the gateway is away from every broker, and the doctor reaches one: it may be about to connect",
        "uplink",
        f"{status.uplink.attempts} attempts, {status.spool.messages} messages wait",
        "wait half a minute; journalctl -u bega-gateway -n 50 | grep uplink: does another client have its name?",
        True,
        UPLINK,
    )
