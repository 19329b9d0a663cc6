"""The virtual chip as MicroPython sees it: each part asked by a program on the real interpreter."""

import asyncio
import itertools

import pytest

from bega_protocols.errors import ConfigError
from bega_simulators.board.chip import DEEPSLEEP_RESET, HARD_RESET, PIN_WAKE, PWRON_RESET, TIMER_WAKE, WDT_RESET
from bega_simulators.board.sensors import hang
from tests.shim_bench import MICROPYTHON, Bench

pytestmark = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")

PRELUDE = """
import asyncio, json, machine, time
from machine import Pin
def say(what): print(json.dumps(what))
def outcome(do, *args, **more):
    try:
        return do(*args, **more)
    except Exception as error:
        return [type(error).__name__] + [str(part) for part in error.args]
"""


def ran(bench, program, meanwhile=None):
    return bench.run(PRELUDE + program, meanwhile)


def pulses(**facts):
    return lambda peripherals: peripherals.obey({"pulses": {"4": facts}})


def test_pin_reads_its_pull_its_wire_and_what_it_drives():
    program = """
pulls = ((4, Pin.PULL_UP), (5, Pin.PULL_DOWN), (12, Pin.PULL_UP))
seen = [Pin(number, Pin.IN, pull).value() for number, pull in pulls]
led = Pin(2, Pin.OUT, value=1)
seen.append(led.value()); led.off(); seen.append(led()); led.toggle(); seen.append(led()); led(0); seen.append(led())
drain = Pin(15, Pin.OPEN_DRAIN, Pin.PULL_UP, value=1)
seen.append(drain.value()); drain.off(); seen.append(drain.value())
say([seen, int(led), outcome(Pin, 34, Pin.OUT)])
"""
    bench = Bench()
    bench.peripherals.obey({"pins": {"12": 0}})
    assert ran(bench, program) == [[1, 0, 0, 1, 0, 1, 0, 1, 0], 2, ["ValueError", "pin can only be input"]]


def test_pin_calls_its_handler_soon_after_each_edge_it_was_told_to_watch():
    program = """
pin = Pin(4, Pin.IN, Pin.PULL_UP)
falls, both = [], []
pin.irq(lambda pin: falls.append([int(pin), pin.value()]), Pin.IRQ_FALLING)
Pin(5, Pin.IN).irq(both.append)
async def main():
    print("go")
    await asyncio.sleep_ms(400)
    pin.irq(None)
    await asyncio.sleep_ms(200)
asyncio.run(main())
say([falls, len(both)])
"""

    async def push(peripherals):
        peripherals.obey({"pulses": {"4": {"times": 3, "low_ms": 20, "high_ms": 20}}})
        for level in (1, 1, 0):
            peripherals.obey({"pins": {"5": level}})
        await asyncio.sleep(0.45)
        peripherals.obey({"pins": {"4": 0}})  # nobody listens any more

    assert ran(Bench(), program, push) == [[[4, 0]] * 3, 2]


def test_handler_runs_without_asyncio_at_the_next_request_and_waits_while_interrupts_are_off():
    program = """
pin = Pin(4, Pin.IN, Pin.PULL_UP)
falls = []
pin.irq(falls.append, Pin.IRQ_FALLING)
state = machine.disable_irq()
print("go")
time.sleep_ms(150)
pin.value()
masked = len(falls)
machine.enable_irq(state)
pin.value()
say([masked, len(falls)])
"""
    assert ran(Bench(), program, pulses(times=1, low_ms=1, high_ms=1)) == [0, 1]


def test_what_a_handler_raises_ends_nothing():
    program = """
def fail(pin):
    raise ValueError("of the handler")
pin = Pin(4, Pin.IN, Pin.PULL_UP)
pin.irq(fail, Pin.IRQ_FALLING)
async def main():
    print("go")
    await asyncio.sleep_ms(200)
asyncio.run(main())
say("alive")
"""
    assert ran(Bench(), program, pulses(times=2, low_ms=10, high_ms=10)) == "alive"


def test_counter_counts_every_edge_also_while_the_program_does_nothing():
    program = """
pin = Pin(4, Pin.IN, Pin.PULL_UP)
counter = machine.Counter(0, pin, edge=machine.Counter.FALLING)
down = machine.Counter(1, pin, edge=machine.Counter.RISING, direction=machine.Counter.DOWN)
both = machine.Counter(2, src=pin, edge=machine.Counter.RISING | machine.Counter.FALLING)
print("go")
time.sleep_ms(400)
first = [counter.value(), down.value(), both.value()]
same = machine.Counter(0).value() == first[0]
was = counter.value(1000)
now = counter.value()
counter.deinit()
say([first, same, was, now, outcome(counter.value), outcome(machine.Counter, 8, pin)])
"""
    expected = [[20, -20, 40], True, 20, 1000, ["RuntimeError", "not initialised"], ["ValueError", "id"]]
    assert ran(Bench(), program, pulses(times=20, low_ms=5, high_ms=5)) == expected


def test_bouncing_contact_is_counted_as_often_as_it_bounces():
    """A counter's filter knows 12.8 us at the most: the firmware has to debounce."""
    program = """
counter = machine.Counter(0, Pin(4, Pin.IN, Pin.PULL_UP), edge=machine.Counter.FALLING, filter_ns=12787)
print("go")
time.sleep_ms(300)
say(counter.value())
"""
    assert ran(Bench(), program, pulses(times=5, low_ms=10, high_ms=10, bounces=3)) == 20


def test_deep_sleep_keeps_the_rtc_memory_and_wakes_by_its_timer():
    bench = Bench()
    assert ran(bench, "machine.RTC().memory(b'kept'); machine.deepsleep(100)") is None
    bench.reboot()
    program = "say([machine.reset_cause(), machine.wake_reason(), machine.RTC().memory().decode()])"
    assert ran(bench, program) == [DEEPSLEEP_RESET, TIMER_WAKE, "kept"]


def test_deep_sleep_ends_when_a_pin_wakes_the_chip():
    bench = Bench()
    program = "import esp32; esp32.wake_on_ext0(Pin(4, Pin.IN, Pin.PULL_UP), esp32.WAKEUP_ALL_LOW); machine.deepsleep()"
    assert ran(bench, program) is None

    async def push_while_it_sleeps():
        asleep = asyncio.create_task(bench.peripherals.rest())
        await asyncio.sleep(0.05)
        assert not asleep.done()
        bench.peripherals.obey({"pins": {"4": 1}})
        bench.peripherals.obey({"pins": {"4": 0}})
        return await asyncio.wait_for(asleep, 1)

    bench.reboot(asyncio.run(push_while_it_sleeps()))
    assert ran(bench, "say([machine.reset_cause(), machine.wake_reason()])") == [DEEPSLEEP_RESET, PIN_WAKE]


@pytest.mark.parametrize(
    ("order", "cause"), [({"reset": True}, HARD_RESET), ({"power_cut": True}, PWRON_RESET)], ids=["reset", "power cut"]
)
def test_reset_ends_a_sleep_that_would_never_end(order, cause):
    bench = Bench()
    assert ran(bench, "machine.deepsleep()") is None

    async def press_while_it_sleeps():
        asleep = asyncio.create_task(bench.peripherals.rest())
        await asyncio.sleep(0.05)
        bench.peripherals.obey(order)
        return await asyncio.wait_for(asleep, 1)

    bench.reboot(asyncio.run(press_while_it_sleeps()))
    assert ran(bench, "say([machine.reset_cause(), machine.wake_reason()])") == [cause, 0]


@pytest.mark.parametrize(
    ("order", "cause", "memory"),
    [
        ({"reset": True}, HARD_RESET, "held"),
        ({"brownout": True}, PWRON_RESET, "held"),
        ({"power_cut": True}, PWRON_RESET, ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_reset_by_the_bench_is_told_by_its_cause_and_what_it_leaves(order, cause, memory):
    bench = Bench()
    stay = "machine.RTC().memory(b'held'); print('go'); time.sleep(20)"
    assert ran(bench, stay, lambda peripherals: peripherals.obey(order)) is None
    bench.reboot()
    assert ran(bench, "say([machine.reset_cause(), machine.RTC().memory().decode()])") == [cause, memory]


def test_every_reset_switches_pins_counters_and_radio_off():
    bench = Bench("sht=sht4x@i2c0/25")
    program = """
import network
network.WLAN(network.WLAN.IF_STA).active(True)
Pin(25, Pin.OUT, value=1)
machine.Counter(0, Pin(4, Pin.IN, Pin.PULL_UP))
machine.reset()
"""
    assert ran(bench, program) is None
    bench.reboot()
    assert bench.peripherals.state()["powered"] == {"sht": False}
    program = "import network; say([Pin(25).value(), Pin(4).value(), network.WLAN(0).active(), machine.reset_cause()])"
    assert ran(bench, program) == [0, 0, False, HARD_RESET]


@pytest.mark.parametrize(("hold", "level"), [(False, 0), (True, 1)])
def test_pin_keeps_its_level_through_deep_sleep_only_if_held(hold, level):
    bench = Bench("sht=sht4x@i2c0/25")
    program = f"""
import esp32
Pin(25, Pin.OUT, value=1, hold={hold})
esp32.gpio_deep_sleep_hold(True)
machine.deepsleep(50)
"""
    assert ran(bench, program) is None
    bench.reboot()
    assert bench.peripherals.state()["powered"] == {"sht": bool(level)}
    assert ran(bench, "say(Pin(25).value())") == level


def test_watchdog_reset_leaves_the_clock_running():
    bench = Bench()
    assert ran(bench, "machine.RTC().datetime((2026, 11, 22, 0, 7, 30, 0, 0)); say(machine.freq(240000000))") is None
    bench.reboot(WDT_RESET)
    program = (
        "say([list(machine.RTC().datetime()[:6]), machine.reset_cause(), machine.freq(), outcome(machine.freq, 5)])"
    )
    now, cause, hz, refused = ran(bench, program)
    assert (now, cause, hz, refused) == ([2026, 11, 22, 6, 7, 30], WDT_RESET, 240_000_000, ["ValueError", "frequency"])
    bench.reboot(PWRON_RESET)
    assert ran(bench, "say(list(machine.RTC().datetime()[:5]))") == [2000, 1, 1, 5, 0]


SHT = """
bus = machine.I2C(0, scl=Pin(22), sda=Pin(21), freq=100000)
def climate():
    bus.writeto(0x44, b"\\xfd")
    time.sleep_ms(20)
    return len(bus.readfrom(0x44, 6))
"""


def test_sensor_on_a_switched_supply_is_there_only_while_its_pin_is_high():
    program = f"""{SHT}
seen = [bus.scan(), outcome(climate)]
supply = Pin(25, Pin.OUT, value=1)
seen += [bus.scan(), climate()]
supply.off()
say(seen + [bus.scan(), outcome(climate)])
"""
    gone = ["OSError", "19"]
    assert ran(Bench("sht=sht4x@i2c0/25"), program) == [[], gone, [0x44], 6, [], gone]


def test_power_cycle_cures_what_is_hung_and_not_what_is_broken():
    program = f"""{SHT}
supply = Pin(25, Pin.OUT, value=1)
seen = [outcome(climate)]
supply.off()
supply.on()
say(seen + [outcome(climate)])
"""
    bench = Bench("sht=sht4x@i2c0/25")
    gone = ["OSError", "19"]
    on = "Pin(25, Pin.OUT, value=1)"
    for word, after in (("hung", 6), ("faults", gone)):
        bench = Bench("sht=sht4x@i2c0/25")
        body = program.replace("seen = [", "print('go'); time.sleep_ms(200); seen = [")
        fail = {word: {"sht": ["silent"]}}
        assert ran(bench, on + body, lambda peripherals, fail=fail: peripherals.obey(fail)) == [gone, after]


def test_powered_sensor_forgets_what_it_was_told():
    """An SCD41 that measures answers few commands; after its supply was cut it can be asked anything."""
    program = """
supply = Pin(25, Pin.OUT, value=1)
bus = machine.I2C(0, scl=Pin(22), sda=Pin(21), freq=100000)
def serial():
    bus.writeto(0x62, b"\\x36\\x82")
    time.sleep_ms(5)
    return len(bus.readfrom(0x62, 9))
before = serial()
bus.writeto(0x62, b"\\x21\\xb1")
measuring = outcome(serial)
supply.off()
supply.on()
time.sleep_ms(1100)
say([before, measuring, serial()])
"""
    before, measuring, after = ran(Bench("co2=scd41@i2c0/25"), program)
    assert (before, after) == (9, 9)
    assert measuring[0] == "OSError"


def test_supply_pin_is_part_of_what_hangs_where():
    assert hang("pms=pms5003@uart2/25", 1).pin == 25
    assert hang("bme=bme280@i2c0:0x77/26", 1).pin == 26
    for text in ("pms=pms5003@uart2/", "pms=pms5003@uart2/x"):
        with pytest.raises(ConfigError):
            hang(text, 1)


def test_i2c_speaks_of_registers_and_says_why_it_fails():
    program = """
bus = machine.I2C(0, scl=Pin(22), sda=Pin(21), freq=100000)
two = bytearray(1)
bus.readfrom_mem_into(0x77, 0xD0, two)
seen = [bus.readfrom_mem(0x77, 0xD0, 1)[0], two[0], bus.writeto(0x77, b"\\xd0"), bus.writevto(0x77, (b"\\xd0",))]
bus.writeto_mem(0x77, 0xF4, b"\\x00")
print("go")
time.sleep_ms(100)
held = outcome(bus.readfrom, 0x77, 1)
say([seen, outcome(bus.writeto, 0x10, b"x"), held])
"""
    held = lambda peripherals: peripherals.obey({"faults": {"i2c0": ["held"]}})  # noqa: E731
    assert ran(Bench("bme=bme280@i2c0:0x77"), program, held) == [
        [0x60, 0x60, 1, 1],
        ["OSError", "116"],
        ["OSError", "116"],
    ]


def test_uart_counts_what_waits_and_reads_it_in_every_way():
    program = """
uart = machine.UART(2, 9600, tx=17, rx=16, rxbuf=512)
time.sleep_ms(1500)
waits = uart.any()
buf = bytearray(20)
head = uart.readinto(buf, 4)
rest = uart.readinto(buf)
left = uart.any()
more = len(uart.read())
say([waits >= 32, head, rest, waits - left, left == more, uart.any(), uart.read(), uart.txdone()])
"""
    assert ran(Bench("pms=pms5003@uart2"), program) == [True, 4, 20, 24, True, 0, None, True]


def test_uart_hears_garbage_at_another_rate_and_frames_again_after_it_was_set_right():
    program = """
uart = machine.UART(2, 4800, tx=17, rx=16)
time.sleep_ms(2500)
wrong = b"BM" in (uart.read() or b"")
uart.init(9600)
time.sleep_ms(2500)
say([wrong, b"BM\\x00\\x1c" in uart.read()])
"""
    assert ran(Bench("pms=pms5003@uart2"), program) == [False, True]


def test_optical_head_answers_at_the_rate_that_was_agreed():
    program = """
uart = machine.UART(1, 300, bits=7, parity=0, stop=1, tx=33, rx=32)
def heard(most_ms):
    said, end = b"", time.ticks_add(time.ticks_ms(), most_ms)
    while time.ticks_diff(end, time.ticks_ms()) > 0 and not said.endswith(b"\\r\\n"):
        said += uart.read(64) or b""
        time.sleep_ms(5)
    return said
uart.write(b"/?!\\r\\n")
who = heard(4000)
uart.write(b"\\x06050\\r\\n")
time.sleep_ms(50)
uart.init(9600, bits=7, parity=0, stop=1)
say([who[:1].decode(), heard(3000)[:1] == b"\\x02"])
"""
    assert ran(Bench("el=iec62056_meter@uart1"), program) == ["/", True]


def test_wired_mbus_is_a_uart_with_a_converter():
    program = """
uart = machine.UART(1, 2400, bits=8, parity=0, stop=1, tx=33, rx=32)
uart.write(b"\\x10\\x40\\xfe\\x3e\\x16")
time.sleep_ms(300)
say(list(uart.read()))
"""
    assert ran(Bench("heat=mbus_meter@uart1"), program) == [0xE5]


def test_uart_tells_its_handler_of_bytes_and_of_silence_after_them():
    program = """
uart = machine.UART(2, 9600, tx=17, rx=16)
heard = []
uart.irq(lambda uart: heard.append(uart.any()), machine.UART.IRQ_RXIDLE)
async def main():
    while len(heard) < 2:
        await asyncio.sleep_ms(20)
asyncio.run(main())
say(heard[1] - heard[0])
"""
    assert ran(Bench("pms=pms5003@uart2"), program) == 32, "one frame and then silence"


def test_adc_tells_apart_what_its_attenuation_can():
    program = """
far = machine.ADC(Pin(34), atten=machine.ADC.ATTN_11DB)
seen = [far.read_uv(), far.read_u16()]
far.atten(machine.ADC.ATTN_0DB)
say(seen + [far.read_uv(), far.read(), outcome(machine.ADC, Pin(4))])
"""
    bench = Bench()
    bench.peripherals.obey({"volts": {"34": 1.225}})
    assert ran(bench, program) == [1_225_000, 32767, 950_000, 4095, ["ValueError", "invalid pin"]]


def test_spi_reads_ones_where_nothing_hangs():
    program = """
spi = machine.SPI(1, baudrate=1000000, sck=Pin(14), mosi=Pin(13), miso=Pin(12))
buf = bytearray(2)
spi.write_readinto(b"\\x9f\\x00", buf)
say([list(buf), list(spi.read(1))])
"""
    assert ran(Bench(), program) == [[255, 255], [255]]


@pytest.mark.parametrize(
    "order", [{"nonsense": 1}, {"faults": {"nobody": []}}, {"wifi": {"colour": 1}}, {"pulses": {"4": {"count": 1}}}]
)
def test_bench_refuses_what_it_does_not_know(order):
    with pytest.raises((KeyError, TypeError)):
        Bench().peripherals.obey(order)


def test_addresses_of_one_chip_follow_each_other_and_no_two_chips_share_any():
    chips = [Bench(seed=seed).peripherals.chip for seed in range(1, 50)]
    addresses = [[chip.address(interface) for interface in range(3)] for chip in chips]
    assert len({*itertools.chain(*addresses)}) == 3 * len(chips)
    assert int.from_bytes(addresses[0][2], "big") - int.from_bytes(addresses[0][0], "big") == 2
