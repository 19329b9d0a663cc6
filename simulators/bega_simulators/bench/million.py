"""A million records through the gateway at full speed: does its memory grow, does it keep descriptors?"""

from __future__ import annotations

import time
from typing import NamedTuple

from bega_protocols.errors import LineError
from bega_simulators.bench.figures import Findings, Goal, Row
from bega_simulators.bench.plots import Series, plot
from bega_simulators.bench.programs import Programs
from bega_simulators.bench.stage import Bench, Stage, cleanliness
from bega_simulators.bench.usage import descriptors, rss_bytes

METERS, FLOATS, EVERY_S, COMMIT_WINDOW_S = 100, 30, 0.025, 0.05
EARLY, ALL = 100_000, 1_000_000
LOOK_EVERY_S, STUCK_S, SAY_EACH = 1.0, 60.0, 50_000
MEMORY = Goal("RSS within 2 MB of that after 100,000", 2.0, tolerance=0.25)
DESCRIPTORS = Goal("descriptors flat", 0)


class Sample(NamedTuple):
    """One look at the gateway."""

    records: int
    rss_mb: float
    descriptors: int


def million(bench: Bench) -> Findings:
    """Ask for more than one gateway can carry, until a million records have arrived."""
    early, wanted = bench.count(EARLY, 300), bench.count(ALL, 1500)
    with Programs(bench.directory / "million") as programs:
        stage = Stage(programs, bench.count(METERS, 10), FLOATS)
        gateway = stage.gateway("gateway", EVERY_S, COMMIT_WINDOW_S)
        gateway.start()
        started_s = progress_s = time.monotonic()
        samples: list[Sample] = []
        said = 0
        while not samples or samples[-1].records < wanted:
            time.sleep(bench.seconds(LOOK_EVERY_S, 0.1))
            records = stage.subscriber.ask("messages")["messages"]
            if samples and records > samples[-1].records:
                progress_s = time.monotonic()
            if time.monotonic() - progress_s > STUCK_S:
                raise LineError(f"nothing arrives any more after {records} records")
            stage.subscriber.ask("begin")  # or the reader keeps a million delays
            samples.append(Sample(records, rss_bytes(gateway.pid) / 1e6, descriptors(gateway.pid)))
            if records // SAY_EACH > said:
                said = records // SAY_EACH
                bench.say(f"million: {records:,} records, RSS {samples[-1].rss_mb:.1f} MB")
        took_s = time.monotonic() - started_s
        clean = cleanliness(stage.subscriber)
    first = next(sample for sample in samples if sample.records >= early)
    return _findings(first, samples, took_s, clean)


def _findings(first: Sample, samples: list[Sample], took_s: float, clean: dict[str, object]) -> Findings:
    last = samples[-1]
    grown_mb = last.rss_mb - first.rss_mb
    opened = last.descriptors - first.descriptors
    rows = [
        Row(
            f"memory over {last.records:,} records",
            f"{first.rss_mb:.1f} MB after {first.records:,}, {last.rss_mb:.1f} MB at the end, highest "
            f"{max(sample.rss_mb for sample in samples):.1f}; {took_s:.0f} s; {clean['wrong']} wrong",
            MEMORY,
            grown_mb,
        ),
        Row("descriptors", f"{first.descriptors}, {last.descriptors} at the end", DESCRIPTORS, opened),
    ]
    curve = [(float(sample.records), sample.rss_mb) for sample in samples]
    picture = plot("Memory over a million records", [Series("RSS", curve)], "records", "MB")
    figures = {"first": first._asdict(), "last": last._asdict(), "took_s": took_s, "clean": clean}
    return Findings(rows, figures, {"memory-over-records": picture})
