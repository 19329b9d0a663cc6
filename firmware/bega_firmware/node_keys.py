"""What a node without Wi-Fi and its gateway share, S.keys/ID.key: made once, kept, and brought to both.

S.keys/ID.key   0600, in hex: the gateway's key_file on an uplink line (docs/uplink.md), a beacon's bindkey
S.keys/ID.chip  the chip that it was made for
S.keys/ID.toml  0600, of a beacon: its table for the gateway's configuration, which takes the key itself
"""

from __future__ import annotations

import secrets

from bega_firmware.ca_folder import PUBLIC, SECRET, SECRET_FOLDER, replace_file
from bega_firmware.site import Site
from bega_protocols.errors import ConfigError

KEY_BYTES = {"serial": 32, "ble": 16}


def shared_key(site: Site, node: str, way: str, chip: str, again: bool) -> str:
    """Return the key of a node in hex, made if it has none. Raises ConfigError if it was made for another chip."""
    folder = site.keys_path
    folder.mkdir(SECRET_FOLDER, parents=True, exist_ok=True)
    key, owner = folder / f"{node}.key", folder / f"{node}.chip"
    if again:
        for path in (key, owner, folder / f"{node}.toml"):
            path.unlink(missing_ok=True)
    if not owner.exists():
        replace_file(owner, f"{chip}\n".encode(), PUBLIC)
    elif (other := owner.read_text(encoding="utf-8").strip()) != chip:
        raise ConfigError(
            f"{node} is another board (chip {other}) at site {site.name}: give this one another id, "
            "or --again if it takes the place of the first"
        )
    if not key.exists():
        replace_file(key, f"{secrets.token_hex(KEY_BYTES[way])}\n".encode(), SECRET)
    if key.stat().st_mode & 0o077:
        raise ConfigError(f"{key} can be read by others: chmod 600 {key}, and ask who had it")
    text = key.read_text(encoding="utf-8").strip()
    if len(text) != 2 * KEY_BYTES[way]:
        raise ConfigError(f"{key} is no key for the way {way}: was {node} given another way before? Then --again")
    return text


def gateway_table(site: Site, node: str, way: str, address: str = "") -> str:
    """Return the table for the gateway's configuration, with no secret in it; address: a beacon's."""
    if way == "ble":
        assert site.beacon is not None
        kept = site.keys_path / f"{node}.toml"
        settings = f'{{ address = "{address}", key = "..." }}'
        return f'[devices.{node}]\nline = "{site.beacon.line}"\ndriver = "bthome"\nsettings = {settings}  # in {kept}'
    if way == "serial":
        assert site.uplink is not None
        kept = site.keys_path / f"{node}.key"
        key_file = f'key_file = "/etc/bega/{node}.key"  # a copy of {kept}, 0600'
        return f'[nodes.{node}]\nline = "{site.uplink.line}"\n{key_file}'
    return f'[nodes.{node}]\nline = "nodes"  # its line of kind mqtt'


def keep_beacon_table(site: Site, node: str, address: str, key: str) -> None:
    """Keep the table of a beacon with its key, for the gateway's owner alone."""
    path = site.keys_path / f"{node}.toml"
    table = gateway_table(site, node, "ble", address).partition("  #")[0].replace('"..."', f'"{key}"')
    replace_file(path, f"{table}\n".encode(), SECRET)
