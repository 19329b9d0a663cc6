"""`bega node label`: the label of a node, as a picture and as what label printers take."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bega.clock import Clock, wall_ms
from bega.identity import require_device_id
from bega_firmware.board import board_names, read_board
from bega_firmware.book import LABELLED, note, read
from bega_firmware.data_folder import data_folder
from bega_firmware.nodes_list import Row, rows
from bega_protocols.errors import ConfigError

PURPOSE = "draw a node's label: PNG, ZPL and Brother QL raster, with a QR code"
EXAMPLES = """examples:
  bega node label air-7
  bega node label air-7 --dpi 203 --size 57x32 --out labels
  cat labels/label-air-7.ql > /dev/usb/lp0             a Brother QL with 62 x 29 mm labels
  nc -N printer.local 9100 < labels/label-air-7.zpl    a Zebra, or whoever speaks ZPL

The QR code holds `bega:ID?firmware=VERSION` and nothing else. What is not said by an option is taken from the bench
book, which knows what was flashed and provisioned here. --site is what the label calls the place."""
FOLDER = "labels"
SIZE = re.compile(r"([1-9][0-9]{1,2})x([1-9][0-9]{1,2})")
MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")
VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}")
DEFAULT_SIZE_MM = (62, 29)
SUPPORT_YEARS = 5  # Regulation (EU) 2024/2847, article 13(8): the least, where use is not expected to be shorter


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "label",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", help="the node's id")
    parser.add_argument("--site", default="", metavar="S", help="the place, in words")
    parser.add_argument("--board", default="", metavar="BOARD", help=f"one of {', '.join(board_names())}")
    parser.add_argument("--firmware", default="", metavar="VERSION", help="the version with which it leaves the bench")
    parser.add_argument(
        "--support-until",
        default="",
        metavar="YYYY-MM",
        help=f"the last month in which it is mended (default: {SUPPORT_YEARS} years from now)",
    )
    parser.add_argument("--size", type=_size_mm, default=DEFAULT_SIZE_MM, metavar="WxH", help="in mm (default: 62x29)")
    parser.add_argument("--dpi", type=int, choices=(203, 300, 600), default=300, help="of the printer (default: 300)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: labels in the data folder)")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Draw, write, note, and say what came out."""
    known = _known(args.id)
    folder = args.out or data_folder() / FOLDER
    board = args.board or known.board
    facts = make_label(
        folder,
        args.id,
        firmware=args.firmware or known.firmware,
        site=args.site or known.site,
        board=read_board(board).name if board in board_names() else board,
        support_until=args.support_until,
        size_mm=args.size,
        dpi=args.dpi,
    )
    complaint = note(data_folder(), LABELLED, True, facts["files"][0], node=args.id)
    for sentence in [*facts["complaints"], *([complaint] if complaint else [])]:
        print(f"bega node label: {sentence}", file=sys.stderr)
    print(json.dumps(facts, ensure_ascii=False) if args.json else "\n".join(facts["files"]))
    if not args.json and not args.support_until:
        print(
            f"support until {facts['support_until']}: {SUPPORT_YEARS} years, the law's least; --support-until says more"
        )
    return 0


def make_label(
    folder: Path,
    node: str,
    *,
    firmware: str,
    site: str = "",
    board: str = "",
    support_until: str = "",
    size_mm: tuple[int, int] = DEFAULT_SIZE_MM,
    dpi: int = 300,
    clock: Clock = wall_ms,
) -> dict[str, Any]:
    """Write a label into `folder`; return what is on it, the files, and what could not be as it was asked for.

    Raises ConfigError.
    """
    from bega_firmware.label_image import Label, draw
    from bega_firmware.label_raster import brother_ql, zpl

    require_device_id(node)
    if not VERSION.fullmatch(firmware):
        raise ConfigError(f"{firmware!r} is no version, and the bench book knows none of {node}: name it by --firmware")
    label = Label(
        node, firmware, support_month(support_until, clock), *(" ".join(text.split()) for text in (site, board))
    )
    drawn = draw(label, *size_mm, dpi)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"label-{node}.{ending}" for ending in ("png", "zpl")]
    drawn.image.save(files[0], dpi=(dpi, dpi))
    files[1].write_bytes(zpl(drawn))
    try:
        raster = brother_ql(drawn, *size_mm)
    except ConfigError:  # not a size or resolution of theirs: the others are there
        (folder / f"label-{node}.ql").unlink(missing_ok=True)  # of an earlier size
    else:
        files.append(folder / f"label-{node}.ql")
        files[2].write_bytes(raster)
    return {
        "node": node,
        "site": label.site,
        "board": label.board,
        "firmware": firmware,
        "support_until": label.support_until,
        "qr": label.qr_text,
        "size_mm": list(size_mm),
        "dpi": dpi,
        "files": [str(path) for path in files],
        "complaints": drawn.complaints,
    }


def support_month(asked: str, clock: Clock = wall_ms) -> str:
    """Return the month in which support ends: as asked, else the law's least from now. Raises ConfigError."""
    now = datetime.fromtimestamp(clock() / 1000, UTC)
    if not asked:
        return f"{now.year + SUPPORT_YEARS}-{now.month:02d}"
    if not MONTH.fullmatch(asked):
        raise ConfigError(f"--support-until {asked}: write a year and a month, as in {now.year + SUPPORT_YEARS}-06")
    if asked < f"{now:%Y-%m}":
        raise ConfigError(f"--support-until {asked} is over: this machine's clock shows {now:%Y-%m-%d}")
    return asked


def _known(node: str) -> Row:
    """Return what the bench book knows of a node; a book that cannot be read is no reason to have no label."""
    try:
        found = [row for row in rows(read(data_folder())[0]) if row.node == node]
    except ConfigError as error:
        print(f"bega node label: {error}", file=sys.stderr)
        found = []
    return found[0] if found else Row()


def _size_mm(text: str) -> tuple[int, int]:
    size = SIZE.fullmatch(text)
    if size is None or int(size[1]) > 210 or int(size[2]) > 297:
        raise argparse.ArgumentTypeError(f"{text}: write width x height in mm, as in 62x29")
    return int(size[1]), int(size[2])
