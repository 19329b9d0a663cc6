"""`bega kiosk key` and `bega kiosk notice`: the city's key, and what is published with it."""

from __future__ import annotations

import argparse
import secrets
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from bega.clock import wall_ms
from bega_kiosk.notices import Effect, Notice, Reason, nonsense, write_notice
from bega_kiosk.signed import new_key, read_private_key
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.service import Verbs

PUBLISH = "/v1/notices"
ANSWER_S = 10.0
WHEN = "%Y-%m-%d %H:%M"
EXAMPLES = """examples:
  bega kiosk notice publish --key city.key --desk http://desk:8090 --city timisoara --effect water_stop \\
    --street "Strada George Ardelean" --district Circumvalațiunii \\
    --from "2026-11-25 08:00" --until "2026-11-25 16:00" --reason connection --who Aquatim
  bega kiosk notice withdraw --key city.key --desk http://desk:8090 --city timisoara water-1795000000-3f2a"""


def key_new(args: argparse.Namespace) -> int:
    """Write a new key of the city, and say where its public part lies."""
    public = new_key(args.file)
    print(f"{args.file}: sign notices with it; it leaves this place on no network")
    print(f"{public}: goes to the desk (--city-key) and to every kiosk ([notices] keys)")
    return 0


def publish(args: argparse.Namespace) -> int:
    """Sign a notice and hand it to the desk, or write it to a file that somebody carries there."""
    zone = ZoneInfo("Europe/Bucharest")
    now_ms = wall_ms()
    kind = args.effect.partition("_")[0]
    said = {
        "id": args.id or f"{kind}-{now_ms // 1000}-{secrets.token_hex(2)}",
        "city": args.city,
        "published_ms": now_ms,
        "effect": args.effect,
        "streets": args.street,
        "districts": args.district,
        "from_ms": _moment_ms("--from", args.begins, zone),
        "until_ms": _moment_ms("--until", args.until, zone),
        "is_end_known": not args.end_unknown,
        "section_from": args.section[0] if args.section else None,
        "section_to": args.section[1] if args.section else None,
        "detour": args.detour,
        "lines": args.line,
        "reason": args.reason,
        "who": args.who,
        "can_walk": {"yes": True, "no": False, None: None}[args.walk],
        "is_example": args.example,
    }
    notice = _notice(said)
    if why := nonsense(notice) or ("it is over already" if notice.is_over(now_ms) else ""):
        raise ConfigError(f"this is no notice: {why}; look at --from and --until")
    return _hand_over(args, notice)


def withdraw(args: argparse.Namespace) -> int:
    """Take a notice back: from the next fetch on no kiosk shows it."""
    now_ms = wall_ms()
    said = {
        "id": args.id,
        "city": args.city,
        "published_ms": now_ms,
        "effect": "road_limited",
        "streets": ["-"],
        "from_ms": now_ms,
        "until_ms": now_ms + 300 * 86_400_000,  # it is kept as long as an old copy might come back
        "is_withdrawn": True,
    }
    return _hand_over(args, _notice(said))


def add_verbs(verbs: Verbs) -> None:
    """Add `key` and `notice` to the verbs of `bega kiosk`."""
    keys = verbs.add_parser("key", help="the key that the city signs with").add_subparsers(
        required=True, metavar="VERB"
    )
    new = keys.add_parser("new", help="make one", description=key_new.__doc__)
    new.add_argument("file", type=Path, metavar="FILE", help="the private key; the public one is FILE.pub")
    new.set_defaults(command=key_new)
    notice = verbs.add_parser(
        "notice",
        help="what is closed or cut off: publish it, or withdraw it",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doing = notice.add_subparsers(required=True, metavar="VERB")
    out = doing.add_parser("publish", help="sign a notice and hand it to the desk", description=publish.__doc__)
    _add_way(out)
    out.set_defaults(command=publish)
    out.add_argument("--effect", required=True, choices=get_args(Effect))
    out.add_argument("--street", required=True, action="append", help="once for each, as people say it: Strada Polonă")
    out.add_argument("--district", action="append", default=[], help="once for each")
    out.add_argument("--from", dest="begins", required=True, metavar="WHEN", help='"2026-11-25 08:00", Romanian time')
    out.add_argument("--until", required=True, metavar="WHEN", help="it is shown until then")
    out.add_argument("--end-unknown", action="store_true", help="say that nobody knows when it ends")
    out.add_argument("--section", nargs=2, metavar="STREET", help="only between these two")
    out.add_argument("--detour", action="append", default=[], metavar="STREET", help="the way round")
    out.add_argument("--line", action="append", default=[], help="of a bus or tram that goes another way")
    out.add_argument("--walk", choices=("yes", "no"), help="whether people on foot can pass")
    out.add_argument("--reason", choices=get_args(Reason))
    out.add_argument("--who", metavar="NAME", help="who does the work")
    out.add_argument("--example", action="store_true", help="kiosks say on the page that it is one")
    out.add_argument("--id", help="that of a notice to be put right; left out: a new one")
    back = doing.add_parser("withdraw", help="take a notice back", description=withdraw.__doc__)
    _add_way(back)
    back.add_argument("id", help="as `publish` printed it")
    back.set_defaults(command=withdraw)


def _add_way(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the city's private key")
    parser.add_argument("--city", required=True, help="as in the kiosks' configuration")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--desk", metavar="URL", help="where the desk is")
    way.add_argument("--out", type=Path, metavar="FILE", help="write the signed message instead")


def _notice(said: dict[str, Any]) -> Notice:
    try:
        return msgspec.convert(said, Notice)
    except msgspec.ValidationError as error:
        raise ConfigError(f"this is no notice: {error}") from None


def _hand_over(args: argparse.Namespace, notice: Notice) -> int:
    message = write_notice(read_private_key(args.key), notice)
    if args.out:
        try:
            args.out.write_bytes(message)
        except OSError as error:
            raise ConfigError(f"{args.out} cannot be written: {error.strerror}") from None
        print(notice.id)
        return 0
    was_shown = _post(args.desk.rstrip("/") + PUBLISH, message)
    print(notice.id)
    if notice.is_withdrawn and not was_shown:
        raise ConfigError(f"the desk showed no notice {notice.id}; is the id right? The withdrawal is kept there")
    return 0


def _post(url: str, message: bytes) -> bool:
    """Hand a message to the desk; return whether it showed a notice of the same id before."""
    import httpx

    try:
        answer = httpx.post(url, content=message, timeout=ANSWER_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"{url} does not answer ({error}); is the desk running? Nothing was published") from None
    if answer.status_code != httpx.codes.CREATED:
        raise ConfigError(f"{url} refuses it: {answer.text.strip()[:200] or answer.status_code}")
    return b'"was_shown":true' in answer.content.replace(b" ", b"")


def _moment_ms(option: str, said: str, zone: ZoneInfo) -> int:
    try:
        naive = datetime.strptime(said, WHEN)  # noqa: DTZ007 - the zone comes next, and is checked
    except ValueError:
        raise ConfigError(f'{option} {said}: write a day and an hour, as in "2026-11-25 08:00"') from None
    at_ms = int(naive.replace(tzinfo=zone).timestamp() * 1000)
    if datetime.fromtimestamp(at_ms / 1000, zone).replace(tzinfo=None) != naive:
        raise ConfigError(f"{option} {said}: there is no such hour, the clocks go forward then")
    return at_ms
