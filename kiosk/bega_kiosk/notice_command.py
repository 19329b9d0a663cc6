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
from bega_kiosk.notice_list import write_given
from bega_kiosk.notices import Effect, Notice, Reason, nonsense, write_notice
from bega_kiosk.signed import NO_SIGNATURE, new_key, read_private_key, read_public_keys
from bega_protocols.errors import ConfigError, WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bega.service import Verbs
    from bega_kiosk import notice_desk

WHEN = "%Y-%m-%d %H:%M"
EXAMPLES = """examples:
  bega kiosk notice publish --key city.key --desk http://desk:8090 --city timisoara --effect water_stop \\
    --street "Strada George Ardelean" --district Circumvalațiunii \\
    --from "2026-11-25 08:00" --until "2026-11-25 16:00" --reason connection --who Aquatim
  bega kiosk notice withdraw --key city.key --desk http://desk:8090 --city timisoara water-1795000000-3f2a
  bega kiosk notice confirm --key city.key --desk http://desk:8090 --city timisoara
  a desk without a network: what it gives out goes to a file there, what is signed is carried back
    curl -o known.json http://127.0.0.1:8090/public/v1/notices
    bega kiosk notice confirm --key city.key --city timisoara --known known.json --out signed.json
    curl --data-binary @signed.json http://127.0.0.1:8090/v1/notices"""


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


def confirm(args: argparse.Namespace) -> int:
    """Say that the list at the desk is all that holds now: it is signed anew, so that kiosks go on believing it."""
    return _hand_over(args, None)


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
    said = doing.add_parser("confirm", help="say that the list is still all that holds", description=confirm.__doc__)
    _add_way(said)
    said.set_defaults(command=confirm)


def _add_way(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the city's private key")
    parser.add_argument("--city", required=True, help="as in the kiosks' configuration")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--desk", metavar="URL", help="where the desk is")
    way.add_argument("--out", type=Path, metavar="FILE", help="write what the desk is to be handed instead")
    parser.add_argument("--known", type=Path, metavar="FILE", help="with --out: what the desk gives out now")
    parser.add_argument(
        "--city-key", type=Path, action="append", default=[], metavar="FILE", help="public key of who else publishes"
    )
    parser.add_argument(
        "--restored", action="store_true", help="the desk came back from a backup: go on from the older list it has"
    )


def _notice(said: dict[str, Any]) -> Notice:
    try:
        return msgspec.convert(said, Notice)
    except msgspec.ValidationError as error:
        raise ConfigError(f"this is no notice: {error}") from None


def _hand_over(args: argparse.Namespace, notice: Notice | None) -> int:
    """Sign the list with this change, and hand it to the desk; with no notice the list as it is."""
    from bega_kiosk import notice_desk  # what speaks HTTP costs time: only where something is published

    key = read_private_key(args.key)
    for _ in range(notice_desk.TRIES):
        keys = [key.public_key(), *read_public_keys(args.city_key)]
        known = _known(args, keys)
        messages = [write_notice(key, notice)] if notice else []
        if notice and notice.is_withdrawn:
            _require_shown(notice, known)
            del known.notices[notice.id]
        elif notice:
            known.notices[notice.id] = (notice, messages[0])
        now_ms = wall_ms()
        try:
            number, listed = notice_desk.next_list(key, args.city, known, notice_desk.last_number(args.key), now_ms)
        except WireError as error:
            raise ConfigError(f"{error.why}; withdraw one first") from None
        try:
            notice_desk.require_taken(keys, args.city, messages, listed)
        except WireError as error:
            raise ConfigError(f"no desk would take this: {error.why}; nothing was published") from None
        if _give(args, write_given(messages, listed)):
            notice_desk.note_number(args.key, number)
            print(notice.id if notice else _list_in_words(number, known, now_ms))
            return 0
    raise ConfigError("others publish at the same time, three times in a row; nothing was published, try again")


def _known(args: argparse.Namespace, keys: list[Ed25519PublicKey]) -> notice_desk.Known:
    """Return what holds now; raises ConfigError where that is an older list than the last one signed here."""
    from bega_kiosk import notice_desk

    last = notice_desk.last_number(args.key)
    if args.desk:
        source, body = args.desk, notice_desk.fetch_known(args.desk)
    elif args.known:
        source, body = str(args.known), _read(args.known)
    elif last:
        raise ConfigError(
            "--out needs --known: without the desk's list the other notices would be withdrawn; see --help"
        )
    else:
        return notice_desk.Known({}, None)  # the first of all
    try:
        known = notice_desk.read_known(keys, args.city, body)
    except WireError as error:
        other = "; if another key of the city signed it, name its .pub with --city-key" * (error.why == NO_SIGNATURE)
        raise ConfigError(f"{source}: {error.why}{other}; nothing was published") from None
    number = known.listed.number if known.listed else 0
    if number < last and not args.restored:
        raise ConfigError(
            f"{source} has list {number}, and list {last} was signed here: is it the right desk? Somebody may hold the "
            "newer list back; if the desk was restored from a backup, look at what it shows, then add --restored"
        )
    return known


def _require_shown(notice: Notice, known: notice_desk.Known) -> None:
    if notice.id not in known.notices:
        raise ConfigError(f"the desk shows no notice {notice.id}; is the id right? Nothing was withdrawn")


def _list_in_words(number: int, known: notice_desk.Known, now_ms: int) -> str:
    held = sorted(name for name, (notice, _) in known.notices.items() if not notice.is_over(now_ms))
    return "\n".join([f"list {number}: {len(held)} notices", *held])


def _give(args: argparse.Namespace, body: bytes) -> bool:
    """Hand it to the desk, or write it to the file; return whether it was taken."""
    from bega_kiosk import notice_desk

    if args.desk:
        return notice_desk.post(args.desk, body)
    try:
        args.out.write_bytes(body)
    except OSError as error:
        raise ConfigError(f"{args.out} cannot be written: {error.strerror}") from None
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _moment_ms(option: str, said: str, zone: ZoneInfo) -> int:
    try:
        naive = datetime.strptime(said, WHEN)  # noqa: DTZ007 - the zone comes next, and is checked
    except ValueError:
        raise ConfigError(f'{option} {said}: write a day and an hour, as in "2026-11-25 08:00"') from None
    at_ms = int(naive.replace(tzinfo=zone).timestamp() * 1000)
    if datetime.fromtimestamp(at_ms / 1000, zone).replace(tzinfo=None) != naive:
        raise ConfigError(f"{option} {said}: there is no such hour, the clocks go forward then")
    return at_ms
