# The device contract on MicroPython: vectors decode, in any chunking, and behind noise; recorded measurements come out.
# Run as: micropython device_contract.py CASES.json; the cases are what tests/test_devices.py reads from vectors.json,
# one a line, since a node too holds one register map and not all of them.
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


def readings(groups):
    return [[Reading(*row) for row in group] for group in groups]


def check(device, case, stream):
    chunks = [bytes.fromhex(chunk) for chunk in case["chunks"]]
    expected = readings(case["groups"])

    def must_hear(what, pieces, behind_noise=False):
        heard = hear(make_driver(device, case["settings"]), pieces)
        if behind_noise:  # each is there; what a meter stamped itself comes once, whatever is repeated
            heard = [group for group in expected if group in heard]
        if heard != expected:
            raise SystemExit("%s, %s: heard %r, expected %r" % (case["name"], what, heard, expected))

    must_hear("whole", chunks)
    if stream:
        whole = b"".join(chunks)
        for size in (1, 2, 3, 7, 31, 64):
            must_hear("in pieces of %d" % size, (whole[at : at + size] for at in range(0, len(whole), size)))
    for seed in range(20):
        must_hear("behind noise", [noise(seed, seed * 3)] + chunks * 3, behind_noise=True)


def check_measurement(driver, now_ms, case):
    """Each question is the recorded one, and what comes out of the recorded answers is the same."""
    measurement = driver.measure(now_ms)
    answer = None
    groups = None
    try:
        for write, reply in case["exchanges"]:
            ask = measurement.send(answer)
            if ask.write != bytes.fromhex(write):
                raise SystemExit("%s: asked %r, recorded %s" % (case["name"], ask.write, write))
            answer = None if reply is None else bytes.fromhex(reply)
        measurement.send(answer)
        raise SystemExit("%s: asks more than was recorded" % case["name"])
    except StopIteration as stop:
        groups = stop.value or []
    if groups != readings(case["groups"]) or driver.attributes != case["attributes"]:
        raise SystemExit("%s: measured %r %r, recorded %r" % (case["name"], groups, driver.attributes, case))


lines = open(sys.argv[1])
book = json.loads(lines.readline())
cases = 0
for line in lines:
    check(book["device"], json.loads(line), book["stream"])
    cases += 1
measured = book.get("measured", [])
for case in measured:
    check_measurement(make_driver(book["device"], book["settings"]), book["now_ms"], case)
print("%d vectors hold, %d measurements" % (cases, len(measured)))
