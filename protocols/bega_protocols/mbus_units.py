"""M-Bus codes of unit and meaning: what a value information block says of its value.

Spec: EN 13757-3, value information field (VIF), its extensions (VIFE), tables
FB and FD. The tables hold what two decoders of meters in use agree on; a code
that is not in them has no name. No IO, no clock, no floats.
"""

TIMES = ("s", "min", "h", "d")  # by the lowest two bits of a code

# (first code, last code, meaning, unit, exponent of the first code); TIMES for the unit: it changes with the code
VIF = (
    (0x00, 0x07, "energy", "Wh", -3),
    (0x08, 0x0F, "energy", "J", 0),
    (0x10, 0x17, "volume", "m3", -6),
    (0x18, 0x1F, "mass", "kg", -3),
    (0x20, 0x23, "on time", TIMES, 0),
    (0x24, 0x27, "operating time", TIMES, 0),
    (0x28, 0x2F, "power", "W", -3),
    (0x30, 0x37, "power", "J/h", 0),
    (0x38, 0x3F, "volume flow", "m3/h", -6),
    (0x40, 0x47, "volume flow", "m3/min", -7),
    (0x48, 0x4F, "volume flow", "m3/s", -9),
    (0x50, 0x57, "mass flow", "kg/h", -3),
    (0x58, 0x5B, "flow temperature", "Cel", -3),
    (0x5C, 0x5F, "return temperature", "Cel", -3),
    (0x60, 0x63, "temperature difference", "K", -3),
    (0x64, 0x67, "external temperature", "Cel", -3),
    (0x68, 0x6B, "pressure", "bar", -3),
    (0x70, 0x73, "averaging duration", TIMES, 0),
    (0x74, 0x77, "actuality duration", TIMES, 0),
)
VIF_ALONE = {
    0x6C: "date",
    0x6D: "date and time",
    0x6E: "cost allocator units",
    0x78: "fabrication number",
    0x79: "enhanced identification",
    0x7A: "bus address",
    0x7E: "any",
}
DATE, DATE_TIME, PLAIN_TEXT, MAKERS = 0x6C, 0x6D, 0x7C, 0x7F
TABLE_FB, TABLE_FD = 0xFB, 0xFD

FB = (
    (0x00, 0x01, "energy", "Wh", 5),
    (0x08, 0x09, "energy", "J", 8),
    (0x10, 0x11, "volume", "m3", 2),
    (0x18, 0x19, "mass", "kg", 5),
    (0x28, 0x29, "power", "W", 5),
    (0x30, 0x31, "power", "J/h", 8),
    (0x58, 0x5B, "flow temperature", "[degF]", -3),
    (0x5C, 0x5F, "return temperature", "[degF]", -3),
    (0x60, 0x63, "temperature difference", "[degF]", -3),
    (0x64, 0x67, "external temperature", "[degF]", -3),
)
FD = (
    (0x00, 0x03, "credit", "", -3),
    (0x04, 0x07, "debit", "", -3),
    (0x24, 0x27, "storage interval", TIMES, 0),
    (0x2C, 0x2F, "time since readout", TIMES, 0),
    (0x31, 0x33, "duration of tariff", TIMES[1:], 0),
    (0x34, 0x37, "period of tariff", TIMES, 0),
    (0x40, 0x4F, "voltage", "V", -9),
    (0x50, 0x5F, "current", "A", -12),
    (0x68, 0x69, "time since cumulation", TIMES[2:], 0),
    (0x6C, 0x6D, "battery operating time", TIMES[2:], 0),
)
FD_ALONE = {
    0x08: "access number",
    0x09: "medium",
    0x0A: "maker",
    0x0B: "parameter set",
    0x0C: "model",
    0x0D: "hardware version",
    0x0E: "firmware version",
    0x0F: "software version",
    0x10: "customer location",
    0x11: "customer",
    0x17: "error flags",
    0x18: "error mask",
    0x1A: "digital output",
    0x1B: "digital input",
    0x1C: "baud rate",
    0x1D: "response delay",
    0x20: "first storage",
    0x21: "last storage",
    0x22: "storage size",
    0x28: "storage interval in months",
    0x29: "storage interval in years",
    0x30: "start of tariff",
    0x3A: "dimensionless",
    0x60: "reset counter",
    0x61: "cumulation counter",
    0x62: "control signal",
    0x63: "day of week",
    0x64: "week number",
    0x6E: "battery operating time in months",
    0x6F: "battery operating time in years",
    0x70: "battery changed",
    0x74: "battery days left",
}

# What a VIFE adds to what stands before it.
NOTES = {
    0x12: "average",
    0x1D: "standard conformant",
    0x39: "start of",
    0x3A: "uncorrected",
    0x3B: "forward",
    0x3C: "reverse",
    0x3E: "base conditions",
    0x3F: "obis",
    0x7E: "future",
}
PHASES = {0x01: "l1", 0x02: "l2", 0x03: "l3", 0x04: "n", 0x05: "l1-l2", 0x06: "l2-l3", 0x07: "l3-l1"}
PHASE_TABLE, THOUSAND, FACTORS, OFFSETS = 0x7C, 0x7D, 0x70, 0x78


def describe(vif: int, extensions: "list[int]") -> "tuple[str, str, int, tuple[str, ...]]":
    """Return (meaning, unit, exp10, notes) of a VIF and the codes behind it; meaning "" where no table has it."""
    code = vif & 0x7F
    if code == MAKERS:
        return "maker's own", "", 0, tuple(["%02X" % extension for extension in extensions])
    meaning, unit, exp10 = "", "", 0
    if vif == TABLE_FB:
        meaning, unit, exp10 = _meaning(extensions[0], FB, {})
        extensions = extensions[1:]
    elif vif == TABLE_FD:
        meaning, unit, exp10 = _meaning(extensions[0], FD, FD_ALONE)
        extensions = extensions[1:]
    elif code != PLAIN_TEXT:
        meaning, unit, exp10 = _meaning(code, VIF, VIF_ALONE)
    added, notes = _notes(extensions)
    return meaning, unit, exp10 + added, notes


def _meaning(
    code: int, rows: "tuple[tuple[int, int, str, str | tuple[str, ...], int], ...]", alone: "dict[int, str]"
) -> "tuple[str, str, int]":
    for first, last, meaning, unit, exp10 in rows:
        if first <= code <= last:
            if isinstance(unit, str):
                return meaning, unit, exp10 + code - first
            return meaning, unit[code - first], 0
    return alone.get(code, ""), "", 0


def _notes(extensions: "list[int]") -> "tuple[int, tuple[str, ...]]":
    """Return (power of ten to add, what else the VIFEs say)."""
    exp10 = 0
    notes: list[str] = []
    at = 0
    while at < len(extensions):
        code = extensions[at]
        at += 1
        if code == MAKERS:  # what follows is the maker's: it may mean anything
            notes.append("maker's own")
            break
        if FACTORS <= code < FACTORS + 8:
            exp10 += code - FACTORS - 6
        elif code == THOUSAND:
            exp10 += 3
        elif code == PHASE_TABLE and at < len(extensions):
            notes.append(PHASES.get(extensions[at], "7C %02X" % extensions[at]))
            at += 1
        else:
            notes.append(NOTES.get(code) or "%02X" % code)
    return exp10, tuple(notes)
