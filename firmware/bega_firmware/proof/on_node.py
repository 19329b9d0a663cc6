"""What is run on a node's own interpreter to look at it: MicroPython's modules alone, nothing of the node's program.

So it works on a node whose program is damaged, lean or of another release, and in whatever heap is left. Each text
leaves functions behind, which later calls name; each call prints one line. Calls are made with `call`.
"""

from __future__ import annotations

FILES = """
import gc, json, machine, os, sys
from binascii import hexlify
def shown(path):
    try:
        file = open(path, "rb")
    except OSError:
        print("-")
        return
    while True:
        piece = file.read(128)
        if not piece:
            break
        sys.stdout.write(hexlify(piece).decode())
    file.close()
    print()
def listed(path):
    try:
        print(json.dumps([[row[0], row[3]] for row in os.ilistdir(path)]))
    except OSError:
        print("null")
def there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False
def slot():
    try:
        with open("/state/slot") as file:
            named = "/" + file.read(1)
        if there(named + "/facts.json"):
            return named
    except (OSError, ValueError):
        pass
    return "/a" if there("/a/facts.json") else "/b" if there("/b/facts.json") else ""
def own_board():
    if slot():
        sys.path.insert(0, slot())
    try:
        import board
    except Exception:
        print("null")
        return
    names = ("NAME", "CHIP", "BUSES", "DEVICES", "LIGHT")
    print(json.dumps({name: getattr(board, name, None) for name in names}))
def chip():
    gc.collect()
    clock = machine.RTC().datetime()
    release = ".".join([str(part) for part in sys.implementation[1][:3]])
    print(json.dumps({"cause": machine.reset_cause(), "heap": [gc.mem_free(), gc.mem_alloc()],
        "flash": os.statvfs("/")[:4], "clock": clock[:3] + clock[4:7], "release": release,
        "id": hexlify(machine.unique_id()).decode(), "slot": slot()}))
"""

# The answers: hex digits, and "!" with the error's number.
WIRES = """
import machine, time
from binascii import hexlify, unhexlify
PORTS, I2CS = {}, {}
def supply(pin):
    machine.Pin(pin, machine.Pin.OUT, value=1)
def levels(pins):
    print("".join([str(machine.Pin(pin, machine.Pin.IN, machine.Pin.PULL_DOWN).value()) for pin in pins]))
def uart(name, number, form):
    if name in PORTS:
        PORTS[name].init(**form)
    else:
        PORTS[name] = machine.UART(number, **form)
    while PORTS[name].read(256):
        pass
def heard(port, first_ms, gap_ms, total_ms, most):
    found = b""
    began = last = time.ticks_ms()
    while len(found) < most:
        piece = port.read(256)
        now = time.ticks_ms()
        if piece:
            found += piece
            last = now
        elif time.ticks_diff(now, last) >= (gap_ms if found else first_ms):
            break
        elif time.ticks_diff(now, began) >= total_ms:
            break
        else:
            time.sleep_ms(2)
    return found
def said(names):
    print(" ".join([hexlify(heard(PORTS[name], 0, 0, 0, 2048)).decode() or "-" for name in names]))
def ask(name, write, drive, form, first_ms, gap_ms, total_ms, most):
    port = PORTS[name]
    while port.read(256):
        pass
    if write:
        if drive is not None:
            machine.Pin(drive, machine.Pin.OUT, value=1)
        port.write(unhexlify(write))
        port.flush()
        if drive is not None:
            machine.Pin(drive, machine.Pin.OUT, value=0)
    if form:
        port.init(**form)
    print(hexlify(heard(port, first_ms, gap_ms, total_ms, most)).decode())
def more(name, first_ms, gap_ms, total_ms, most):
    print(hexlify(heard(PORTS[name], first_ms, gap_ms, total_ms, most)).decode())
def i2c(name, number, scl, sda):
    I2CS[name] = machine.I2C(number, scl=machine.Pin(scl), sda=machine.Pin(sda), freq=100000)
    print(json.dumps(I2CS[name].scan()))
def talk(name, address, write, wait_ms, read):
    try:
        if write:
            I2CS[name].writeto(address, unhexlify(write))
        time.sleep_ms(wait_ms)
        print(hexlify(I2CS[name].readfrom(address, read)).decode() if read else "")
    except OSError as error:
        print("!%d" % error.errno)
def closings(pin, for_ms):
    contact = machine.Pin(pin, machine.Pin.IN, machine.Pin.PULL_UP)
    first = before = contact.value()
    began, moved, count = time.ticks_ms(), time.ticks_ms(), 0
    while time.ticks_diff(time.ticks_ms(), began) < for_ms:
        level, now = contact.value(), time.ticks_ms()
        if level != before and time.ticks_diff(now, moved) >= 5:
            count += before
            before, moved = level, now
        time.sleep_ms(1)
    print("%d %d %d" % (first, count, contact.value()))
"""

WAY = """
import errno, machine, network, socket, time
def joined(ssid, key, within_ms):
    station = network.WLAN(network.STA_IF)
    began = time.ticks_ms()
    try:
        station.active(True)
        station.disconnect()
        station.connect(ssid, key)
        while not station.isconnected() and time.ticks_diff(time.ticks_ms(), began) < within_ms:
            time.sleep_ms(50)
        up = station.isconnected()
        print(json.dumps({"up": up, "status": station.status(), "rssi": station.status("rssi") if up else None}))
    except OSError as error:
        print(json.dumps({"up": False, "status": str(error), "rssi": None}))
def failed(step, error):
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    print(json.dumps({"failed": step, "name": errno.errorcode.get(number, ""), "said": str(error)}))
def reached(host, port, files, made, hello):
    step = "name"
    connection = None
    try:
        place = socket.getaddrinfo(host, port)[0][-1]
        step = "connect"
        connection = socket.socket()
        connection.settimeout(8)
        connection.connect(place)
        if files:
            step = "files"
            import ssl
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.verify_mode = ssl.CERT_REQUIRED
            parts = []
            for name in files:
                with open(name, "rb") as file:
                    parts.append(file.read())
            context.load_verify_locations(cadata=parts[0])
            context.load_cert_chain(parts[1], parts[2])
            step = "tls"
            if made and machine.RTC().datetime()[:3] < made[:3]:
                machine.RTC().datetime(made)
            connection = context.wrap_socket(connection, server_hostname=host)
        step = "mqtt"
        connection.write(hello)
        answer = connection.read(4)
        print(json.dumps({"code": answer[3] if answer and len(answer) == 4 and answer[0] == 32 else None}))
    except (OSError, ValueError) as error:
        failed(step, error)
    finally:
        if connection:
            connection.close()
"""


def call(name: str, *arguments: object) -> str:
    """Return the source of a call of one of the functions above."""
    return f"{name}({', '.join(repr(argument) for argument in arguments)})\n"
