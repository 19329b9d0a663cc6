"""What the edge's calculations cost: the ordinary day without them and with five on every meter, in one run."""

from __future__ import annotations

from dataclasses import asdict

from bega_simulators.bench.figures import Findings, Goal, Row, spread
from bega_simulators.bench.load import COMMIT_WINDOW_S, FLOATS
from bega_simulators.bench.programs import Programs
from bega_simulators.bench.stage import Bench, Stage, Window, cleanliness

CPU = Goal("at most 20 % more", 20.0, tolerance=0.25)
TURNS = 3  # each gateway runs so often, one after the other: what else the machine does falls on both

# The register of numbered.py counts up by 31 a read and begins anew at 100,000. The alarm's bounds lie in the middle of
# what its quantity does, so that it is raised and cleared again and again.
TABLES = """
[corrections.{meter}-frequency]
input = "{meter}"
quantity = "frequency"
slope = 0.92
offset = 1.5

[limits.{meter}-current]
input = "{meter}"
quantity = "current"
least = 0
most = 1000000

[totals.{meter}-totals]
input = "{meter}"
quantities = ["active_energy_import"]
wraps_at = 100000

[means.{meter}-means]
input = "{meter}"
quantities = ["active_power"]
period = "15min"

[alarms.{meter}-alarm]
input = "{meter}"
quantity = "reactive_power"
above = 60000
clear = 40000
"""


def tables(meters: int) -> str:
    """Return the calculations of all meters, TOML."""
    return "".join(TABLES.format(meter=f"m{number}") for number in range(meters))


def edge(bench: Bench) -> Findings:
    """Measure the gateway without and with calculations in turn, on the same meters, broker and reader."""
    meters, every_s = bench.count(100, 5), bench.seconds(1.0, 0.25)
    for_s, warm_s = bench.seconds(10, 1), bench.seconds(4, 0.5)
    windows: dict[str, list[Window]] = {"without": [], "with": []}
    with Programs(bench.directory / "edge") as programs:
        stage = Stage(programs, meters, FLOATS, computes=True)
        for turn in range(bench.count(TURNS, 1)):
            for name, found in windows.items():
                bench.say(f"edge: {name} calculations, {meters} meters, a poll each {every_s:g} s")
                gateway = stage.gateway(
                    f"{name}-{turn}", every_s, COMMIT_WINDOW_S, tables(meters) if name == "with" else ""
                )
                gateway.start()
                stage.until_flowing()
                stage.window(gateway.pid, every_s, warm_s)
                found.append(stage.window(gateway.pid, every_s, for_s))
                gateway.stop()
        clean = cleanliness(stage.subscriber)
    return _findings(windows, clean)


def _findings(windows: dict[str, list[Window]], clean: dict[str, object]) -> Findings:
    without, computing = ([window.cpu_s_per_1000 for window in windows[name]] for name in ("without", "with"))
    # The least of each: whatever else the machine does only adds.
    more_percent = 100 * (min(computing) / min(without) - 1) if min(without) else float("nan")
    rss = {name: min(window.rss_mb for window in found) for name, found in windows.items()}
    rows = [
        Row(
            "CPU s per 1000 values with a correction, a limit, totals, means and an alarm on each meter",
            f"{spread(computing, '{:.4f}')}, {more_percent:+.0f} % by the least of each",
            CPU,
            more_percent,
            f"without: {spread(without, '{:.4f}')}",
        ),
        Row("memory (RSS) with them", f"{rss['with']:.1f} MB", floor=f"without: {rss['without']:.1f} MB"),
        Row(
            "values held against what the meters said (edge)",
            f"{clean['messages']} records, {clean['wrong']} wrong",
            Goal("0 wrong", 0),
            int(str(clean["wrong"])),
        ),
    ]
    figures = {name: [asdict(window) for window in found] for name, found in windows.items()}
    return Findings(rows, {"windows": figures, "clean": clean, "more_percent": more_percent})
