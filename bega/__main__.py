"""The command `bega`: finds its sub-commands by entry point and imports only the one asked for."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bega import __version__

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

USAGE = """usage: bega COMMAND ...

{commands}

`bega COMMAND --help` explains one, with an example. `bega --version` names the version."""

PURPOSES = {
    "decode": "print the readings in a capture of any device",
    "profile": "list, show and check register maps of Modbus meters",
    "ca": "certificates of nodes, gateways and brokers",
    "gateway": "scan for devices; run, check, record, install a gateway",
    "kiosk": "run a kiosk's pages",
    "node": "build what a node runs, as an image of its flash",
    "sim": "put simulated devices on real wires",
    "bench": "measure what the gateway must hold, beside a floor",
    "demo": "a city corner on this machine, no hardware",
}


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command; return its exit code, 2 where the command line makes no sense."""
    argv = sys.argv[1:] if argv is None else argv
    if sys.stdout is None:  # closed by whoever started us (`>&-`, some supervisors): nobody wants to read it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - it stays open as long as we run
    with _silent_interrupt():
        commands = _commands()
    if argv[:1] == ["--version"]:
        print(f"bega {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(commands))
        return 0 if argv else 2
    name, *rest = argv
    if name not in commands:
        print(f"bega: there is no command {name!r}.\n\n{_usage(commands)}", file=sys.stderr)
        return 2
    try:
        with _silent_interrupt():
            command: Callable[[list[str]], int] = commands[name].load()
        code = int(command(rest))
        sys.stdout.flush()  # here, where a reader that went away can be excused, not at the interpreter's end
        return code
    except ModuleNotFoundError as error:
        return _missing(commands[name], error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `bega decode ... | head` is no error
        _leave_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"bega {name}: {error.strerror}; what was written is not whole", file=sys.stderr)
        _leave_output()
        return 1


def _commands() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # a quarter of the time until here: an interrupt may come meanwhile

    return {point.name: point for point in entry_points(group="bega.commands")}


@contextmanager
def _silent_interrupt() -> Iterator[None]:
    """Have an interrupt end us without a traceback while we load: nothing is open yet."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(commands: dict[str, EntryPoint]) -> str:
    rows = [f"  {name:10}{PURPOSES.get(name, '')}" for name in sorted(commands)]
    return USAGE.format(commands="\n".join(rows))


def _missing(command: EntryPoint, error: ModuleNotFoundError) -> int:
    """Say how to install what a sub-command needs; a module of our own that is missing is a defect, and raised."""
    if not command.extras or (error.name or "").startswith("bega"):
        raise error
    from bega.extras import how_to_install

    extra = command.extras[0]
    print(
        f"bega {command.name} needs {error.name}, which is not installed.\nInstall it with, {how_to_install(extra)}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
