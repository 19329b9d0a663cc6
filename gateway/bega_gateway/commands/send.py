"""`bega gateway command`: send a gateway a command over its broker, wait for the result, say it in words."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bega.clock import Clock, wall_ms
from bega_gateway.commands.ledger import LONGEST_AHEAD_S
from bega_gateway.commands.order import Refused, canonical, understand
from bega_protocols.errors import ConfigError
from bega_protocols.senml import is_name

if TYPE_CHECKING:
    from bega.mqtt import Session
    from bega.service import Verbs

AGAIN_S = 10.0  # with the same id, so that it is not done twice
PAUSE_S = 1.0  # before a lost connection is made anew
LATE_S = 5.0  # a result of what was begun in time may come so long after it has expired
LONGEST_WHOLE = 20  # characters of a number: what is longer is told to be none, as text
CLOCKS_APART_MS = 30_000  # beyond it the clocks may be why it was not taken

EXAMPLES = """examples:
  bega gateway command --broker mqtts://broker.city.example --gateway timisoara/gw-hall --ca-file ca.pem \\
      --cert-file me.pem --key-file me.key --sign-with private.pem write boiler setpoint 21.5
  bega gateway command --config /etc/bega/gateway.toml status
  bega gateway command --config gw.toml --id valve-7 --expires 1795300600 act valve close

The id and the expiry are printed first: whoever was cut off asks again with both, also when it has expired, and hears
what came of it; nothing is done twice.
Verbs, results and keys: docs/commands.md. Exit code: 0 done, 1 anything else."""

HEADS = {
    "done": "done",
    "failed": "failed",
    "refused": "refused, nothing was done",
    "expired": "expired, nothing was done",
    "unknown": "nobody knows whether it was done",
}


class Way(NamedTuple):
    """Where a gateway is reached."""

    broker: str
    root: str  # "city/<city>/<gateway>/"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class Letter(NamedTuple):
    """A command as it is sent, any number of times."""

    id: str
    expires_s: int
    topic: str
    payload: bytes


def add_command(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "command",
        help="send a gateway a command, and wait for what comes of it",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the gateway's configuration: broker, city and name"
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt://host:port or mqtts://host:port")
    parser.add_argument("--gateway", metavar="CITY/NAME", help="which gateway, as its configuration says")
    parser.add_argument("--ca-file", metavar="FILE", help="with mqtts: who signed the broker's certificate")
    parser.add_argument("--cert-file", metavar="FILE", help="with mqtts: our own certificate, and")
    parser.add_argument("--key-file", metavar="FILE", help="its key")
    parser.add_argument("--sign-with", type=Path, metavar="FILE", help="private Ed25519 key (PEM), where one is wanted")
    parser.add_argument("--id", metavar="TEXT", help="left out: one that nobody has used")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--expires-in", type=int, default=60, metavar="SECONDS", help="and wait so long (60)")
    until.add_argument("--expires", type=int, metavar="UNIX_SECONDS", help="the same as a time: to ask again")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_asked(parser)
    parser.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    """Return 0 if it was done."""
    way = _way(args)
    keys, id_, expires_s = _keys(args), _id(args), _expires_s(args)
    letter = written(way.root, args.asked, keys, id_, expires_s, args.sign_with)
    _said(f"id {id_}, expires {expires_s}; waiting for the result")
    result = asyncio.run(_result(way, letter))
    if result and (ledger := ledger_to_name(result)):
        _said("its ledger of commands was damaged and begun anew: once more, with the name of the new one")
        letter = written(way.root, args.asked, {**keys, "ledger": ledger}, id_, expires_s, args.sign_with)
        result = asyncio.run(_result(way, letter))
    if result is None:
        why = "the gateway is away, has no [commands], or the broker's access list lets us not publish there"
        raise ConfigError(f"no result: {why}. It may have been done if the way back is cut; it is not begun any more")
    print(json.dumps(result) if args.json else "\n".join(words(result, wall_ms())))
    return 0 if result["status"] == "done" else 1


def written(root: str, verb: str, keys: dict[str, Any], id_: str, expires_s: int, signer: Path | None) -> Letter:
    """Return a command, signed if `signer` names a private key; raises ConfigError if no gateway would understand."""
    topic = f"{root}cmd/{verb}"
    whole = {"id": id_, "expires": expires_s, **keys}
    if signer is not None:
        whole["sig"] = _signature(signer, canonical(topic, whole))
    payload = json.dumps(whole).encode()
    try:
        understand(f"{root}cmd/", topic, payload)
    except Refused as error:
        raise ConfigError(error.why) from None
    return Letter(id_, expires_s, topic, payload)


async def asked(way: Way, letter: Letter, now_ms: Clock, say: Callable[[str], object]) -> dict[str, Any] | None:
    """Send a command until its result has come; None if it has expired without one.

    say: is told what happens meanwhile. Raises bega.mqtt.SessionLost if the broker cannot be reached at first.
    """
    from bega import mqtt

    credentials = mqtt.Credentials(way.ca_file, way.cert_file, way.key_file)
    was_there = False
    try:
        async with asyncio.timeout(max(0.0, letter.expires_s - now_ms() / 1000) + LATE_S):
            while True:
                try:
                    name = f"command-{secrets.token_hex(4)}"  # not the certificate's: that one may be connected
                    async with mqtt.connect(way.broker, name, credentials, keep=False) as session:
                        await session.subscribe(f"{way.root}result")
                        was_there = True
                        return await _answered(session, letter, now_ms, say)
                except mqtt.SessionLost as error:
                    if not was_there:
                        raise
                    say(f"{error}; once more")
                    await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        return None


def words(result: dict[str, Any], now_ms: int) -> list[str]:
    """Return what a result says, a line each; nothing of it is believed to be fit for a terminal."""
    status, reason = result["status"], result.get("reason")
    said = [HEADS[status] + (f": {_plain(reason)}" if reason else "")]
    facts = result.get("result")
    for key, value in facts.items() if isinstance(facts, dict) else ():
        said.append(f"  {_plain(key)}: {_plain(value if isinstance(value, str) else json.dumps(value))}")
    if result.get("repeated"):
        said.append("it was begun before; this is what came of it then")
    time_ms = result.get("time_ms")
    apart_ms = time_ms - now_ms if type(time_ms) is int and not result.get("repeated") else 0
    if status in ("expired", "refused") and abs(apart_ms) > CLOCKS_APART_MS:
        said.append(f"its clock is {abs(apart_ms) // 1000} s {'ahead of' if apart_ms > 0 else 'behind'} ours")
    return said


def ledger_to_name(result: dict[str, Any]) -> str:
    """Return the ledger that a refused command must name to be taken, '' if it was not for that."""
    facts = result.get("result")
    ledger = facts.get("ledger") if result["status"] == "refused" and isinstance(facts, dict) else None
    return ledger if isinstance(ledger, str) else ""


async def _answered(session: Session, letter: Letter, now_ms: Clock, say: Callable[[str], object]) -> dict[str, Any]:
    sender = asyncio.create_task(_send(session, letter, now_ms))
    listener = asyncio.create_task(_heard(session, letter.id, say))
    try:
        await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            sender.result()
        return await listener
    finally:
        sender.cancel()
        listener.cancel()
        await asyncio.gather(sender, listener, return_exceptions=True)


async def _send(session: Session, letter: Letter, now_ms: Clock) -> None:
    """Send it again and again: what a gateway had received when its power went is gone.

    One that has expired is sent too, once a connection: nothing is begun for it, and what came of it is said.
    """
    await session.publish(letter.topic, letter.payload)
    while now_ms() < 1000 * letter.expires_s:
        await asyncio.sleep(AGAIN_S)
        await session.publish(letter.topic, letter.payload)


async def _heard(session: Session, id_: str, say: Callable[[str], object]) -> dict[str, Any]:
    """Return the result that ends it; what only says that it comes, or that there is too much to do, does not."""
    async for message in session.messages():
        result = _object(message.payload)
        status, reason = result.get("status"), result.get("reason")
        if result.get("id") != id_:
            continue
        if status == "begun" or (status == "refused" and str(reason).startswith("busy")):
            say(_plain(reason or status))
        elif isinstance(status, str) and status in HEADS:
            return result
    raise AssertionError("messages end with SessionLost")


async def _result(way: Way, letter: Letter) -> dict[str, Any] | None:
    from bega.mqtt import SessionLost

    try:
        return await asked(way, letter, wall_ms, _said)
    except SessionLost as error:
        raise ConfigError(f"{way.broker}: {error}; nothing was sent") from None


def _object(payload: bytes) -> dict[str, Any]:
    try:
        whole = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return whole if isinstance(whole, dict) else {}


def _signature(file: Path, signed: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise ConfigError(f"--sign-with {file} cannot be used ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"--sign-with {file} holds no Ed25519 key")
    return key.sign(signed).hex()


def _way(args: argparse.Namespace) -> Way:
    """Return where the gateway is reached: what the command line says goes before what its file says."""
    from bega_gateway.config.sense import broker_problems

    broker, name = args.broker, args.gateway
    files = {key: getattr(args, key) for key in ("ca_file", "cert_file", "key_file")}
    given = [key for key, file in files.items() if file]
    if args.config:
        from bega_gateway import config as settings

        config = settings.load(args.config)
        broker = broker or config.uplink.brokers[0]
        name = name or f"{config.gateway.city}/{config.gateway.name}"
        files = {key: file or getattr(config.uplink, key) for key, file in files.items()}
    if not broker or not name:
        raise ConfigError("say --broker and --gateway, or --config")
    if why := next((why for _, why in broker_problems("", broker)), ""):
        raise ConfigError(f"--broker {broker}: {why}")
    if given and not broker.startswith("mqtts://"):
        raise ConfigError(f"--{given[0].replace('_', '-')} is used with mqtts:// only, not with {broker}")
    if name.count("/") != 1 or not all(map(is_name, name.split("/"))):
        raise ConfigError(f"--gateway {name}: write CITY/NAME, as timisoara/gw-hall")
    return Way(broker, f"city/{name}/", **files)


def _id(args: argparse.Namespace) -> str:
    return args.id or f"{wall_ms() // 1000}-{secrets.token_hex(4)}"


def _expires_s(args: argparse.Namespace) -> int:
    now_s = wall_ms() // 1000
    expires_s: int = now_s + args.expires_in if args.expires is None else args.expires
    asks_what_came = args.id and args.expires is not None and 0 < expires_s <= now_s
    if not asks_what_came and not now_s < expires_s <= now_s + LONGEST_AHEAD_S:
        raise ConfigError("it must expire after now, and within 24 hours")
    return expires_s


def _add_asked(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="asked", required=True, metavar="WHAT")
    read = verbs.add_parser("read", help="measure a device now")
    read.add_argument("device")
    write = verbs.add_parser("write", help="set what [devices.DEVICE.writes.NAME] lists")
    for key in ("device", "name", "value"):
        write.add_argument(key)
    act = verbs.add_parser("act", help="have a device do one of its `actions`")
    act.add_argument("device")
    act.add_argument("action")
    act.add_argument("value", type=int, nargs="?")
    blink = verbs.add_parser("blink", help="let a light blink")
    blink.add_argument("--node", help="that of a node, not the gateway's")
    blink.add_argument("--for-s", type=int, default=10, metavar="SECONDS", help="1 to 60 (10)")
    restart = verbs.add_parser("restart_line", help="end a line and begin it anew")
    restart.add_argument("line")
    configure = verbs.add_parser("configure_node", help="hand a node its configuration")
    configure.add_argument("node")
    configure.add_argument("configuration", type=Path, metavar="FILE", help="a JSON object")
    anew = verbs.add_parser("restart_node", help="have a node start anew, out of its safe mode too")
    anew.add_argument("node")
    revoke = verbs.add_parser("revoke", help="have it go by a newer list of revoked certificates")
    revoke.add_argument("list", type=Path, metavar="FILE", help="as `bega ca revoke` wrote it")
    verbs.add_parser("status", help="a few figures of the gateway")


def _keys(args: argparse.Namespace) -> dict[str, Any]:
    """Return what stands beside id and expiry."""
    names = ("device", "name", "value", "action", "node", "for_s", "line", "configuration")
    keys = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    if args.asked == "write":
        keys["value"] = _value(args.value)
    if args.asked == "revoke":
        keys["list"] = _text_of(args.list)
    if args.asked == "configure_node":
        keys["configuration"] = _configuration(args.configuration)
    return keys


def _value(text: str) -> bool | int | str:
    """Return a value as commands write it: a number with a point stays text."""
    if text in ("true", "false"):
        return text == "true"
    is_whole = len(text) <= LONGEST_WHOLE and text.isascii() and text.removeprefix("-").isdecimal()
    return int(text) if is_whole else text


def _configuration(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _plain(said: Any) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(said))


def _said(text: str) -> None:
    print(f"... {text}", file=sys.stderr)
