"""Register maps of Modbus meters, as `bega node build` freezes them: JSON files on the flash."""

import json
import sys

from bega_protocols.errors import ConfigError


def with_profile(settings):
    """Return the settings with the register map that they name in the place of its name. Raises ConfigError."""
    try:
        # Of the slot that runs (main.py): the map and the driver that reads it are of one version.
        with open(sys.path[0] + "/lib/profiles/" + settings["profile"] + ".json") as file:
            return dict(settings, profile=json.load(file))
    except (OSError, ValueError):
        raise ConfigError("there is no profile %s in this firmware" % settings["profile"])
