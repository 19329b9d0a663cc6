"""A small MQTT 3.1.1 client: QoS 1 out, QoS 0 and 1 in, a session that the broker keeps.

Spec: MQTT Version 3.1.1 (OASIS, 29 October 2014); sections are named below.
It repeats nothing by itself: what must arrive is sent again by who knows what
arrived, and a PUBACK only says that the broker heard it.
"""

import asyncio
import struct

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14
LARGEST = 4096  # bytes of an incoming packet; what is larger is read past and dropped, whatever it claims to be
PIECE = 256


class Mqtt:
    """One connection. Every method raises OSError (or EOFError, ValueError from TLS) when it is broken: make a new one.

    on_message(topic: str, payload: bytes) is called for each message.
    """

    def __init__(self, client_id, keep_alive_s, on_message):
        self.too_large = 0
        self._client_id = client_id
        self._keep_alive_s = keep_alive_s
        self._on_message = on_message
        self._writing = asyncio.Lock()  # a drain that is overtaken by another would send its bytes twice
        self._packet_id = 0
        self._reader = self._writer = None

    async def connect(self, host, port, tls=None):
        """Connect and wait for the broker's yes (sections 3.1, 3.2). The session is kept: clean_session = 0."""
        secured = {"ssl": tls, "server_hostname": host} if tls else {}
        self._reader, self._writer = await asyncio.open_connection(host, port, **secured)
        await self._send(CONNECT << 4, b"\0\4MQTT\4\0" + struct.pack(">H", self._keep_alive_s) + _text(self._client_id))
        head, body = await self._read_packet()
        if head >> 4 != CONNACK or len(body) != 2 or body[1]:
            raise OSError("broker refuses: %r" % bytes(body or b""))

    async def subscribe(self, topic, qos):
        """Ask for a topic (section 3.8); `run` raises OSError if the broker refuses it."""
        identity = self._next_id()
        await self._send(SUBSCRIBE << 4 | 2, struct.pack(">H", identity) + _text(topic) + bytes((qos,)))

    async def publish(self, topic, payload):
        """Send at QoS 1 (section 3.3); returns when it is on its way, which promises nothing."""
        await self._send(PUBLISH << 4 | 2, _text(topic) + struct.pack(">H", self._next_id()) + payload)

    async def run(self):
        """Take what comes until the connection breaks, or keeps silent for longer than its pings allow."""
        while True:
            head, body = await asyncio.wait_for(self._read_packet(), self._keep_alive_s)
            if body is None:
                self.too_large += 1
            elif head >> 4 == PUBLISH:
                await self._take(head, body)
            elif head >> 4 == SUBACK and body[2:3] == b"\x80":
                raise OSError("broker refuses a subscription")

    async def ping(self):
        """Keep the connection alive and noticed when dead (section 3.12), until cancelled."""
        while True:
            await asyncio.sleep_ms(self._keep_alive_s * 400)
            await self._send(PINGREQ << 4, b"")

    def close(self):
        """Let go of the socket. No DISCONNECT: after a failure nobody hears it."""
        if self._writer is not None:
            self._writer.s.close()
            self._reader = self._writer = None

    async def _take(self, head, body):
        size = struct.unpack_from(">H", body)[0]
        topic = bytes(body[2 : 2 + size]).decode()
        at = 2 + size
        if head & 6:
            identity = body[at : at + 2]
            at += 2
            await self._send(PUBACK << 4, identity)
        self._on_message(topic, bytes(body[at:]))

    async def _send(self, head, body):
        length = bytearray()
        rest = len(body)
        while rest > 127:  # section 2.2.3
            length.append(rest & 127 | 128)
            rest >>= 7
        length.append(rest)
        async with self._writing:
            self._writer.write(bytes((head,)) + length + body)
            await self._writer.drain()

    async def _read_packet(self):
        """Return (first byte, the rest), or (first byte, None) if the rest was too large to keep."""
        head = (await self._reader.readexactly(1))[0]
        size = shift = 0
        while True:
            octet = (await self._reader.readexactly(1))[0]
            size |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                break
            if shift > 21:
                raise OSError("no MQTT")
        if size <= LARGEST:
            return head, await self._reader.readexactly(size) if size else b""
        while size:
            size -= len(await self._reader.readexactly(min(size, PIECE)))
        return head, None

    def _next_id(self):
        self._packet_id = self._packet_id % 65535 + 1
        return self._packet_id


def _text(text):
    octets = text.encode()
    return struct.pack(">H", len(octets)) + octets
