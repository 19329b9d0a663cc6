"""The sources of a node as it carries them: without what it does not use, and with short names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from bega_firmware.bytecode import without_types
from bega_firmware.shake import shake
from bega_firmware.shorten import shorten


def lean(
    texts: Mapping[str, str], theirs: Collection[str], data: Mapping[str, bytes]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the sources, by path on the node; and by path what the short names in it stand for.

    theirs: paths of sources that are not ours, and stay as they are; data: the other files, whose words count as used.
    """
    words = {word for content in data.values() for word in re.findall(r"\w+", content.decode())}
    words |= {word for path in theirs for word in re.findall(r"\w+", texts[path])}
    ours = shake({path: without_types(text) for path, text in texts.items() if path not in theirs}, words)
    short, names = shorten(ours, words)
    return {**short, **{path: texts[path] for path in theirs}}, names
