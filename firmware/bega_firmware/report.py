"""The report of a setup or a test: report.html for people, in one file that prints on A4, and report.json for machines.

Words first: whether the node is ready, what is wrong and what to do; then every step, and what was seen in detail.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bega.look import STATIC
from bega_firmware import book
from bega_firmware.outcome import Outcome, as_facts
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from markupsafe import Markup

HTML, JSON = "report.html", "report.json"
REPORTS = "reports"  # in the data folder; a folder for each node
FORM = 1  # of the JSON: raised when a key changes its meaning
BENCH, ON_SITE = "on the bench, not on site", "on site"
HIDDEN = "(a secret, left out)"
COMMAND = re.compile(r"`([^`\n]+)`")
FONT = re.compile(r"url\(\"fonts/([a-z0-9-]+\.woff2)\"\)")


@dataclass(frozen=True)
class Report:
    """What was done to one node, and what it proved. No word of it is a secret."""

    kind: str  # "setup" or "test"
    at_ms: int  # Unix time of its end
    outcomes: tuple[Outcome, ...]
    node: str = ""
    site: str = ""
    proved: str = ""  # BENCH, ON_SITE, or '' if nothing was tested
    board: str = ""
    chip: str = ""
    mac: str = ""
    port: str = ""
    firmware: str = ""
    interpreter: str = ""
    support_until: str = ""
    took_s: float = 0.0
    notes: tuple[str, ...] = ()  # sentences that whoever takes the node over must know
    label: bytes = b""  # its PNG
    details: tuple[tuple[str, str], ...] = ()  # (heading, text), folded

    @property
    def is_well(self) -> bool:
        """Whether nothing went wrong."""
        return all(outcome.passed is not False for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """Return the first sentence."""
        who = self.node or "This board"
        wrong = sum(outcome.passed is False for outcome in self.outcomes)
        left = sum(outcome.passed is None for outcome in self.outcomes)
        if wrong:
            return f"{who} is not ready: {wrong} of {len(self.outcomes)} steps went wrong."
        if not self.proved:
            return f"{who}: nothing was tested."
        if left:
            return f"{who}: nothing went wrong, and {left} of {len(self.outcomes)} steps could not be proved."
        return f"{who} is ready: proved {self.proved}."


def folder_of(data: Path, node: str, port: str) -> Path:
    """Return where the reports of `node` lie in the data folder; of a board without a name by its port."""
    return data / REPORTS / (node or f"at-{book.port_name(port).replace('/', '-')}")


def write(report: Report, folder: Path, secrets: Collection[str] = ()) -> Path:
    """Write report.html and report.json into `folder`, in place of earlier ones; return the first.

    secrets: texts that must not stand in it, whoever said them (a board's console, a broker): they are left out.
    Raises ConfigError if the folder cannot be written.
    """
    clean = _without(report, [secret for secret in secrets if secret])
    pages = {HTML: html(clean), JSON: json.dumps(facts(clean), ensure_ascii=False, indent=1) + "\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            part = folder / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(folder / name)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written into {folder} ({error.strerror}): name another folder"
        ) from None
    return folder / HTML


def facts(report: Report) -> dict[str, Any]:
    """Return the report as JSON takes it, without the label's picture."""
    found = asdict(report) | {"steps": as_facts(report.outcomes), "took_s": round(report.took_s, 3)}
    found["details"] = dict(report.details)
    del found["outcomes"], found["label"]
    return {"form": FORM, "is_well": report.is_well, "verdict": report.verdict, **found}


def html(report: Report) -> str:
    """Return the page: one file, with its fonts and the label in it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bega_firmware", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["in_words"] = _in_words
    return environment.get_template("report.html").render(
        report=report,
        look=_look(),
        label=base64.b64encode(report.label).decode(),
        at=datetime.fromtimestamp(report.at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        wrong=[outcome for outcome in report.outcomes if outcome.passed is False],
        left=[outcome for outcome in report.outcomes if outcome.passed is None],
        known=[(term, words) for term, words in _known(report) if words],
    )


def _known(report: Report) -> list[tuple[str, str]]:
    took = f"{report.took_s:.0f} s" if report.took_s else ""
    return [
        ("Node", report.node),
        ("Site", report.site),
        ("Board", report.board),
        ("Chip", report.chip),
        ("MAC address", report.mac),
        ("Firmware", report.firmware),
        ("Interpreter", report.interpreter),
        ("Support until", report.support_until),
        ("Port", report.port),
        ("Took", took),
    ]


def _in_words(text: str) -> Markup:
    """Return a sentence as HTML, its `commands` as such."""
    from markupsafe import Markup, escape

    return Markup(COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped before)


def _look() -> str:
    """Return look.css with its fonts in it."""

    def embedded(match: re.Match[str]) -> str:
        content = (STATIC / "fonts" / match[1]).read_bytes()
        return f'url("data:font/woff2;base64,{base64.b64encode(content).decode()}")'

    return FONT.sub(embedded, (STATIC / "look.css").read_text(encoding="utf-8"))


def _without(report: Report, secrets: list[str]) -> Report:
    def clean(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    return replace(
        report,
        notes=tuple(clean(note) for note in report.notes),
        details=tuple((clean(heading), clean(text)) for heading, text in report.details),
        outcomes=tuple(
            replace(one, step=clean(one.step), words=clean(one.words), what_to_do=clean(one.what_to_do))
            for one in report.outcomes
        ),
    )
