"""What makes no sense in a configuration whose every table has its shape: what one table alone cannot know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from bega.devices import driver_class, load_driver, wire_of
from bega.identity import DEVICE_ID
from bega.listen import is_this_machine
from bega.tables import NAME_RULE, Problem, is_address, is_host, is_within, shown
from bega.update_keys import MOST_KEYS
from bega_gateway.config.tables import (
    LINES,
    WIRES,
    BleLine,
    Config,
    Device,
    Feed,
    I2cLine,
    Line,
    MbusLine,
    Metrics,
    ModbusRtuLine,
    ModbusTcpLine,
    MqttLine,
    Page,
    SerialLine,
    Uplink,
    UplinkLine,
)
from bega_gateway.edge import tables as edge_tables
from bega_gateway.edge.tables import Treated, inputs_of
from bega_gateway.home_assistant import table as home_assistant
from bega_gateway.home_assistant.table import HomeAssistant
from bega_gateway.lines import modbus_write
from bega_gateway.page.password import is_hash
from bega_gateway.updates.table import Updates
from bega_protocols.errors import ConfigError
from bega_protocols.reading import QUANTITIES

RESERVED = ("cmd", "result", "status", "probe")  # the gateway's own topics stand where a source's name stands
RESERVED_RULE = f"{', '.join(RESERVED)} are topics of the gateway itself: take another name"
CREDENTIALS = ("ca_file", "cert_file", "key_file")


def problems(config: Config) -> list[str]:
    """Return what makes no sense in a configuration that was put together of two, each with its place."""
    return [f"{place}: {why}" for place, why in sense_problems(config)]


def cautions(config: Config) -> list[str]:
    """Return what is allowed and may not be meant: what everybody on the way can read."""
    lines = [line.broker for line in config.lines.values() if isinstance(line, MqttLine)]
    if config.home_assistant and config.home_assistant.broker:
        lines.append(config.home_assistant.broker)
    foreign = [broker for broker in [*config.uplink.brokers, *lines] if not _is_private(broker)]
    said = [f"{broker} is not encrypted: mqtts:// is, for any other machine" for broker in dict.fromkeys(foreign)]
    if config.page and not is_this_machine(config.page.listen.rpartition(":")[0]):
        way = "an SSH tunnel to 127.0.0.1 is"
        said.append(f"page.listen {config.page.listen} is not encrypted, the password can be read on the way: {way}")
    said += [f"{place}: no certificate of `bega ca` can have this name ({name})" for place, name in _odd_names(config)]
    for name, node in config.nodes.items():
        if isinstance(config.lines.get(node.line), UplinkLine) and node.key_file is None:
            said.append(f"nodes.{name} has no key_file: who gets at the wire of {node.line} can speak in its name")
    return said


def _odd_names(config: Config) -> Iterator[Problem]:
    """Yield what a broker should know by a certificate, under a name that none of our authority's has."""
    if config.uplink.cert_file and not DEVICE_ID.fullmatch(config.gateway.name):
        yield "gateway.name", config.gateway.name
    for name, node in config.nodes.items():
        line = config.lines.get(node.line)
        if isinstance(line, MqttLine) and line.cert_file and not DEVICE_ID.fullmatch(name):
            yield f"nodes.{name}", name


def missing_files(config: Config) -> Iterator[Problem]:
    """Only what is surely not there: a file that the gateway's user alone may see is no affair of who checks."""
    for key in ("public_key", "led") if config.commands else ():
        file = getattr(config.commands, key)
        if file is not None and _is_missing(file):
            yield f"commands.{key}", f"there is no file {file}"
    for key in ("ca_file", "broker_list") if config.revocation else ():
        file = getattr(config.revocation, key)
        if file is not None and _is_missing(file):
            yield f"revocation.{key}", f"there is no file {file}"
    for index, file in enumerate(config.updates.public_keys if config.updates else ()):
        if _is_missing(file):
            yield f"updates.public_keys[{index}]", f"there is no file {file}"
    for name, node in config.nodes.items():
        if node.key_file is not None and _is_missing(node.key_file):
            yield f"nodes.{name}.key_file", f"there is no file {node.key_file}"
    with_files: dict[str, Uplink | MqttLine | HomeAssistant] = {"uplink": config.uplink}
    with_files |= {f"lines.{name}": line for name, line in config.lines.items() if isinstance(line, MqttLine)}
    if config.home_assistant:
        with_files["home_assistant"] = config.home_assistant
    for place, table in with_files.items():
        for key in (*CREDENTIALS, "password_file"):
            file = getattr(table, key, None)
            if file is not None and _is_missing(file):
                yield f"{place}.{key}", f"there is no file {file}"


def sense_problems(config: Config, stand_ins: Collection[str] = ()) -> Iterator[Problem]:
    """What each table alone cannot know: names that point nowhere, wires that do not fit, settings a driver refuses.

    stand_ins: places where the file has something that is not fit to be looked at.
    """
    if config.gateway.name in RESERVED:
        yield "gateway.name", RESERVED_RULE
    if not config.gateway.state_dir.startswith("/"):
        yield "gateway.state_dir", f"write the whole path, from / on, not {shown(config.gateway.state_dir)}"
    if edge_tables.zone(config.gateway.time_zone) is None:
        yield "gateway.time_zone", f"there is no time zone {shown(config.gateway.time_zone)}; write Europe/Bucharest"
    yield from _uplink_problems(config, stand_ins)
    yield from _listen_problems(config)
    for name, line in config.lines.items():
        if isinstance(line, ModbusTcpLine) and not is_host(line.host):
            yield f"lines.{name}.host", f"write a name or an address and nothing else, not {shown(line.host)}"
        if isinstance(line, MqttLine):
            yield from broker_problems(f"lines.{name}.broker", line.broker)
            if not is_within(f"lines.{name}.broker", stand_ins):
                yield from _credential_problems(f"lines.{name}", [line.broker], line)
    for name, device in config.devices.items():
        yield from _device_problems(config, f"devices.{name}", device, stand_ins)
    yield from _sharing_problems(config)
    for name, node in config.nodes.items():
        way = config.lines.get(node.line)
        if not isinstance(way, MqttLine | UplinkLine) and not is_within(f"lines.{node.line}", stand_ins):
            yield f"nodes.{name}.line", f"{node.line!r} is no line of the kind mqtt or uplink"
        if node.key_file is not None and isinstance(way, MqttLine):
            yield f"nodes.{name}.key_file", "is for nodes on an uplink line; over MQTT a certificate says who they are"
        if name == config.gateway.name:
            yield f"nodes.{name}", "is the gateway's own name"
        if name in RESERVED:
            yield f"nodes.{name}", RESERVED_RULE
    yield from _edge_problems(config, stand_ins)
    if config.updates:
        yield from _update_problems(config, config.updates, stand_ins)
    if config.home_assistant:
        yield from _home_assistant_problems(config, config.home_assistant, stand_ins)


def broker_problems(place: str, address: str) -> Iterator[Problem]:
    """What is wrong with a broker's address."""
    scheme, _, rest = address.partition("://")
    if scheme not in ("mqtt", "mqtts") or not (is_address(rest) or is_address(f"{rest}:1")):
        why = f"write mqtt://host:port or mqtts://host:port, not {shown(address)}"
        if scheme in ("mqtt", "mqtts") and "@" in rest:
            why = "write mqtt://host:port: a gateway shows a certificate (cert_file), it has no name and password"
            if place.startswith("home_assistant."):
                why = "write mqtt://host:port; name and password go into user and password_file"
        yield place, why


def _uplink_problems(config: Config, stand_ins: Collection[str]) -> Iterator[Problem]:
    brokers = config.uplink.brokers
    if not brokers:
        yield "uplink.brokers", "name at least one broker"
    for index, broker in enumerate(brokers):
        yield from broker_problems(f"uplink.brokers[{index}]", broker)
        if broker in brokers[:index]:
            yield f"uplink.brokers[{index}]", f"{shown(broker)} is in the list already"
    if not is_within("uplink.brokers", stand_ins):
        yield from _credential_problems("uplink", brokers, config.uplink)


def _home_assistant_problems(config: Config, table: HomeAssistant, stand_ins: Collection[str]) -> Iterator[Problem]:
    place = "home_assistant.broker"
    if table.broker is not None and not is_within(place, stand_ins):
        yield from broker_problems(place, table.broker)
        yield from _credential_problems("home_assistant", [table.broker], table)
    yield from home_assistant.problems(table)
    for index, name in enumerate(table.devices):
        if not home_assistant.is_known(config, name) and not _is_unclear(config, name, stand_ins):
            why = f"there is no device or node {name!r}; a node's device is written node/device"
            yield f"home_assistant.devices[{index}]", why


def _update_problems(config: Config, table: Updates, stand_ins: Collection[str]) -> Iterator[Problem]:
    if not 1 <= len(table.public_keys) <= MOST_KEYS and not is_within("updates.public_keys", stand_ins):
        yield "updates.public_keys", "name one or two: the key in use, and the next one"
    for index, node in enumerate(table.canary):
        if node not in config.nodes and not is_within(f"nodes.{node}", stand_ins):
            yield f"updates.canary[{index}]", f"there is no node {node!r}"


def _listen_problems(config: Config) -> Iterator[Problem]:
    tables: dict[str, Feed | Metrics | Page | None] = {
        "feed": config.feed,
        "metrics": config.metrics,
        "page": config.page,
    }
    there = {place: table.listen for place, table in tables.items() if table}
    for place, listen in there.items():
        if not is_address(listen):
            yield f"{place}.listen", f"write host:port, not {shown(listen)}"
    for (place, listen), (other, other_listen) in combinations(there.items(), 2):
        host, _, port = listen.rpartition(":")
        other_host, _, other_port = other_listen.rpartition(":")
        everywhere = {"0.0.0.0", "[::]"} & {host, other_host}  # noqa: S104 - it is looked for, not listened on
        if port == other_port != "0" and (host == other_host or everywhere):
            yield f"{other}.listen", f"{place}.listen has {listen} already"
    if config.page:
        yield from _page_problems(config.page)


def _page_problems(page: Page) -> Iterator[Problem]:
    if page.password_hash and not is_hash(page.password_hash):
        yield "page.password_hash", "is none; `bega gateway password` prints one"
    if not page.password_hash and is_address(page.listen) and not is_this_machine(page.listen.rpartition(":")[0]):
        why = "others than this machine can ask there: set page.password_hash (`bega gateway password` prints one)"
        yield "page.listen", why


def _edge_problems(config: Config, stand_ins: Collection[str]) -> Iterator[Problem]:
    """What makes no sense in what is computed: names of nobody, one name for two, and circles."""
    taken: dict[str, str] = {name: f"devices.{name}" for name in config.devices}
    for section, rows in config.edge.items():
        for name, table in rows.items():
            place = f"{section}.{name}"
            if not isinstance(table, Treated):
                other = taken.setdefault(name, place)
                if other.startswith("devices.") or other != place:
                    yield place, "a device has this name" if other.startswith("devices.") else f"{other} has this name"
            for problem in edge_tables.problems(config, place, table):
                if not any(_is_unclear(config, given, stand_ins) for given in inputs_of(table)):
                    yield problem
    for name in config.computed():
        if name in _upstream(config, name):
            yield next(place for taken_name, place in taken.items() if taken_name == name), "computes from itself"


def _is_unclear(config: Config, given: str, stand_ins: Collection[str]) -> bool:
    source, _ = config.input_of(given)
    return is_within(f"devices.{given}", stand_ins) or is_within(f"nodes.{source}", stand_ins)


def _upstream(config: Config, name: str) -> set[str]:
    """Return the names of all that `name` is computed from, over any number of steps."""
    computed = config.computed()
    found: set[str] = set()
    pending = [name]
    while pending:
        table = computed.get(pending.pop())
        for given in inputs_of(table) if table else ():
            if given not in found:
                found.add(given)
                pending.append(given)
    return found


def _credential_problems(place: str, brokers: list[str], table: Uplink | MqttLine | HomeAssistant) -> Iterator[Problem]:
    """A certificate that is given and not used would leave the operator in the belief that it is."""
    given = [key for key in CREDENTIALS if getattr(table, key) is not None]
    if given and not any(broker.startswith("mqtts://") for broker in brokers):
        yield f"{place}.{given[0]}", "is used with mqtts:// only, and no broker here has that"
    if table.key_file is not None and table.cert_file is None:
        yield f"{place}.key_file", "needs cert_file beside it"


def _device_problems(config: Config, place: str, device: Device, stand_ins: Collection[str]) -> Iterator[Problem]:
    line = config.lines.get(device.line)
    if line is None and not is_within(f"lines.{device.line}", stand_ins):
        there = f"the file has {', '.join(config.lines) or 'none'}"
        yield f"{place}.line", f"there is no line {device.line!r}; {_nearest(device.line, config.lines) or there}"
    try:
        driver = driver_class(device.driver)
    except ConfigError as error:
        yield f"{place}.driver", str(error)
        return
    kinds = [kind for kind, table in LINES.items() if isinstance(line, table)]
    if kinds and WIRES.get(kinds[0]) != wire_of(driver):
        yield f"{place}.line", f"{device.driver} speaks {wire_of(driver)}, and {device.line} is a {kinds[0]} line"
    if device.priority != "normal" and wire_of(driver) != "modbus":
        yield f"{place}.priority", "is for devices that share a Modbus line"
    yield from _command_problems(place, device, driver, stand_ins)
    if is_within(f"{place}.settings", stand_ins) or is_within(f"{place}.tags", stand_ins):
        return
    try:
        loaded = load_driver(device.driver, device.settings)
    except ConfigError as error:
        yield from (_setting_problem(place, line) for line in str(error).splitlines())
        return
    except Exception as error:  # a driver should refuse what it cannot use; where it stumbles, this is still the place
        yield f"{place}.settings", f"{device.driver} cannot use them ({type(error).__name__})"
        return
    if isinstance(line, BleLine) and wire_of(driver) == "ble" and not getattr(loaded, "address", b""):
        yield f"{place}.settings.address", "is missing; a line finds a Bluetooth sensor by its address"
    if isinstance(line, MbusLine) and wire_of(driver) == "mbus":
        if "address" not in device.settings:
            yield f"{place}.settings.address", "is missing; 0 is that of a meter that nobody has given one"
        baud = getattr(loaded, "baud", line.baud)
        if baud != line.baud:
            yield f"{place}.settings.baud", f"is {baud} and the line's {line.baud}: the driver waits by its own"


def _command_problems(place: str, device: Device, driver: type[Any], stand_ins: Collection[str]) -> Iterator[Problem]:
    """What commands may do to a device must be something that it can."""
    known = getattr(driver, "actions", ())
    for index, action in enumerate(device.actions):
        if action not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            yield f"{place}.actions[{index}]", f"{device.driver} has no action {shown(action)}; {there}"
    if device.writes and wire_of(driver) != "modbus" and not is_within(f"{place}.writes", stand_ins):
        yield f"{place}.writes", "is for devices on a Modbus line"
    for name, row in device.writes.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            yield f"{place}.writes.{name}", NAME_RULE
        yield from modbus_write.problems(f"{place}.writes.{name}", row)


def _setting_problem(place: str, said: str) -> Problem:
    """Return one line of a driver's complaint at its place: a tag that it names, or the settings."""
    if unknown := re.search(r"there is no quantity '(\w+)'$", said):
        hint = _nearest(unknown[1], QUANTITIES)
        said += f"; {hint}" if hint else ""
    key, colon, why = said.partition(": ")
    if colon and re.fullmatch(r"tags\[\d+\].*", key):
        return f"{place}.{key}", why
    return f"{place}.settings", said


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return "is it X or Y?" with what may be meant, or ''."""
    near = difflib.get_close_matches(name, list(known))
    return f"is it {' or '.join(near)}?" if near else ""


def _sharing_problems(config: Config) -> Iterator[Problem]:
    """Two devices on one serial port, or with one address on one line, would answer for each other."""
    ports: dict[str, str] = {}
    for name, table in config.lines.items():
        key, port = _port_of(table)
        other = ports.setdefault(port, name) if port else name
        if other != name:
            yield f"lines.{name}.{key}", f"line {other} has {port} already"
    taken: dict[tuple[str, str], str] = {}
    for name, device in config.devices.items():
        line = config.lines.get(device.line)
        address = device.settings.get("address")
        seat = "the port" if isinstance(line, SerialLine) else repr(address)
        if isinstance(line, I2cLine):
            seat = repr(address or f"of every {device.driver}")
        elif address is None and not isinstance(line, SerialLine):
            continue  # the driver says that it is missing
        if isinstance(line, BleLine) and isinstance(address, str):
            seat = address.replace(":", "").upper()  # both spellings are one sensor
        other = taken.setdefault((device.line, seat), name)
        if other != name and line is not None:
            what = "is alone on a serial port" if isinstance(line, SerialLine) else f"has the address {seat}"
            yield f"devices.{name}.line", f"{other} already {what} on {device.line}"


def _port_of(line: Line) -> tuple[str, str]:
    """Return (key, value) of what only one line can have; the value is '' where any number may share."""
    if isinstance(line, SerialLine | ModbusRtuLine | MbusLine | UplinkLine):
        return "port", line.port
    if isinstance(line, I2cLine):
        return "bus", f"/dev/i2c-{line.bus}"
    if isinstance(line, BleLine):
        return "adapter", line.adapter
    return "", ""


def _is_private(broker: str) -> bool:
    scheme, _, rest = broker.partition("://")
    return scheme == "mqtts" or bool(re.match(r"(localhost|127\.[0-9.]+|\[::1\])(:|$)", rest))


def _is_missing(file: str) -> bool:
    try:
        Path(file).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in it
        return True
    except OSError:
        return False
    return False
