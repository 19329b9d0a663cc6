"""Whether what a line hangs on is there and may be opened: adapters, buses, Bluetooth. Nothing is opened here."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from bega_gateway import config as settings
from bega_gateway.doctor.finding import PORT, Finding
from bega_gateway.doctor.look import Look
from bega_protocols.errors import LineError

BY_ID = Path("dev/serial/by-id")


def of_ports(config: settings.Config, look: Look) -> Iterator[Finding]:
    """Yield what is missing or closed to the gateway's user."""
    user = _gateway_user(Path(config.gateway.state_dir))
    for name, line in config.lines.items():
        used = [each.line for each in config.devices.values()] + [each.line for each in config.nodes.values()]
        if name not in used:
            continue
        if isinstance(line, settings.SerialLine | settings.ModbusRtuLine | settings.MbusLine | settings.UplinkLine):
            yield from _of_file(f"lines.{name}.port", Path(line.port), "dialout", user, look)
        elif isinstance(line, settings.I2cLine):
            yield from _of_file(f"lines.{name}.bus", Path(f"/dev/i2c-{line.bus}"), "i2c", user, look)
        elif isinstance(line, settings.BleLine):
            yield from _of_adapter(f"lines.{name}.adapter", line.adapter, look)


def of_error(place: str, port: str, error: LineError) -> Finding:
    """Return the finding for a port that cannot be opened, or fails."""
    said = str(error).removesuffix("; trying again")
    for words, cause, what in (
        ("is not there", "port gone", "the adapter is gone"),
        ("may not be opened", "port closed to us", "the port may not be opened by the gateway's user"),
        ("is in use", "port in use", "another program has the port: it takes the bytes that the gateway needs"),
        ("does not take", "port settings", "the port does not take the line's settings"),
    ):
        if words in said:
            evidence, _, remedy = said.partition(": ")
            return Finding(cause, what, place, evidence, remedy or f"fuser -v {port}", True, PORT)
    remedy = f"dmesg | tail; unplug {port} and plug it in again; try another cable and USB socket"
    return Finding("port dead", "the adapter is there and does not work", place, said, remedy, True, PORT)


def _of_file(place: str, port: Path, group: str, user: int | None, look: Look) -> Iterator[Finding]:
    try:
        status = port.stat()
    except OSError as error:
        yield _gone(place, port, group, look, error)
        return
    if not stat.S_ISCHR(status.st_mode):
        what = "what is named here is no port"
        yield Finding("no port", what, place, f"{port} is a file or a folder", "ls /dev/serial/by-id", True, PORT)
        return
    if user is not None and not _may_open(status, user):
        who = _name(user)
        yield Finding(
            "port closed to us",
            f"the port may not be opened by {who}, as whom the gateway runs",
            place,
            f"{port} belongs to user {status.st_uid}, group {status.st_gid}, mode {stat.filemode(status.st_mode)}",
            f"sudo usermod -aG {group} {who}; systemctl restart bega-gateway",
            True,
            PORT,
        )


def _gone(place: str, port: Path, group: str, look: Look, error: OSError) -> Finding:
    if group == "i2c":
        what, remedy = "the I2C bus is switched off", "sudo raspi-config nonint do_i2c 0 (dtparam=i2c_arm=on); reboot"
        return Finding("port gone", what, place, f"{port}: {error.strerror}", remedy, True, PORT)
    folder = look.root / BY_ID
    there = sorted(link.name for link in folder.iterdir()) if folder.is_dir() else []
    seen = f"{port}: {error.strerror}; in /{BY_ID}: {', '.join(there) or 'nothing'}"
    remedy = "plug it in again, try another USB socket; dmesg | tail says what the kernel saw"
    if there:
        remedy += f"; if one of the others is it, correct {place}"
    return Finding("port gone", "the adapter is gone", place, seen, remedy, True, PORT)


def _of_adapter(place: str, adapter: str, look: Look) -> Iterator[Finding]:
    folder = look.root / "sys/class/bluetooth"
    if not folder.is_dir():
        return  # a container, or another kernel: the gateway's own counters tell
    if not (folder / adapter).exists():
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "none"
        remedy = f"bluetoothctl list; plug it in, or correct {place}"
        what = "the Bluetooth adapter is gone"
        yield Finding("port gone", what, place, f"{adapter} is missing; there is {there}", remedy, True, PORT)
        return
    for switch in (folder / adapter).glob("rfkill*"):
        for kind in ("soft", "hard"):
            if (switch / kind).exists() and (switch / kind).read_text().strip() == "1":
                what = "the Bluetooth adapter is blocked"
                seen, remedy = f"rfkill: {adapter} is {kind}-blocked", "rfkill unblock bluetooth; bluetoothctl power on"
                yield Finding("adapter blocked", what, place, seen, remedy, True, PORT)


def _may_open(status: os.stat_result, user: int) -> bool:
    """Return whether `user` may read and write, as the mode says; root may."""
    if user == 0:
        return True
    needed = stat.S_IROTH | stat.S_IWOTH
    if user == status.st_uid:
        return (status.st_mode >> 6) & needed == needed
    try:
        entry = pwd.getpwuid(user)
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        groups = []
    if status.st_gid in groups:
        return (status.st_mode >> 3) & needed == needed
    return status.st_mode & needed == needed


def _gateway_user(state: Path) -> int | None:
    """Return as whom the gateway runs: whose the state is. None if that cannot be told."""
    try:
        return state.stat().st_uid
    except OSError:
        return None


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
