"""Twenty thousand screens in one browser: does its memory grow? A kiosk is not restarted between two citizens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

from bega.browser import Browser, Page, running_browser
from bega.extras import require_extras
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.kiosk import HEIGHT_PX, WIDTH_PX, every_screen, run_kiosk, running_feed
from bega_simulators.bench.plots import Series, plot
from bega_simulators.bench.programs import Programs
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.usage import rss_bytes

LANGUAGES = ("ro", "hu", "de", "sr", "sr-Latn", "en")
SAMPLED_EACH, AT_ONCE = 100, 10  # screens
SLOPE = Goal("2 MB for 1,000 screens", 2.0)
HEAP = Goal("flat: 10 % more at most", 10.0)
NODES = Goal("flat: 10 % more at most", 10.0)

# Each screen is reached by a link's click and drawn before the next. go.js takes no second tap within 0.3 s, which
# would make two hours of it: until a screen is shown, the page's clock is far enough ahead.
AHEAD = """(() => {
  const now = performance.now.bind(performance);
  let ahead = 0;
  window.isTapping = false;
  performance.now = () => isTapping ? now() + (ahead += 400) : now();
})()"""
WALK = """(async () => {
  for (const address of %s) {
    const shown = new Promise((done) => document.addEventListener("screen", done, { once: true }));
    const link = document.body.appendChild(document.createElement("a"));
    link.href = address;
    isTapping = true;
    link.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true })); // else nobody seems to be there
    link.click();
    await shown;
    isTapping = false;
    await new Promise((done) => requestAnimationFrame(done));
  }
})()"""


class Sample(NamedTuple):
    """After so many screens, and after a collection of garbage."""

    screens: int
    heap_mb: float
    nodes: int
    browser_mb: float
    kiosk_mb: float


def screens(bench: Bench) -> Findings:
    """Walk through every screen in every language, again and again."""
    require_extras("the bench of the kiosk", "kiosk")
    whole = bench.count(20_000, 400)
    with Programs(bench.directory / "screens") as programs, running_feed() as feed, running_browser() as browser:
        process, address = run_kiosk(programs, feed, "kiosk")
        paths = every_screen(programs, "kiosk")
        page = browser.open(WIDTH_PX, HEIGHT_PX)
        page.go(address + "/")
        page.run(AHEAD)
        round_trip = [f"{path}?lang={language}" for language in LANGUAGES for path in paths]
        began_s = time.monotonic()
        found: list[Sample] = []
        for count in range(AT_ONCE, whole + 1, AT_ONCE):
            page.run(WALK % json.dumps([round_trip[at % len(round_trip)] for at in range(count - AT_ONCE, count)]))
            if count % SAMPLED_EACH == 0:
                page.run(WALK % json.dumps(["/"]))  # each sample on the same screen
                found.append(_sample(browser, page, process.pid, count))
                bench.say(f"screens: {count} of {whole}, the browser has {found[-1].browser_mb:.0f} MB")
        took_s = time.monotonic() - began_s
        page.close()
        process.end()
    return Findings(
        _rows(found, took_s), {"samples": [sample._asdict() for sample in found]}, {"kiosk-memory": _picture(found)}
    )


def settled(found: list[Sample]) -> list[Sample]:
    """Return what came after the first tenth: a browser fills its caches first."""
    return found[len(found) // 10 :]


def slope(points: list[tuple[float, float]]) -> float:
    """Return by how much the second rises with one of the first, by least squares; 0 for less than two points."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread


def growth_percent(values: list[float]) -> float:
    """Return by how much the last quarter's least exceeds the first quarter's: what a collection left over."""
    quarter = max(1, len(values) // 4)
    first, last = min(values[:quarter]), min(values[-quarter:])
    return 100 * (last - first) / first


def _sample(browser: Browser, page: Page, kiosk: int, count: int) -> Sample:
    page.order("HeapProfiler.collectGarbage")
    heap = page.order("Runtime.getHeapUsage")["usedSize"]
    nodes = page.order("Memory.getDOMCounters")["nodes"]
    browser_mb = sum(_own_bytes(pid) for pid in family(browser.pid)) / 1e6
    return Sample(count, heap / 1e6, nodes, browser_mb, rss_bytes(kiosk) / 1e6)


def family(pid: int) -> set[int]:
    """Return a process, its children, theirs, and so on."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _own_bytes(pid: int) -> int:
    """Return a process's memory without the pages of files, what it shares divided by those who share it.

    Of the program's own pages each browser on the machine has a part: when another ends, this one would seem to grow
    (proc(5), smaps_rollup: Pss is Pss_Anon, Pss_File and Pss_Shmem).
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def _rows(found: list[Sample], took_s: float) -> list[Row]:
    late = settled(found)
    per_thousand = 1000 * slope([(sample.screens, sample.browser_mb) for sample in late])
    heap = growth_percent([sample.heap_mb for sample in late])
    nodes = growth_percent([float(sample.nodes) for sample in late])
    first, last = found[0], found[-1]
    return [
        Row(
            f"{last.screens} screens: the browser's memory",
            f"{per_thousand:+.2f} MB for 1,000; {first.browser_mb:.0f} to {last.browser_mb:.0f} MB in {took_s:.0f} s",
            SLOPE,
            per_thousand,
            peers="HAOS kiosk died at 1,130 MB",
        ),
        Row("the same: JavaScript's heap after GC", f"{heap:+.1f} %; {last.heap_mb:.2f} MB at the end", HEAP, heap),
        Row("the same: DOM nodes after GC", f"{nodes:+.1f} %; {last.nodes} at the end", NODES, nodes),
        Row("the same: the kiosk's memory", f"{first.kiosk_mb:.1f} to {last.kiosk_mb:.1f} MB"),
    ]


def _picture(found: list[Sample]) -> str:
    curve = [(float(sample.screens), sample.browser_mb) for sample in found]
    return plot("Memory over many screens", [Series("the browser's processes", curve)], "screens", "MB")
