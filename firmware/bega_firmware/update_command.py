"""`bega update`: new firmware for nodes, from its key to the last of them."""

from __future__ import annotations

import sys

from bega.service import carry_out, command_line
from bega_firmware import update_make, update_rollout

DESCRIPTION = "New firmware for nodes: made and signed here, handed out by their gateway, ring by ring."
EXAMPLES = """examples:
  bega update key new /media/stick/update.key
  bega update build --board esp32_devkitc --version 1.3.0 --update-key update.key.pub
  bega update sign build/esp32_devkitc-1.3.0.bega --key /media/stick/update.key
  sudo bega update publish esp32_devkitc-1.3.0.bega --canary air-7
  sudo bega update status
  sudo bega update rollback

What goes where, and why: docs/updates.md."""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    parser, verbs = command_line("bega update", DESCRIPTION, EXAMPLES)
    update_make.add_to(verbs)
    update_rollout.add_to(verbs)
    try:
        return carry_out(parser, argv)
    except OSError as error:  # a file that cannot be made or read
        print(f"bega update: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 1
