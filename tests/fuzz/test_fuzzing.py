"""No bytes make a parser raise: a second of coverage-guided fuzzing for each, a minute by night, beside hypothesis.

What crashed stays in found.json ({target: [hex, ...]}) and is tried again by every run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import IS_NIGHT
from tests.fuzz.parsers import target, targets

SHARED_S = 1200 if IS_NIGHT else 20
ROOT = Path(__file__).parent.parent.parent
FOUND = json.loads((Path(__file__).parent / "found.json").read_text())
EACH_S = max(1, SHARED_S // len(targets()))


@pytest.mark.parametrize("name", sorted(FOUND))
def test_what_crashed_once_crashes_no_more(name):
    for data in FOUND[name]:
        target(name)(bytes.fromhex(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", targets())
@pytest.mark.timeout(EACH_S + 60)
def test_no_bytes_make_a_parser_raise(name, tmp_path):
    pytest.importorskip("atheris", reason="atheris has wheels for x86-64 Linux alone")
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz", name, str(EACH_S), tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
    )
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, said[-4000:]
    assert "stat::number_of_executed_units" in said, said[-4000:]
