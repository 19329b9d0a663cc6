"""The command `bega`: finds its sub-commands by entry point and imports only the one asked for."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import NamedTuple

from bega import __version__

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


class Command(NamedTuple):
    """One sub-command: where its function is, and the first extra that it needs, "" for none."""

    module: str
    function: str
    extra: str

    def load(self) -> Callable[[list[str]], int]:
        """Return the function."""
        found: Callable[[list[str]], int] = getattr(import_module(self.module), self.function)
        return found


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command; return its exit code, 2 where the command line makes no sense."""
    argv = sys.argv[1:] if argv is None else argv
    if sys.stdout is None:  # closed by whoever started us (`>&-`, some supervisors): nobody wants to read it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - it stays open as long as we run
    if argv[:1] == ["--version"]:
        print(f"bega {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    name, *rest = argv
    with _silent_interrupt():
        command = _our_commands().get(name) or _commands().get(name)
    if command is None:
        print(f"bega: there is no command {name!r}.\n\n{_usage()}", file=sys.stderr)
        return 2
    try:
        with _silent_interrupt():
            function = command.load()
        code = int(function(rest))
        sys.stdout.flush()  # here, where a reader that went away can be excused, not at the interpreter's end
        return code
    except ModuleNotFoundError as error:
        return _missing(name, command, error)
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


def _our_commands() -> dict[str, Command]:
    """Return the commands that Bega itself brings, read from where pip wrote them down.

    importlib.metadata would read 120 packages for them, and needs a reader of mail: a tenth of a kiosk's start.
    """
    for folder in sys.path:
        with suppress(OSError):  # no folder, no such file: `_commands` has the rest
            for name in os.listdir(folder or "."):  # noqa: PTH208 - pathlib comes with the command
                if name.startswith("bega-") and name.endswith(".dist-info"):
                    return _read_commands(os.path.join(folder, name, "entry_points.txt"))  # noqa: PTH118
    return {}


def _read_commands(path: str) -> dict[str, Command]:
    """Return what a file of entry points has in our group (packaging.python.org, Entry points specification)."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        _, _, rest = file.read().partition("[bega.commands]\n")
    found = {}
    for line in rest.partition("\n[")[0].splitlines():
        name, is_one, said = line.partition("=")
        if is_one:
            found[name.strip()] = _command(said)
    return found


def _command(said: str) -> Command:
    target, _, extras = said.strip().rstrip("]").partition("[")
    module, _, function = target.strip().partition(":")
    return Command(module, function, extras.partition(",")[0].strip())


def _commands() -> dict[str, Command]:
    """Return every command, also what other packages bring."""
    with _silent_interrupt():
        from importlib.metadata import entry_points

    return {point.name: _command(point.value) for point in entry_points(group="bega.commands")}


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


def _usage() -> str:
    rows = [f"  {name:10}{PURPOSES.get(name, '')}" for name in sorted(_commands())]
    return USAGE.format(commands="\n".join(rows))


def _missing(name: str, command: Command, error: ModuleNotFoundError) -> int:
    """Say how to install what a sub-command needs; a module of our own that is missing is a defect, and raised."""
    if not command.extra or (error.name or "").startswith("bega"):
        raise error
    from bega.extras import how_to_install

    print(
        f"bega {name} needs {error.name}, which is not installed.\nInstall it with, {how_to_install(command.extra)}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
