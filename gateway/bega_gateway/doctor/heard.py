"""What the counters of a gateway that runs tell about its lines and devices. Pure: a status in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from bega.devices import driver_class
from bega_gateway import config as settings
from bega_gateway.doctor.finding import DEVICE, LINE, WARNING, Finding
from bega_gateway.doctor.nodes import last_words
from bega_gateway.status import QUALITIES, Counts, OfDevice, Status, ago

MANY = 10  # damaged frames; a few come with each start
NOISE_SHARE = 2  # a line is noisy where damage is at least one part in so many of what went wrong
WRONG_KEY = ("key does not fit", "tag differs", "put this sensor's key")  # as the driver of BTHome words it
REPLAYED = "a replay"
MODBUS = (settings.ModbusRtuLine, settings.ModbusTcpLine)


def of_devices(config: settings.Config, status: Status) -> Iterator[Finding]:
    """Yield what the counters of each line and of its devices show."""
    for name, line in config.lines.items():
        devices = [device for device in status.devices if device.line == name]
        silent = [device for device in devices if device.is_silent]
        alive = any(device.is_heard for device in devices)
        for device in silent:
            yield _of_silent(config, status, line, device, alive)
        for device in devices:
            yield from _of_settings(device)
            yield from _of_quality(device)
            if device.is_heard and device.counts.damaged > max(MANY, device.counts.records):
                yield _noisy(line, device)
            if device.is_heard and device.counts.refused > max(3, device.counts.records):
                yield _answered_by_another(device, stops=False)


def is_deaf(status: Status, line: str) -> bool:
    """Return whether a line has devices and none of them is heard though each should be."""
    devices = [device for device in status.devices if device.line == line]
    return bool(devices) and all(device.is_silent for device in devices)


def _of_silent(
    config: settings.Config, status: Status, line: settings.Line, device: OfDevice, others_live: bool
) -> Finding:
    counts = device.counts
    if isinstance(line, settings.BleLine):
        return _of_silent_sensor(status, line, device)
    if isinstance(line, settings.MqttLine):
        return _silent_node(device)
    if isinstance(line, settings.UplinkLine):
        return _silent_on_wire(line, device)
    if isinstance(line, MODBUS) and counts.refused > counts.records and not counts.records:
        return _answered_by_another(device, stops=True)
    if counts.damaged and NOISE_SHARE * counts.damaged >= counts.silent and not counts.records:
        return _garbage(line, device)
    if others_live:
        return _silent_among_living(device)
    return _silent(config, device)


def _silent_on_wire(line: settings.UplinkLine, device: OfDevice) -> Finding:
    spoiled = device.counts.damaged > 0
    remedy = f"does its configuration say {line.baud}, and has it the key of its key_file? are A and B not exchanged?"
    return Finding(
        "node silent",
        f"the node {device.name} does not answer" + (" in a way that makes sense" if spoiled else ""),
        f"nodes.{device.name}",
        f"{_age(device)}; {device.counts.damaged} frames were spoiled or without its seal{last_words(device)}",
        ("" if spoiled else "see its LED and its supply; ") + remedy + " What it measures it keeps",
        True,
        DEVICE,
    )


def _silent_node(device: OfDevice) -> Finding:
    return Finding(
        "node silent",
        f"the node {device.name} is not heard",
        f"nodes.{device.name}",
        f"{_age(device)}; a node speaks at least every {device.quiet_after_s:.0f} s{last_words(device)}",
        "see its LED and its supply; is its Wi-Fi there, does its certificate name it? What it measures it keeps",
        True,
        DEVICE,
    )


def _of_silent_sensor(status: Status, line: settings.BleLine, device: OfDevice) -> Finding:
    where = f"devices.{device.name}"
    counts = device.counts
    if counts.damaged and not counts.records and any(words in device.damage for words in WRONG_KEY):
        return Finding(
            "wrong key",
            "the sensor is heard, and what it says cannot be deciphered: its key is wrong",
            where,
            f"{counts.damaged} advertisements refused, 0 read; the last: {device.damage}",
            f"copy the key from the sensor's app into {where}.settings.key, then: systemctl reload bega-gateway",
            True,
            DEVICE,
        )
    if counts.damaged and REPLAYED in device.damage:
        return Finding(
            "replay",
            "the sensor says what was said before: somebody repeats it, or its counter began anew with a battery",
            where,
            f"{counts.damaged} advertisements refused; the last: {device.damage}",
            f"was its battery changed? then {where}.settings.restart_below = 100 until it is heard;"
            " was the flash of a node erased? then it needs a configuration with a fresh made_s",
            True,
            DEVICE,
        )
    adapter = next((each for each in status.adapters if each.line == device.line), None)
    if adapter and not adapter.ours + adapter.foreign:
        return Finding(
            "adapter deaf",
            f"{line.adapter} hears nobody at all",
            f"lines.{device.line}",
            f"0 advertisements since the start, {adapter.resets} times switched off and on",
            f"bluetoothctl show; rfkill list; journalctl -u bluetooth; is the antenna of {line.adapter} free?",
            True,
            LINE,
        )
    heard = f"; others are heard on {line.adapter}: {adapter.foreign + adapter.ours} advertisements" if adapter else ""
    return Finding(
        "sensor silent",
        f"the sensor {device.name} is not heard",
        where,
        f"{_age(device)}{heard}",
        f"see its battery and its distance; is {where}.settings.address the one printed on it? bega gateway scan."
        " What it says meanwhile is lost: a beacon keeps nothing but its totals",
        True,
        DEVICE,
    )


def _answered_by_another(device: OfDevice, stops: bool) -> Finding:
    return Finding(
        "another answers",
        "what answers is not the unit that was asked: two devices have one address, or a converter maps them wrongly",
        f"devices.{device.name}",
        f"{device.counts.refused} answers of another, {device.counts.records} of its own",
        "take the devices off the bus one by one and see which one answers; give each an address of its own",
        stops,
        DEVICE,
    )


def _garbage(line: settings.Line, device: OfDevice) -> Finding:
    asked = f" of {device.counts.asked} questions" if device.counts.asked else ""
    why = f"; the last: {device.damage}" if device.damage else ""
    return Finding(
        "bytes make no sense",
        "bytes come and make no sense: wrong baud or parity, A and B swapped, another device, or noise",
        f"lines.{device.line}",
        f"{device.counts.damaged} damaged{asked}, 0 readings{why}",
        _look_closer(line, device.line),
        True,
        LINE,
    )


def _noisy(line: settings.Line, device: OfDevice) -> Finding:
    why = f"; the last: {device.damage}" if device.damage else ""
    is_wired = not isinstance(line, settings.BleLine)
    return Finding(
        "more damaged than read",
        f"of what {device.name} says more is damaged than read: readings are lost",
        f"devices.{device.name}",
        f"{device.counts.damaged} damaged, {device.counts.records} records since the start{why}",
        "see its screen and ground, on a bus its termination (120 ohm at both ends, nowhere else); is one babbling?"
        if is_wired
        else "is its key right, does somebody repeat what it says?",
        False,
        WARNING,
    )


def _silent_among_living(device: OfDevice) -> Finding:
    return Finding(
        "device silent",
        f"{device.name} is silent, and others on its line are heard: it is this device, not the line",
        f"devices.{device.name}",
        f"{_age(device)}; {device.counts.silent} of {device.counts.asked} questions without an answer",
        f"see its supply and its address (devices.{device.name}.settings); has it the line's baud and parity?",
        True,
        DEVICE,
    )


def _silent(config: settings.Config, device: OfDevice) -> Finding:
    line = config.lines[device.line]
    is_asked = bool(device.driver) and hasattr(driver_class(device.driver), "measure")
    counts = device.counts
    evidence = f"{counts.silent} of {counts.asked} questions without an answer" if is_asked else _of_bytes(counts)
    return Finding(
        "line silent" if is_asked else "talker silent",
        "nobody answers on this line" if is_asked else f"{device.name} says nothing",
        f"lines.{device.line}",
        f"{_age(device)}; {evidence}",
        _look_closer(line, device.line),
        True,
        LINE,
    )


def _of_bytes(counts: Counts) -> str:
    return f"{counts.damaged} damaged frames since the start" if counts.damaged else "not one frame since then"


def _of_settings(device: OfDevice) -> Iterator[Finding]:
    where = f"devices.{device.name}"
    if device.lacking:
        yield Finding(
            "numbers refused",
            "the device refuses registers of its profile (Modbus exception 2 or 3): they are missing",
            where,
            f"refused: {', '.join(device.lacking[:8])}",
            "is the profile that of this model? bega gateway scan says which fits; of tags see address and function",
            not device.counts.records,
            DEVICE,
        )
    if device.to_set:
        yield Finding(
            "device set wrongly",
            "the device is set so that its registers mean something else; what that spoils is not given",
            where,
            "; ".join(device.to_set),
            "set on the device itself what is named above; the gateway looks again within a minute",
            False,
            WARNING,
        )


def _of_quality(device: OfDevice) -> Iterator[Finding]:
    if device.quality and device.is_doubted:
        yield Finding(
            f"readings {QUALITIES[device.quality]}",
            f"{device.name} is heard, and what it says is {QUALITIES[device.quality]}",
            f"{'nodes' if device.is_node else 'devices'}.{device.name}",
            f"at least one reading of its last record is {QUALITIES[device.quality]}",
            "see the sensor: its age, its air path, its connector; where it is well, [limits] may be too narrow for it",
            False,
            WARNING,
        )


def _look_closer(line: settings.Line, name: str) -> str:
    if isinstance(line, settings.ModbusTcpLine):
        return f"ping {line.host}; is the unit's number right, has the converter the baud and parity of its bus?"
    return f"see supply, A/B (or RX/TX) and lines.{name}; bega gateway doctor tries other rates on it"


def _age(device: OfDevice) -> str:
    if device.since_heard_s is None:
        return f"never heard in {device.watched_s:.0f} s"
    return f"last heard {ago(device.since_heard_s)}"
