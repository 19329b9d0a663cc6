"""Rolling out: what is asked of the gateway that runs on this machine (bega/control_socket.py)."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from bega.clock import wall_ms
from bega.control_socket import ask_update
from bega.update_bundle import UNSIGNED
from bega_firmware.update_make import read_bundle
from bega_protocols.errors import ConfigError

STATE = Path("/var/lib/bega")


def add_to(verbs: Any) -> None:
    """Add what the gateway is asked to `bega update`."""
    publisher = _add(verbs, "publish", publish, "have this gateway roll a bundle out to its nodes")
    publisher.add_argument("bundle", type=Path, metavar="BUNDLE")
    publisher.add_argument("--node", action="append", metavar="NODE", help="only to this one (default: to all)")
    publisher.add_argument("--canary", action="append", metavar="NODE", help="goes first (default: as configured)")
    publisher.add_argument("--at-once", type=int, metavar="N", help="nodes that load or try at a time")
    publisher.add_argument("--failures-percent", type=int, metavar="N", help="of a ring, beyond which it stops")
    _add(verbs, "status", status, "say how far each update is; exit code 1 if one has stopped")
    _add_hardware(_add(verbs, "stop", stop, "offer an update to nobody any more"))
    resumer = _add(verbs, "resume", resume, "go on with an update that stopped; what failed so far is forgiven")
    resumer.add_argument("--failures-percent", type=int, metavar="N", help="from now on")
    _add_hardware(resumer)
    goer = _add(verbs, "rollback", rollback, "have nodes go back to the version before, and offer this one to nobody")
    goer.add_argument("--node", action="append", metavar="NODE", help="only this one (default: all that have it)")
    _add_hardware(goer)


def publish(args: argparse.Namespace) -> int:
    """Check a bundle, and hand it to the gateway."""
    bundle = read_bundle(args.bundle)
    if not bundle.signature:
        raise ConfigError(f"{args.bundle}: {UNSIGNED} {args.bundle} --key FILE")
    if bundle.manifest["expires"] <= wall_ms() // 1000:
        raise ConfigError(f"{args.bundle}: it has expired: bega update sign {args.bundle} --key FILE")
    asked = {
        "nodes": args.node,
        "canary": args.canary,
        "at_once": args.at_once,
        "failures_percent": args.failures_percent,
    }
    return _ask(args, "publish", asked, args.bundle.read_bytes())


def status(args: argparse.Namespace) -> int:
    """Print how far each update is, node by node where there is something to say."""
    answer = ask_update(_state(args), {"do": "status"})
    if args.json:
        print(json.dumps(answer["updates"]))
    else:
        print("\n".join(answer["said"]) or "nothing was published on this gateway")
    return 1 if any(update["state"] == "stopped" for update in answer["updates"]) else 0


def stop(args: argparse.Namespace) -> int:
    """Have the gateway offer an update to nobody any more."""
    return _ask(args, "stop", {"hardware": args.hardware})


def resume(args: argparse.Namespace) -> int:
    """Have the gateway go on."""
    return _ask(args, "resume", {"hardware": args.hardware, "failures_percent": args.failures_percent})


def rollback(args: argparse.Namespace) -> int:
    """Have nodes go back."""
    return _ask(args, "rollback", {"hardware": args.hardware, "nodes": args.node})


def _add(verbs: Any, name: str, verb: Any, purpose: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=purpose, description=purpose)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="the gateway's configuration, for its state_dir")
    where.add_argument("--state", type=Path, metavar="DIR", help=f"its state_dir itself (default: {STATE})")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(command=verb)
    return parser


def _add_hardware(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hardware", metavar="BOARD", help="which update, where there are several")


def _ask(args: argparse.Namespace, do: str, asked: dict[str, Any], octets: bytes = b"") -> int:
    question = {key: value for key, value in asked.items() if value is not None}
    answer = ask_update(_state(args), {"do": do, **question}, octets)
    print(json.dumps(answer) if args.json else "\n".join(answer["said"]))
    return 0


def _state(args: argparse.Namespace) -> Path:
    """Return where the gateway's state lies."""
    if args.config is None:
        return args.state or STATE
    try:
        whole = tomllib.loads(args.config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{args.config}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{args.config} is no TOML ({error}): bega gateway check --config {args.config}") from None
    gateway = whole.get("gateway")
    state = gateway.get("state_dir", str(STATE)) if isinstance(gateway, dict) else str(STATE)
    return Path(str(state))
