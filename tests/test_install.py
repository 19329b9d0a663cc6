"""`bega gateway install` in a clean root directory: the files looked at, and judged by systemd's own tools."""

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bega_gateway import install as module
from bega_gateway.config import examine
from bega_gateway.install import DEFAULT_CONFIG, FILES, install, uninstall
from bega_protocols.errors import ConfigError

BEGA_GATEWAY = [sys.executable, "-m", "bega", "gateway"]
UNIT = "etc/systemd/system/bega-gateway.service"
EXAMPLE = Path(__file__).parent.parent / "gateway/examples/corner.toml"

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd's tools are not here")


def gateway(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BEGA_GATEWAY, *map(str, arguments)], capture_output=True, text=True, timeout=30)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------ install


def test_install_writes_these_files_and_no_other_and_says_each(tmp_path):
    told = gateway("install", "--root", tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    written = ["etc/bega/gateway.toml", *(made.place.lstrip("/") for made in FILES)]
    assert sorted(files(tmp_path)) == sorted(written)
    for place in written:
        assert f"wrote    /{place}" in told.stdout
    assert (tmp_path / "etc/bega/gateway.toml").read_bytes() == EXAMPLE.read_bytes()
    assert mode(tmp_path / "etc/bega/gateway.toml") == 0o640
    assert mode(tmp_path / "etc/bega") == mode(tmp_path / "var/lib/bega") == 0o750
    assert "systemctl enable --now bega-gateway.service" in told.stdout, "and what to do next"


def test_installed_again_it_changes_nothing(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = install(tmp_path, DEFAULT_CONFIG, False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert {line.split()[0] for line in said} == {"same", "kept"}


def test_dry_run_says_the_same_and_does_nothing(tmp_path):
    told = gateway("install", "--root", tmp_path, "--dry-run")
    assert told.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert len(told.stdout.splitlines()) == 2 + len(FILES) + 1
    assert all(line.startswith("would ") for line in told.stdout.splitlines())


def test_a_configuration_that_was_edited_is_never_overwritten(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    (tmp_path / "etc/bega/gateway.toml").write_text("mine")
    assert any(line.startswith("kept     /etc/bega/gateway.toml") for line in install(tmp_path, DEFAULT_CONFIG, False))
    assert (tmp_path / "etc/bega/gateway.toml").read_text() == "mine"


def test_a_unit_of_our_own_that_differs_is_replaced_and_a_stranger_s_is_not(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    unit = tmp_path / UNIT
    good = unit.read_text()
    unit.write_text(good.replace("WatchdogSec=60", "WatchdogSec=90"))
    assert f"replaced /{UNIT}" in install(tmp_path, DEFAULT_CONFIG, False)
    assert unit.read_text() == good
    unit.write_text("[Service]\nExecStart=/opt/bega/bin/bega gateway run\n")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=f"/{UNIT} was written by somebody else: move it away first"):
        install(tmp_path, DEFAULT_CONFIG, False)
    assert files(tmp_path) == before


def test_service_runs_the_interpreter_that_installed_it_on_the_configuration_that_was_named(tmp_path):
    told = gateway("install", "--root", tmp_path, "--config", "/srv/bega/corner.toml")
    assert told.returncode == 0
    assert (tmp_path / "srv/bega/corner.toml").read_bytes() == EXAMPLE.read_bytes()
    command = f"{sys.executable} -I -m bega gateway run --config /srv/bega/corner.toml"
    assert f"ExecStart={command}\n" in (tmp_path / UNIT).read_text()
    assert "z /srv/bega/corner.toml 0640 root bega -" in (tmp_path / "etc/tmpfiles.d/bega.conf").read_text()


def test_command_of_the_unit_is_one_that_bega_knows(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    unit = (tmp_path / UNIT).read_text()
    for key, verb in (("ExecStart", "run"), ("ExecReload", "reload")):
        (command,) = re.findall(rf"^{key}=(.*)$", unit, re.M)
        told = subprocess.run([*command.split()[:5], verb, "--help"], capture_output=True, text=True, cwd="/")
        assert command.split()[5] == verb
        assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/opt/bega/bin/python", "/opt/bega/bin/python"),
        ("/opt/my bega/python", '"/opt/my bega/python"'),
        ("/opt/100%/$x/python", "/opt/100%%/$$x/python"),
        ('/opt/"a"/py', '"/opt/\\"a\\"/py"'),
    ],
)
def test_a_path_is_written_as_systemd_reads_it(path, written, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", path)
    install(tmp_path, DEFAULT_CONFIG, False)
    assert f"ExecStart={written} -I -m bega" in (tmp_path / UNIT).read_text()


@pytest.mark.parametrize(("version", "steps"), [(0, 0), (252, 0), (254, 1), (257, 1)])
def test_pauses_between_starts_grow_where_systemd_can_do_that(version, steps, tmp_path, monkeypatch):
    """Debian 12 has 252, which does not know the keys, and says so at each start."""
    monkeypatch.setattr(module, "systemd_version", lambda: version)
    install(tmp_path, DEFAULT_CONFIG, False)
    assert (tmp_path / UNIT).read_text().count("RestartSteps=6\nRestartMaxDelaySec=300\n") == steps
    assert "{" not in (tmp_path / UNIT).read_text()


@pytest.mark.parametrize(
    "interpreter", ["/home/ana/venv/bin/python", "/root/.pyenv/bin/python", "/tmp/venv/bin/python"]
)
def test_an_interpreter_that_the_service_could_not_see_is_refused_on_the_living_system(interpreter, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(ConfigError, match=f"runs from {interpreter}.*python3 -m venv /opt/bega"):
        install(Path("/"), DEFAULT_CONFIG, dry_run=True)


def test_only_root_installs_into_the_living_system(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/usr/bin/env")
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="only root may install"):
        module._require_service(Path("/"), DEFAULT_CONFIG, module.STATE, dry_run=False)
    assert install(Path("/"), DEFAULT_CONFIG, dry_run=True), "to look needs no root"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--root", "/no/such/root"], "--root /no/such/root: there is no such directory"),
        (["--config", "gateway.toml"], "--config gateway.toml: give the whole path, as the service sees it"),
        (["--config", "/home/ana/gateway.toml"], "the service sees no home and no /tmp; put it in /etc/bega"),
        (["--config", "/srv/a\nExecStart=x"], "a unit cannot name it"),
    ],
)
def test_what_cannot_be_is_answered_with_a_sentence(arguments, sentence, tmp_path):
    told = gateway("install", "--root", tmp_path, *arguments)
    assert told.returncode == 1
    assert sentence in told.stderr and "Traceback" not in told.stderr
    assert list(tmp_path.iterdir()) == []


# What is no place for a configuration of our own, and why; the first ones once made --purge delete all of it.
NO_PLACES = [
    ("", "give the whole path"),
    ("etc", "give the whole path"),
    ("/", "is a directory"),
    ("/etc", "is a directory"),
    ("/etc/bega", "is a directory"),
    ("/etc/bega/", "is a directory"),
    ("/var/lib/bega", "is a directory"),
    ("/home", "is a directory"),
    ("/../outside", "without .."),
    ("/etc/../../outside/file", "without .."),
    ("/out/file", "leads out of"),
    ("/pipe", "is no regular file"),
    (f"/{UNIT}", "is a file that install writes"),
]


@pytest.mark.parametrize(("config", "why"), NO_PLACES)
@pytest.mark.parametrize("installed", [True, False])
def test_what_can_be_no_configuration_is_refused_by_install_and_purge_and_nothing_is_lost(
    config, why, installed, tmp_path
):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (outside, root / "home/pi", root / "etc/ssh"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("somebody's")
    (root / "out").symlink_to(outside)
    os.mkfifo(root / "pipe")
    if installed:
        install(root, DEFAULT_CONFIG, False)
    before = files(tmp_path)
    for refused in (
        lambda: install(root, config, False),
        lambda: uninstall(root, config, True, False),
        lambda: uninstall(root, config, False, True),
    ):
        with pytest.raises(ConfigError, match=re.escape(why)):
            refused()
        assert files(tmp_path) == before


def test_an_empty_configuration_in_a_command_line_is_no_order_to_remove_the_root(tmp_path):
    told = gateway("uninstall", "--root", tmp_path, "--purge", "--config", "")
    assert (told.returncode, told.stdout) == (1, "") and "Traceback" not in told.stderr
    assert tmp_path.is_dir()


def test_a_directory_of_the_system_that_is_a_link_out_of_the_image_is_not_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    (outside / "bega").mkdir(parents=True)
    (outside / "bega/spool.db").write_text("another machine's")
    (root / "var").mkdir()
    (root / "var/lib").symlink_to(outside)
    for command in (["install"], ["uninstall", "--purge"]):
        told = gateway(*command, "--root", root)
        assert told.returncode == 1 and "leads out of" in told.stderr and "Traceback" not in told.stderr
    assert files(outside) == {"bega/spool.db": b"another machine's"}


def test_a_root_that_takes_nothing_is_said_in_a_sentence(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/systemd").write_text("a file in the way")
    told = gateway("install", "--root", tmp_path)
    assert told.returncode == 1
    assert told.stderr.startswith("bega gateway install: /etc/systemd") and "Traceback" not in told.stderr


def test_a_file_that_cannot_be_put_in_its_place_leaves_no_half_of_itself(tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError(30, "Read-only file system", str(target))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match=r"^/etc/sysusers.d/bega.conf: Read-only file system"):
        install(tmp_path, DEFAULT_CONFIG, False)
    assert files(tmp_path) == {}


def test_modes_are_mended_and_do_not_hang_on_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        install(tmp_path, DEFAULT_CONFIG, False)
    finally:
        os.umask(before)
    assert mode(tmp_path / UNIT) == 0o644
    assert mode(tmp_path / "etc/systemd") == 0o755 and mode(tmp_path / "etc/bega") == 0o750
    (tmp_path / UNIT).chmod(0o666)
    assert f"would mend /{UNIT}" in install(tmp_path, DEFAULT_CONFIG, True)
    assert f"mended   /{UNIT}" in install(tmp_path, DEFAULT_CONFIG, False)
    assert mode(tmp_path / UNIT) == 0o644


@pytest.mark.parametrize("place", ["/srv/gw.toml", "/srv/my gw's/100% $x.toml", '/srv/"a"/gw.toml'])
def test_installed_again_without_a_name_the_service_keeps_its_configuration(place, tmp_path):
    gateway("install", "--root", tmp_path, "--config", place)
    before = files(tmp_path)
    told = gateway("install", "--root", tmp_path)
    assert told.returncode == 0 and f"kept     {place}" in told.stdout
    assert files(tmp_path) == before


def test_a_state_elsewhere_is_made_writable_for_the_service_and_is_kept_by_purge(tmp_path):
    config = tmp_path / "etc/bega/gateway.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[gateway]\nstate_dir = "/data/bega"\n')
    install(tmp_path, DEFAULT_CONFIG, False)
    unit = (tmp_path / UNIT).read_text()
    assert "\nReadWritePaths=/data/bega\nProtectHome" in unit
    assert "\nRequiresMountsFor=/data/bega\n" in unit.split("[Service]")[0]
    assert "\nd /data/bega 0750 bega bega -\n" in (tmp_path / "etc/tmpfiles.d/bega.conf").read_text()
    said = uninstall(tmp_path, DEFAULT_CONFIG, True, False)
    assert any(line.startswith("kept     /data/bega (the gateway's state") for line in said)


@pytest.mark.parametrize(
    ("state", "why"), [("/home/pi/bega", "sees no home"), ("state", "give a service the whole path")]
)
def test_a_state_that_the_service_could_not_use_is_refused(state, why, tmp_path):
    config = tmp_path / "etc/bega/gateway.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[gateway]\nstate_dir = "{state}"\n')
    with pytest.raises(ConfigError, match=why):
        install(tmp_path, DEFAULT_CONFIG, False)
    assert list(files(tmp_path)) == ["etc/bega/gateway.toml"]


# ------------------------------------------------------------------ uninstall


def test_uninstall_removes_what_install_made_and_says_what_it_keeps(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    (tmp_path / "var/lib/bega/spool.db").write_text("what was not sent yet")
    told = gateway("uninstall", "--root", tmp_path)
    assert told.returncode == 0
    assert sorted(files(tmp_path)) == ["etc/bega/gateway.toml", "var/lib/bega/spool.db"]
    for place in ("/etc/bega/gateway.toml", "/var/lib/bega", "the user bega"):
        assert f"kept     {place}" in told.stdout
    assert install(tmp_path, DEFAULT_CONFIG, False), "and it can be installed again"


def test_purge_removes_configuration_and_state_too(tmp_path):
    (tmp_path / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    before = files(tmp_path)
    install(tmp_path, DEFAULT_CONFIG, False)
    (tmp_path / "var/lib/bega/spool.db").write_text("what was not sent yet")
    (tmp_path / "etc/systemd/system/multi-user.target.wants/bega-gateway.service").symlink_to(f"/{UNIT}")
    dry = files(tmp_path)
    assert gateway("uninstall", "--root", tmp_path, "--purge", "--dry-run").returncode == 0
    assert files(tmp_path) == dry
    assert gateway("uninstall", "--root", tmp_path, "--purge").returncode == 0
    assert files(tmp_path) == before
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not (tmp_path / "etc/bega").exists() and not (tmp_path / "var/lib/bega").exists()


def test_uninstall_says_that_it_keeps_a_configuration_elsewhere_and_changes_of_ones_own(tmp_path):
    install(tmp_path, "/srv/gw.toml", False)
    (tmp_path / f"{UNIT}.d").mkdir()
    (tmp_path / f"{UNIT}.d/override.conf").write_text("[Service]\nMemoryMax=1G\n")
    told = gateway("uninstall", "--root", tmp_path)
    assert "kept     /srv/gw.toml" in told.stdout and f"kept     /{UNIT}.d (changes of your own)" in told.stdout
    assert sorted(files(tmp_path)) == [f"{UNIT}.d/override.conf", "srv/gw.toml"]


def test_purge_removes_no_file_that_the_service_does_not_run_by(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    (tmp_path / "etc/fstab").write_text("disks")
    (tmp_path / "etc/bega/ca.pem").write_text("mine")
    said = uninstall(tmp_path, "/etc/fstab", True, False)
    assert "kept     /etc/fstab (the service does not run by it)" in said
    assert "kept     /etc/bega (holds ca.pem, gateway.toml)" in said
    assert sorted(files(tmp_path)) == ["etc/bega/ca.pem", "etc/bega/gateway.toml", "etc/fstab"]


def test_purge_removes_the_configuration_elsewhere_that_the_service_runs_by(tmp_path):
    install(tmp_path, "/srv/gw.toml", False)
    assert gateway("uninstall", "--root", tmp_path, "--purge").returncode == 0
    assert files(tmp_path) == {} and (tmp_path / "srv").is_dir()


def test_a_state_that_is_a_link_is_kept_and_said(tmp_path):
    (tmp_path / "ssd").mkdir()
    (tmp_path / "ssd/spool.db").write_text("what was not sent yet")
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/bega").symlink_to("../../ssd")
    install(tmp_path, DEFAULT_CONFIG, False)
    told = gateway("uninstall", "--root", tmp_path, "--purge")
    assert (told.returncode, told.stderr) == (0, "")
    assert "kept     /var/lib/bega (a link to ../../ssd: remove both yourself)" in told.stdout
    assert list(files(tmp_path)) == ["ssd/spool.db"]


def test_on_a_machine_without_systemd_uninstall_tells_nobody_and_ends_well(tmp_path, monkeypatch):
    install(tmp_path, DEFAULT_CONFIG, False)
    monkeypatch.setattr(module, "_is_live", lambda root: True)
    monkeypatch.setattr(module, "_require_root", lambda: None)
    monkeypatch.setattr(module, "_runs_systemd", lambda: False)
    said = uninstall(tmp_path, DEFAULT_CONFIG, False, False)
    assert not [line for line in said if line.startswith(("failed", "ran"))]
    assert not (tmp_path / UNIT).exists()


def test_uninstall_leaves_what_somebody_else_wrote(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    (tmp_path / UNIT).write_text("[Service]\n")
    assert f"kept     /{UNIT} (written by somebody else)" in uninstall(tmp_path, DEFAULT_CONFIG, False, False)
    assert (tmp_path / UNIT).exists()


# ------------------------------------------------------------------ what systemd says of it


@needs_systemd
def test_unit_is_verified_and_exposed_no_more_than_three_of_ten(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    verified = subprocess.run(["systemd-analyze", "verify", tmp_path / UNIT], capture_output=True, text=True)
    about_ours = [line for line in verified.stderr.splitlines() if "bega" in line]
    assert (verified.returncode, about_ours) == (0, [])
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=30", tmp_path / UNIT]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout
    level = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert level and float(level[1]) <= 3.0


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd's tools are not here")
def test_user_groups_and_owners_are_made_by_the_systems_own_tools(tmp_path):
    install(tmp_path, DEFAULT_CONFIG, False)
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).touch()
    for tool in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        told = subprocess.run([*tool, f"--root={tmp_path}"], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert users["bega"][5:] == ["/var/lib/bega", "/usr/sbin/nologin"]
    assert groups["dialout"] == groups["i2c"] == groups["bluetooth"] == "bega"
    assert mode(tmp_path / "etc/bega/gateway.toml") == 0o640
    assert mode(tmp_path / "var/lib/bega") == 0o750


RUNNING = """
[gateway]
name = "gw-corner"
city = "timisoara"
state_dir = "{state}"
commit_window_s = 0.05
[uplink]
brokers = ["mqtt://localhost:{broker}"]
[feed]
listen = "127.0.0.1:0"
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.1
audience = "public"
[lines.hall]
kind = "modbus-tcp"
host = "localhost"
[devices.hall]
line = "hall"
driver = "modbus_meter"
settings = {{ profile = "sdm630", address = 1 }}
[lines.cellar]
kind = "modbus-rtu"
port = "/dev/null"
[devices.cellar]
line = "cellar"
driver = "modbus_meter"
settings = {{ profile = "sdm630", address = 1 }}
[lines.park]
kind = "ble"
[devices.park]
line = "park"
driver = "bthome"
settings = {{ address = "F0:CA:FE:00:00:01" }}
"""


@pytest.mark.slow
@needs_systemd
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
def test_gateway_makes_no_system_call_that_its_unit_forbids(tmp_path, sensor, mosquitto, eventually):
    """A filter that is too tight shows up on a pole, by a line that never opens."""
    file, trace = tmp_path / "gateway.toml", tmp_path / "trace"
    file.write_text(RUNNING.format(state=tmp_path / "state", broker=mosquitto.port, port=sensor.port))
    command = ["strace", "-f", "-qq", "-o", trace, *BEGA_GATEWAY, "run", "--config", file]
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen([*map(str, command)], stderr=log, cwd="/")
    with contextlib.ExitStack() as stack:
        stack.callback(child.wait, 20)
        stack.callback(_end_children, child.pid)  # told to end itself, strace would leave the gateway running
        eventually(lambda: "uplink up" in (tmp_path / "log").read_text(), "it sends", 60)
        eventually(lambda: (tmp_path / "log").read_text().count("line down") >= 3, "other lines tried", 60)
        reloaded = gateway("reload", "--config", file)
        assert reloaded.returncode == 0, reloaded.stderr
    text = trace.read_text(errors="replace")
    used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", text, re.M))
    assert {"openat", "epoll_wait", "fdatasync", "ioctl"} <= used
    # As root, SQLite gives its files the owner of the database; as the user bega it does not.
    stray = used & _forbidden() - {"fchown"}
    assert stray == set()
    executable = [line for line in text.splitlines() if "PROT_EXEC" in line and "PROT_WRITE" in line]
    assert executable == [], "MemoryDenyWriteExecute"


def _end_children(pid: int) -> None:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)


def _forbidden() -> set[str]:
    """Return the calls that `SystemCallFilter` of the unit leaves out, by systemd's own lists."""
    allowed = _calls("@system-service") - _calls("@privileged") - _calls("@resources")
    return _calls("@known") - allowed


def _calls(group: str) -> set[str]:
    told = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True)
    names = {line.strip() for line in told.stdout.splitlines()[1:] if not line.strip().startswith("#")}
    calls = {name for name in names if name and not name.startswith("@")}
    return calls.union(*map(_calls, (name for name in names if name.startswith("@"))))


# ------------------------------------------------------------------ example


def test_example_is_a_good_configuration(tmp_path):
    told = gateway("example")
    assert (told.returncode, told.stderr) == (0, "")
    (tmp_path / "gateway.toml").write_text(told.stdout)
    assert examine(tmp_path / "gateway.toml")[1] == []
    assert told.stdout == EXAMPLE.read_text()


@pytest.mark.parametrize("name", ["tags", "edge", "commands"])
def test_the_other_examples_are_printed_too(name):
    told = gateway("example", f"--{name}")
    assert (told.returncode, told.stdout) == (0, (EXAMPLE.parent / f"{name}.toml").read_text())
