"""Fuzz one target with atheris: python -m tests.fuzz.fuzz TARGET SECONDS FOLDER

FOLDER takes the corpus and what crashed. Ends with 0 after SECONDS, with another code at the first input that raises;
the last line is then the input in hex, to be put into found.json.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bega_protocols"]):
    from bega.devices import device_names, driver_class
    from tests.fuzz.parsers import seeds, target

    if sys.argv[1] in device_names():
        driver_class(sys.argv[1])  # imported now, so that its branches are counted

LARGEST_INPUT = 1200
SLOWEST_S = 5  # one input; a parser whose work is not linear shows here


def main(name: str, seconds: str, folder: Path) -> None:
    """Fuzz until the time is over; does not return."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed{number}").write_bytes(seed[:LARGEST_INPUT])
    options = {
        "max_total_time": seconds,
        "max_len": LARGEST_INPUT,
        "timeout": SLOWEST_S,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    arguments = [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)]
    parse = target(name)

    def one(data: bytes) -> None:
        try:
            parse(data)
        except BaseException:
            print(f"input {data.hex()}", file=sys.stderr)
            raise

    atheris.Setup(arguments, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
