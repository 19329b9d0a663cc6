"""The way out by Wi-Fi to the gateway's broker: MQTT, with mutual TLS where the configuration names certificates."""

import asyncio
import gc

import kept
from mqtt import Mqtt
from together import until_first_ends
from wifi import Wifi

from bega_protocols.errors import ConfigError
from bega_protocols.settings import only, whole_number

CONNECT_S = 20
TLS_BYTES = (
    17408  # in one piece: ESP-IDF's buffer for an incoming record (16 KiB and its overhead); the rest is smaller
)
SHORT_AT_MOST = 5  # connects for which that was missing; then only a fresh start helps


def read(config):
    """Return what `wifi` and `broker` of the configuration say. Raises ConfigError."""
    from config import table_in, word_in  # here: choice.py lets go of its code, once all is read

    wifi, broker = table_in(config, "wifi"), table_in(config, "broker")
    only(wifi, "ssid", "key")
    only(broker, "host", "port", "keep_alive_s", "tls")
    if not isinstance(wifi.get("key", ""), str):
        raise ConfigError("wifi.key must be text")  # never the value: it is a secret
    files = None  # of authority, certificate and key (DER); without them the link is plain
    if "tls" in broker:
        tls = table_in(broker, "tls")
        only(tls, "ca", "certificate", "key")
        if not config.get("made_s"):  # an ESP32 begins in 2000, when no certificate was valid yet
            raise ConfigError("broker.tls needs made_s, the chip's clock until the gateway tells the time")
        files = {part: word_in(tls, "broker.tls." + part, part) for part in ("ca", "certificate", "key")}
    return {
        "ssid": word_in(wifi, "wifi.ssid", "ssid"),
        "key": wifi.get("key", ""),
        "host": word_in(broker, "broker.host", "host"),
        "port": whole_number(broker, "port", 1, 65535, 8883 if "tls" in broker else 1883),
        "keep_alive_s": whole_number(broker, "keep_alive_s", 2, 3600, 20),
        "tls": files,
    }


class Way:
    """A way (see link.py)."""

    def __init__(self, config):
        self._node = config["node"]
        self._config = config["broker"]
        self._wifi = Wifi(self._config["ssid"], self._config["key"])
        self._topics = "node/" + self._node + "/"
        self._tls = secured(self._config["tls"], config["made_s"]) if self._config["tls"] else None
        self._mqtt = None
        self._hear = None
        self._pulls = False
        self._short = 0

    async def open(self):
        """Join Wi-Fi, connect to the broker, and ask for what is for us."""
        await self._wifi.up()
        config = self._config
        if self._tls:
            self._check_memory()
        self._pulls = False
        self._mqtt = mqtt = Mqtt(self._node, config["keep_alive_s"], self._take)
        await asyncio.wait_for(mqtt.connect(config["host"], config["port"], self._tls), CONNECT_S)
        await mqtt.subscribe(self._topics + "ack", 1)
        # QoS 0: a broker queues no time for a node that is away, to be told hours later.
        await mqtt.subscribe(self._topics + "time", 0)
        await mqtt.subscribe(self._topics + "cmd/#", 0)  # nor a command, to be done hours later

    async def send(self, kind, payload):
        """Publish on the topic of that kind."""
        if kind == "want" and not self._pulls:  # not with the others: a broker may refuse it, and then only this fails
            self._pulls = True
            await self._mqtt.subscribe(self._topics + "piece", 0)
        await self._mqtt.publish(self._topics + kind, payload)

    async def run(self, hear):
        """Take what the broker sends, and keep the connection alive."""
        self._hear = hear
        await until_first_ends(self._mqtt.run(), self._mqtt.ping())

    def check(self):
        """Raise OSError once the station has lost its access point."""
        if not self._wifi.is_up():
            raise OSError("Wi-Fi is gone")

    def close(self):
        """Let go of the connection; the station stays."""
        if self._mqtt is not None:
            self._mqtt.close()
            self._mqtt = None

    def _check_memory(self):
        """Raise OSError where TLS would fail for want of memory: its heap is the IDF's, which gc cannot see."""
        import esp32

        gc.collect()
        largest = max([region[2] for region in esp32.idf_heap_info(esp32.HEAP_DATA)])
        if largest >= TLS_BYTES:
            self._short = 0
            return
        self._short += 1
        if self._short > SHORT_AT_MOST:
            raise MemoryError("no %d bytes in one piece for TLS" % TLS_BYTES)
        raise OSError("TLS needs %d bytes in one piece, the largest has %d" % (TLS_BYTES, largest))

    def _take(self, topic, payload):
        if topic.startswith(self._topics):
            self._hear(topic[len(self._topics) :], payload)


def secured(files, made_s):
    """Return the TLS context: the gateway must show a certificate of our authority, and we show ours (all DER)."""
    import ssl  # only here: its buffers are for those who need them

    if kept.chip_ms() < made_s * 1000:  # after a power cut it counts from 2000, when no certificate was valid yet
        kept.set_chip(made_s * 1000)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    with open(files["ca"], "rb") as authority:
        context.load_verify_locations(cadata=authority.read())
    with open(files["certificate"], "rb") as certificate, open(files["key"], "rb") as key:
        context.load_cert_chain(certificate.read(), key.read())
    return context
