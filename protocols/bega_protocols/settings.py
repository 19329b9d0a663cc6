"""What a driver makes of its table of the configuration: every key known, every value of its kind."""

from bega_protocols.errors import ConfigError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def attempt(problems: "list[str]", read: "Callable[..., Any]", *arguments: "Any") -> "Any":
    """Return read(*arguments); where it raises ConfigError, None, and its text is one more of `problems`."""
    try:
        return read(*arguments)
    except ConfigError as error:
        problems.append(str(error))
        return None


def only(settings: "Mapping[str, Any]", *known: str) -> None:
    """Raise ConfigError naming the keys of `settings` that are not `known`."""
    unknown = [str(key) for key in settings if key not in known]
    if unknown:
        raise ConfigError("unknown setting %s; known here: %s" % (", ".join(unknown), ", ".join(known) or "none"))


def whole_number(settings: "Mapping[str, Any]", key: str, low: int, high: int, default: "int | None" = None) -> int:
    """Return settings[key]; raise ConfigError if it is missing without a default, no whole number, or out of range."""
    value = settings.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError("%s must be a whole number from %d to %d, not %r" % (key, low, high, value))
    return value


def yes_or_no(settings: "Mapping[str, Any]", key: str, default: bool) -> bool:
    """Return settings[key]; raise ConfigError if it is neither true nor false."""
    value = settings.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError("%s must be true or false, not %r" % (key, value))
    return value


def hex_bytes(settings: "Mapping[str, Any]", key: str, size: int) -> bytes:
    """Return settings[key] as bytes; raise ConfigError if it is missing or not `size` bytes of hex text."""
    value = settings.get(key)
    try:
        if not isinstance(value, str):
            raise ValueError
        octets = bytes.fromhex(value.replace(":", ""))
    except ValueError:
        raise ConfigError("%s must be %d bytes in hex" % (key, size))  # never the value: it may be a key
    if len(octets) != size:
        raise ConfigError("%s must be %d bytes in hex, not %d" % (key, size, len(octets)))
    return octets
