"""From the configuration to the devices: each with its driver, its bus, what switches its supply, who listens to it."""

import gc
import time

from choice import content, put
from sensor import Sensor
from starts import FOLDER
from wires import Buses

from bega_protocols.errors import ConfigError

SUPPLIED_MS = 1000  # from power to the first answer of the slowest sensor (SCD41)


def make_sensors(config, boot, mono, take, changed):
    """Return the devices of the configuration, by name: Sensors, and what counts pulses.

    take and changed: see Sensor; boot: the number of this one. Raises ConfigError.
    """
    import board  # in here: begin.py lets go of it, once all is made

    buses = Buses(board.BUSES, config["buses"])
    supplies, sensors = {}, {}
    for device in config["devices"]:
        if device["driver"] == "pulses":
            sensors[device["name"]] = _make_pulses(config, device, board.BUSES, boot, mono, take, changed)
            continue
        sensors[device["name"]] = make_sensor(device, buses, supplies, mono, take, changed)
        gc.collect()  # or what the next one keeps lies behind what this one's loading left: holes for ever
    introduce(config["devices"], sensors)
    if supplies and config["battery"]:
        time.sleep_ms(SUPPLIED_MS)
    return [sensors[name] for name in sorted(sensors)]


def make_sensor(device, buses, supplies, mono, take, changed):
    """Return the Sensor of one device of the configuration; `supplies` holds those made so far, by their pins.

    Raises ConfigError if the driver refuses its settings or its bus, or the pin cannot switch anything.
    """
    pin, path = device["power_pin"], FOLDER + "/of-" + device["name"]
    if pin is not None and pin not in supplies:
        from power import Supply

        supplies[pin] = Supply(pin, mono)

    def make(state):
        return load_driver(device["driver"], device["settings"], state)

    driver = make(content(path))
    bus = buses.bus(device["bus"], driver.line)
    sensor = Sensor(device["name"], driver, make, bus, device["every_ms"], mono, take, changed)
    if hasattr(driver, "state"):
        sensor.put = lambda state: content(path) == state or put(path, state)
    if pin is not None:
        sensor.supply = supplies[pin]
        supplies[pin].sensors.append(sensor)
    return sensor


def introduce(devices, sensors):
    """Let the drivers that want to be told what another device measures be told; `sensors` by name."""
    for device in devices:
        if device["beside"]:
            sensor, other = sensors[device["name"]], sensors.get(device["beside"])
            if not hasattr(sensor.driver, "beside") or not hasattr(other, "beside"):
                raise ConfigError("devices.%s: %s has nothing to tell it" % (device["name"], device["beside"]))
            other.beside = tuple(other.beside) + (sensor,)


def load_driver(name, settings, state=b""):
    """Return the driver of the device folder `name`; raises ConfigError if there is none or it refuses its settings."""
    try:
        module = __import__("bega_protocols.devices." + name + ".driver", None, None, ("Driver",))
    except ImportError:
        raise ConfigError("there is no device %s in this firmware" % name)
    if isinstance(settings.get("profile"), str):
        try:
            from profiles import with_profile  # only here: most nodes have no Modbus

            settings = with_profile(settings)
        except ImportError:
            pass  # a firmware without Modbus: the driver refuses the setting
    return module.Driver(settings, state)


def _make_pulses(config, device, wirings, boot, mono, take, changed):
    from pulses import Pulses  # only here: most nodes have none

    if config["battery"]:
        raise ConfigError("devices.%s: nobody counts while the node sleeps" % device["name"])
    return Pulses(device, wirings[device["bus"]], FOLDER, boot, mono, take, changed)
