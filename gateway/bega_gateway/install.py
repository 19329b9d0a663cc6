"""A gateway as a service of this machine, or of an image in a directory: which files, and what is in them.

The templates are in gateway/systemd/. Owners are set by systemd-tmpfiles and the user is made by systemd-sysusers, so
that an image for another machine needs neither here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bega_protocols.errors import ConfigError

UNIT = "bega-gateway.service"
STATE = "/var/lib/bega"
FOLDER = "/etc/bega"
DEFAULT_CONFIG = f"{FOLDER}/gateway.toml"
OURS = "# Made by `bega gateway install`"
HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - from the service, by ProtectHome and PrivateTmp
# One that fails at each start is begun ever more rarely. Older ones complain about these keys, and begin every 5 s.
BACKOFF = "RestartSteps=6\nRestartMaxDelaySec=300\n"
BACKOFF_SINCE = 254
UNIT_PLACE = f"/etc/systemd/system/{UNIT}"
DROP_INS = f"{UNIT_PLACE}.d"  # where `systemctl edit` writes
LINK = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"  # made by `systemctl enable`


@dataclass(frozen=True)
class Made:
    """A file that install writes."""

    place: str  # below the root
    template: str  # in gateway/systemd/


FILES = (
    Made("/etc/sysusers.d/bega.conf", "bega.sysusers.conf"),
    Made("/etc/tmpfiles.d/bega.conf", "bega.tmpfiles.conf"),
    Made("/etc/udev/rules.d/70-bega.rules", "70-bega.rules"),
    Made(UNIT_PLACE, "bega-gateway.service"),
)
PLAIN = re.compile(r"/[A-Za-z0-9_./@:+-]+")  # a path that needs no quotes anywhere
UNBEARABLE = re.compile(r"[\x00-\x1f\x7f]")  # in a path that goes into a unit


def example(name: str = "corner.toml") -> str:
    """Return a commented configuration: with every table, "tags.toml", "edge.toml" or "commands.toml"."""
    return (shipped("examples") / name).read_text(encoding="utf-8")


def config_of(root: Path, config: str | None) -> str:
    """Return the configuration that is meant: `config`, or where none is given the one of the installed service."""
    if config is not None:
        return config
    with _said(root):
        return _config_of_unit(_text_of(_below(root, UNIT_PLACE))) or DEFAULT_CONFIG


def install(root: Path, config: str, dry_run: bool) -> list[str]:
    """Write every file below `root`; return what was done, file by file. Done again it changes nothing.

    config: the configuration that the service runs by, as a path below `root`; where there is none, the example is
    written there. The service runs the interpreter that runs this. Raises ConfigError if it cannot be.
    """
    _require_place(root, config)
    with _said(root):
        return _install(root, config, dry_run)


def uninstall(root: Path, config: str, purge: bool, dry_run: bool) -> list[str]:
    """Remove what install wrote, and with `purge` configuration and state too; return what was done.

    A configuration goes only if the installed service runs by it or it lies in /etc/bega, and never as a directory.
    Raises ConfigError if it cannot be; then nothing was removed, or what the sentence does not name.
    """
    _require_place(root, config)
    if _is_live(root) and not dry_run:
        _require_root()
    with _said(root):
        return _uninstall(root, config, purge, dry_run)


def _install(root: Path, config: str, dry_run: bool) -> list[str]:
    state = state_dir_of(_below(root, config))
    _require_service(root, config, state, dry_run)
    texts = {made.place: _filled(made.template, config, state) for made in FILES}
    strangers = [place for place in texts if _is_strange(_below(root, place))]
    if strangers:
        raise ConfigError(f"{', '.join(strangers)} was written by somebody else: move it away first")
    said = [_make_folder(root, place, dry_run) for place in (FOLDER, STATE)]
    said += [_write(root, place, text, dry_run) for place, text in texts.items()]
    if _is_there(_below(root, config)):
        said.append(f"kept     {config} (a configuration is never overwritten)")
    else:
        said.append(_write(root, config, example(), dry_run, mode=0o640))
    return said + ([] if dry_run or not _is_live(root) else _tell_system())


def _uninstall(root: Path, config: str, purge: bool, dry_run: bool) -> list[str]:
    unit = _text_of(_below(root, UNIT_PLACE))
    is_ours = config == _config_of_unit(unit) or Path(config).parent == Path(FOLDER)
    elsewhere = re.findall(r"^ReadWritePaths=(.+)$", unit, re.M)
    acts = _is_live(root) and not dry_run and _runs_systemd()
    said = _run("systemctl", "disable", "--now", UNIT) if acts and unit else []
    said += [_remove(root, place, dry_run) for place in [LINK, *reversed([made.place for made in FILES])]]
    if not purge:
        said += [
            f"kept     {place} (--purge removes it)" for place in (config, STATE) if _is_there(_below(root, place))
        ]
    else:
        said += [_purge_config(root, config, is_ours, dry_run), _purge_state(root, dry_run)]
        said.append(_purge_folder(root, config, dry_run))
    if _below(root, DROP_INS).is_dir():
        said.append(f"kept     {DROP_INS} (changes of your own)")
    said += [
        f"kept     {_unquoted(place)} (the gateway's state; it is not in {STATE}, remove it yourself)"
        for place in elsewhere
    ]
    if acts:
        said += _run("systemctl", "daemon-reload") + _run("udevadm", "control", "--reload")
    said.append("kept     the user bega: its number may own files elsewhere (userdel bega)")
    return [line for line in said if line]


def next_steps(root: Path, config: str) -> list[str]:
    """Return what an operator does after install."""
    if not _is_live(root):
        return [
            "next, on the machine that starts from this root:",
            f"  write {config}",
            f"  systemctl enable --now {UNIT}     (user and owners are made while the machine starts)",
            f"the service runs {sys.executable}: it must be there",
        ]
    return [
        "next:",
        f"  write {config}; the ports are in /dev/bega and /dev/serial/by-id",
        f"  {sys.executable} -m bega gateway check --config {config}",
        f"  systemctl enable --now {UNIT}",
        "  journalctl -u bega-gateway -f",
    ]


def _require_place(root: Path, config: str) -> None:
    """Raise ConfigError unless `root` is a directory, and `config` can be a file of its own below it."""
    if not root.is_dir():
        raise ConfigError(f"--root {root}: there is no such directory")
    if not config.startswith("/") or ".." in config.split("/"):
        raise ConfigError(f"--config {config}: give the whole path, as the service sees it, without ..")
    if UNBEARABLE.search(config):
        raise ConfigError(f"--config {config!r}: a unit cannot name it")
    path = str(Path(config))
    if path in (FOLDER, STATE) or config.endswith("/") or stat.S_ISDIR(_kind(_below(root, config))):
        raise ConfigError(f"--config {config}: is a directory; name a file")
    if path in {made.place for made in FILES}:
        raise ConfigError(f"--config {config}: is a file that install writes; name another")
    if _kind(_below(root, config)) not in (0, stat.S_IFREG):
        raise ConfigError(f"--config {config}: is no regular file")
    for place in (config, STATE, LINK, *(made.place for made in FILES)):
        if not _below(root, place).parent.resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"{place}: leads out of {root}, by a link; what it leads to is not touched")


def _require_service(root: Path, config: str, state: str, dry_run: bool) -> None:
    """Raise ConfigError if the service could not run, or could not be made."""
    if config.startswith(HIDDEN):
        raise ConfigError(f"--config {config}: the service sees no home and no /tmp; put it in {FOLDER}")
    if not PLAIN.fullmatch(state) or ".." in state.split("/"):
        raise ConfigError(
            f"{config}: gateway.state_dir: give a service the whole path, as /data/bega, in plain letters"
        )
    if f"{state}/".startswith(HIDDEN):
        raise ConfigError(f"{config}: gateway.state_dir: {state}: the service sees no home and no /tmp")
    hidden = _hidden_interpreter()
    if hidden and _is_live(root):
        raise ConfigError(
            f"Bega runs from {hidden}, and the service sees no home and no /tmp; install it elsewhere:"
            " in the checkout, python3 -m venv /opt/bega && /opt/bega/bin/pip install '.[gateway]'"
            " && /opt/bega/bin/bega gateway install"
        )
    if _is_live(root) and not dry_run:
        _require_root()


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ConfigError("only root may install a service or remove one: sudo, or --dry-run to look at it first")


@contextlib.contextmanager
def _said(root: Path) -> Iterator[None]:
    """Turn what the system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        place = f"/{Path(error.filename).relative_to(root)}" if _is_below(root, error.filename) else error.filename
        raise ConfigError(
            f"{place}: {error.strerror}; nothing behind it was done, do it again when it can be"
        ) from None


def _is_below(root: Path, name: object) -> bool:
    return isinstance(name, str) and Path(name).is_relative_to(root)


def state_dir_of(file: Path) -> str:
    """Return `gateway.state_dir` of a configuration; the usual one where the file is missing, damaged, or says none."""
    try:
        gateway = tomllib.loads(file.read_text(encoding="utf-8")).get("gateway", {})
    except (OSError, ValueError, RecursionError):
        return STATE
    state = gateway.get("state_dir", STATE) if isinstance(gateway, dict) else STATE
    return str(Path(state)) if isinstance(state, str) and state else STATE


def _hidden_interpreter() -> str:
    """Return the interpreter that runs us if the service could not see it, or what it is a link to; else ''."""
    found = (sys.executable, os.path.realpath(sys.executable))
    return next((interpreter for interpreter in found if interpreter.startswith(HIDDEN)), "")


def _filled(template: str, config: str, state: str) -> str:
    text = (shipped("systemd") / template).read_text(encoding="utf-8")
    text = text.replace("{backoff}", BACKOFF if systemd_version() >= BACKOFF_SINCE else "")
    is_usual = Path(state).is_relative_to(STATE)  # StateDirectory= makes it, and lets the gateway write it
    text = text.replace("{mounts}", "" if is_usual else f"RequiresMountsFor={quoted(state)}\n")
    text = text.replace("{writes}", "" if is_usual else f"ReadWritePaths={quoted(state)}\n")
    text = text.replace("{owner}", "" if is_usual else f"d {quoted(state)} 0750 bega bega -\n")
    return text.replace("{python}", quoted(sys.executable)).replace("{config}", quoted(config))


def systemd_version() -> int:
    """Return the version of the systemd that is installed here, 0 if there is none."""
    try:
        told = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(told[1]) if len(told) > 1 and told[1].isdigit() else 0


def quoted(path: str) -> str:
    """Return a path as a unit's command line bears it (systemd.service(5), "Command lines"; specifiers)."""
    path = path.replace("%", "%%").replace("$", "$$")
    if not any(char in path for char in " \t\"'\\;"):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(word: str) -> str:
    """Return the path that `quoted` made `word` of."""
    if word.startswith('"'):
        word = re.sub(r"\\(.)", r"\1", word[1:-1])
    return word.replace("$$", "$").replace("%%", "%")


def _config_of_unit(unit: str) -> str:
    """Return the configuration that an installed unit of ours runs by, or ''."""
    found = re.search(r"^ExecStart=.* --config (.+)$", unit, re.M)
    return _unquoted(found[1]) if found and unit.startswith(OURS) else ""


def _text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _kind(path: Path) -> int:
    """Return what is there, as stat.S_IFREG; 0 where nothing is, or nothing that we may see."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return 0


def _is_there(path: Path) -> bool:
    """Return whether something is there; what only root can see counts as that."""
    try:
        return path.is_symlink() or path.exists()
    except PermissionError:
        return True


def _make_folder(root: Path, place: str, dry_run: bool) -> str:
    folder = _below(root, place)
    if folder.is_dir():
        return f"same     {place}"
    if dry_run:
        return f"would make {place}"
    _make_parents(folder)
    folder.mkdir()
    folder.chmod(0o750)  # whatever the umask
    return f"made     {place}"


def _write(root: Path, place: str, text: str, dry_run: bool, mode: int = 0o644) -> str:
    """Write a file in one step, so that a power cut leaves the old one or the new one."""
    file = _below(root, place)
    before = _text_of(file) if file.exists() else None
    if before == text and stat.S_IMODE(file.stat().st_mode) == mode:
        return f"same     {place}"
    if dry_run:
        return f"would {'write' if before is None else 'mend' if before == text else 'replace'} {place}"
    _make_parents(file)
    part = file.with_name(file.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.chmod(mode)
        part.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return f"{'wrote   ' if before is None else 'mended  ' if before == text else 'replaced'} {place}"


def _make_parents(file: Path) -> None:
    for folder in reversed(file.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask


def _remove(root: Path, place: str, dry_run: bool) -> str:
    file = _below(root, place)
    if not file.exists() and not file.is_symlink():
        return ""
    if place != LINK and _is_strange(file):
        return f"kept     {place} (written by somebody else)"
    if dry_run:
        return f"would remove {place}"
    file.unlink()
    return f"removed  {place}"


def _purge_config(root: Path, config: str, is_ours: bool, dry_run: bool) -> str:
    file = _below(root, config)
    if not _is_there(file):
        return ""
    if not is_ours:
        return f"kept     {config} (the service does not run by it)"
    if dry_run:
        return f"would remove {config}"
    file.unlink()
    return f"removed  {config}"


def _purge_state(root: Path, dry_run: bool) -> str:
    folder = _below(root, STATE)
    if not _is_there(folder):
        return ""
    if folder.is_symlink():
        return f"kept     {STATE} (a link to {folder.readlink()}: remove both yourself)"
    if dry_run:
        return f"would remove {STATE}"
    shutil.rmtree(folder)
    return f"removed  {STATE}"


def _purge_folder(root: Path, config: str, dry_run: bool) -> str:
    folder = _below(root, FOLDER)
    if not folder.is_dir() or folder.is_symlink():
        return ""
    others = [path.name for path in folder.iterdir() if not (dry_run and path == _below(root, config))]
    if others:
        return f"kept     {FOLDER} (holds {', '.join(sorted(others))})"
    if dry_run:
        return f"would remove {FOLDER}"
    folder.rmdir()
    return f"removed  {FOLDER}"


def _is_strange(file: Path) -> bool:
    """Return whether somebody else wrote it."""
    return file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(OURS)


def _tell_system() -> list[str]:
    said = _run("systemd-sysusers", FILES[0].place) + _run("systemd-tmpfiles", "--create", FILES[1].place)
    if not _runs_systemd():
        return [*said, "this machine was not started by systemd: the files are there, and nothing was told of them"]
    said += _run("udevadm", "control", "--reload") + _run("udevadm", "trigger", "--subsystem-match=tty")
    return said + _run("systemctl", "daemon-reload")


def _runs_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _run(*command: str) -> list[str]:
    """Run a program of the system; return a line that says so, or why not."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"failed   {' '.join(command)}: {error}"]
    if told.returncode:
        return [f"failed   {' '.join(command)}: {told.stderr.strip()}"]
    return [f"ran      {' '.join(command)}"]


def _is_live(root: Path) -> bool:
    return root.resolve() == Path("/")


def _below(root: Path, place: str) -> Path:
    return root / place.lstrip("/")


def shipped(folder: str) -> Path:
    """Return where files are that come with the code: in the package when installed from a wheel, else beside it."""
    here = Path(__file__).parent
    return here / folder if (here / folder).is_dir() else here.parent / folder
