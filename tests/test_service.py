"""What long-running commands share: how they log, and how they end while they are still beginning."""

import io
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile

import pytest

from bega.service import JournalFormatter, is_journal

INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Interrupting())
from bega.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "module",
    [
        "bega_gateway.command",
        "msgspec",
        "bega_gateway.app",
        "aiomqtt",
        "bega_gateway.lines.serial",
    ],
)
def test_an_interrupt_while_it_still_loads_leaves_no_traceback(module, tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[gateway]\nname = "gw"\ncity = "t"\n[uplink]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
        '[lines.a]\nkind = "serial"\nport = "/dev/null/1"\n[devices.a]\nline = "a"\ndriver = "pms5003"\n'
    )
    command = ["gateway", "run", "--config", str(file), "--set", f"gateway.state_dir={tmp_path}/state"]
    told = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module), *command], capture_output=True, text=True, timeout=20
    )
    assert told.returncode in (0, 130, -signal.SIGINT), told.stderr
    assert "Traceback" not in told.stderr and "KeyboardInterrupt" not in told.stderr


def test_what_goes_to_the_journal_is_known_by_device_and_inode():
    with tempfile.TemporaryFile("w") as stream:
        status = os.fstat(stream.fileno())
        assert is_journal(f"{status.st_dev}:{status.st_ino}", stream)
        assert not is_journal(f"{status.st_dev}:{status.st_ino + 1}", stream), "it was inherited, and redirected since"
        assert not is_journal("", stream)
    assert not is_journal("1:1", io.StringIO())


def test_every_line_of_a_record_says_its_level_to_the_journal():
    formatter = JournalFormatter("%(name)s %(message)s")
    for level, priority in ((logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)):
        record = logging.LogRecord("bega", level, "", 0, "line down line=%s", ("a",), None)
        assert formatter.format(record) == f"<{priority}>bega line down line=a"
    try:
        raise OSError("gone")
    except OSError:
        record = logging.LogRecord("bega", logging.ERROR, "", 0, "task failed", (), sys.exc_info())
    lines = formatter.format(record).splitlines()
    assert len(lines) > 3 and all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("to_journal", [True, False])
def test_a_gateway_leaves_the_time_to_the_journal(to_journal, tmp_path):
    """A time stamp of ours beside the journal's own is read twice, and differs."""
    with (tmp_path / "log").open("w+") as log:
        status = os.fstat(log.fileno())
        stream = f"{status.st_dev}:{status.st_ino}" if to_journal else "1:1"
        code = "import logging; from bega.service import log_to_stderr; log_to_stderr(False)\n"
        code += "logging.getLogger('bega').warning('line down line=a')"
        subprocess.run([sys.executable, "-c", code], stderr=log, env={**os.environ, "JOURNAL_STREAM": stream})
    text = (tmp_path / "log").read_text()
    if to_journal:
        assert text == "<4>bega line down line=a\n"
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d [0-9:,]+ WARNING bega line down line=a\n", text)


EVENT_THEN_FACTS = re.compile(r"[a-z%][^=]*?( [a-z_%]+<?=%[sdgr])*")


def test_every_log_line_of_the_gateway_is_an_event_and_then_its_facts():
    """`error=` is last, since it is the only fact with spaces in it."""
    import ast
    from pathlib import Path

    root = Path(__file__).parent.parent
    found = 0
    for folder in ("gateway/bega_gateway", "bega"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_log = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")
                texts = (
                    [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                    if is_log
                    else []
                )
                for text in texts[:1]:
                    found += 1
                    assert EVENT_THEN_FACTS.fullmatch(text), f"{path}:{node.lineno}: {text}"
                    assert "error=" not in text.removesuffix("error=%s"), f"{path}:{node.lineno}: {text}"
    assert found > 25
