# The node's end of the serial link on MicroPython: each answer of a recorded conversation, to the octet.
# Run as: micropython uplink_node.py CASES.json; see tests/test_uplink.py.
import json
import sys

from bega_protocols import cobs, uplink
from bega_protocols.uplink_node import NodeEnd

with open(sys.argv[1]) as file:
    cases = json.load(file)
for plain, stuffed in cases["cobs"]:
    plain, stuffed = bytes.fromhex(plain), bytes.fromhex(stuffed)
    assert cobs.encode(plain) == stuffed and cobs.decode(stuffed) == plain, plain
for key, text, digest in cases["hmac"]:
    assert uplink.hmac_sha256(bytes.fromhex(key), bytes.fromhex(text)).hex() == digest
end = None
for key, count, says, question, answer in cases["exchanges"]:
    if count == 0:
        end = NodeEnd(
            "air-1",
            "a1",
            bytes.fromhex(key),
            lambda size: bytes.fromhex(cases["chance"]),
            lambda kind, payload: None,
            lambda: None,
        )
    if says is not None:
        end.say(uplink.STATUS, bytes.fromhex(says))
    said = end.hear(bytes.fromhex(question))
    if said.hex() != answer:
        raise SystemExit("exchange %d: said %s, recorded %s" % (count, said.hex(), answer))
print(len(cases["exchanges"]), "exchanges")
