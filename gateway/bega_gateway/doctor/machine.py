"""The machine under the gateway: its disk, its clock, its supply, its service manager, its own broker."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bega.clock import CLOCK_FLOOR_MS
from bega_gateway import config as settings
from bega_gateway.doctor.finding import CLOCK_UNSET, DISK, NOT_RUNNING, STATE, WARNING, Finding
from bega_gateway.doctor.look import Look
from bega_gateway.owner import require_owner
from bega_gateway.status import SPOOL_FILE, OfSpool, Status, left_behind
from bega_protocols.errors import ConfigError

LITTLE_BYTES = 50_000_000
SPOOL_IS = {  # is it full now, was anything lost
    (True, True): "the spool is full: the oldest routine records make room",
    (True, False): "the spool is nearly full",
    (False, True): "the spool was full for a while and records were lost; there is room again",
}
UNIT = "bega-gateway"
MOST_RESTARTS = 3
# Raspberry Pi documentation, "get_throttled".
UNDERVOLTED_NOW, UNDERVOLTED_ONCE = 1 << 0, 1 << 16
LOCAL = re.compile(r"localhost|127\.[0-9.]+|::1")
# Without these mosquitto loses what it has acknowledged; see the table of decisions in docs/architecture.md.
MOSQUITTO_NEEDS = {"persistence": "true", "autosave_interval": "1", "max_queued_messages": "100000"}


def of_disk(config: settings.Config, status: Status | None, look: Look) -> Iterator[Finding]:
    """Yield what keeps the gateway from storing."""
    state = Path(config.gateway.state_dir)
    where = "gateway.state_dir"
    there = next(path for path in (state, *state.parents) if path.exists())
    try:
        disk = look.statvfs(str(there))
    except OSError as error:
        why = "the disk of the state does not answer"
        yield Finding("disk broken", why, where, f"{there}: {error.strerror}", "dmesg | tail; replace it", True, DISK)
        return
    waits = f"; {status.spool.uncommitted} records wait in memory" if status and status.spool.is_failing else ""
    free_bytes = disk.f_bavail * disk.f_frsize
    if disk.f_flag & os.ST_RDONLY:
        yield Finding(
            "disk read-only",
            "the disk of the state is read-only: nothing can be stored",
            where,
            f"{there} is mounted read-only{waits}",
            "dmesg | tail says why; mount -o remount,rw if the disk is sound, else replace the card",
            True,
            DISK,
        )
    elif disk.f_blocks and (free_bytes < disk.f_frsize or free_bytes < LITTLE_BYTES):
        stops = free_bytes < disk.f_frsize or bool(status and status.spool.is_failing)
        yield Finding(
            "disk full",
            "the disk is full: nothing can be stored" if stops else "the disk is nearly full",
            where,
            f"{free_bytes // 1000} kB free of {disk.f_blocks * disk.f_frsize // 1_000_000} MB at {there}{waits}",
            "make room: du -x /var | sort -n | tail; journalctl --vacuum-size=50M; restart nothing",
            stops,
            DISK,
        )
    elif disk.f_files and not disk.f_favail:
        yield Finding(
            "no inodes",
            "the disk has room and takes no further file",
            where,
            f"0 of {disk.f_files} inodes free at {there}{waits}",
            "df -i; remove what makes so many files",
            True,
            DISK,
        )
    elif status and status.spool.is_failing:
        yield Finding(
            "disk takes nothing",
            "the disk refuses what is written to it",
            where,
            f"{status.spool.uncommitted} records wait in memory, {free_bytes // 1_000_000} MB are free",
            "dmesg | tail; journalctl -u bega-gateway has the error; replace the card if it comes again",
            True,
            DISK,
        )
    if status:
        yield from of_spool(status.spool, state)


def of_state(config: settings.Config, status: Status | None, look: Look) -> Iterator[Finding]:
    """Yield what keeps a gateway from running, and that none runs."""
    state = Path(config.gateway.state_dir)
    if status:
        return
    if state.exists() and not state.is_dir():
        what, remedy = "where the state shall lie is a file: the gateway cannot start", f"move {state} away"
        yield Finding("state is no folder", what, "gateway.state_dir", f"{state} is no folder", remedy, True, STATE)
    owner = _user_of(state)
    if owner is not None:
        try:
            require_owner(state, owner)
        except ConfigError as error:
            seen, _, remedy = str(error).removeprefix("gateway.state_dir: ").partition(", who runs this: ")
            why = "files of the state belong to another user: the gateway cannot start"
            yield Finding("state of another user", why, "gateway.state_dir", seen, remedy, True, STATE)
    told = look.said_by(["systemctl", "show", UNIT, "-p", "LoadState,ActiveState,SubState,Result,NRestarts"])
    unit = dict(line.split("=", 1) for line in (told or "").splitlines() if "=" in line)
    is_unit = unit.get("LoadState") == "loaded"
    left = left_behind(state)
    seen = ", ".join(f"{key} {value}" for key, value in left.items() if key != "state") or left["state"]
    if is_unit:
        told_of = f"{unit.get('ActiveState')} ({unit.get('SubState')}), result {unit.get('Result')}"
        seen = f"systemd says {told_of}, begun again {unit.get('NRestarts')} times; {seen}"
    run = f"systemctl start {UNIT}; journalctl -u {UNIT} -n 50" if is_unit else "bega gateway run --config FILE"
    yield Finding("not running", "the gateway does not run", "gateway", seen, run, True, NOT_RUNNING)


def of_silence(why: str) -> Iterator[Finding]:
    """Yield that a gateway runs and says nothing of itself; what it holds cannot be judged then."""
    yield Finding(
        "gateway does not answer",
        "a gateway runs and does not say how it is doing: it hangs, or is of another release than this command",
        "gateway",
        why,
        f"systemctl status {UNIT}; journalctl -u {UNIT} -n 50; then: systemctl restart {UNIT}",
        True,
        NOT_RUNNING,
    )


def of_clock(config: settings.Config, look: Look) -> Iterator[Finding]:
    """Yield what is wrong with the time."""
    now_ms = look.wall_ms()
    secure = any(broker.startswith("mqtts://") for broker in config.uplink.brokers)
    boot_s = _last_boot_s(Path(config.gateway.state_dir))
    if now_ms < CLOCK_FLOOR_MS:
        stops = "; no certificate is valid then, so no mqtts:// broker can be reached" if secure else ""
        yield Finding(
            "clock not set",
            f"the clock shows a time before this release: records go without a time{stops}",
            "this machine",
            f"it shows {_day(now_ms)}, and this release is of {_day(CLOCK_FLOOR_MS)}",
            "timedatectl; is a time server reached (systemd-timesyncd, chrony), has the board a clock with a battery?",
            secure,
            CLOCK_UNSET,
        )
        return
    if boot_s is not None and now_ms < 1000 * (boot_s - 86_400):
        yield Finding(
            "clock went back",
            "the clock shows less than when the gateway was last begun: one of the two was wrong",
            "this machine",
            f"it shows {_day(now_ms)}, and the gateway was begun on {_day(1000 * boot_s)}",
            "timedatectl; records of the wrong time keep it, readers order them by their numbers",
            False,
            WARNING - 5,
        )
    if look.said_by(["timedatectl", "show", "-p", "NTPSynchronized", "--value"]) == "no":
        yield Finding(
            "clock not synchronised",
            "no time server has set the clock since the machine began",
            "this machine",
            "timedatectl: NTPSynchronized=no",
            "timedatectl set-ntp true; timedatectl timesync-status; a firewall must let UDP port 123 out",
            False,
            WARNING - 1,
        )


def of_supply(look: Look) -> Iterator[Finding]:
    """Yield whether a Raspberry Pi has seen its supply sag; other machines do not tell."""
    told = look.said_by(["vcgencmd", "get_throttled"]) or ""
    found = re.fullmatch(r"throttled=0x([0-9a-fA-F]+)", told)
    flags = int(found[1], 16) if found else 0
    if flags & (UNDERVOLTED_NOW | UNDERVOLTED_ONCE):
        when = "is too low now" if flags & UNDERVOLTED_NOW else "was too low since the machine began"
        yield Finding(
            "undervoltage",
            f"the supply voltage {when}: adapters drop out and cards lose what was written",
            "this machine",
            f"vcgencmd get_throttled: {told}",
            "take the maker's power supply and a short thick cable; hang adapters on a hub with a supply of its own",
            False,
            WARNING - 3,
        )


def of_local_broker(config: settings.Config, look: Look) -> Iterator[Finding]:
    """Yield what a mosquitto on this machine is lacking, as far as its files tell."""
    lines = [line.broker for line in config.lines.values() if isinstance(line, settings.MqttLine)]
    if not any(LOCAL.fullmatch(urlsplit(broker).hostname or "") for broker in [*config.uplink.brokers, *lines]):
        return
    folder = look.root / "etc/mosquitto"
    files = [folder / "mosquitto.conf", *sorted((folder / "conf.d").glob("*.conf"))]
    try:
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists()]
    except OSError:
        return
    if not texts:
        return
    pairs = [line.split(None, 1) for line in "\n".join(texts).splitlines() if not line.startswith("#")]
    has = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    lacks = [f"{key} {value}" for key, value in MOSQUITTO_NEEDS.items() if not _suffices(key, has.get(key), value)]
    if lacks:
        yield Finding(
            "broker forgets",
            "the broker of this machine loses at a power cut what it has acknowledged",
            "this machine",
            f"{folder} lacks: {', '.join(lacks)}",
            f"write these lines into {folder}/conf.d/bega.conf, then: systemctl restart mosquitto",
            False,
            WARNING - 2,
        )


def _suffices(key: str, has: str | None, needs: str) -> bool:
    if key == "max_queued_messages" and has is not None and has.isdigit():
        return int(has) >= int(needs) or int(has) == 0  # mosquitto.conf(5): 0 for no maximum
    if key == "persistence":
        return has in (needs, "1")  # as mosquitto 2.0.11 takes it
    return has == needs


def of_spool(spool: OfSpool, state: Path) -> Iterator[Finding]:
    """Yield what a spool lost or is about to lose, and what lies aside."""
    lost = spool.dropped + spool.refused
    if spool.is_full or lost:
        yield Finding(
            "spool full" if spool.is_full else "spool was full",
            SPOOL_IS[spool.is_full, bool(lost)],
            "gateway.spool_quota_mb",
            f"{spool.messages} messages, {spool.used_bytes // 1_000_000} of {spool.quota_bytes // 1_000_000} MB;"
            f" {spool.dropped} dropped, {spool.refused} refused since the start",
            ("bring the uplink back" if spool.is_full else "see why the uplink was away")
            + "; raise gateway.spool_quota_mb, then: systemctl reload bega-gateway",
            spool.is_full and bool(lost),
            WARNING - 6,
        )
    if spool.set_aside:
        yield Finding(
            "messages set aside",
            "messages lie aside that nobody would take",
            "gateway.state_dir",
            f"{spool.set_aside} since the start, in the table aside of {state / SPOOL_FILE}",
            "docs/runbook-gateway.md, `message refused`, shows how to read their reasons and what to do",
            False,
            WARNING,
        )


def _last_boot_s(state: Path) -> int | None:
    """Return the newest boot number, which is the Unix time of the start wherever the clock was right."""
    found = []
    for file in state.glob("boot.*") if os.access(state, os.R_OK) else ():
        try:
            words = re.findall(r"\d{9,11}", file.read_text(encoding="ascii", errors="replace"))
        except OSError:
            continue
        found += [int(word) for word in words[:1]]
    return max(found, default=None)


def _user_of(state: Path) -> int | None:
    try:
        return state.stat().st_uid
    except OSError:
        return None


def _day(wall_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d")
