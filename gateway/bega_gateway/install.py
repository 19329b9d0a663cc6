"""A gateway as a service of this machine, or of an image in a directory: which files, and what is in them.

The templates are in gateway/systemd/. Owners are set by systemd-tmpfiles and the user is made by systemd-sysusers, so
that an image for another machine needs neither here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
    Made(f"/etc/systemd/system/{UNIT}", "bega-gateway.service"),
)


def example() -> str:
    """Return the configuration with every table and its reasons."""
    return (_shipped("examples") / "corner.toml").read_text(encoding="utf-8")


def install(root: Path, config: str, dry_run: bool) -> list[str]:
    """Write every file below `root`; return what was done, file by file. Done again it changes nothing.

    config: the configuration that the service runs by, as a path below `root`; where there is none, the example is
    written there. The service runs the interpreter that runs this. Raises ConfigError if it cannot be.
    """
    _require(root, config)
    texts = {made.place: _filled(made.template, config) for made in FILES}
    strangers = [place for place in texts if _is_strange(_below(root, place))]
    if strangers:
        raise ConfigError(f"{', '.join(strangers)} was written by somebody else: move it away first")
    said = [_make_folder(root, place, dry_run) for place in (FOLDER, STATE)]
    said += [_write(root, place, text, dry_run) for place, text in texts.items()]
    if _below(root, config).exists():
        said.append(f"kept     {config} (a configuration is never overwritten)")
    else:
        said.append(_write(root, config, example(), dry_run, mode=0o640))
    return [line for line in said if line] + ([] if dry_run or not _is_live(root) else _tell_system())


def uninstall(root: Path, config: str, purge: bool, dry_run: bool) -> list[str]:
    """Remove what install wrote, and with `purge` configuration and state too; return what was done."""
    if not root.is_dir():
        raise ConfigError(f"--root {root}: there is no such directory")
    said = []
    if _is_live(root) and not dry_run and _below(root, f"/etc/systemd/system/{UNIT}").exists():
        said += _run("systemctl", "disable", "--now", UNIT)
    said += [_remove(root, place, dry_run) for place in [LINK, *reversed([made.place for made in FILES])]]
    for place in (config, FOLDER, STATE):
        if _below(root, place).exists():
            said.append(_remove_all(root, place, dry_run) if purge else f"kept     {place} (--purge removes it)")
    if _is_live(root) and not dry_run:
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


def _require(root: Path, config: str) -> None:
    if not root.is_dir():
        raise ConfigError(f"--root {root}: there is no such directory")
    if not config.startswith("/"):
        raise ConfigError(f"--config {config}: give the whole path, as the service sees it")
    if config.startswith(HIDDEN):
        raise ConfigError(f"--config {config}: the service sees no home and no /tmp; put it in {FOLDER}")
    hidden = _hidden_interpreter()
    if hidden and _is_live(root):
        raise ConfigError(
            f"Bega runs from {hidden}, and the service sees no home and no /tmp; install it elsewhere:"
            " python3 -m venv /opt/bega && /opt/bega/bin/pip install 'bega[gateway]'"
            " && /opt/bega/bin/bega gateway install"
        )
    if _is_live(root) and os.geteuid() != 0:
        raise ConfigError("only root may install a service: sudo, or --root DIR to look at the files first")


def _hidden_interpreter() -> str:
    """Return the interpreter that runs us if the service could not see it, or what it is a link to; else ''."""
    found = (sys.executable, os.path.realpath(sys.executable))
    return next((interpreter for interpreter in found if interpreter.startswith(HIDDEN)), "")


def _filled(template: str, config: str) -> str:
    text = (_shipped("systemd") / template).read_text(encoding="utf-8")
    text = text.replace("{backoff}", BACKOFF if systemd_version() >= BACKOFF_SINCE else "")
    return text.replace("{python}", _quoted(sys.executable)).replace("{config}", _quoted(config))


def systemd_version() -> int:
    """Return the version of the systemd that is installed here, 0 if there is none."""
    try:
        told = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(told[1]) if len(told) > 1 and told[1].isdigit() else 0


def _quoted(path: str) -> str:
    """Return a path as a unit's command line bears it (systemd.service(5), "Command lines"; specifiers)."""
    path = path.replace("%", "%%").replace("$", "$$")
    if not any(char in path for char in " \t\"'\\;"):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _make_folder(root: Path, place: str, dry_run: bool) -> str:
    folder = _below(root, place)
    if folder.is_dir():
        return f"same     {place}"
    if dry_run:
        return f"would make {place}"
    _make_parents(folder)
    folder.mkdir(mode=0o750)
    return f"made     {place}"


def _write(root: Path, place: str, text: str, dry_run: bool, mode: int = 0o644) -> str:
    """Write a file in one step, so that a power cut leaves the old one or the new one."""
    file = _below(root, place)
    before = file.read_text(encoding="utf-8", errors="replace") if file.exists() else None
    if before == text:
        return f"same     {place}"
    if dry_run:
        return f"would {'write' if before is None else 'replace'} {place}"
    _make_parents(file)
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.chmod(mode)
    part.replace(file)
    return f"wrote    {place}" if before is None else f"replaced {place}"


def _make_parents(file: Path) -> None:
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)


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


def _remove_all(root: Path, place: str, dry_run: bool) -> str:
    if dry_run:
        return f"would remove {place}"
    path = _below(root, place)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return f"removed  {place}"


def _is_strange(file: Path) -> bool:
    """Return whether somebody else wrote it."""
    return file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(OURS)


def _tell_system() -> list[str]:
    said = _run("systemd-sysusers", FILES[0].place) + _run("systemd-tmpfiles", "--create", FILES[1].place)
    if not Path("/run/systemd/system").is_dir():
        return [*said, "this machine was not started by systemd: the files are there, and nothing was told of them"]
    said += _run("udevadm", "control", "--reload") + _run("udevadm", "trigger", "--subsystem-match=tty")
    return said + _run("systemctl", "daemon-reload")


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


def _shipped(folder: str) -> Path:
    """Return where files are that come with the code: in the package when installed from a wheel, else beside it."""
    here = Path(__file__).parent
    return here / folder if (here / folder).is_dir() else here.parent / folder
