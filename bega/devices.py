"""Drivers and profiles by name. There is no list to extend: a device is the folder that holds it."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bega.extras import how_to_install
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega_protocols.driver import AskedDriver, Driver, Settings

NAME = re.compile(r"[a-z][a-z0-9_]*")


def device_names() -> list[str]:
    """Return the names of all devices that Bega can read."""
    folders = files("bega_protocols.devices").iterdir()
    return sorted(folder.name for folder in folders if folder.joinpath("driver.py").is_file())


def load_driver(name: str, settings: Settings, state: bytes = b"") -> Driver:
    """Return the driver called `name`, with a profile that `settings` names already read.

    Raises ConfigError if there is no such device or profile, or if the driver refuses its settings.
    """
    driver: Callable[..., Driver] = driver_class(name)
    return driver(with_profile(settings), state, aes_block_cipher)


def driver_class(name: str) -> type[Driver]:
    """Return the class of the driver called `name`; raises ConfigError if there is none."""
    if not NAME.fullmatch(name) or name not in device_names():
        raise ConfigError(f"there is no device {name!r}; Bega knows {', '.join(device_names())}")
    module = importlib.import_module(f"bega_protocols.devices.{name}.driver")
    return cast("type[Driver]", module.Driver)


def wire_of(driver: type[Driver]) -> str:
    """Return the kind of line that `driver` hangs on: "serial", "modbus", "ble" or "i2c"."""
    return driver.line.split()[0]


def purpose_of(name: str) -> str:
    """Return what the device called `name` is, in words: the title of its README."""
    readme = files("bega_protocols.devices").joinpath(name, "README.md")
    with suppress(OSError, UnicodeDecodeError):
        return readme.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip()
    return ""


def must_be_asked(driver: Driver) -> bool:
    """Return whether the device speaks only when asked (its driver has `measure`)."""
    return hasattr(driver, "measure")


def asked(driver: Driver) -> AskedDriver:
    """Return the same driver as what it is; for the type checker."""
    return cast("AskedDriver", driver)


def with_profile(settings: Settings) -> dict[str, Any]:
    """Return `settings` with the register map that `profile` names in its place.

    A profile is the name of one that Bega brings, or the path of a .toml file.
    Raises ConfigError if it cannot be read.
    """
    whole = dict(settings)
    name = whole.get("profile")
    if isinstance(name, str):
        whole["profile"] = _read_profile(name)
    return whole


def profile_names() -> list[str]:
    """Return the names of the profiles that Bega brings."""
    names = (Path(entry.name) for entry in files("bega_protocols").joinpath("profiles").iterdir())
    return sorted(name.stem for name in names if name.suffix == ".toml" and not name.name.endswith(".sim.toml"))


def aes_block_cipher(key: bytes) -> Callable[[bytes], bytes]:
    """Return the function that enciphers one block of 16 bytes with AES under `key`.

    Raises ConfigError if the key has no length of AES, or if `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ModuleNotFoundError:
        raise ConfigError(f"an encrypted device needs cryptography; {how_to_install('gateway')}") from None
    if len(key) not in (16, 24, 32):
        raise ConfigError(f"an AES key has 16, 24 or 32 bytes, not {len(key)}")
    # One block at a time is what CCM is built from; a mode of several blocks is never used.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update


def _read_profile(name: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        source = Path(name)
    elif name in profile_names():
        source = Path(str(files("bega_protocols").joinpath("profiles", f"{name}.toml")))
    else:
        raise ConfigError(
            f"there is no profile {name!r}; Bega brings {', '.join(profile_names())}, or give a .toml file"
        )
    try:
        return tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"profile {name}: {error}") from None
