"""What our own nodes say of themselves, as findings. Pure: a status in, findings out.

Who is not heard now is another finding: what he said is only told beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bega_gateway.doctor.finding import DEVICE, WARNING, Finding
from bega_gateway.lines.node_said import DeviceSaid
from bega_gateway.node_status import FULL_SHARE, OfNode, end_of, in_words, lasting, state, times
from bega_gateway.status import OfDevice, Status

MANY_STARTS = 5  # within a day; a technician makes a few
MANY_CONNECTS, CONNECTS_AN_HOUR = 10, 6
LOOK_AT = {
    "silent": "check its plug and its supply (many want 5 V, not 3.3)",
    "damaged": "check its wires, screen and ground; is it the sensor that the node's configuration names?",
    "stuck": "it repeats itself, or sees nothing: clean it, see that air reaches it; else replace it",
    "lost": "read the total off the meter and give it to the node (set_total)",
}
RESTART = "bega gateway command restart_node {} (it needs [commands]; or cut its power for a moment)"
CONFIGURE = "bega gateway command configure_node {} FILE"


def of_nodes(status: Status) -> Iterator[Finding]:
    """Yield what nodes that are heard say is wrong with them."""
    for device in status.devices:
        if device.is_node and device.node and device.is_heard:
            yield from of_node(device.name, device.node)


def of_node(name: str, node: OfNode) -> Iterator[Finding]:
    """Yield what one node says is wrong with it; in safe mode that explains the rest."""
    if node.said.safe:
        yield _in_safe_mode(name, node)
        return
    yield from _of_sensors(name, node)
    yield from _of_store(name, node)
    yield from _of_supply(name, node)
    if node.said.configuration:
        yield _warning(
            "another configuration",
            f"the node {name} does not run by the configuration that it was given",
            name,
            node.said.configuration,
            f"correct it and send it again: {CONFIGURE.format(name)}",
        )
    if _comes_and_goes(node):
        yield _warning(
            "way of a node breaks",
            f"the node {name} loses its way to the gateway again and again",
            name,
            f"{node.said.connects} connections in {lasting(node.said.up_s or 0)}",
            "is its Wi-Fi weak, or its wire loose? see its antenna, and whether another client has its name",
        )


def last_words(device: OfDevice) -> str:
    """Return what is told of a silent node beside its silence: what it said when it was heard; '' if all was well."""
    if device.node is None:
        return ""
    said = device.node.said
    wrong = ["safe mode"] if said.safe else [f"{who} {what}".strip() for who, what in said.faults()]
    return f"; when it was last heard it said: {', '.join(wrong)}" if wrong else ""


def _in_safe_mode(name: str, node: OfNode) -> Finding:
    said = node.said
    error = f"; its last error: {end_of(said.last_error)}" if said.last_error else ""
    is_supply = "power-on" in said.safe
    remedy = (
        "its supply fails under load: measure it at the node, use a short cable and 1 A; then"
        if is_supply
        else f"was its configuration or a sensor changed? send the one before: {CONFIGURE.format(name)}; or"
    )
    return Finding(
        "node in safe mode",
        f"the node {name} is in safe mode: it measures nothing for half an hour, then it tries again",
        f"nodes.{name}",
        f"{said.safe}{error}",
        f"{remedy} {RESTART.format(name)}",
        True,
        DEVICE,
    )


def _of_sensors(name: str, node: OfNode) -> Iterator[Finding]:
    faulty = node.faulty
    if len(faulty) == len(node.said.devices) > 1 and all(_was(device) == "silent" for device in faulty.values()):
        yield Finding(
            "all sensors of a node silent",
            f"all {len(faulty)} sensors of the node {name} are silent, and the node is not: they have one cause",
            f"nodes.{name}",
            "; ".join(f"{of}: {in_words(device)}" for of, device in faulty.items()),
            "check what they share: 5 V, ground, the plug of the carrier, SDA and SCL; is it the right board file?",
            True,
            DEVICE,
        )
        return
    for of, device in faulty.items():
        yield Finding(
            f"sensor {'in fault' if device.state == 'fault' else device.state}",
            f"the sensor {of} of the node {name} is {state(device)}",
            f"nodes.{name}",
            f"{in_words(device)}; said {lasting(node.said_ago_s)} ago",
            _remedy(device),
            True,
            DEVICE,
        )


def _was(device: DeviceSaid) -> str:
    return device.why if device.state == "fault" and device.why else device.state


def _remedy(device: DeviceSaid) -> str:
    look = LOOK_AT.get(_was(device), "check its plug, its supply and its wires")
    if device.state != "fault":
        return look
    tried = "set it up anew and cut its supply" if device.cut else "set it up anew"
    return f"{look}. The node has {tried}, in vain: most likely it must be replaced"


def _of_store(name: str, node: OfNode) -> Iterator[Finding]:
    ring = node.said.ring
    if node.is_fresh and node.store_share >= FULL_SHARE:
        yield _warning(
            "store of a node nearly full",
            f"the store of the node {name} is nearly full: beyond, it drops its oldest records",
            name,
            f"{ring.held} records held, {100 * node.store_share:.0f} % full",
            "why are they not taken? bega gateway status shows whether our spool is full and how fast it drains",
        )
    if node.has_lost_lately:
        yield _warning(
            "records of a node lost",
            f"the node {name} has dropped records: its store was full while we were away, or its flash rotted",
            name,
            f"{node.lost} records since the gateway began, the last {lasting(node.lost_ago_s or 0)} ago",
            "they are gone; see why the way was away for so long, or have it measure less often",
        )
    if ring.errors or ring.unstored or ring.damaged:
        yield _warning(
            "flash of a node fails",
            f"the flash of the node {name} fails",
            name,
            f"{ring.errors} writes failed, {ring.unstored} records found no place, {ring.damaged} places rotted",
            "a few after a power cut are nothing; when they grow, replace the node: its flash is worn",
        )


def _of_supply(name: str, node: OfNode) -> Iterator[Finding]:
    error = f"; its last error: {end_of(node.said.last_error)}" if node.said.last_error else ""
    if node.dips_lately:
        yield _warning(
            "supply of a node dips",
            f"the supply of the node {name} dips, and each time it starts anew",
            name,
            f"{times(node.dips_lately)} within a day, last {lasting(node.last_start_ago_s or 0)} ago",
            "measure it at the node while it sends (Wi-Fi takes 0.5 A for moments); a shorter cable, 1 A, 470 uF there",
        )
    elif node.failed_lately:
        yield _warning(
            "node failed",
            f"the node {name} was ended by a defect or its watchdog, and goes on",
            name,
            f"{times(node.failed_lately)} within a day{error}",
            "once is nothing to do; again and again: report its last error (bega gateway status --json has all of it)",
        )
    elif node.starts_lately >= MANY_STARTS:
        yield _warning(
            "node starts again and again",
            f"the node {name} starts again and again",
            name,
            f"{times(node.starts_lately)} within a day, last {lasting(node.last_start_ago_s or 0)} ago{error}",
            "is its supply switched, or its plug loose?",
        )


def _comes_and_goes(node: OfNode) -> bool:
    said = node.said
    return said.connects > MANY_CONNECTS and 3600 * said.connects > CONNECTS_AN_HOUR * max(3600, said.up_s or 0)


def _warning(cause: str, what: str, name: str, evidence: str, remedy: str) -> Finding:
    return Finding(cause, what, f"nodes.{name}", evidence, remedy, False, WARNING)
