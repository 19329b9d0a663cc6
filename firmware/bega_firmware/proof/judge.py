"""What came of a device, in words: who is silent, who is not himself, what cannot be, and where to put one's hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from bega.devices import device_names, driver_class, purpose_of, wire_of
from bega_firmware.outcome import Outcome
from bega_firmware.proof.sensors import COUNTER, METERS, Heard
from bega_protocols.doubt import NOTHING, SATURATED, STUCK, WARMING
from bega_protocols.reading import Reading

FIVE_VOLTS = ("pms5003", "sps30", "sps30_i2c", "sds011", "mhz19")  # by their READMEs; the others take 3.3 V
# Beyond this it is no air that a table or a pole in our cities has, in each quantity's unit.
PLAUSIBLE: Mapping[str, tuple[int, int]] = {
    "temperature": (-30, 60),
    "humidity": (3, 100),
    "pressure": (850, 1_080),
    "co2": (300, 10_000),
    "pm1": (0, 999),
    "pm2_5": (0, 999),
    "pm10": (0, 999),
}
SHOWN = ("pm2_5", "co2", "temperature", "humidity", "pressure", "voc_raw")
MOST_SHOWN = 3
ANSWERS_AT = {0x44: "sht4x", 0x45: "sht4x", 0x46: "sht4x", 0x59: "sgp41", 0x62: "scd41", 0x69: "sps30_i2c"}
ANSWERS_AT |= {0x76: "bme280", 0x77: "bme280"}


def judged(heard: Heard, all_heard: Sequence[Heard]) -> Outcome:
    """Return what is said of one device; `all_heard` are those of the node, it among them."""
    passed, words, what_to_do = _judged(heard, all_heard)
    step = f"sensor {heard.device.name}" if heard.device.driver not in (*METERS, COUNTER) else heard.device.name
    return Outcome(step, passed, f"{what(heard)} {words}", what_to_do, heard.took_ms / 1000)


def what(heard: Heard) -> str:
    """Return who it is, in words."""
    if heard.device.driver == COUNTER:
        return "the pulse contact"
    return purpose_of(heard.device.driver).partition(":")[0] or heard.device.driver


def _judged(heard: Heard, all_heard: Sequence[Heard]) -> tuple[bool | None, str, str]:
    if heard.refused:
        return False, f"cannot be tried: {heard.refused}", "correct its settings in the node's configuration"
    if heard.device.driver == COUNTER:
        return _of_contact(heard)
    if heard.groups:
        return _of_readings(heard)
    if heard.kind == "i2c":
        return _of_silent_i2c(heard, all_heard)
    return _of_silent_uart(heard, all_heard)


def _of_readings(heard: Heard) -> tuple[bool | None, str, str]:
    is_meter = heard.device.driver in METERS
    # What a meter shows is its household's, and a report is handed on.
    shown = f"{len(heard.groups[-1])} values" if is_meter else values(heard.groups[-1])
    far = [reading for reading in heard.groups[-1] if not _is_plausible(reading)]
    if heard.repeats or heard.doubt == STUCK:
        return (
            False,
            f"{place(heard)} repeats itself, byte for byte: {shown}",
            "cut its supply for a moment and test again; if it stays so, replace it",
        )
    if heard.doubt == NOTHING:
        return False, f"{place(heard)} sees nothing at all: {shown}", "see that its fan turns and its inlet is free"
    if heard.doubt.startswith(SATURATED):
        return False, f"{place(heard)} is {heard.doubt}: {shown}", "let it dry or clean it; else replace it"
    if far and not is_meter:
        return (
            False,
            f"{place(heard)} measures what cannot be: {values(far)}",
            "is it the sensor that the configuration names, is it dry and at rest? else replace it",
        )
    if len(heard.damaged) > len(heard.groups):
        return (
            False,
            f"{place(heard)} is read, and more of it is damaged: {len(heard.damaged)} frames, {heard.damaged[-1]}",
            "check its wires, screen and ground; keep them away from the supply's",
        )
    if heard.doubt == WARMING and _sees_nothing(heard.groups[-1]):
        return (
            None,
            f"{place(heard)} answers, and sees nothing so far; its warm-up is not over",
            "test it again in a minute: zero for ever is a laser or a fan that does not run",
        )
    if heard.doubt == WARMING:
        return True, f"{place(heard)} answers; its warm-up is not over, so far {shown}", ""
    if heard.doubt:
        return None, f"{place(heard)} answers, and is in doubt ({heard.doubt}): {shown}", "see what it shows later"
    return True, f"{place(heard)} is right: {shown}", ""


def _of_silent_i2c(heard: Heard, all_heard: Sequence[Heard]) -> tuple[bool | None, str, str]:
    wiring, supply = heard.device.wiring, _supply(heard)
    scl, sda = (f"GPIO {wiring[pin]}" for pin in ("scl", "sda"))
    if not all(heard.scl_sda):
        low = [pin for pin, high in (("SCL", heard.scl_sda[0]), ("SDA", heard.scl_sda[1])) if not high]
        alone = len(low) == 1
        return (
            False,
            f"cannot be reached: {' and '.join(low)} of {heard.device.bus} {'is' if alone else 'are'} low",
            f"{'a sensor or a short holds it: unplug the sensors one by one' if alone else 'are its pull-ups there'}"
            f" ({'SCL is ' + scl + ', SDA is ' + sda}; 4.7 kOhm to 3.3 V each, once)",
        )
    if heard.octets and heard.damaged:
        return (
            False,
            f"answers {place(heard)}, and not as itself: {heard.damaged[-1]}",
            "is it the sensor that the configuration names? else its wires are long or loose, or it is broken",
        )
    if heard.address in heard.addresses:
        return (
            False,
            f"acknowledges {place(heard)}, and does not measure",
            "is it the sensor that the configuration names? cut its supply for a moment; else replace it",
        )
    if not heard.addresses:
        return (
            False,
            f"silent {place(heard)}, as is all of its bus",
            f"check {supply} and ground, and that SCL is on {scl} and SDA on {sda} (they may be exchanged)",
        )
    expected = {each.address for each in all_heard if each.device.bus == heard.device.bus}
    strangers = [address for address in heard.addresses if address not in expected]
    others = ", ".join(f"0x{address:02x}{_who_answers(address)}" for address in strangers or heard.addresses)
    alike = [address for address in strangers if ANSWERS_AT.get(address) == heard.device.driver]
    if alike:
        return (
            False,
            f"silent {place(heard)}; one like it answers at 0x{alike[0]:02x}",
            f"its address is switched otherwise: set settings.address of {heard.device.name}, or its solder bridge",
        )
    return (
        False,
        f"silent {place(heard)}; there answers {others}",
        f"the bus works: check its plug and {supply}{'; is another one plugged in in its place?' if strangers else ''}",
    )


def _of_silent_uart(heard: Heard, all_heard: Sequence[Heard]) -> tuple[bool | None, str, str]:
    device = heard.device
    if heard.is_another:
        return (
            False,
            f"is not what hangs {place(heard)}: that is {heard.is_another}",
            f"the plugs of {device.name} and {heard.is_another} are exchanged: change them",
        )
    if heard.speaks_at:
        return (
            False,
            f"{place(heard)} speaks at {heard.speaks_at}, and the node listens at another rate",
            f'set buses.{device.bus} = "{heard.speaks_at}" in the node\'s configuration, or the device itself',
        )
    if heard.octets:
        why = f" ({heard.damaged[-1]})" if heard.damaged else ""
        return (
            False,
            f"{place(heard)}: {heard.octets} bytes came that make no sense{why}",
            "is it the device that the configuration names, is its ground connected, are its wires away from noise?",
        )
    if heard.period_s:
        return (
            None,
            f"{place(heard)} has not spoken; it sleeps up to {heard.period_s} s between two measurements",
            "wait for its next one, or set its period to 0 for the test",
        )
    pins = f"its TX is on GPIO {device.wiring['rx']}"
    if heard.asked:
        pins += f" and its RX on GPIO {device.wiring['tx']}"
    others = [each.device.name for each in all_heard if each.device.bus == device.bus and each.groups]
    if heard.kind in ("modbus", "mbus") and others:
        return (
            False,
            f"does not answer {place(heard)}, and {', '.join(others)} on the same bus does",
            f"the bus works: check its own two wires, its supply, its address{_address(device.settings)}, its rate",
        )
    if heard.kind == "modbus":
        return (
            False,
            f"does not answer {place(heard)}",
            f"check its supply, A and B, its address{_address(device.settings)}, its baud and parity",
        )
    if heard.kind == "mbus":
        return (
            False,
            f"does not answer {place(heard)}",
            f"check the bus's supply, its two wires, its address{_address(device.settings)}, and that {pins}",
        )
    if device.driver in METERS:
        return False, f"silent {place(heard)}", f"check its plug or head, that it is switched to speak, and {pins}"
    return False, f"silent {place(heard)}", f"check {_supply(heard)} and that {pins}"


def _address(settings: Mapping[str, object]) -> str:
    """Return its address on the bus, '' for a secondary one: that is the number of a household's meter."""
    address = settings.get("address", 1)
    return f" ({address})" if isinstance(address, int) else ""


def _of_contact(heard: Heard) -> tuple[bool | None, str, str]:
    pin = heard.device.wiring["pin"]
    level = "open" if heard.level else "closed"
    if heard.closings:
        return True, f"on GPIO {pin} closed {heard.closings} times", ""
    if heard.closings == 0:
        return (
            False,
            f"on GPIO {pin} stayed {level} while it was to be closed",
            f"check its two wires, S0+ on GPIO {pin}; a meter's contact closes only while energy flows",
        )
    return None, f"on GPIO {pin} is {level}; nobody closed it", "close it by hand with --taps 10 and it is counted"


def place(heard: Heard) -> str:
    """Return where it hangs: "on UART 1", "at 0x44 on i2c0"."""
    if heard.kind == "i2c":
        bus = f"on {heard.device.bus}"
        return bus if heard.address is None else f"at 0x{heard.address:02x} {bus}"
    return f"on UART {heard.device.wiring['id']}"


def values(readings: Sequence[Reading]) -> str:
    """Return the readings that say most, in words."""
    known = [reading for name in SHOWN for reading in readings if reading.quantity == name]
    chosen = (known or list(readings))[:MOST_SHOWN]
    return ", ".join(f"{reading.quantity} {_exact(reading)}" for reading in chosen) or "no values"


def _supply(heard: Heard) -> str:
    volts = "its 5 V" if heard.device.driver in FIVE_VOLTS else "its 3.3 V"
    pin = heard.device.power_pin
    return volts if pin is None else f"{volts} (switched by GPIO {pin})"


def _is_plausible(reading: Reading) -> bool:
    low, high = PLAUSIBLE.get(reading.quantity, (0, 0))
    return reading.quantity not in PLAUSIBLE or low <= _exact(reading) <= high


def _sees_nothing(readings: Sequence[Reading]) -> bool:
    dust = [reading for reading in readings if reading.quantity.startswith(("pm", "particles_"))]
    return bool(dust) and not any(reading.value for reading in dust)


def _exact(reading: Reading) -> Decimal:
    return Decimal(reading.value).scaleb(reading.exp10)


def _who_answers(address: int) -> str:
    name = ANSWERS_AT.get(address, "")
    known = name in device_names() and wire_of(driver_class(name)) == "i2c"
    return f" (as {purpose_of(name).partition(':')[0]} does)" if known else ""
