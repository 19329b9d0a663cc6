"""Findings as a configuration that `check` accepts and `run` uses, and as JSON."""

from __future__ import annotations

import json
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bega.devices import driver_class
from bega_protocols.reading import GOOD, Reading, decimal_text, ucum

if TYPE_CHECKING:
    from bega_gateway.scan.findings import Findings, FoundDevice, FoundLine

WIDE = 116
MOST_SHOWN = 8  # readings in a comment
HEAD = """\
# What `bega gateway scan` found on this machine, {when}. It is a beginning: give the names that
# people will read, say where records go (uplink) and who may see which device (audience).
# `bega gateway check --config THIS_FILE` names every problem in it; `bega gateway example` explains each table.

[gateway]
name = {name}    # the name in the gateway's certificate; part of every topic
city = "my-city"
state_dir = "/var/lib/bega"    # spool, boot number: what must survive a power cut

[uplink]
brokers = ["mqtt://127.0.0.1:1883"]   # yours; mqtts://host:8883 for anything but this machine, with
# ca_file = "/etc/bega/ca.pem"        # who signed the broker's certificate,
# cert_file = "/etc/bega/gw.pem"      # and who we are
# key_file = "/etc/bega/gw.key"
"""
AUDIENCE = """
# audience of a device: "operator" (the default) is the city's broker only, "public" reaches feed and kiosks, and
# whatever measures a household, a flat or a person is "personal". A meter that hangs in homes, and whatever was heard
# by Bluetooth, is taken for a household's here: say so if it is the city's.
"""


def configuration(findings: Findings, gateway: str, wall_ms: int) -> str:
    """Return the whole file. gateway: its name; wall_ms: when the scan was."""
    when = datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [HEAD.format(when=when, name=_value(gateway)), AUDIENCE]
    parts += [_line_table(line) for line in findings.found()]
    if findings.notes:
        parts.append("\n# Seen, and not in this file:\n")
        parts += [_comment(note) for note in findings.notes]
    return "".join(parts)


def as_json(findings: Findings) -> str:
    """Return the findings for programs; values are decimal texts, never through a float."""
    lines = [
        {
            "name": line.name,
            "kind": line.kind,
            "about": line.about,
            "table": line.table,
            "devices": [_device_facts(device) for device in line.devices],
        }
        for line in findings.found()
    ]
    return json.dumps({"lines": lines, "notes": findings.notes}, ensure_ascii=False, indent=2)


def shown(readings: list[Reading]) -> str:
    """Return the first of `readings` in words: "voltage l1 230.4 V, ...", those that the driver doubts marked."""
    in_doubt = [reading for reading in readings if reading.quality != GOOD]
    words = []
    for reading in readings[:MOST_SHOWN]:
        code = ucum(reading.quantity)
        unit = "" if code == "1" else f" {code}"  # UCUM's 1: a number without a unit
        name = f"{reading.quantity} {reading.part}".rstrip()
        doubt = " (doubtful)" if reading in in_doubt and len(in_doubt) < len(readings) else ""
        words.append(f"{name} {_number(reading)}{unit}{doubt}")
    more = len(readings) - MOST_SHOWN
    all_doubtful = "all doubtful: " if len(in_doubt) == len(readings) else ""
    return all_doubtful + ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _number(reading: Reading) -> str:
    """Return the number as a person reads it, without an exponent."""
    return decimal_text(reading.value * 10 ** max(0, reading.exp10), min(0, reading.exp10))


def _line_table(line: FoundLine) -> str:
    rows = [f"\n{_comment(line.about)}[lines.{line.name}]\n", f"kind = {_value(line.kind)}\n"]
    rows += [f"{key} = {_value(value)}\n" for key, value in line.table.items()]
    return "".join(rows) + "".join(_device_table(line, device) for device in line.devices)


def _device_table(line: FoundLine, device: FoundDevice) -> str:
    """Return the table of a device; one that cannot be read as it stands is there as a comment."""
    rows = [
        f"[devices.{device.name}]",
        f"line = {_value(line.name)}",
        f"driver = {_value(device.driver)}",
        f"every_s = {line.every_s:g}",
    ]
    if line.kind == "ble" or getattr(driver_class(device.driver), "is_households", False):  # nobody knows whose it is
        rows.append('audience = "personal"')
    if device.settings:
        rows.append(f"settings = {_value(device.settings)}")
    if device.lacks:
        rows = [f"# {row}" for row in rows]
    rows += [f"# settings = {_value(settings)}  # fits as well: compare with the label" for settings in device.fits_too]
    said = [device.heard, *(f"{name}: {text}" for name, text in sorted(device.attributes.items()))]
    comments = _comment("; ".join(filter(None, said)))
    if device.readings:
        comments += _comment(f"at the scan: {shown(device.readings)}")
    if device.lacks:
        comments += _comment(f"TODO, then take the # away: {device.lacks}")
    return f"\n{comments}" + "\n".join(rows) + "\n"


def _device_facts(device: FoundDevice) -> dict[str, Any]:
    return {
        "name": device.name,
        "driver": device.driver,
        "settings": device.settings,
        "heard": device.heard,
        "attributes": device.attributes,
        "fits_too": device.fits_too,
        "lacks": device.lacks,
        "readings": [
            {
                "quantity": reading.quantity,
                "part": reading.part,
                "value": decimal_text(reading.value, reading.exp10),
                "unit": ucum(reading.quantity),
                "quality": reading.quality,
            }
            for reading in device.readings
        ],
    }


def _value(value: Any) -> str:
    """Return `value` as TOML writes it; what JSON does not escape and TOML forbids (DEL) no device sends as a name."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "")


def _comment(text: str) -> str:
    """Return `text` as comments that fit a page: what a device says of itself may hold anything."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return "".join(f"# {row}\n" for row in textwrap.wrap(plain, WIDE, subsequent_indent="  "))
