"""A bench's configuration lent to a node, and the site's own given back whole; after a pulled plug by the next run.

On the node, in /bench, lie copies of its configuration and all that it had not handed on; /bench/lent is written once
they are whole and goes when they are back. While it is there the node is a bench's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from bega_firmware.proof.found import NEW, Prompt

FOLDER = "/bench"
WITHIN_S = 60.0
RING_SEGMENTS = 4  # of the bench: few, since the node's own stay on the flash
EVERY_S = 5

LENDING = """
import json, os, machine
RING, AWAY = "/state/ring", "/bench/ring"
def is_there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False
def clear(folder):
    if not is_there(folder):
        return
    for row in os.ilistdir(folder):
        path = folder + "/" + row[0]
        if row[1] & 0x4000:
            clear(path)
        else:
            os.remove(path)
    os.rmdir(folder)
def copied(path, to):
    with open(path, "rb") as file, open(to + "~", "wb") as copy:
        while True:
            piece = file.read(256)
            if not piece:
                break
            copy.write(piece)
    os.rename(to + "~", to)
def without(path):
    if is_there(path):
        os.remove(path)
def lend():
    has_good = is_there("/config.good")
    copied("/config.json", "/bench/config.json")
    if has_good:
        copied("/config.good", "/bench/config.good")
    for name in ("trial", "new"):
        if is_there("/config." + name):
            copied("/config." + name, "/bench/config.new")
    with open("/bench/lent~", "w") as file:
        json.dump({"good": has_good, "ring": is_there(RING)}, file)
    os.rename("/bench/lent~", "/bench/lent")
    if is_there(RING):
        os.rename(RING, AWAY)
def give_back():
    if not is_there("/bench/lent"):
        was = False
    else:
        was = True
        with open("/bench/lent") as file:
            had = json.load(file)
        for name in ("new", "new~", "trial", "good~", "json~"):
            without("/config." + name)
        copied("/bench/config.json", "/config.json")
        if had["good"]:
            copied("/bench/config.good", "/config.good")
        else:
            without("/config.good")
        if is_there(AWAY):
            clear(RING)
            os.rename(AWAY, RING)
        elif not had["ring"]:
            clear(RING)
        if is_there("/bench/config.new"):
            copied("/bench/config.new", "/config.new")
        machine.RTC().memory(b"")
        os.remove("/bench/lent")
    clear("/bench")
    print("back" if was else "none")
"""


class Files(Prompt, Protocol):
    """What is needed of a cable to lend: a prompt, and files."""

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole or not at all."""


def lend(cable: Files, config: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Let the node's next start be by `config`, with these files in /bench; its own is kept. Raises CableError."""
    give_back(cable)
    for name, content in files.items():
        cable.put(f"{FOLDER}/{name}", content)
    cable.run(f"import os\ntry:\n os.mkdir({FOLDER!r})\nexcept OSError:\n pass\n", WITHIN_S)
    cable.run("lend()\n", WITHIN_S)
    cable.put(NEW, json.dumps(config).encode())


def give_back(cable: Prompt) -> bool:
    """Put back what a bench has borrowed, if it has; return whether it had. Raises CableError."""
    cable.run(LENDING, WITHIN_S)
    return cable.run("give_back()\n", WITHIN_S).strip().endswith("back")


def for_bench(
    own: Mapping[str, Any], broker: tuple[str, int] | None, secured: bool, wifi: Mapping[str, str] | None, made_s: int
) -> dict[str, Any]:
    """Return a node's configuration with the bench in the place of its site, and in more haste.

    broker: None for a node whose way is no broker; wifi: another network than its own, None for that.
    """
    config = {**own, "made_s": made_s, "ring_segments": RING_SEGMENTS}
    devices = own.get("devices", {})
    config["devices"] = {name: _in_haste(device) for name, device in devices.items()}
    if broker is not None:
        host, port = broker
        config["broker"] = {"host": host, "port": port}
        if secured:
            tls = {"ca": "ca.der", "certificate": "node.der", "key": "node.key"}
            config["broker"]["tls"] = {part: f"{FOLDER}/{name}" for part, name in tls.items()}
        config["wifi"] = dict(wifi) if wifi is not None else own.get("wifi", {})
    return config


def _in_haste(device: Any) -> Any:
    if not isinstance(device, dict):
        return device
    every_s = device.get("every_s", EVERY_S)
    return {**device, "every_s": min(every_s, EVERY_S) if isinstance(every_s, int | float) else every_s}
