"""The extras of Bega: whether one is installed, and what to type where it is not."""

from __future__ import annotations

import re
import sys

from bega_protocols.errors import ConfigError

# A package that an extra needs on any platform, as `Requires-Dist` says it.
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*['\"]([a-z]+)['\"]")


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra. Bega is on no package index: it is installed from its checkout."""
    return f"in the checkout of Bega: {sys.executable} -m pip install '.[{extra}]'"


def require_extras(who: str, *extras: str) -> None:
    """Raise ConfigError that says how to install what `who` needs and is not installed."""
    from importlib.metadata import requires

    needed = [match for text in requires("bega") or [] if (match := REQUIREMENT.fullmatch(text.strip()))]
    missing = [extra for extra in extras if any(match[2] == extra and not _is_installed(match[1]) for match in needed)]
    if missing:
        raise ConfigError(f"{who} needs what is not installed; {how_to_install(','.join(missing))}")


def _is_installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
