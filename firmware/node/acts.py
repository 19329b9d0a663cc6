"""Having a device do what its driver's README lists as an action: a calibration, a self test.

Nothing of it happens by itself, and only what the configuration lists may be done. This module alone names a driver's
`act`: a build without it leaves out what drivers have for it.
"""

import asyncio

from bega_protocols.errors import ConfigError

NOT_TAKEN = "the device did not take it, or did not answer: look whether it was done"


def verbs(devices, sensors, now_ms):
    """Return the verb for commands.py. Raises ConfigError where the configuration lists what cannot be done."""
    return {"act": Acts(devices, {sensor.name: sensor for sensor in sensors}, now_ms).act}


class Acts:
    """What the devices of a node may be told."""

    def __init__(self, devices, sensors, now_ms):
        """devices: those of the configuration; sensors: by name; now_ms() is Unix time. Raises ConfigError."""
        self._sensors = sensors
        self._now_ms = now_ms
        self._allowed = {}
        for device in devices:
            if not device["actions"]:
                continue
            driver = getattr(sensors[device["name"]], "driver", None)
            known = getattr(driver, "actions", ())
            for action in device["actions"]:
                if action not in known:
                    raise ConfigError(
                        "devices.%s.actions: there is %s, not %s" % (device["name"], ", ".join(known) or "none", action)
                    )
            if not hasattr(driver, "measure"):
                raise ConfigError(
                    "devices.%s.actions: it speaks by itself, it cannot be told anything" % device["name"]
                )
            self._allowed[device["name"]] = device["actions"]
            sensors[device["name"]].lock = asyncio.Lock()

    async def act(self, asked):
        """Do what {"device", "action", "value"} asks for, between two measurements; return what came of it."""
        name, action, value = asked.get("device"), asked.get("action"), asked.get("value")
        if not isinstance(name, str) or action not in self._allowed.get(name, ()):
            return "this action may not be done on this device"
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            return "value must be a whole number"
        sensor = self._sensors[name]
        async with sensor.lock:
            if self._now_ms() >= asked["expires"] * 1000:
                return "it expired while it waited for its turn; nothing was done"
            driver = sensor.driver
            before = dict(driver.attributes)
            try:
                done = await sensor.exchange(driver.act(action, value))
            except ConfigError as error:
                return str(error)
            sensor.keep()
        said = {key: text for key, text in driver.attributes.items() if before.get(key) != text and key != "doubt"}
        if not done:
            said["reason"] = NOT_TAKEN
        return said
