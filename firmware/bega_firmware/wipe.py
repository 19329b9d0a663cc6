"""`bega node wipe`: identity, settings, keys and measurements off a board, before it goes to other hands."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from bega_firmware import book, node_identity
from bega_firmware.cable import Cable, CableError
from bega_firmware.data_folder import data_folder
from bega_firmware.node_settings import CONFIG, read_settings
from bega_firmware.outcome import Outcome, all_well, as_facts, lines
from bega_protocols.errors import ConfigError

PURPOSE = "take identity, settings, keys and measurements off a board; its firmware stays"
EXAMPLES = """examples:
  bega node wipe --port /dev/ttyUSB0
  bega node wipe --port /dev/ttyUSB0 --yes --json

It asks for the node's id. Records that no gateway acknowledged are lost. The certificate is still good until it ends:
`bega ca revoke ID`. The surest wipe is `esptool erase-flash`, firmware and all."""
OURS = ("/config", "/tls/", "/state/", "/bench/", "/wiped")
CHOICE = "/state/slot"  # which of its two versions runs: the firmware stays, and so does this
FILLED_WITHIN_S = 300.0  # 2 MB on an ESP32 take half a minute: some 500 erases of 45 ms, and as much for writing
# littlefs never writes where a file was: removed, its octets stay until their block is taken again. So all free blocks
# are taken once. Folders go too: their own blocks hold what is smaller than 128 octets, a private key for one.
CLEAR = """
import os, machine
def clear(folder):
 for row in list(os.ilistdir(folder)):
  path = folder + "/" + row[0]
  clear(path) if row[1] & 0x4000 else os.remove(path)
 os.rmdir(folder)
try:
 os.rename("/state/slot", "/slot")
except OSError:
 pass
for row in list(os.ilistdir("/")):
 if row[0] in ("tls", "state", "bench"):
  clear("/" + row[0])
 elif row[0].startswith(("config", "wiped")):
  os.remove("/" + row[0])
try:
 os.stat("/slot")
 os.mkdir("/state")
 os.rename("/slot", "/state/slot")
except OSError:
 pass
machine.RTC().memory(b"")
"""
FILL = """
import os
block, count = bytes(1024), 0
f = open("/wiped", "wb")
try:
 while True:
  f.write(block)
  count += 1
except OSError:
 pass
try:
 f.close()
except OSError:
 pass
os.remove("/wiped")
print(count)
"""

Ask = Callable[[str], str]


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "wipe", help=PURPOSE, description=PURPOSE, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", required=True, metavar="P", help="/dev/ttyUSB0, socket:// or rfc2217://HOST:PORT")
    parser.add_argument("--yes", action="store_true", help="without asking")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace, ask: Ask = input) -> int:
    """Wipe one board and say what was done; 1 if something is left, or the id was not typed."""
    with Cable(args.port) as cable:
        node = name_of(cable)
        if not args.yes:
            _confirm(node, args.port, ask)
        outcomes = wipe(cable, node)
    if args.json:
        print(json.dumps({"node": node, "outcomes": as_facts(outcomes)}))
    else:
        print("\n".join(line for outcome in outcomes for line in lines(outcome)))
    return 0 if all_well(outcomes) else 1


def name_of(cable: Cable) -> str:
    """Return the id of the node, "" if nothing on it says one."""
    if name := node_identity.name_on(cable):
        return name
    found = read_settings(cable) if CONFIG in cable.listing() else None
    return str((found or {}).get("node", ""))


def wipe(cable: Cable, node: str) -> list[Outcome]:
    """Take everything off the board that is not its firmware; what was there is overwritten as far as can be."""
    cable.run(CLEAR, 60)
    left = sorted(path for path in cable.listing() if path.startswith(OURS) and path != CHOICE)
    outcomes = [_removed(left)]
    if not left:
        try:
            count = int(cable.run(FILL, FILLED_WITHIN_S))
            outcomes.append(
                Outcome(
                    "overwritten", True, f"{count} kB of free flash, and with it what was there",
                    "Two blocks that the file system holds for each folder may keep old names, no secrets known. "
                    "Where that is not enough: esptool erase-flash.",
                )
            )  # fmt: skip
        except (CableError, ValueError) as error:
            outcomes.append(Outcome("overwritten", False, f"not to the end: {error}", "Run it again."))
    if node:
        outcomes.append(
            Outcome(
                "certificate", None, f"that of {node} is good until it ends", f"bega ca revoke {node}, if it must not"
            )
        )
    complaint = book.note(data_folder(), book.WIPED, all_well(outcomes), outcomes[0].words, port=cable.port, node=node)
    if complaint:
        print(f"bega node wipe: {complaint}", file=sys.stderr)
    return outcomes


def _removed(left: list[str]) -> Outcome:
    if left:
        return Outcome("removed", False, f"still there: {', '.join(left)}", "Run it again; else esptool erase-flash.")
    return Outcome("removed", True, "identity, settings, keys and measurements")


def _confirm(node: str, port: str, ask: Ask) -> None:
    """Raise ConfigError unless the technician types what it is that goes."""
    word = node or "wipe"
    if ask is input and not sys.stdin.isatty():
        raise ConfigError(f"nobody is here to type {word}: --yes wipes without asking")
    what = f"{node}, with all that no gateway has yet" if node else "this board"
    if ask(f"Everything of {what} at {port} goes. Type {word}: ").strip() != word:
        raise ConfigError("nothing was done: another word was typed")
