"""`bega node`: what a technician does with a node."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bega.service import carry_out, command_line
from bega_firmware import (
    build,
    flash_command,
    interpreters,
    label,
    log,
    nodes_list,
    ports,
    provision,
    setup,
    shell,
    wipe,
)
from bega_firmware.interrupt import ends_in_order
from bega_firmware.proof import command as test
from bega_firmware.proof import doctor

# Each a module with `add_to(verbs)` and `run(args)`, in the order of the help.
VERBS = (setup, build, ports, flash_command, interpreters, provision, test, doctor, log, shell, wipe, label, nodes_list)

DESCRIPTION = "Nodes, from their sources to a pole."
EXAMPLES = """examples:
  bega node setup --port /dev/ttyUSB0 --site timisoara --kind air --uplink wifi --bench
  bega node build --board esp32_devkitc --out build/pole
  bega node build --board esp32_c3 --device pms5003 --device sht4x --json"""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    parser, verbs = command_line("bega node", DESCRIPTION, EXAMPLES)
    for verb in VERBS:
        verb.add_to(verbs)
    for each in verbs.choices.values():
        each.set_defaults(command=_in_order(each.get_default("command")))
    try:
        return carry_out(parser, argv)
    except BrokenPipeError:
        raise  # who read us went away: no fault of a disk
    except OSError as error:  # a folder that cannot be made or written
        print(f"bega node: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 1


def _in_order(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return `run` such that a signal lets it give back what it has: a node's program, and its configuration."""

    def in_order(args: argparse.Namespace) -> int:
        with ends_in_order():
            return run(args)

    return in_order
