"""MicroPython's ESP32 modules `machine`, `esp32`, `network` and `bluetooth`, with its names, arguments and errors.

They run here, not in the interpreter, whose heap the firmware shares with every shim: there each of them is a name
that asks for it (shim/_board.py). Only what must be near the bytes is there (UART streams, Partition's blocks).
Spec: the library pages of MicroPython 1.29 and its ESP32 quick reference; a test holds it against the port's stubs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

INTERPRETER = "MicroPython's Unix port, brought by the board; an interpreter's image in its flash is kept and not run"

Call = Callable[..., Any]


class Handler:
    """A function of the firmware's, called by an interrupt of this name."""

    def __init__(self, name: str) -> None:
        self.name = name


class Sleep:
    """An answer that the interpreter takes as: stand still for so long."""

    def __init__(self, ms: int) -> None:
        self.ms = ms


class Mask:
    """An answer that switches the interpreter's interrupts off or on; `before` is what it returns."""

    def __init__(self, on: int, before: int) -> None:
        self.on = on
        self.before = before


class Part:
    """What every class of the port has here: `_call(op, ...)` of the board's parts. Set by `modules`."""

    _call: Call
    _CLASSES: tuple[type[Part], ...] = ()


class Pin(Part):
    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING, WAKE_LOW, WAKE_HIGH = 1, 2, 4, 5
    DRIVE_0, DRIVE_1, DRIVE_2, DRIVE_3 = 0, 1, 2, 3

    def __init__(self, id: Any, mode: int = -1, pull: int | None = -1, *, value: Any = None, drive: Any = None,
                 hold: bool | None = None) -> None:  # fmt: skip
        self._id = int(id)
        self.init(mode, pull, value=value, drive=drive, hold=hold)

    def init(self, mode: int = -1, pull: int | None = -1, *, value: Any = None, drive: Any = None,
             hold: bool | None = None) -> None:  # fmt: skip
        if (mode, pull, value, hold) == (-1, -1, None, None):
            return
        self._call(
            "pin_init",
            pin=self._id,
            mode=None if mode == -1 else mode,
            pull=None if pull == -1 else pull,
            keep_pull=pull == -1,
            value=None if value is None else int(bool(value)),
            hold=hold,
        )

    def value(self, x: Any = None) -> int | None:
        if x is None:
            return int(self._call("pin_get", pin=self._id))
        self._call("pin_set", pin=self._id, value=int(bool(x)))
        return None

    __call__ = value

    def on(self) -> None:
        self.value(1)

    def off(self) -> None:
        self.value(0)

    def toggle(self) -> None:
        self._call("pin_set", pin=self._id, value=None)

    def irq(self, handler: Handler | None = None, trigger: int = 3, *, wake: int | None = None) -> None:
        if trigger in (4, 5) and wake is not None:
            self._call("wake_on", pins=[self._id], level=trigger - 4)
            return
        self._call("pin_irq", pin=self._id, trigger=trigger if handler else 0, name=handler.name if handler else "")

    def __int__(self) -> int:
        return self._id


class Counter(Part):
    """One object for each unit. It forgets at every reset, at a deep sleep too."""

    RISING, FALLING = 1, 2
    UP, DOWN = 1, 2

    def __init__(self, id: int, src: Any = None, *, edge: int = 1, direction: int = 1, filter_ns: int = 0) -> None:
        self._unit: int | None = id
        if src is not None:
            self.init(src, edge=edge, direction=direction, filter_ns=filter_ns)

    def init(self, src: Any, *, edge: int = 1, direction: int = 1, filter_ns: int = 0) -> None:
        """The filter knows 12.8 us at the most: a contact's bouncing is counted."""
        step = 1 if direction == 1 else -1
        self._call("counter", unit=self._unit, pin=int(src), rising=step * (edge & 1), falling=step * (edge >> 1))

    def value(self, value: int | None = None) -> int:
        if self._unit is None:
            raise RuntimeError("not initialised")
        return int(self._call("counter_value", unit=self._unit, value=value))

    def deinit(self) -> None:
        if self._unit is not None:
            self._call("counter_end", unit=self._unit)
        self._unit = None


class I2C(Part):
    """19 (ENODEV) where nobody acknowledges, 116 (ETIMEDOUT) where a line is held down."""

    def __init__(self, id: int, *, scl: Any = None, sda: Any = None, freq: int = 400000, timeout: int = 50000) -> None:
        self._bus = id
        usual = (18, 19) if id == 0 else (25, 26)
        wires = [int(usual[0] if scl is None else scl), int(usual[1] if sda is None else sda)]
        self._call("i2c_init", bus=id, scl=wires[0], sda=wires[1], freq=freq)

    def scan(self) -> list[int]:
        return list(self._call("i2c_scan", bus=self._bus))

    def writeto(self, addr: int, buf: bytes, stop: bool = True) -> int:
        return int(self._call("i2c_write", bus=self._bus, address=addr, data=buf.hex()))

    def writevto(self, addr: int, vector: Sequence[bytes], stop: bool = True) -> int:
        return self.writeto(addr, b"".join(vector))

    def readfrom(self, addr: int, nbytes: int, stop: bool = True) -> bytes:
        return bytes.fromhex(self._call("i2c_read", bus=self._bus, address=addr, size=nbytes))

    def readfrom_into(self, addr: int, buf: bytearray, stop: bool = True) -> None:
        buf[:] = self.readfrom(addr, len(buf))

    def readfrom_mem(self, addr: int, memaddr: int, nbytes: int, *, addrsize: int = 8) -> bytes:
        self.writeto(addr, memaddr.to_bytes(addrsize // 8, "big"), False)
        return self.readfrom(addr, nbytes)

    def readfrom_mem_into(self, addr: int, memaddr: int, buf: bytearray, *, addrsize: int = 8) -> None:
        buf[:] = self.readfrom_mem(addr, memaddr, len(buf), addrsize=addrsize)

    def writeto_mem(self, addr: int, memaddr: int, buf: bytes, *, addrsize: int = 8) -> None:
        self.writeto(addr, memaddr.to_bytes(addrsize // 8, "big") + buf)


class SoftI2C(I2C):
    def __init__(self, scl: Any, sda: Any, *, freq: int = 400000, timeout: int = 50000) -> None:
        super().__init__(0, scl=scl, sda=sda, freq=freq)


class UART(Part):
    """What of a UART need not be near its bytes; the stream is shim/_uart.py."""

    def __init__(self, id: int, baudrate: int = 115200, bits: int = 8, parity: int | None = None, stop: int = 1,
                 **more: Any) -> None:  # fmt: skip
        self._id = id
        self._pins = {"tx": -1, "rx": -1, "invert": 0}
        self.init(baudrate, bits, parity, stop, **more)

    def init(self, baudrate: int = 9600, bits: int = 8, parity: int | None = None, stop: int = 1, *, tx: Any = None,
             rx: Any = None, rts: Any = None, cts: Any = None, txbuf: int | None = None, rxbuf: int | None = None,
             timeout: int | None = None, timeout_char: int | None = None, invert: int | None = None,
             flow: int | None = None) -> None:  # fmt: skip
        given = {"tx": tx, "rx": rx, "invert": invert}
        self._pins |= {name: int(value) for name, value in given.items() if value is not None}
        self._call("uart_init", uart=self._id, baud=baudrate, bits=bits, parity=parity, stop=stop, **self._pins)

    def deinit(self) -> None:
        self._call("uart_end", uart=self._id)

    def _sent(self) -> int:
        """Return how many bytes came since the boot: what the stream has not read of them waits."""
        return int(self._call("uart_any", uart=self._id))

    def flush(self) -> None:
        pass

    def txdone(self) -> bool:
        return True

    def sendbreak(self) -> None:
        pass

    def irq(self, handler: Handler | None = None, trigger: int = 0, hard: bool = False) -> None:
        name = handler.name if handler else ""
        self._call("uart_irq", uart=self._id, trigger=trigger if handler else 0, name=name)


class ADC(Part):
    ATTN_0DB, ATTN_2_5DB, ATTN_6DB, ATTN_11DB = 0, 1, 2, 3
    WIDTH_9BIT, WIDTH_10BIT, WIDTH_11BIT, WIDTH_12BIT = 9, 10, 11, 12
    _FULL_UV = (950_000, 1_250_000, 1_750_000, 2_450_000)

    def __init__(self, id: Any, *, sample_ns: int = 0, atten: int = 0) -> None:
        self._pin = int(id)
        self.init(sample_ns=sample_ns, atten=atten)
        self.read_uv()

    def init(self, *, sample_ns: int = 0, atten: int = 0) -> None:
        self._atten = atten

    def atten(self, atten: int) -> None:
        self._atten = atten

    def read_uv(self) -> int:
        return int(self._call("adc", pin=self._pin, atten=self._atten))

    def read_u16(self) -> int:
        return self.read_uv() * 65535 // self._FULL_UV[self._atten]

    def read(self) -> int:
        return self.read_u16() >> 4


class SPI(Part):
    """Nothing of ours hangs on it: what is read is ones, as from a pulled-up wire."""

    LSB, MSB = 1, 0

    def __init__(self, id: int, baudrate: int = 1000000, *, polarity: int = 0, phase: int = 0, bits: int = 8,
                 firstbit: int = 0, sck: Any = None, mosi: Any = None, miso: Any = None) -> None:  # fmt: skip
        pass

    def init(self, baudrate: int = 1000000, *, polarity: int = 0, phase: int = 0, bits: int = 8, firstbit: int = 0,
             sck: Any = None, mosi: Any = None, miso: Any = None) -> None:  # fmt: skip
        pass

    def deinit(self) -> None:
        pass

    def read(self, nbytes: int, write: int = 0) -> bytes:
        return b"\xff" * nbytes

    def readinto(self, buf: bytearray, write: int = 0) -> None:
        buf[:] = b"\xff" * len(buf)

    def write(self, buf: bytes) -> None:
        pass

    def write_readinto(self, write_buf: bytes, read_buf: bytearray) -> None:
        self.readinto(read_buf)


class RTC(Part):
    def __init__(self, id: int = 0) -> None:
        pass

    def datetime(self, datetimetuple: Sequence[int] | None = None) -> tuple[int, ...] | None:
        now = self._call("rtc", datetime=None if datetimetuple is None else list(datetimetuple))
        return tuple(now) if datetimetuple is None else None

    def memory(self, data: bytes | None = None) -> bytes | None:
        if data is None:
            return bytes.fromhex(self._call("rtc_memory", data=None))
        if len(data) > 2048:
            raise ValueError("buffer too long")
        self._call("rtc_memory", data=data.hex())
        return None


class WDT(Part):
    def __init__(self, id: int = 0, timeout: int = 5000) -> None:
        self._call("wdt", timeout_ms=timeout)

    def feed(self) -> None:
        self._call("wdt_feed")


class Machine(Part):
    PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
    PIN_WAKE, EXT0_WAKE, EXT1_WAKE, TIMER_WAKE, TOUCHPAD_WAKE, ULP_WAKE = 2, 2, 3, 4, 5, 6
    SLEEP, DEEPSLEEP = 2, 4
    _CLASSES = (Pin, Counter, I2C, SoftI2C, UART, ADC, SPI, RTC, WDT)
    _masked = 0

    def reset_cause(self) -> int:
        return int(self._call("reset_cause"))

    def wake_reason(self) -> int:
        return int(self._call("wake_reason"))

    def unique_id(self) -> bytes:
        return bytes.fromhex(self._call("unique_id"))

    def freq(self, hz: int | None = None) -> int | None:
        now = int(self._call("freq", hz=hz))
        return now if hz is None else None

    def reset(self) -> None:
        self._call("reset")

    def deepsleep(self, time_ms: int = 0) -> None:
        self._call("deepsleep", ms=time_ms)

    def lightsleep(self, time_ms: int = 0) -> Sleep:
        return Sleep(time_ms)

    def disable_irq(self) -> Mask:
        before, self._masked = self._masked, 1
        return Mask(1, before)

    def _tls_wrap(self) -> None:
        """No name of the port's: shim/_ssl.py asks whether there is room."""
        self._call("tls_wrap")

    def enable_irq(self, state: int) -> Mask:
        before, self._masked = self._masked, state
        return Mask(state, before)


class WLAN(Part):
    IF_STA, IF_AP = 0, 1
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2

    def __init__(self, interface_id: int = 0) -> None:
        pass

    def active(self, is_active: Any = None) -> bool:
        return bool(self._call("wlan_active", on=is_active if is_active is None else bool(is_active)))

    def connect(self, ssid: str | None = None, password: str | None = None, *, bssid: bytes | None = None) -> None:
        self._call("wlan_connect", ssid=ssid, key=password)

    def disconnect(self) -> None:
        self._call("wlan_disconnect")

    def isconnected(self) -> bool:
        return bool(self._call("wlan_status") == Network.STAT_GOT_IP)

    def status(self, param: str | None = None) -> int:
        return int(self._call("wlan_rssi" if param == "rssi" else "wlan_status"))

    def ifconfig(self, ip_mask_gateway_dns: Any = None) -> tuple[str, ...]:
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

    def config(self, param: str = "", **values: Any) -> bytes | None:
        return bytes.fromhex(self._call("unique_id")) if param == "mac" else None


class Network(Part):
    STA_IF, AP_IF = 0, 1
    STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
    STAT_BEACON_TIMEOUT, STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD = 200, 201, 202
    STAT_ASSOC_FAIL, STAT_HANDSHAKE_TIMEOUT = 203, 204
    _CLASSES = (WLAN,)


class BLE(Part):
    """It advertises into the simulated air. Nothing connects to it, and it does not scan: EOPNOTSUPP."""

    def __init__(self) -> None:
        pass

    def active(self, active: Any = None) -> bool:
        return bool(self._call("ble_active", on=active if active is None else bool(active)))

    def config(self, param: str = "", **values: Any) -> tuple[int, bytes] | None:
        return (0, bytes.fromhex(self._call("ble_mac"))) if param == "mac" else None

    def irq(self, handler: Handler | None) -> None:
        """There is no event without a connection or a scan."""

    def gap_advertise(self, interval_us: int | None, adv_data: bytes | None = None, *,
                      resp_data: bytes | None = None, connectable: bool = True) -> None:  # fmt: skip
        data = None if adv_data is None else adv_data.hex()
        self._call("ble_advertise", interval_us=interval_us, data=data, connectable=connectable)

    def gap_scan(self, duration_ms: int, interval_us: int = 1280000, window_us: int = 11250,
                 active: bool = False) -> None:  # fmt: skip
        raise OSError(95)


class Bluetooth(Part):
    _CLASSES = (BLE,)


class NVS(Part):
    def __init__(self, namespace: str) -> None:
        self._call("nvs_open", space=namespace)
        self._space = namespace

    def set_i32(self, key: str, value: int) -> None:
        if not -(2**31) <= value < 2**31:
            raise OverflowError("value")
        octets = value.to_bytes(4, "little", signed=True)
        self._call("nvs_set", space=self._space, key=key, type=0, value=octets.hex())

    def get_i32(self, key: str) -> int:
        octets = bytes.fromhex(self._call("nvs_get", space=self._space, key=key, type=0))
        return int.from_bytes(octets, "little", signed=True)

    def set_blob(self, key: str, value: bytes) -> None:
        self._call("nvs_set", space=self._space, key=key, type=1, value=value.hex())

    def get_blob(self, key: str, buffer: bytearray) -> int:
        value = bytes.fromhex(self._call("nvs_get", space=self._space, key=key, type=1, room=len(buffer)))
        buffer[: len(value)] = value
        return len(value)

    def erase_key(self, key: str) -> None:
        self._call("nvs_erase", space=self._space, key=key)

    def commit(self) -> None:
        self._call("nvs_commit", space=self._space)


class PCNT(Part):
    """One unit on one pin. No thresholds, no interrupts, no second channel: none of ours needs them."""

    IGNORE, INCREMENT, DECREMENT = 0, 1, 2
    NORMAL, REVERSE, HOLD = 0, 1, 2

    def __init__(self, id: int, **more: Any) -> None:
        self._unit = id
        self.init(**more)

    def init(self, **more: Any) -> None:
        steps = (0, 1, -1)
        if "pin" in more:
            edges = {edge: steps[more.get(edge, 0)] for edge in ("rising", "falling")}
            self._call("counter", unit=self._unit, pin=int(more["pin"]), **edges)
            self.stop()
        if "value" in more:
            self.value(more["value"])

    def start(self) -> None:
        self._call("counter_run", unit=self._unit, on=True)

    def stop(self) -> None:
        self._call("counter_run", unit=self._unit, on=False)

    def value(self, value: int | None = None) -> int:
        return int(self._call("counter_value", unit=self._unit, value=value))

    def deinit(self) -> None:
        self._call("counter_end", unit=self._unit)


class Esp32(Part):
    WAKEUP_ALL_LOW, WAKEUP_ANY_HIGH = False, True
    HEAP_EXEC, HEAP_DATA = 1, 4
    VIRTUAL_BOARD = INTERPRETER  # the one name that no ESP32 has: by it who is at the REPL knows
    _CLASSES = (NVS, PCNT)

    def idf_heap_info(self, capabilities: int) -> list[tuple[int, ...]]:
        return [tuple(region) for region in self._call("idf_heap", executable=capabilities == self.HEAP_EXEC)]

    def raw_temperature(self) -> int:
        """Degrees Fahrenheit of the chip itself, raw: it tells nothing of the air."""
        return 128

    def wake_on_ext0(self, pin: Any = None, level: bool = False) -> None:
        self._call("wake_on", pins=[] if pin is None else [int(pin)], level=int(level))

    def wake_on_ext1(self, pins: Sequence[Any] | None = None, level: bool = False) -> None:
        self._call("wake_on", pins=[int(pin) for pin in pins or ()], level=int(level))

    def wake_on_gpio(self, pins: Sequence[Any] | None = None, level: bool = False) -> None:
        """The way of chips without ext0 and ext1, an ESP32-C3."""
        self.wake_on_ext1(pins, level)

    def gpio_deep_sleep_hold(self, enable: bool) -> None:
        self._call("hold_in_sleep", on=bool(enable))


MODULES: dict[str, type[Part]] = {"machine": Machine, "network": Network, "bluetooth": Bluetooth, "esp32": Esp32}
