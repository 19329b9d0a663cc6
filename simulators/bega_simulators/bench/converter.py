"""A converter with several meters behind one TCP connection, as a process: a silent one holds up the others.

Started by the bench with `python -m bega_simulators.bench.converter`; asked on standard input, one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from bega_simulators.bench.numbered import NumberedMeter
from bega_simulators.hosts.tcp import ModbusTcpServer


def answer(meters: list[NumberedMeter], asked: dict[str, Any]) -> dict[str, Any]:
    """Do what the bench asks for."""
    if asked["verb"] == "silence":
        meters[asked["meter"]].faults.add("silent")
    elif asked["verb"] == "wake":
        meters[asked["meter"]].faults.discard("silent")
    elif asked["verb"] == "times":
        return {"times_s": [list(meter.times_s) for meter in meters]}
    return {"reads": [meter.reads for meter in meters]}


async def main(argv: list[str]) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, required=True)
    parser.add_argument("--floats", type=int, required=True)
    parser.add_argument("--silence-s", type=float, required=True, help="how long it waits for a silent meter")
    args = parser.parse_args(argv)
    meters = [NumberedMeter(number, args.floats, keeps_times=True) for number in range(args.meters)]
    server = ModbusTcpServer({meter.meter + 1: meter for meter in meters})
    server.silence_s = args.silence_s
    print(json.dumps({"ports": [await server.start()]}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(answer(meters, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
