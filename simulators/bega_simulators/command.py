"""`bega sim`: simulated devices on real wires, each kind a process of its own."""

import importlib
import sys

SIMULATORS = {
    "corner": (
        "bega_simulators.corner",
        "serial ports, an RS-485 segment and a Modbus TCP server of the demo's corner",
    ),
    "cellar": ("bega_simulators.cellar", "every kind of wire that `bega gateway scan` can find"),
    "ble": ("bega_simulators.hosts.ble", "Bluetooth air with sensors, behind org.bluez on a private D-Bus"),
    "board": ("bega_simulators.board.command", "an ESP32 as a process, running the real firmware"),
}
USAGE = """usage: bega sim SIMULATOR ...

{rows}

`bega sim SIMULATOR --help` explains one. Example: bega sim corner --ready-file corner.json"""


def main(argv: list[str]) -> int:
    """Run one simulator until SIGTERM or SIGINT; return its exit code."""
    usage = USAGE.format(rows="\n".join(f"  {name:8}{purpose}" for name, (_, purpose) in SIMULATORS.items()))
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    if argv[0] not in SIMULATORS:
        print(f"bega sim: there is no simulator {argv[0]!r}\n\n{usage}", file=sys.stderr)
        return 2
    module = importlib.import_module(SIMULATORS[argv[0]][0])
    return int(module.main(argv[1:]))
