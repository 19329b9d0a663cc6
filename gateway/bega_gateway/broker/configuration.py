"""What stands in mosquitto's configuration and access list (mosquitto.conf(5), 2.0.11 on). No files here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

GATEWAY, CITY = "gateway", "city"
LARGEST_NODE_PACKET = 66_000  # bytes: a node's status has at most 65,536 (lines/nodes.py), and a topic
LARGEST_CITY_PACKET = 262_144
NODE_WRITES = ("up", "status", "result", "want")
NODE_READS = ("ack", "time", "piece", "cmd/#")
DESK_WRITES = ("cmd/report", "cmd/notices")  # docs/reports.md


class Members(NamedTuple):
    """Who has a place on a broker, by the name in his certificate."""

    city: str
    gateways: Sequence[str]
    kiosks: Sequence[str] = ()
    operators: Sequence[str] = ()  # may command gateways
    readers: Sequence[str] = ()  # may read all that comes from them
    desks: Sequence[str] = ()  # where citizens' reports go


class Ports(NamedTuple):
    """Where a broker listens."""

    address: str = ""  # '' for every address of the machine
    port: int = 8883
    local_port: int = 8884  # for the gateway on the same machine


def head(kind: str) -> str:
    """Return the first line of each file, by which it is known as ours, and for whom it is."""
    return f"# Made by `bega broker configure --for {kind}`, which writes it anew."


def mosquitto_conf(kind: str, folder: str, ports: Ports, persistence_location: bool) -> str:
    """Return the configuration; folder: where the files lie that it names.

    persistence_location: whether it must say where, since nothing else does; said twice mosquitto does not start.
    """
    is_city = kind == CITY
    lines = [
        "# Who may do what is in the access list beside the certificates.",
        "per_listener_settings false",
        "allow_anonymous false",
        f"acl_file {folder}/access",
        "",
        "# Written at each change: one that writes when it likes lost 500 of 500 acknowledged messages to a kill -9.",
        "persistence true",
        *(["persistence_location /var/lib/mosquitto/"] if persistence_location else []),
        "autosave_on_changes true",
        "autosave_interval 1",
        '# Never 0, "no limit": mosquitto 2.0.11 then ends the session of whoever publishes what he may not.',
        "max_queued_messages 100000",
        f"max_packet_size {LARGEST_CITY_PACKET if is_city else LARGEST_NODE_PACKET}",
        "",
        "# Gateways, kiosks, desks and operators." if is_city else "# Nodes.",
        f"listener {ports.port} {ports.address}".rstrip(),
        *_certificates(folder),
    ]
    if not is_city:
        lines += [
            "# A client id is the name in the certificate: no node can end another's session by taking its id.",
            "use_username_as_clientid true",
            "",
            "# The gateway itself, which has several sessions, and ends those of revoked nodes by taking their ids.",
            f"listener {ports.local_port} 127.0.0.1",
            *_certificates(folder),
        ]
    return "\n".join(lines) + "\n"


def access_list(kind: str, members: Members) -> str:
    """Return who may read and write what; whatever is not named nobody may. %u is the name in the certificate."""
    return "\n".join(_of_city(members) if kind == CITY else _of_gateway(members)) + "\n"


def _certificates(folder: str) -> list[str]:
    return [
        f"cafile {folder}/ca.pem",
        f"certfile {folder}/broker.pem",
        f"keyfile {folder}/broker.key",
        f"crlfile {folder}/revoked.pem",
        "require_certificate true",
        "use_identity_as_username true",
    ]


def _of_gateway(members: Members) -> list[str]:
    lines = ["# A node: its own topics."]
    lines += [f"pattern write node/%u/{topic}" for topic in NODE_WRITES]
    lines += [f"pattern read node/%u/{topic}" for topic in NODE_READS]
    for gateway in members.gateways:
        lines += ["", "# The gateway: the other end of each, and its way upward where that goes over this broker."]
        lines += [f"user {gateway}"]
        lines += [f"topic read node/+/{topic}" for topic in NODE_WRITES]
        lines += [f"topic write node/+/{topic}" for topic in NODE_READS]
        lines += _upward("+", gateway)
    return lines


def _of_city(members: Members) -> list[str]:
    """No patterns: a node's certificate is of the same authority, and would be a gateway by them."""
    city = members.city
    lines = ["# By name: a pattern would let each node's certificate in as if it were a gateway's."]
    for name in (*members.gateways, *members.kiosks):
        lines += ["", f"user {name}", *_upward(city, name)]
        if name in members.kiosks:
            lines.append(f"topic read city/{city}/{name}/call/#")
    for name in members.operators:
        lines += ["", f"user {name}", f"topic read city/{city}/#", f"topic write city/{city}/+/cmd/#"]
    for name in members.readers:
        lines += ["", f"user {name}", f"topic read city/{city}/#"]
    for name in members.desks:
        lines += ["", "# A desk: what citizens report, and its answers. It commands nobody.", f"user {name}"]
        lines.append(f"topic read city/{city}/+/report")
        lines += [f"topic write city/{city}/{kiosk}/{topic}" for kiosk in members.kiosks for topic in DESK_WRITES]
    return lines


def _upward(city: str, name: str) -> list[str]:
    """One rule for records and probe alike: a probe that came back then speaks for the records too."""
    return [
        f"topic write city/{city}/{name}/#",
        f"topic read city/{city}/{name}/cmd/#",
        f"topic read city/{city}/{name}/probe",
    ]
