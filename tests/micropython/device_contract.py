# The device contract on MicroPython: vectors decode, in any chunking, and behind noise.
# Run as: micropython device_contract.py CASES.json; the cases are what tests/test_devices.py reads from vectors.json.
import json
import sys

from bega_protocols.reading import Reading


def aes_block_cipher(key):
    import cryptolib

    ecb = cryptolib.aes(key, 1)
    return ecb.encrypt


def make_driver(device, settings):
    module = __import__("bega_protocols.devices." + device + ".driver", None, None, ("Driver",))
    return module.Driver(settings, b"", aes_block_cipher)


def hear(driver, chunks):
    groups = []
    for chunk in chunks:
        groups.extend(driver.feed(chunk, 0))
    return groups


def noise(seed, length):
    state = seed or 1
    octets = bytearray()
    for _ in range(length):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        octets.append(state >> 16 & 0xFF)
    return bytes(octets)


def check(device, case, stream):
    chunks = [bytes.fromhex(chunk) for chunk in case["chunks"]]
    expected = [[Reading(*row) for row in group] for group in case["groups"]]

    def must_hear(what, pieces, last_only=False):
        heard = hear(make_driver(device, case["settings"]), pieces)
        if last_only:
            heard = [group for group in heard if group in expected][-len(expected) :] if expected else []
        if heard != expected:
            raise SystemExit("%s, %s: heard %r, expected %r" % (case["name"], what, heard, expected))

    must_hear("whole", chunks)
    if stream:
        whole = b"".join(chunks)
        for size in (1, 2, 3, 7, 31, 64):
            must_hear("in pieces of %d" % size, (whole[at : at + size] for at in range(0, len(whole), size)))
    for seed in range(20):
        must_hear("behind noise", [noise(seed, seed * 3)] + chunks * 3, last_only=True)


book = json.load(open(sys.argv[1]))
for case in book["cases"]:
    check(book["device"], case, book["stream"])
print("%d vectors hold" % len(book["cases"]))
