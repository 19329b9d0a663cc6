"""One MQTT session: 3.1.1, QoS 1, kept by the broker while we are away. aiomqtt (paho beneath) does the work."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.enums import MQTTErrorCode

WINDOW = 100  # messages in flight; aiomqtt slows down beyond it (71 us a message here, 127 us at 1000)
KEEPALIVE_S = 15
ANSWER_S = 8.0  # a broker that takes longer to acknowledge counts as gone
LEAVE_S = 1.0  # a good-bye takes no longer: a gateway that is told to stop has two seconds

# paho tells of each reconnect itself; our own lines say it once.
_quiet = logging.getLogger("bega.mqtt.paho")
_quiet.setLevel(logging.CRITICAL)

SessionLost = aiomqtt.MqttError


class Message(NamedTuple):
    """What arrived."""

    topic: str
    payload: bytes
    is_retained: bool = False  # the broker had kept it, and sent it because of our subscription


class Will(NamedTuple):
    """What the broker publishes, and keeps, when our connection ends without a good-bye."""

    topic: str
    payload: bytes


class Credentials(NamedTuple):
    """Files for mutual TLS."""

    ca_file: str | None  # None: the system's authorities
    cert_file: str | None
    key_file: str | None


class Session:
    """A connection that is up. Whatever fails raises SessionLost, and the session is over."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._paho = client._client
        self._in_flight: dict[int, Callable[[], object]] = {}
        self._published_elsewhere = self._paho.on_publish  # aiomqtt's own
        self._paho.on_publish = self._published

    async def subscribe(self, *topics: str) -> None:
        """Subscribe at QoS 1; raises SessionLost if the broker refuses one of them."""
        with _heeding_cancellation():
            granted = await self._client.subscribe([(topic, 1) for topic in topics])
        codes = [code if isinstance(code, int) else code.value for code in granted]
        refused = [topic for topic, code in zip(topics, codes, strict=True) if code > 2]
        if refused:
            raise SessionLost(f"the broker refuses a subscription to {', '.join(refused)}: see its access list")

    async def unsubscribe(self, topic: str) -> None:
        """End a subscription."""
        with _heeding_cancellation():
            await self._client.unsubscribe(topic)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and return when the broker has acknowledged it; retain: it keeps the newest of a topic."""
        with _heeding_cancellation():
            await self._client.publish(topic, payload, qos=1, retain=retain, timeout=ANSWER_S)

    def send(self, topic: str, payload: bytes, acknowledged: Callable[[], object], *, retain: bool = False) -> None:
        """Publish at QoS 1 and call `acknowledged` when the broker has; for many messages at half of the cost.

        `publish` waits for each in a task and a time-out of its own (99 us a message, this 50). Whoever sends so
        watches the time himself. Raises SessionLost, and ValueError for a topic or payload that MQTT does not know.
        """
        sent = self._paho.publish(topic, payload, 1, retain)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise SessionLost(f"could not publish ({sent.rc.name})")
        self._in_flight[sent.mid] = acknowledged

    def _published(self, client: Any, userdata: Any, mid: int, *details: Any) -> None:
        """Called by paho with each PUBACK."""
        acknowledged = self._in_flight.pop(mid, None)
        if acknowledged:
            acknowledged()
        elif self._published_elsewhere:
            self._published_elsewhere(client, userdata, mid, *details)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what arrives, until SessionLost."""
        try:
            async for message in self._client.messages:
                payload = message.payload
                known = payload if isinstance(payload, bytes) else b""
                yield Message(str(message.topic), known, message.retain)
        except aiomqtt.MqttError:
            raise SessionLost(
                "the connection ended: the broker went, or (if again and again) another client has our name,"
                " or a message is too large for the broker or not allowed"
            ) from None


@asynccontextmanager
async def connect(
    address: str,
    client_id: str,
    credentials: Credentials | None = None,
    *,
    keep: bool = True,
    will: Will | None = None,
    login: tuple[str, str] | None = None,
) -> AsyncIterator[Session]:
    """Connect to `address` (mqtt://host:port, mqtts://host:port) as `client_id`.

    keep: the broker keeps subscriptions and messages while we are away (clean_session=false).
    login: user and password, where the broker is another's; ours know us by certificate.
    Raises SessionLost, with a sentence that says what to look at, if it cannot be reached or refuses.
    """
    parts = urlsplit(address)
    secure = parts.scheme == "mqtts"
    client = aiomqtt.Client(
        parts.hostname or "localhost",
        parts.port or (8883 if secure else 1883),
        identifier=client_id,
        username=login[0] if login else None,
        password=login[1] if login else None,
        clean_session=not keep,
        will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True) if will else None,
        keepalive=KEEPALIVE_S,
        timeout=ANSWER_S,
        # Not paho's own limit, which costs a look at each message under way for every PUBACK (17 us at a window of
        # 100): whoever sends many keeps to WINDOW himself.
        max_inflight_messages=0,
        tls_context=_tls_context(credentials) if secure else None,
        # A small message must not wait for the acknowledgement of the one before it (Nagle and delayed ACK: 40 ms).
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        logger=_quiet,
    )
    client.pending_calls_threshold = 2 * WINDOW
    try:
        with _heeding_cancellation() as heed:
            async with _entered(client, secure):
                try:
                    heed()
                    yield Session(client)
                finally:
                    client.timeout = LEAVE_S
    finally:
        _let_go(client)


@asynccontextmanager
async def _entered(client: aiomqtt.Client, secure: bool) -> AsyncIterator[None]:
    """Connect as `client` for the block; what prevents that is said in words."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(client)
        except aiomqtt.MqttError as error:
            raise SessionLost(_advice(secure, error)) from None
        yield


def _advice(secure: bool, error: aiomqtt.MqttError) -> str:
    """Return what happened at the connect, and what to look at."""
    cause = error.__context__  # aiomqtt passes on the text alone
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not good ({cause.verify_message}): look at ca_file, and at this clock"
    if isinstance(cause, socket.gaierror):
        return "nobody knows this name: is it right, is there a name server?"
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there: does the broker run, is the port right?"
    if isinstance(cause, ssl.SSLError | ConnectionResetError) and secure:
        return f"it ends the TLS handshake ({cause}): does it want a certificate, is the port right?"
    if isinstance(cause, TimeoutError) or "timed out" in str(error):
        # In TLS 1.3 a broker says no to a certificate after the handshake, and paho does not pass that on.
        more = ", does it believe our certificate?" if secure else "?"
        return f"no answer within {ANSWER_S:g} s: is there a way to it, does it speak MQTT{more}"
    return str(error)


def _let_go(client: aiomqtt.Client) -> None:
    """Close what aiomqtt leaves open where the broker's yes did not come in time.

    A yes that came later would make a second session of ours, which nobody reads.
    """
    client._client.on_disconnect = None  # aiomqtt's own stumbles over a connect that was cancelled
    client._client.disconnect()
    lost = client._disconnected
    if lost.done() and not lost.cancelled():
        lost.exception()  # whoever needed the connection was told by what it waited for


@contextmanager
def _heeding_cancellation() -> Iterator[Callable[[], None]]:
    """Raise CancelledError at the end, or where the yielded function is called, if the task was cancelled meanwhile.

    asyncio.wait_for of Python 3.11, which aiomqtt waits with, drops a cancellation that comes in the same turn of the
    loop as the answer; whoever was told to end would then wait for ever. Fixed in 3.12.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0

    def heed() -> None:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError

    yield heed
    heed()


def _tls_context(credentials: Credentials | None) -> ssl.SSLContext:
    """Return a context that trusts the given authority, or the system's; SessionLost if a file cannot be used."""
    files = [file for file in credentials or () if file]
    try:
        context = ssl.create_default_context(cafile=credentials.ca_file if credentials else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if credentials and credentials.cert_file:
            context.load_cert_chain(credentials.cert_file, credentials.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SessionLost(f"certificate files cannot be used ({', '.join(files)}): {error}") from None
    return context
