"""The way to a broker, step by step: name, port, TLS, CONNECT, subscription, and a message that must come back.

It is walked under a client id of its own (the gateway's name and "-doctor"), so that the gateway's session stays; the
certificate, by whose name access lists go, is the gateway's.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from urllib.parse import urlsplit

from bega import mqtt
from bega_gateway.doctor.certificates import Credentials
from bega_gateway.doctor.finding import UPLINK, Finding

WITHIN_S = 5.0
PORTS = {"mqtt": 1883, "mqtts": 8883}
CONNECT, CONNACK = 0x10, 0x20
# MQTT 3.1.1, table 3.1
REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not take this client id",
    3: "it is not ready",
    4: "it wants a name and password",
    5: "it does not authorise us",
}


async def of_broker(place: str, broker: str, table: Credentials, name: str, probe_topic: str) -> Finding | None:
    """Return the first thing that stands between the gateway and `broker`; None if there is nothing.

    place: where the configuration names it. name: of the gateway. probe_topic: one that it may write and read, '' if
    none is known
    """
    parts = urlsplit(broker)
    host, port = parts.hostname or "localhost", parts.port or PORTS.get(parts.scheme, 1883)
    step = _Step(place, broker)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(WITHIN_S):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        remedy = f"is {host} spelt right? resolvectl query {host}; cat /etc/resolv.conf; or write its address"
        return step.found("name unknown", "nobody knows the broker's name", str(error) or "no answer", remedy)
    try:
        async with asyncio.timeout(WITHIN_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.transport.abort()
    except (OSError, TimeoutError) as error:
        return _unreachable(step, host, port, str(addresses[0][4][0]), error)
    try:
        answer = await asyncio.to_thread(_greeted, parts.scheme == "mqtts", host, port, table, f"{name}-doctor")
    except ssl.SSLCertVerificationError as error:
        remedy = f"is {place}.ca_file that of whoever signed it? openssl s_client -connect {host}:{port}; timedatectl"
        what = "the broker's certificate is not to be trusted"
        return step.found("broker not trusted", what, f"{error.verify_message}", remedy)
    except _Refused as error:
        return _cast_out(step, str(error))
    except ssl.SSLError as error:
        return _tls_ended(step, host, port, error)
    except (OSError, ValueError) as error:
        if parts.scheme == "mqtts" and isinstance(error, ConnectionError):
            return _no_tls(step, host, port, str(error))
        return _silent(step, host, port, parts.scheme, error)
    if answer:
        why = REFUSALS.get(answer, f"code {answer}")
        remedy = "see its log, and its access list and password file: it must know this gateway's certificate name"
        return step.found("broker refuses", "the broker refuses us", f"CONNACK {answer}: {why}", remedy)
    return await _of_probe(step, broker, table, name, probe_topic) if probe_topic else None


class _Refused(Exception):
    """TLS was agreed upon, and then ended before the answer to CONNECT."""


class _Step:
    """Where a finding of this broker belongs."""

    def __init__(self, place: str, broker: str) -> None:
        self.place = place
        self._broker = broker

    def found(self, cause: str, what: str, evidence: str, remedy: str) -> Finding:
        return Finding(cause, what, self.place, f"{self._broker}: {evidence}", remedy, True, UPLINK)


def _unreachable(step: _Step, host: str, port: int, address: str, error: Exception) -> Finding:
    if isinstance(error, ConnectionRefusedError):
        remedy = "systemctl status mosquitto, on the broker's machine; is the port right (1883, with TLS 8883)?"
        return step.found("nothing listens", "nothing listens at the broker's port", f"{address} refuses", remedy)
    remedy = f"ping {host}; ip route; does a firewall let port {port} through?"
    seen = f"{address}: {error}" if str(error) else f"{address} does not answer within {WITHIN_S:g} s"
    return step.found("no way to broker", "there is no way to the broker", seen, remedy)


def _tls_ended(step: _Step, host: str, port: int, error: ssl.SSLError) -> Finding:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason:
        return _cast_out(step, reason)
    return _no_tls(step, host, port, reason)


def _no_tls(step: _Step, host: str, port: int, why: str) -> Finding:
    remedy = f"does {host}:{port} speak TLS at all? mqtt:// is for one that does not, on this machine only"
    return step.found("no TLS", "what listens there does not speak TLS as we do", f"TLS ended: {why}", remedy)


def _cast_out(step: _Step, why: str) -> Finding:
    remedy = f"its log says why; was {step.place}.cert_file signed by the authority that the broker trusts, is it new?"
    what = "the broker does not take our certificate, or misses one"
    return step.found("certificate refused", what, f"TLS ended: {why}", remedy)


def _silent(step: _Step, host: str, port: int, scheme: str, error: Exception) -> Finding:
    other = "mqtts://" if scheme == "mqtt" else "mqtt://"
    what = "something listens there and does not answer as a broker"
    remedy = f"is {host}:{port} the broker? one that wants TLS ends what speaks without: try {other}"
    return step.found("no broker there", what, str(error) or "no answer to CONNECT", remedy)


def _greeted(secure: bool, host: str, port: int, table: Credentials, client_id: str) -> int:
    """Return the code of the broker's CONNACK, 0 for a yes; raises OSError, ssl.SSLError, ValueError."""
    with socket.create_connection((host, port), WITHIN_S) as plain:
        if not secure:
            return _connected(plain, client_id)
        context = ssl.create_default_context(cafile=table.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if table.cert_file:
            context.load_cert_chain(table.cert_file, table.key_file)
        with context.wrap_socket(plain, server_hostname=host) as wrapped:
            try:
                return _connected(wrapped, client_id)
            except (OSError, ValueError) as error:  # TLS 1.3: what a server thinks of our certificate comes after
                raise _Refused(str(error)) from None


def _connected(connection: socket.socket, client_id: str) -> int:
    """Say CONNECT (MQTT 3.1.1, section 3.1), return the code of the answer."""
    octets = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x0f" + len(octets).to_bytes(2, "big") + octets
    connection.sendall(bytes((CONNECT, len(body))) + body)
    answer = connection.recv(4)
    while 0 < len(answer) < 4 and (more := connection.recv(4 - len(answer))):
        answer += more
    if len(answer) < 4 or answer[0] != CONNACK:
        raise ValueError(f"the answer to CONNECT is {answer.hex() or 'an end of the connection'}")
    connection.sendall(b"\xe0\x00")
    return answer[3]


async def _of_probe(step: _Step, broker: str, table: Credentials, name: str, topic: str) -> Finding | None:
    credentials = mqtt.Credentials(table.ca_file, table.cert_file, table.key_file)
    remedy = f"the broker's access list must let {name} write city/+/{name}/# and read {topic}; see docs/wire-mqtt.md"
    token = b"doctor-" + secrets.token_hex(8).encode()
    what = "the access list denies us: what is sent is acknowledged and thrown away"
    try:
        async with (
            asyncio.timeout(2 * WITHIN_S),
            mqtt.connect(broker, f"{name}-doctor", credentials, keep=False) as session,
        ):
            await session.subscribe(topic)
            await session.publish(topic, token)
            try:
                async with asyncio.timeout(WITHIN_S):
                    async for message in session.messages():
                        if message.payload == token:
                            return None
            except TimeoutError:
                seen = f"no message to {topic} came back within {WITHIN_S:g} s"
                return step.found("access list", what, seen, remedy)
    except (mqtt.SessionLost, OSError, TimeoutError) as error:
        return step.found("access list", what, str(error) or "no answer", remedy)
    return None
