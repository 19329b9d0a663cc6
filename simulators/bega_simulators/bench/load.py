"""The ordinary day: 100 meters, 30 values each, once a second. And how much more one gateway can carry."""

from __future__ import annotations

from dataclasses import asdict

from bega_simulators.bench.figures import Findings, Goal, Row, median, spread
from bega_simulators.bench.plots import Series, plot
from bega_simulators.bench.programs import Programs
from bega_simulators.bench.stage import Bench, Stage, Window, cleanliness

FLOATS = 30
COMMIT_WINDOW_S = 0.05
CPU = Goal("at most 2 times the floor", 2.0, tolerance=0.15)
LATENCY = Goal("p99 at most 90 ms", 90.0, tolerance=0.2)
MEMORY = Goal("at most 50 MB", 50.0, tolerance=0.02)
MOST = Goal("120,000 a second, all delivered", 120_000, tolerance=0.1, at_least=True)
GROWTH = Goal("latency does not grow", 1.5, tolerance=0.1)
PERIODS_S = (1.0, 0.25, 0.15, 0.1, 0.075, 0.06, 0.05, 0.04, 0.03, 0.025, 0.02, 0.015)
CAPACITY_EVERY_S = 0.02
ENOUGH = 0.97  # delivered of offered
QUICK_MS = 2000 * COMMIT_WINDOW_S  # what is quicker than two commit windows may double by chance


def load(bench: Bench) -> Findings:
    """Measure gateway and floor in turn, on the same meters, broker and reader."""
    meters, every_s = bench.count(100, 5), bench.seconds(1.0, 0.25)
    windows: dict[str, list[Window]] = {}
    with Programs(bench.directory / "load") as programs:
        stage = Stage(programs, meters, FLOATS)
        for name in ("gateway", "floor", "floor without a store"):
            bench.say(f"load: {name}, {meters} meters, a poll each {every_s:g} s")
            windows[name] = _windows(bench, stage, name, every_s)
        clean = cleanliness(stage.subscriber)
        broker = stage.broker.name
    return _load_findings(windows, clean, broker)


def _windows(bench: Bench, stage: Stage, name: str, every_s: float) -> list[Window]:
    count, for_s, warm_s = bench.count(3, 1), bench.seconds(10, 1), bench.seconds(4, 0.5)
    if name == "gateway":
        gateway = stage.gateway(name, every_s, COMMIT_WINDOW_S)
        gateway.start()
        stage.until_flowing()
        stage.window(gateway.pid, every_s, warm_s)
        windows = [stage.window(gateway.pid, every_s, for_s) for _ in range(count)]
        gateway.stop()
        return windows
    floor = stage.floor(name.replace(" ", "-"), every_s, store=name == "floor")
    stage.until_flowing()
    stage.window(floor.pid, every_s, warm_s)
    windows = [stage.window(floor.pid, every_s, for_s) for _ in range(count)]
    floor.end()
    return windows


def _load_findings(windows: dict[str, list[Window]], clean: dict[str, object], broker: str) -> Findings:
    ours, floor, bare = (windows[name] for name in ("gateway", "floor", "floor without a store"))
    cost = [window.cpu_s_per_1000 for window in ours]
    floor_cost = median([window.cpu_s_per_1000 for window in floor])
    ratio = median(cost) / floor_cost if floor_cost else float("nan")  # a window may be shorter than the kernel's tick
    p99 = [window.p99_ms for window in ours]
    rss = [window.rss_mb for window in ours]
    others = [window.others_percent for window in ours + floor]
    bare_cost = median([window.cpu_s_per_1000 for window in bare])
    rows = [
        Row(
            "CPU s per 1000 values, 100 meters x 30 x 1 Hz",
            f"{spread(cost, '{:.4f}')}, {ratio:.2f} times the floor",
            CPU,
            ratio,
            f"{floor_cost:.4f}; without a store {bare_cost:.4f}",
            "ThingsBoard 0.067 to 0.135; Node-RED 0.025 without a store; an earlier floor (uvloop) 0.0195",
        ),
        Row(
            "latency, read at the meter to reader",
            f"p50 {spread([window.p50_ms for window in ours], '{:.0f}')}, p99 {spread(p99, '{:.0f}')} ms",
            LATENCY,
            median(p99),
            f"p50 {median([w.p50_ms for w in floor]):.0f}, p99 {median([w.p99_ms for w in floor]):.0f} ms",
            "ThingsBoard p99 242 to 607 ms; Node-RED 19 without a store",
        ),
        Row(
            "memory (RSS)",
            f"{spread(rss, '{:.1f}')} MB",
            MEMORY,
            median(rss),
            f"{median([window.rss_mb for window in floor]):.1f} MB",
            "ThingsBoard 75 to 78 MB; Node-RED 144 MB",
        ),
        _clean_row("load", clean),
        Row("meanwhile", f"other work on this machine {spread(others, '{:.0f}')} % CPU; broker {broker}"),
    ]
    figures = {name: [asdict(window) for window in found] for name, found in windows.items()}
    return Findings(rows, {"windows": figures, "clean": clean, "ratio": ratio})


def _clean_row(what: str, clean: dict[str, object]) -> Row:
    wrong = int(str(clean["wrong"])) + int(str(clean["doubled_reads"]))
    return Row(
        f"values held against what the meters said ({what})",
        f"{clean['messages']} records, {wrong} wrong, {clean['doubled']} came twice (same identity)",
        Goal("0 wrong", 0),
        wrong,
    )


def most(bench: Bench) -> Findings:
    """Shorten the period until the gateway cannot follow, then go beyond."""
    meters = bench.count(100, 5)
    tried: list[Window] = []
    with Programs(bench.directory / "most") as programs:
        stage = Stage(programs, meters, FLOATS)
        best_s = 0.0
        for every_s in PERIODS_S if not bench.quick else (0.25, 0.1):
            if not _is_carried(bench, stage, every_s, tried):
                break
            best_s = every_s
        best_s = best_s or PERIODS_S[0]
        bench.say(f"most: {meters * FLOATS / best_s:,.0f} values a second, three times")
        best = _point(bench, stage, best_s, bench.count(3, 1), "best")
        beyond = {times: _point(bench, stage, best_s / times, 1, "beyond")[0] for times in (1.5, 3.0)}
        clean = cleanliness(stage.subscriber)
    return _most_findings(tried, best, beyond, _capacity(bench), clean)


def _is_carried(bench: Bench, stage: Stage, every_s: float, tried: list[Window]) -> bool:
    """Return whether all that is offered comes, in one of two windows: in one of them the machine may be busy."""
    for attempt in ("first", "second"):
        window = _point(bench, stage, every_s, 1, attempt)[0]
        tried.append(window)
        if window.share >= ENOUGH and not window.grows:
            return True
    return False


def _capacity(bench: Bench) -> dict[str, Window]:
    """Return what the floor carries, by how the broker saves: no gateway on this machine can deliver more."""
    found = {}
    for at_each_change, words in ((False, "each second"), (True, "at each change")):
        bench.say(f"most: the floor, with a broker that saves {words}")
        with Programs(bench.directory / f"capacity-{at_each_change}") as programs:
            stage = Stage(programs, bench.count(100, 5), FLOATS, at_each_change)
            floor = stage.floor("floor", CAPACITY_EVERY_S, store=True)
            stage.until_flowing()
            stage.window(floor.pid, CAPACITY_EVERY_S, bench.seconds(3, 0.5))
            found[words] = stage.window(floor.pid, CAPACITY_EVERY_S, bench.seconds(8, 1))
    return found


def _point(bench: Bench, stage: Stage, every_s: float, count: int, state: str) -> list[Window]:
    bench.say(f"most: {stage.meters * FLOATS / every_s:,.0f} values a second offered")
    # A state of its own: what an overloaded run left in its spool must not come in the next one's windows.
    gateway = stage.gateway(f"{state}-every-{every_s:.5f}", round(every_s, 5), COMMIT_WINDOW_S)
    gateway.start()
    stage.until_flowing()
    stage.window(gateway.pid, every_s, bench.seconds(3, 0.5))
    windows = [stage.window(gateway.pid, every_s, bench.seconds(8, 1)) for _ in range(count)]
    gateway.kill()
    return windows


def _most_findings(
    tried: list[Window],
    best: list[Window],
    beyond: dict[float, Window],
    capacity: dict[str, Window],
    clean: dict[str, object],
) -> Findings:
    sustained = [window.values_s for window in best]
    growth = max(window.last_p50_ms / max(QUICK_MS, window.first_p50_ms) for window in beyond.values())
    worst = "; ".join(
        f"{times:g} times: {window.values_s:,.0f}/s, p99 {window.first_p99_ms:.0f} then {window.last_p99_ms:.0f} ms, "
        f"{window.skipped} polls left out"
        for times, window in beyond.items()
    )
    steps = ", ".join(f"{window.offered_s / 1000:g}k {100 * window.share:.0f} %" for window in tried)
    cost = [window.cpu_s_per_1000 for window in best]
    rows = [
        Row(
            "most values a second, all delivered",
            f"{spread(sustained, '{:,.0f}')}; CPU s per 1000 {spread(cost, '{:.4f}')}; tried {steps}",
            MOST,
            median(sustained),
            "; ".join(f"broker saves {words}: {window.values_s:,.0f}" for words, window in capacity.items()),
            "ThingsBoard 11,800 (19,400 at best); Node-RED 59,000 without a store; an earlier floor 300,000",
        ),
        Row("beyond its limit", worst, GROWTH, growth, "", "ThingsBoard collapses: 72 % delivered, p99 growing"),
        _clean_row("most", clean),
    ]
    figures = {
        "tried": [asdict(window) for window in tried],
        "best": [asdict(window) for window in best],
        "beyond": {str(times): asdict(window) for times, window in beyond.items()},
        "capacity": {words: asdict(window) for words, window in capacity.items()},
        "clean": clean,
    }
    every = sorted([*tried, *beyond.values()], key=lambda window: window.offered_s)
    lines = [
        Series("p99", [(window.offered_s, window.p99_ms) for window in every]),
        Series("p50", [(window.offered_s, window.p50_ms) for window in every]),
    ]
    picture = plot("Latency over load", lines, "values offered a second", "ms, read to reader")
    return Findings(rows, figures, {"latency-over-load": picture})
