"""Commands as they really come: a broker, a gateway as shipped, a controller on Modbus TCP, and kill -9."""

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bega_gateway.commands.order import canonical
from bega_simulators.hosts.tcp import ModbusTcpServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = "city/arad/gw-1/"
COMMANDS = 200
KILLS = 3
CONFIGURATION = """
[gateway]
name = "gw-1"
city = "arad"

[uplink]
brokers = ["{broker}"]

[commands]
public_key = "{key}"
per_second = 200

[lines.hall]
kind = "modbus-tcp"
host = "127.0.0.1"
port = {port}
timeout_s = 1

[devices.boiler]
line = "hall"
driver = "modbus_meter"
every_s = 2
settings = {{ address = 1 }}
tags = [{{ quantity = "temperature", address = 100, type = "int16", scale = -1 }}]

[devices.boiler.writes.setpoint]
function = 6
address = 100
type = "uint16"
least = 0
most = 1000
"""


class Boiler:
    """One register that is written and read; what was written stays on record."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.value = 0
        self.written: Counter[int] = Counter()

    def answer(self, request: bytes) -> bytes | None:
        if request[0] == 6:
            self.value = int.from_bytes(request[3:5], "big")
            self.written[self.value] += 1
            return request
        return bytes((request[0], 2)) + self.value.to_bytes(2, "big")


@pytest.fixture
def boiler():
    """Give (a boiler, its port), served by a thread."""
    made, loop = Boiler(), asyncio.new_event_loop()
    server = ModbusTcpServer({1: made})
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield made, port
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_two_hundred_commands_over_kill_9_are_done_once_or_refused(
    mosquitto, make_reader, make_gateway, boiler, tmp_path, eventually
):
    device, port = boiler
    owner, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file = tmp_path / "commands.pem"
    file.write_bytes(owner.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    reader = make_reader(mosquitto.url, f"{ROOT}result")
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, key=file, port=port))
    chance = random.Random(1)

    def send(number: int) -> None:
        kind = number % 10
        topic = f"{ROOT}cmd/write"
        payload = {"id": f"{number}", "expires": int(time.time()) + 600, "device": "boiler", "name": "setpoint"}
        payload["value"] = 2000 if kind == 8 else number + 1
        payload["sig"] = (stranger if kind == 9 else owner).sign(canonical(topic, payload)).hex()
        payloads[number] = payloads.get(number) or json.dumps(payload).encode()
        reader.publish(topic, payloads[number])

    payloads: dict[int, bytes] = {}

    def results() -> dict[str, list[dict]]:
        found: dict[str, list[dict]] = {}
        for _, pack in list(reader.packs):
            result = json.loads(pack)
            if "busy" in result.get("reason", ""):  # more than 100 came while it was started: they are sent again
                continue
            found.setdefault(result["id"], []).append(result)
        return found

    gateway.start()
    eventually(lambda: "uplink up" in gateway.log.read_text(), "the uplink is up")
    send(0)
    eventually(lambda: "0" in results(), "a first result")
    kill_at = {chance.randrange(20, COMMANDS) for _ in range(KILLS)}
    for number in range(1, COMMANDS):
        send(number)
        if number in kill_at:
            gateway.kill()
            gateway.start()

    def all_answered() -> bool:
        missing = [number for number in range(COMMANDS) if str(number) not in results()]
        for number in missing[:20]:
            send(number)  # whoever hears nothing sends it again, with the same id
        time.sleep(0.5)
        return not missing

    eventually(all_answered, "each command has a result", 90)
    found = results()
    for number in range(COMMANDS):
        first = found[str(number)][0]
        if number % 10 in (8, 9):
            why = "from 0 to 1000" if number % 10 == 8 else "not signed"
            assert {result["status"] for result in found[str(number)]} == {"refused"}
            assert why in first["reason"]
            continue
        ends = {result["status"] for result in found[str(number)]} - {"begun"}
        assert ends in ({"done"}, {"unknown"}), found[str(number)]
        assert device.written[number + 1] == 1 or (ends == {"unknown"} and not device.written[number + 1])
    assert 2000 not in device.written
    assert device.written.total() <= COMMANDS


def test_an_operator_sends_a_signed_command_and_reads_what_came_of_it(
    mosquitto, make_gateway, boiler, tmp_path, eventually
):
    device, port = boiler
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "private.pem", tmp_path / "commands.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, key=public, port=port))
    gateway.start()
    eventually(lambda: "uplink up" in gateway.log.read_text(), "the uplink is up")

    def command(*words: str) -> tuple[int, str]:
        to = ["--broker", mosquitto.url, "--gateway", "arad/gw-1", "--expires-in", "20", *words]
        told = subprocess.run([sys.executable, "-m", "bega", "gateway", "command", *to], capture_output=True, text=True)
        return told.returncode, told.stdout

    signed = ("--sign-with", str(private))
    assert command(*signed, "write", "boiler", "setpoint", "215") == (0, "done\n  value: 215\n")
    assert device.written == {215: 1}
    code, said = command(*signed, "write", "boiler", "setpoint", "2000")
    assert (code, said.partition(":")[0]) == (1, "refused, nothing was done") and "from 0 to 1000" in said
    code, said = command("write", "boiler", "setpoint", "216")
    assert (code, "not signed" in said) == (1, True)
    assert device.written == {215: 1}
    assert gateway.stop() == 0


def test_each_verb_that_needs_no_wire_answers(mosquitto, make_reader, make_gateway, boiler, tmp_path, eventually):
    _, port = boiler
    led = tmp_path / "led"
    led.mkdir()
    (led / "brightness").write_text("0")
    text = CONFIGURATION.format(broker=mosquitto.url, key="", port=port)
    gateway = make_gateway(text.replace('public_key = ""', f'led = "{led}"'))
    reader = make_reader(mosquitto.url, f"{ROOT}result")
    gateway.start()
    eventually(lambda: "uplink up" in gateway.log.read_text(), "the uplink is up")

    def answer(verb: str, **keys) -> dict:
        payload = {"id": verb, "expires": int(time.time()) + 60, **keys}
        reader.publish(f"{ROOT}cmd/{verb}", json.dumps(payload).encode())
        eventually(lambda: any(verb == json.loads(pack)["id"] for _, pack in list(reader.packs)), f"{verb} is answered")
        return next(result for _, pack in reader.packs if (result := json.loads(pack))["id"] == verb)

    status = answer("status")
    assert (status["status"], status["result"]["uplink"], status["result"]["watched"]) == ("done", "up", 1)
    assert answer("read", device="boiler")["status"] == "done"
    assert answer("restart_line", line="hall")["status"] == "done"
    assert answer("blink", for_s=1)["status"] == "done"
    assert (led / "brightness").read_text() == "0", "as it was before"
    assert "no action" not in gateway.log.read_text()
    act = answer("act", device="boiler", action="zero")
    assert (act["status"], act["reason"]) == ("refused", "this action may not be done on this device")
    node = answer("configure_node", node="air-1", configuration={})
    assert (node["status"], node["reason"]) == ("refused", "no such node")
    assert gateway.stop() == 0
