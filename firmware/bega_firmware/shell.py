"""`bega node shell`: MicroPython's prompt on a node, by mpremote's terminal; the node starts again when one leaves."""

from __future__ import annotations

import argparse
import select
import sys
from types import SimpleNamespace
from typing import Any

from mpremote.console import ConsolePosix
from mpremote.repl import do_repl_main_loop
from mpremote.transport import TransportError

from bega_firmware.cable import Cable, CableError
from bega_firmware.cable_faults import pulled
from bega_protocols.errors import ConfigError

PURPOSE = "MicroPython's prompt on a node; it starts again when you leave"
EXAMPLES = """examples:
  bega node shell --port /dev/ttyUSB0

Ctrl-] leaves. The program is stopped; its watchdog waits an hour. The settings on the board hold secrets: mind who
looks over your shoulder."""
WATCHDOG_S = 3600.0
LOOK_S = 0.02
PATHS = """
import sys
try:
 state = open("/state/slot").read()[0]
except (OSError, IndexError):
 state = "a"
sys.path[:] = ["", "/" + state, "/%s/lib" % state, ".frozen"]
"""


class Terminal(ConsolePosix):  # type: ignore[misc]  # mpremote has no types
    """mpremote's, for ports without a file descriptor too."""

    def waitchar(self, serial: Any) -> None:
        """Wait for a key, and look at the port in between."""
        select.select([self.infd], [], [], LOOK_S)


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "shell", help=PURPOSE, description=PURPOSE, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--port", required=True, metavar="P", help="/dev/ttyUSB0, socket:// or rfc2217://HOST:PORT")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Hand the terminal over until Ctrl-]."""
    if not sys.stdin.isatty():
        raise ConfigError("a shell needs a terminal; for scripts there is `mpremote connect PORT exec`")
    with Cable(args.port) as cable:
        cable.run(PATHS)
        transport = cable.hand_over(WATCHDOG_S)
        print(f"the node at {args.port}, stopped; Ctrl-] leaves, and it starts again")
        terminal = Terminal()
        terminal.enter()
        try:
            is_gone = do_repl_main_loop(
                SimpleNamespace(transport=transport), terminal, terminal.write,
                escape_non_printable=False, code_to_inject=None, file_to_inject=None,
            )  # fmt: skip
        except (OSError, TransportError):
            is_gone = True
        finally:
            terminal.exit()
        print()
        if is_gone:
            raise CableError(pulled(args.port, OSError(5, "")))
    return 0
