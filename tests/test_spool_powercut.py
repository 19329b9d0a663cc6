"""Power cut at every write of a spool that stores, deletes, drops, refuses and sets aside: nothing it promised is lost.

A real run under strace gives every write, truncation and fsync with its bytes. For each moment of it crash images are
made: all that was written reached the medium; only what was synced; any sectors of the rest; any sectors, one of them
garbage. Names (create, rename, unlink) are taken as done in order, as ext4's journal does.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bega.outbox.spool_file import SpoolFile

SECTOR = 512
WRITER = """
import asyncio, os, random, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from bega.outbox import spool as spool_module, spool_open
from bega.outbox.spool import Head, Spool, SpoolFull
spool_open.JOURNAL_PAGES = 12  # a checkpoint every few commits
spool_module.DELETE_WITHIN_S = 0.01
say = lambda *words: os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def work():
    chance = random.Random(int(sys.argv[2]))
    spool = await Spool.open(Path(sys.argv[1]), ThreadPoolExecutor(1), window_s=0, quota_bytes=36 * 4096)
    committing = asyncio.create_task(spool.run())
    billing = routine = 0
    for _ in range(int(sys.argv[3])):
        group = []
        for _ in range(chance.randrange(1, 6)):
            if chance.random() < 0.5:
                routine += 1
                spool.add("t", b"r%d " % routine + bytes(chance.randrange(1500, 3500)))
                continue
            head = Head("air-1", 1, billing + 1)
            payload = b"b%d " % (billing + 1) + bytes(chance.randrange(300))
            group.append(spool.add("t", payload, storage_class="billing", head=head))
            billing += 1
        await asyncio.gather(*group)
        say("stored", billing)
        rows = await spool.take(0, 12)
        if chance.random() < 0.15 and rows:
            sent = [row for row in rows if chance.random() < 0.8]
            say("gone", *[row.payload.split()[0].decode() for row in sent])
            spool.forget([row.id for row in sent])
        elif chance.random() < 0.1 and rows:
            say("gone", rows[0].payload.split()[0].decode())
            await spool.refuse(rows[0].id, "nobody takes it")
        old = [row for row in await spool.take(0, 1000) if row.storage_class == "billing"][:-60]
        if old:  # else there would be no room for billing
            say("gone", *[row.payload.split()[0].decode() for row in old])
            spool.forget([row.id for row in old])
        await asyncio.sleep(0)
    say("dropped", sum(spool.dropped.values()))
    committing.cancel()
    await asyncio.wait([committing])
    await spool.close()

asyncio.run(work())
"""
CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat"


def recorded(directory: Path, seed: int, rounds: int) -> list[tuple]:
    """Run the writer; return what it did to its files and what it said, in order."""
    root, log = directory / "live", directory / "strace"
    root.mkdir()
    command = ["strace", "-f", "-y", "-xx", "-s", "4000000", "-o", log, "-e", f"trace={CALLS}"]
    writer = [sys.executable, "-c", WRITER, root / "spool.db", seed, rounds]
    told = subprocess.run([str(word) for word in command + writer], capture_output=True, text=True, timeout=100)
    assert told.returncode == 0, told.stderr
    return list(_steps(log.read_text(errors="replace").splitlines(), str(root)))


def _steps(lines: list[str], root: str) -> Iterator[tuple]:
    sizes: dict[str, int] = {}
    for line in _whole_calls(lines):
        call = re.match(r"^\d+\s+(\w+)\((.*)\)\s+= (\d+)", line)
        if not call:
            continue
        name, arguments, result = call[1], call[2], int(call[3])
        texts = [_text(text) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)]
        opened = re.match(r"(\d+)<((?:\\x[0-9a-f]{2})*)>", arguments)
        path = _text(opened[2]).decode() if opened else ""
        if name == "write" and arguments.startswith("1<"):
            yield ("said", texts[0].decode().split())
        elif name in ("write", "pwrite64") and path.startswith(root):
            at = int(arguments.rsplit(",", 1)[1]) if name == "pwrite64" else sizes.get(path, 0)
            sizes[path] = max(at + result, sizes.get(path, 0))
            yield ("write", path, at, texts[0][:result])
        elif name == "ftruncate" and path.startswith(root):
            sizes[path] = int(arguments.rsplit(",", 1)[1])
            yield ("truncate", path, sizes[path])
        elif name in ("fsync", "fdatasync") and path.startswith(root + "/"):
            yield ("sync", path)
        elif name.startswith("unlink") and texts and texts[0].decode().startswith(root):
            sizes.pop(texts[0].decode(), None)
            yield ("unlink", texts[0].decode())


def _whole_calls(lines: list[str]) -> Iterator[str]:
    """Put together the calls that another thread's interrupted."""
    begun: dict[str, str] = {}
    for line in lines:
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>")
        elif "resumed>" in line:
            yield begun.pop(pid, "") + line.split("resumed>", 1)[1]
        else:
            yield line


def _text(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


class Medium:
    """What stands on the medium for sure, and what was written since and may."""

    def __init__(self) -> None:
        self._sure: dict[str, bytearray] = {}
        self._open: dict[str, list[tuple]] = {}

    def do(self, step: tuple) -> None:
        kind, path = step[0], step[1]
        if kind == "unlink":
            self._sure.pop(path, None)
            self._open.pop(path, None)
            return
        self._sure.setdefault(path, bytearray())
        if kind == "sync":
            for waiting in self._open.pop(path, []):
                _put(self._sure[path], waiting)
        else:
            self._open.setdefault(path, []).append(step)

    def image(self, mode: str, chance: random.Random) -> dict[str, bytes]:
        images = {}
        for path, sure in self._sure.items():
            octets = bytearray(sure)
            for step in self._open.get(path, []):
                for part in _parts(step, mode, chance):
                    _put(octets, part)
            images[path] = bytes(octets)
        return images


def _parts(step: tuple, mode: str, chance: random.Random) -> Iterator[tuple]:
    """Give what of one step reached the medium."""
    if mode == "all":
        yield step
    elif mode != "none" and step[0] == "truncate":
        yield from [step] if chance.random() < 0.5 else []
    elif mode != "none":
        _, path, at, octets = step
        place = 0
        while place < len(octets):
            length = min(SECTOR - (at + place) % SECTOR, len(octets) - place)
            luck = chance.random()
            if luck < 0.5:
                yield ("write", path, at + place, octets[place : place + length])
            elif luck < 0.55 and mode == "garbage":
                yield ("write", path, at + place, chance.randbytes(length))
            place += length


def _put(octets: bytearray, step: tuple) -> None:
    if step[0] == "truncate":
        size = step[2]
        del octets[size:]
        octets.extend(bytes(size - len(octets)))
        return
    at, new = step[2], step[3]
    octets.extend(bytes(max(0, at - len(octets))))
    octets[at : at + len(new)] = new


def found_in(image: dict[str, bytes], root: Path) -> tuple[list[str], int]:
    """Open what the power cut left, as a gateway would; return (the payloads' names, the node's head)."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, octets in image.items():
        if not path.endswith("-shm"):
            (root / Path(path).name).write_bytes(octets)
    file = SpoolFile(root / "spool.db", 36 * 4096)
    rows, aside = file.take(0, 100_000, None)
    head = file.heads().get(("air-1", 1), 0)
    file.close()
    assert not aside and not list(root.glob("*.damaged-*")), "a power cut is no damage"
    return [row.payload.split()[0].decode() for row in rows], head


def images_of(steps: list[tuple], every: int, seeds: int) -> Iterator[tuple[dict[str, bytes], int, set[str]]]:
    """Give (image, up to which billing record was called stored, what was gone) for moments of the run."""
    medium = Medium()
    stored, gone, count = 0, set[str](), 0
    for place, step in enumerate(steps):
        if step[0] == "said":
            words = step[1]
            for at, word in enumerate(words):  # one write may hold several lines
                if word == "stored":
                    stored = int(words[at + 1])
                elif re.fullmatch(r"[br]\d+", word):
                    gone.add(word)
            continue
        medium.do(step)
        count += 1
        if count % every:
            continue
        for mode in ("all", "none", *["sectors"] * seeds, *["garbage"] * seeds):
            # what is said before the next step on a file was said at this moment
            yield medium.image(mode, random.Random(place * 31 + seeds)), stored, set(gone)


@pytest.mark.slow
def test_power_cut_at_any_write_loses_nothing_that_was_called_stored(tmp_path):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    deep = os.environ.get("BEGA_PROFILE") == "nightly"
    steps = recorded(tmp_path, seed=5, rounds=150 if deep else 90)
    dropped = [step[1] for step in steps if step[0] == "said" and "dropped" in step[1]]
    assert sum(step[0] == "sync" for step in steps) > 60
    assert int(dropped[-1][-1]) > 0, "the quota was reached: dropping is among what is cut"
    images = 0
    for image, stored, gone in images_of(steps, every=2 if deep else 5, seeds=2 if deep else 1):
        images += 1
        names, head = found_in(image, tmp_path / "image")
        held = [int(name[1:]) for name in names if name[0] == "b"]
        assert held == sorted(set(held)), "in order, none twice"
        missing = {f"b{number}" for number in range(1, stored + 1)} - gone - set(names)
        assert not missing, f"called stored and lost: {sorted(missing)}"
        assert head >= stored, "a head is never behind what was called stored"
        assert not held or held[-1] <= head, "and a record is never there without its head"
    assert images > (2_000 if deep else 200), images
    print(f"{images} crash images")
