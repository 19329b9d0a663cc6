"""An RS-485 segment with meters that frame by silence, as a process: counts what they saw, and misbehaves when told.

Started by the bench with `python -m bega_simulators.bench.bus`; asked on standard input, one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from bega_simulators.bench.numbered import NumberedMeter
from bega_simulators.hosts.rs485 import Rs485Segment


def answer(segment: Rs485Segment, meters: list[NumberedMeter], asked: dict[str, Any]) -> dict[str, Any]:
    """Do what the bench asks for; `take` returns the counts since the last one."""
    verb = asked["verb"]
    if verb == "noise":
        segment.bit_errors(asked["rate"])
    elif verb == "jam":
        segment.jam(asked["for_s"])
    elif verb == "late":
        segment.late(asked["unit"], asked["late_s"])
    elif verb == "drop":
        segment.drop(asked["unit"], asked["share"])
    elif verb == "times":
        return {"times_s": [list(meter.times_s) for meter in meters]}
    elif verb == "take":
        counts = segment.take_counts()
        gaps_s = sorted(counts.master_gaps_s)
        return {
            "answered": counts.answered,
            "collisions": counts.collisions,
            "glued": counts.glued,
            "busy_s": counts.busy_s,
            "too_early": sum(gap_s < segment.silence_s for gap_s in gaps_s),
            "median_gap_s": gaps_s[len(gaps_s) // 2] if gaps_s else 0.0,
            "silence_s": segment.silence_s,
        }
    return {}


def main(argv: list[str]) -> None:
    """Carry bytes until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baud", type=int, required=True)
    parser.add_argument("--meters", type=int, required=True)
    parser.add_argument("--floats", type=int, required=True)
    args = parser.parse_args(argv)
    meters = [NumberedMeter(number, args.floats, keeps_times=True) for number in range(args.meters)]
    with Rs485Segment({meter.meter + 1: meter for meter in meters}, args.baud) as segment:
        print(json.dumps({"port": segment.port}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(segment, meters, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
