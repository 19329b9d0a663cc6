"""A readout of an electricity meter with an optical head -> readings and texts.

Spec: IEC 62056-21 (data sets: code, value, "*" and unit), codes as in obis.py.
bega_protocols/iec62056.py says how sure that is.
"""

from bega_protocols.iec62056 import Readout, data_lines
from bega_protocols.obis import electricity, reading
from bega_protocols.reading import Reading

TEXTS = 64  # data sets that are kept as text: a readout of fifteen months has several hundred
CODE_SIZE = 24
TEXT_SIZE = 80

_ELECTRICITY = ("", "1-0", "1-1")  # medium and channel: EDIS leaves them out, some meters print 1-1


def decode(readout: Readout) -> "tuple[list[Reading], dict[str, str]]":
    """Return the readings in the order of the readout, and the texts by code.

    A data set that gives no reading is a text under its own code, up to TEXTS
    of them; all of them are counted in `left_out`. Values of the past (F.E.D*01,
    &01) are only counted. The first of two sets with one code counts.
    """
    readings: list[Reading] = []
    texts = {"identification": readout.name} if readout.name else {}
    seen = set()
    left_out = 0
    for code, values in data_lines(readout.text):
        register = _register(code)
        found = reading(register[0], register[1], values[0]) if register and len(values) == 1 else None
        if found is not None and register not in seen:
            seen.add(register)
            readings.append(found)
            continue
        left_out += 1
        if _is_of_now(code) and code not in texts and len(texts) <= TEXTS:
            texts[code] = " ".join(values)[:TEXT_SIZE]
    if left_out:
        texts["left_out"] = str(left_out)
    return readings, texts


def _register(code: str) -> "tuple[str, str] | None":
    channel, colon, register = code.rpartition(":")
    if bool(colon) != bool(channel) or channel not in _ELECTRICITY:
        return None
    return electricity(register)


def _is_of_now(code: str) -> bool:
    """A garbled line has no code; a value of the past, told without its time, says nothing of now."""
    return 0 < len(code) <= CODE_SIZE and "*" not in code and "&" not in code
