"""The way out of a node, proved step by step: Wi-Fi joined, broker reached, one record acknowledged by a gateway.

The first two are tried by the node's chip while its program is stopped; the last one is the program's own doing, and
its console tells of it.
"""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from bega.clock import mono_s
from bega_firmware.outcome import Outcome
from bega_firmware.proof.found import Prompt
from bega_firmware.proof.on_node import FILES, WAY, call

JOIN_MS = 20_000  # as the node itself waits (firmware/node/wifi.py)
ASK_S = 40.0
FAIR_DBM, WEAK_DBM = -70, -80
KEEP_ALIVE_S = 20
RECORD_S, LONGEST_RECORD_S = 60.0, 240.0
WIFI, BROKER, RECORD = "Wi-Fi", "broker", "record seen"

# network.STAT_* of MicroPython's ESP32 port; 201 and 202 also stand for what an access point does to one it dislikes.
NOT_JOINED: Mapping[object, tuple[str, str]] = {
    200: ("the access point fell silent", "is it too far away? see its distance and the node's antenna"),
    201: ("no network of that name is heard", "is the name right, letter by letter? an ESP32 hears 2.4 GHz alone"),
    202: ("the password is refused", "put the right one into the site's secrets and provision the node again"),
    203: ("the access point refuses to take it", "does it filter by address, is it full?"),
    204: ("the handshake was not finished", "is the password right? else its signal is too weak"),
    210: ("the network's security is none that the node can", "set it to WPA2"),
    211: ("the network's security is none that the node can", "set it to WPA2"),
    212: ("its signal is too weak", "move the node or its antenna, or the access point"),
    1001: ("it is not given an address", "does the network's router have any left (DHCP)? is its signal weak?"),
}
REFUSED = {
    1: "it speaks no MQTT 3.1.1",
    2: "it refuses the node's name",
    3: "it is not ready",
    4: "it wants user name and password",
    5: "it does not let the node in: its access list, or the certificate's name",
}
TLS_CAUSES = (
    ("future", "the broker's certificate is not valid yet by the node's clock", "provision the node again: its time"),
    ("expired", "the broker's certificate has expired", "bega ca renew it, and give it to the broker"),
    ("not correctly signed", "the broker's certificate is of another authority", "is the node provisioned for it?"),
    ("CN", "the broker's certificate is for another host", "issue it with --host of the name that nodes are given"),
    ("ALERT", "the broker does not take the node's certificate", "is it of the broker's authority, expired, revoked?"),
)
# MicroPython's errno knows not all of their names: EPIPE, ECONNRESET, ENOTCONN.
HUNG_UP = ("32", "104", "128", "EPIPE", "ECONNRESET", "ENOTCONN")
RUNS = re.compile(r"bega: node (\S+) runs, (boot (\d+)|beacon (\S+)), firmware (\S+)")
ACKNOWLEDGED = re.compile(r"bega: acknowledged (\[.*\])")
DOWN = re.compile(r"bega: link down: (.*)")
STOPS = re.compile(r"bega: (configuration: .*|safe mode: .*)")


class Console(Prompt, Protocol):
    """What is needed of a cable to see a node start."""

    def restart(self) -> None:
        """Reset it."""

    def lines(self, for_s: float | None = None) -> Iterator[str]:
        """Yield what its program says."""


def prove_network(cable: Prompt, config: Mapping[str, Any]) -> Iterator[Outcome]:
    """Yield what came of Wi-Fi and of the broker, of a configuration with that way. The program is stopped by it."""
    cable.run(FILES, ASK_S)
    cable.run(WAY, ASK_S)
    began_s = mono_s()
    wifi = config["wifi"]
    answer = _asked(cable, "joined", wifi["ssid"], wifi.get("key", ""), JOIN_MS)
    joined = of_wifi(wifi["ssid"], answer, mono_s() - began_s)
    yield joined
    if joined.passed is False:
        yield Outcome(BROKER, None, "not tried: there is no network")
        return
    began_s = mono_s()
    broker = config["broker"]
    tls = broker.get("tls") or {}
    files = [tls.get(part, "") for part in ("ca", "certificate", "key")] if tls else []
    port = broker.get("port", 8883 if tls else 1883)
    made = _clock_of(int(config.get("made_s", 0)))
    answer = _asked(cable, "reached", broker["host"], port, files, made, hello(str(config["node"])))
    yield of_broker(f"{broker['host']}:{port}", bool(tls), answer, mono_s() - began_s)


def of_wifi(ssid: str, answer: Mapping[str, Any], took_s: float) -> Outcome:
    """Return in words what came of joining a network. Its name is no secret: every passer-by reads it."""
    if not answer["up"]:
        status = answer["status"]
        words, what_to_do = NOT_JOINED.get(status, (f"its chip says {status}", "press EN and test again"))
        return Outcome(WIFI, False, f"{ssid} is not joined: {words}", what_to_do, took_s)
    rssi = answer["rssi"]
    if not isinstance(rssi, int):
        return Outcome(WIFI, True, f"{ssid} joined", "", took_s)
    if rssi >= FAIR_DBM:
        return Outcome(WIFI, True, f"{ssid} joined, good signal ({rssi} dBm)", "", took_s)
    advice = "turn or move its antenna, or bring the access point nearer"
    if rssi >= WEAK_DBM:
        return Outcome(WIFI, True, f"{ssid} joined, fair signal ({rssi} dBm)", "", took_s)
    return Outcome(WIFI, None, f"{ssid} joined, weak signal ({rssi} dBm): rain or a van will end it", advice, took_s)


def of_broker(place: str, is_secured: bool, answer: Mapping[str, Any], took_s: float) -> Outcome:
    """Return in words what came of reaching the broker."""
    words, what_to_do = _of_broker(place, answer)
    if what_to_do:
        return Outcome(BROKER, False, words, what_to_do, took_s)
    how = "each has shown the other its certificate" if is_secured else "without TLS: no certificate was tried"
    return Outcome(BROKER, True, f"{place} takes the node; {how}", "", took_s)


def _of_broker(place: str, answer: Mapping[str, Any]) -> tuple[str, str]:
    step, name, said = answer.get("failed", ""), answer.get("name", ""), " ".join(str(answer.get("said", "")).split())
    host, _, port = place.rpartition(":")
    if step == "name":
        return f"nobody knows the name {host}", "is it right? does the network's router answer names (DNS)?"
    if step == "connect" and name == "ECONNREFUSED":
        return f"{host} is there, and no broker answers on port {port}", "is the broker running, is its port this one?"
    if step == "connect":
        return (
            f"{place} is not reached ({name or said})",
            "is the broker on this network? does a firewall stand between?",
        )
    if step == "files":
        return "the node's certificates are missing or damaged", "provision the node again"
    if step in ("tls", "mqtt"):
        for mark, words, what_to_do in TLS_CAUSES:
            if mark in said:
                return f"{place}: {words} ({said})", what_to_do
    if step == "tls" and (name in HUNG_UP or said in HUNG_UP):
        what_to_do = (
            "is it of the broker's authority, expired, revoked? or does this port speak no TLS? its log says which"
        )
        return f"{place} hangs up in the middle of TLS, most often since it does not take the certificate", what_to_do
    if step == "tls":
        return f"{place}: TLS fails ({said})", "does this port speak TLS? else see the broker's log"
    if step == "mqtt":
        return f"{place} breaks the connection ({name or said})", "see the broker's log: it says why"
    code = answer.get("code")
    if code is None:
        return f"{place} hangs up when the node says its name", "see the broker's log: certificate or access list"
    if code:
        return f"{place}: {REFUSED.get(code, f'it refuses with code {code}')}", "see its log and its access list"
    return "", ""


def prove_record(
    cable: Console, within_s: float, where: str, clock: Callable[[], float] = mono_s, ears: list[str] | None = None
) -> Outcome:
    """Restart the node and wait until a gateway has acknowledged one of its records; `where` ends the sentence.

    ears: filled with what its program said.
    """
    began_s = clock()
    cable.restart()
    told = Told()
    for line in cable.lines(within_s):
        if ears is not None:
            ears.append(line)
        told.take(line)
        if told.is_decided or clock() - began_s > within_s:
            break
    return told.outcome(where, clock() - began_s)


class Told:
    """What a node's program says on its console, as far as it proves something."""

    def __init__(self) -> None:
        self.runs = ""  # "air-7, firmware 1.2.3"
        self.boot: int | None = None
        self.beacon = ""
        self.pairs: list[list[int]] = []
        self.down = ""
        self.stopped = ""

    def take(self, line: str) -> None:
        """Take one line of it."""
        if found := RUNS.search(line):
            self.runs = f"{found[1]}, firmware {found[5]}"
            self.boot = int(found[3]) if found[3] else None
            self.beacon = found[4] or ""
        elif found := ACKNOWLEDGED.search(line):
            self.pairs = pairs_in(found[1])
        elif found := DOWN.search(line):
            self.down = found[1]
        elif found := STOPS.search(line):
            self.stopped = found[1]

    @property
    def is_decided(self) -> bool:
        """Whether nothing more needs to be heard."""
        return bool(self.pairs or self.beacon or self.stopped)

    def outcome(self, where: str, took_s: float) -> Outcome:
        """Return what it proves."""
        if self.pairs:
            return self._acknowledged(where, took_s)
        if self.stopped:
            return Outcome(
                RECORD, False, f"the node does not work: {self.stopped}", "`bega node doctor` says more", took_s
            )
        if self.beacon:
            return Outcome(
                RECORD,
                None,
                f"{self.runs} advertises as {self.beacon}; whether a gateway hears it cannot be seen from here",
                "on the gateway: bega gateway status",
                took_s,
            )
        if not self.runs:
            return Outcome(
                RECORD,
                False,
                "its program does not start",
                "`bega node doctor`; flash it if that helps nothing",
                took_s,
            )
        known = f"does the gateway run, does its configuration have [nodes.{self.runs.partition(',')[0]}]?"
        if self.down:
            what_to_do = f"what stands above comes first; else: {known}"
            return Outcome(RECORD, False, f"{self.runs} runs, its way breaks: {self.down}", what_to_do, took_s)
        return Outcome(
            RECORD,
            False,
            f"{self.runs} runs, and no gateway has acknowledged a record within {took_s:.0f} s",
            f"{known} bega gateway doctor, on the gateway",
            took_s,
        )

    def _acknowledged(self, where: str, took_s: float) -> Outcome:
        own = [seq for boot, seq in self.pairs if boot == self.boot]
        if own:
            words = f"{self.runs}: record {self.boot}/{own[0]} came to a gateway and was acknowledged, {where}"
            return Outcome(RECORD, True, words, "", took_s)
        boot, seq = self.pairs[0]
        words = f"{self.runs}: a record of an earlier start, {boot}/{seq}, was acknowledged; it has more to hand on"
        return Outcome(RECORD, None, words, "leave it running for some minutes, then test it again", took_s)


def pairs_in(text: str) -> list[list[int]]:
    """Return the [boot, seq] in "[[1795300000, 4]]" or "[(1795300000, 4)]", [] if it is none."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return [numbers[at : at + 2] for at in range(0, len(numbers) - 1, 2)]


def record_within_s(config: Mapping[str, Any]) -> float:
    """Return how long to wait for a record of a node that measures as seldom as its configuration says."""
    devices = config.get("devices", {}).values()
    every = [device.get("every_s", 10) for device in devices if isinstance(device, dict)]
    soonest = min([float(each) for each in every if isinstance(each, int | float)], default=10.0)
    return min(LONGEST_RECORD_S, RECORD_S + 2 * soonest)


def way_of(config: Mapping[str, Any]) -> str:
    """Return the way out that a configuration names: "broker", "uplink", "beacon", "" for none."""
    return next((way for way in ("broker", "uplink", "beacon") if way in config), "")


def hello(node: str) -> bytes:
    """Return the CONNECT by which the node itself comes (MQTT 3.1.1, section 3.1): its session is kept."""
    name = node.encode()
    body = b"\0\4MQTT\4\0" + struct.pack(">HH", KEEP_ALIVE_S, len(name)) + name
    return bytes((0x10, len(body))) + body


def in_words(outcomes: Iterable[Outcome]) -> str:
    """Return what went wrong, in one line."""
    return "; ".join(f"{outcome.step}: {outcome.words}" for outcome in outcomes if outcome.passed is False)


def _clock_of(made_s: int) -> tuple[int, ...] | None:
    """Return what machine.RTC().datetime takes for a moment in Unix seconds, None for none."""
    if not made_s:
        return None
    moment = time.gmtime(made_s)
    return (*moment[:3], moment.tm_wday, *moment[3:6], 0)


def _asked(cable: Prompt, name: str, *arguments: object) -> dict[str, Any]:
    said = cable.run(call(name, *arguments), ASK_S).strip().splitlines()
    found: dict[str, Any] = json.loads(said[-1]) if said else {}
    return found
