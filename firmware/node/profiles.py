"""Register maps of Modbus meters, as `bega node build` freezes them: JSON files on the flash."""

import json

from bega_protocols.errors import ConfigError

FOLDER = "/lib/profiles/"


def with_profile(settings):
    """Return the settings with the register map that they name in the place of its name. Raises ConfigError."""
    try:
        with open(FOLDER + settings["profile"] + ".json") as file:
            return dict(settings, profile=json.load(file))
    except (OSError, ValueError):
        raise ConfigError("there is no profile %s in this firmware" % settings["profile"])
