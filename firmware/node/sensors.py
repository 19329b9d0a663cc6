"""From the configuration to the devices: each with its driver, its bus, what switches its supply, who listens to it."""

from choice import content, put
from sensor import Sensor
from starts import FOLDER

from bega_protocols.errors import ConfigError


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
        sensor.supply.sensors.append(sensor)
    return sensor


def introduce(devices, sensors):
    """Let the drivers that want to be told what another device measures be told; `sensors` by name."""
    for device in devices:
        if device["beside"]:
            sensor, other = sensors[device["name"]], sensors.get(device["beside"])
            if not hasattr(sensor.driver, "beside") or not hasattr(other, "beside"):
                raise ConfigError("devices.%s: %s has nothing to tell it" % (device["name"], device["beside"]))
            other.beside.append(sensor)


def load_driver(name, settings, state=b""):
    """Return the driver of the device folder `name`; raises ConfigError if there is none or it refuses its settings."""
    if isinstance(settings.get("profile"), str):
        from profiles import with_profile  # only here: most nodes have no Modbus

        settings = with_profile(settings)
    try:
        module = __import__("bega_protocols.devices." + name + ".driver", None, None, ("Driver",))
    except ImportError:
        raise ConfigError("there is no device %s in this firmware" % name)
    return module.Driver(settings, state)
