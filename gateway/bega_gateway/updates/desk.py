"""Hands bundles to nodes: offers them in a rollout's order, gives the pieces that are asked for, keeps what came of it.

Nothing here is on a record's way: a disk that takes nothing, or a bundle that is none, costs the update alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bega.clock import CLOCK_FLOOR_MS
from bega.mqtt import SessionLost
from bega.update_bundle import Bundle, check, read
from bega.update_keys import MOST_KEYS, modulus
from bega_gateway.lines.station import PERSONAL
from bega_gateway.updates import told
from bega_gateway.updates.rollout import ANSWER_MS, BY_HAND, EXPIRED, NO_BUNDLE, RINGS, Rollout, begun
from bega_gateway.updates.shelf import MOST_BOARDS, Shelf
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega_gateway.build import Clocks
    from bega_gateway.config import Config
    from bega_gateway.lines.node_said import Said
    from bega_gateway.updates.table import Updates as Table

log = logging.getLogger(__name__)

FOLDER = "updates"
LOOK_EVERY_S = 1.0
WRITE_AGAIN_S = 30.0  # what the disk did not take
LARGEST_PIECE = 2_048
LONGEST_WANT = 256  # bytes
LONGEST_REASON = 160
EXPIRES_IN_S = 300  # of a command; by then it was asked again under another number
MOST_AT_ONCE = 1_000
# What a node says for want of time or room, before it has looked at the command: asked again it may say yes.
NOT_YET = (
    "the node does not know the time",
    "expired",
    "it cannot be written down",
    "begun before a restart",
    "no room",
)


class Gateway(Protocol):
    """What updates need of it."""

    def config(self) -> Config:
        """Return the configuration that it runs by now."""

    def line(self, name: str) -> Any:
        """Return what drives a line; None if it does not run."""


class Updates:
    """Every rollout of one gateway, by the board that it is for. It outlives reloads."""

    def __init__(self, shelf: Shelf, table: Table, keys: list[bytes], clocks: Clocks) -> None:
        """Read what lies on the shelf."""
        self._shelf = shelf
        self._table = table
        self._keys = keys
        self._clocks = clocks
        self._gateway: Gateway | None = None
        self._bundles: dict[str, Bundle] = {bundle.hardware: bundle for bundle in shelf.bundles(keys)}
        self._rollouts: dict[str, Rollout] = {}
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()  # two that write one file at a time would take it from each other
        self._unwritten: set[str] = set()
        self._write_after_ms = 0
        self._seen: dict[str, dict[str, str]] = {}  # states of nodes by board, as they were logged
        self._said: dict[str, tuple[str, int]] = {}  # why it was stopped, and the ring, as they were logged
        for rollout in shelf.rollouts(clocks.mono_ms()):
            self._rollouts[rollout.hardware] = rollout
            self._want_bundle(rollout)
            self._seen[rollout.hardware] = {node: seat.state for node, seat in rollout.seats.items()}

    async def run(self, gateway: Gateway) -> None:
        """Offer and look, until cancelled."""
        self._gateway = gateway
        async with asyncio.TaskGroup() as tasks:
            while True:
                for rollout in list(self._rollouts.values()):
                    self._turn(rollout, tasks)
                await self._write()
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                self._changed.clear()

    def take(self, node: str, said: Said) -> None:
        """Take what a node says of itself."""
        now_ms, every_ms = self._clocks.mono_ms(), 1000 * said.send_every_s
        for rollout in self._rollouts.values():
            if rollout.take_status(node, said.firmware, said.hardware, said.update, every_ms, now_ms):
                self._note(rollout)
            self._changed.set()

    def piece(self, node: str, want: bytes, most: int) -> bytes | None:
        """Return the piece that `node` asks for, of at most `most` octets; None where it is to have none."""
        try:
            if len(want) > LONGEST_WANT:
                raise ValueError("too long")
            asked = json.loads(want)
            short, at, wanted = asked["sha256"], asked["at"], asked["most"]
            if type(at) is not int or type(wanted) is not int or not isinstance(short, str) or wanted < 1 or at < 0:
                raise ValueError("no want")
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        for rollout in self._rollouts.values():
            bundle = self._bundle_of(rollout)
            if bundle and bundle.sha256[:16] == short and rollout.may_pull(node) and at < len(bundle.payload):
                rollout.note_pull(node, at, len(bundle.payload), self._clocks.mono_ms())
                octets = bundle.payload[at : at + min(wanted, most, LARGEST_PIECE)]
                return bytes.fromhex(short) + struct.pack(">I", at) + octets
        return None

    def is_pulling(self, node: str) -> bool:
        """Return whether a node may ask for a piece."""
        return any(rollout.may_pull(node) and not rollout.is_over for rollout in self._rollouts.values())

    async def asked(self, question: dict[str, Any], octets: bytes) -> dict[str, Any]:
        """Do what somebody on this machine asks for, and return what there is to say; raises ConfigError."""
        verbs = {"stop": self._stop, "resume": self._resume, "rollback": self._go_back}
        do = question.pop("do", None)
        try:
            if do == "publish":
                said = await self._publish(octets, **question)
            elif do in verbs:
                rollout = self._named(question.pop("hardware", None))
                said = verbs[do](rollout, **question)
                said += await self._kept(rollout)
            elif do == "status":
                said = [line for rollout in self._rollouts.values() for line in told.words(rollout, self._quiet_ms)]
            else:
                raise ConfigError("this gateway does not know what is asked: is it of another release?")
        except TypeError:
            raise ConfigError("this gateway does not know what is asked: is it of another release?") from None
        except OSError as error:
            raise ConfigError(f"the disk takes nothing ({error.strerror}); nothing was changed") from None
        self._changed.set()
        return {"said": said, "updates": [told.facts(each, self._quiet_ms) for each in self._rollouts.values()]}

    def status(self) -> list[told.OfUpdate]:
        """Return how each rollout is."""
        return [told.of_rollout(rollout, self._quiet_ms) for rollout in self._rollouts.values()]

    async def _publish(
        self,
        octets: bytes,
        nodes: list[str] | None = None,
        canary: list[str] | None = None,
        at_once: int | None = None,
        failures_percent: int | None = None,
    ) -> list[str]:
        bundle = read(octets)
        check(bundle, self._keys, self._now_s())
        board, version = bundle.hardware, bundle.version
        before = self._rollouts.get(board)
        if before and before.version == version:
            if before.sha256 != bundle.sha256:
                raise ConfigError(f"another bundle of {version} for {board} was published: give this a higher version")
            if before.is_going_back:
                raise ConfigError(f"{version} was rolled back: give what mends it a higher version")
            await self._keep_bundle(bundle)
            before.renew(bundle.manifest["expires"])
            said = f"{version} for {board} is being rolled out already; it expires later now, if that was changed"
            return [said, *await self._kept(before)]
        if board not in self._rollouts and len(self._rollouts) >= MOST_BOARDS:
            raise ConfigError(f"this gateway has updates for {MOST_BOARDS} boards, and no room for more")
        rollout = begun(
            bundle.manifest,
            self._known(nodes, "to update") if nodes else self._nodes(),
            self._known(canary, "to go first") if canary else self._table.canary,
            _within(at_once, 1, MOST_AT_ONCE, "--at-once") or self._table.at_once,
            self._table.failures_percent
            if failures_percent is None
            else _within(failures_percent, 0, 100, "--failures-percent") or 0,
            self._clocks.mono_ms(),
        )
        if not rollout.seats:
            raise ConfigError("this gateway has no nodes")
        rollout.is_limited = bool(nodes)
        await self._keep_bundle(bundle)
        self._rollouts[board] = rollout
        self._seen[board] = {}
        forgotten = await self._kept(rollout)
        first = ", ".join(sorted(node for node, seat in rollout.seats.items() if seat.ring == 0))
        log.info("update published version=%s hardware=%s nodes=%d", version, board, len(rollout.seats))
        return [f"{version} for {board} goes to {len(rollout.seats)} nodes, first to {first}", *forgotten]

    def _stop(self, rollout: Rollout) -> list[str]:
        rollout.stop(BY_HAND)
        return [f"{rollout.version} for {rollout.hardware} is offered to nobody any more; resume goes on with it"]

    def _resume(self, rollout: Rollout, failures_percent: int | None = None) -> list[str]:
        if rollout.is_going_back:
            raise ConfigError(f"{rollout.version} was rolled back: give what mends it a higher version")
        if self._now_s() >= rollout.expires_s:
            raise ConfigError(EXPIRED)
        if self._bundle_of(rollout) is None:
            raise ConfigError(NO_BUNDLE)
        rollout.resume(_within(failures_percent, 0, 100, "--failures-percent"))
        return [f"{rollout.version} for {rollout.hardware} goes on; what failed so far is no reason to stop any more"]

    def _go_back(self, rollout: Rollout, nodes: list[str] | None = None) -> list[str]:
        chosen = self._known(nodes, "to go back") if nodes else list(rollout.seats)
        asked = rollout.go_back([node for node in chosen if node in rollout.seats], self._clocks.mono_ms())
        return [f"{len(asked)} nodes go back from {rollout.version}; it is offered to nobody any more"]

    def _named(self, hardware: Any) -> Rollout:
        """Return the rollout for a board; where there is but one, nobody need name it."""
        if hardware is None and len(self._rollouts) == 1:
            return next(iter(self._rollouts.values()))
        if hardware in self._rollouts:
            return self._rollouts[hardware]
        if not self._rollouts:
            raise ConfigError("nothing was published on this gateway")
        raise ConfigError(f"say with --hardware which update is meant; there are: {', '.join(sorted(self._rollouts))}")

    def _turn(self, rollout: Rollout, tasks: asyncio.TaskGroup) -> None:
        assert self._gateway
        now_ms = self._clocks.mono_ms()
        changed = rollout.know(self._nodes(), now_ms)
        self._want_bundle(rollout)
        changed |= rollout.look(now_ms, self._quiet_ms)
        now_s = self._now_s()
        due = rollout.due(now_ms, now_s, self._quiet_ms) if 1000 * now_s >= CLOCK_FLOOR_MS else []
        for node, verb in due:
            tasks.create_task(self._command(rollout, node, verb))
        if changed or due:
            self._note(rollout)
        self._log(rollout)

    async def _command(self, rollout: Rollout, node: str, verb: str) -> None:
        """Tell a node; a way that is down, or a node that says nothing, is met by the next turn."""
        assert self._gateway
        table, bundle = self._gateway.config().nodes.get(node), self._bundle_of(rollout)
        line = self._gateway.line(table.line) if table else None
        if line is None:
            return
        # A new one each time: a node gives the answer of an earlier one again, whatever has come of it since.
        id_ = f"{verb}-{rollout.sha256[:12]}-{secrets.token_hex(4)}"
        asked: dict[str, Any] = {"id": id_, "expires": self._now_s() + EXPIRES_IN_S}
        if verb == "update":
            if bundle is None:
                return
            asked |= {"manifest": bundle.text.decode(), "signature": base64.b64encode(bundle.signature).decode()}
        else:
            asked["version"] = rollout.version  # that it is to leave: told twice, it does not come back to it
        try:
            async with asyncio.timeout(ANSWER_MS / 1000):
                result = await line.command(node, verb, id_, json.dumps(asked).encode())
        except (TimeoutError, SessionLost):
            return
        reason = _plain(result.get("reason"))
        is_later = result.get("again") is True or reason.startswith(NOT_YET) or "ask again" in reason
        runs = f"version {rollout.version} runs already"
        is_so = reason == runs if verb == "update" else reason.endswith("runs already") and reason != runs
        is_done = result.get("done") is True or is_so
        rollout.take_answer(node, is_done, reason, is_later, self._clocks.mono_ms())
        self._note(rollout)

    def _note(self, rollout: Rollout) -> None:
        self._unwritten.add(rollout.hardware)
        self._changed.set()

    async def _write(self) -> None:
        """Write what changed; what the disk does not take is written later, since nodes say it again all the same."""
        if self._clocks.mono_ms() < self._write_after_ms:
            return
        for hardware in sorted(self._unwritten):
            try:
                await self._keep(self._rollouts[hardware])
            except OSError as error:
                log.error("update cannot be noted hardware=%s error=%s", hardware, error)
                self._write_after_ms = self._clocks.mono_ms() + round(1000 * WRITE_AGAIN_S)
                return

    async def _keep(self, rollout: Rollout) -> None:
        async with self._writing:
            self._unwritten.discard(rollout.hardware)
            try:
                text = msgspec.json.encode(rollout)
                await asyncio.to_thread(self._shelf.keep_rollout, rollout.hardware, text)
            except OSError:
                self._unwritten.add(rollout.hardware)
                raise

    async def _kept(self, rollout: Rollout) -> list[str]:
        """Keep what somebody asked for, which is so from now on; return what to say if it is not written yet."""
        try:
            await self._keep(rollout)
        except OSError as error:
            why = error.strerror or "it fails"
            return [f"the disk takes nothing ({why}): a gateway that restarts before it does knows nothing of this"]
        return []

    async def _keep_bundle(self, bundle: Bundle) -> None:
        async with self._writing:
            await asyncio.to_thread(self._shelf.keep_bundle, bundle)
        self._bundles[bundle.hardware] = bundle

    def _log(self, rollout: Rollout) -> None:
        seen = self._seen.setdefault(rollout.hardware, {})
        for node, seat in rollout.seats.items():
            if seat.state == seen.get(node, "waiting"):
                continue
            seen[node] = seat.state
            if seat.state in ("failed", "left out", "confirmed", "gone back"):
                name = self._said_name(node)
                why = seat.why if name == node else ""
                level = logging.WARNING if seat.state == "failed" else logging.INFO
                log.log(level, "update %s node=%s version=%s why=%s", seat.state, name, rollout.version, why or "-")
        now = rollout.stopped, (len(RINGS) if rollout.is_over else 0) if rollout.is_going_back else rollout.ring
        if now == self._said.get(rollout.hardware, ("", 0)):
            return
        before, self._said[rollout.hardware] = self._said.get(rollout.hardware, ("", 0)), now
        if rollout.is_going_back:
            state = "gone back" if rollout.is_over else "goes back"
            log.info("update %s version=%s hardware=%s", state, rollout.version, rollout.hardware)
        elif now[0] != before[0] and now[0]:
            log.warning("update stopped version=%s hardware=%s why=%s", rollout.version, rollout.hardware, now[0])
        elif rollout.is_over:
            log.info("update over version=%s hardware=%s", rollout.version, rollout.hardware)
        else:
            ring = RINGS[rollout.ring]
            log.info("update goes on version=%s hardware=%s ring=%s", rollout.version, rollout.hardware, ring)

    def _said_name(self, node: str) -> str:
        table = self._gateway.config().nodes.get(node) if self._gateway else None
        return node if table and table.audience != PERSONAL else PERSONAL

    def _bundle_of(self, rollout: Rollout) -> Bundle | None:
        bundle = self._bundles.get(rollout.hardware)
        return bundle if bundle and bundle.sha256 == rollout.sha256 else None

    def _want_bundle(self, rollout: Rollout) -> None:
        """Stop a rollout whose bundle is gone, unless no node is left to have it."""
        if not rollout.is_over and self._bundle_of(rollout) is None:
            rollout.stop(NO_BUNDLE)

    def _nodes(self) -> list[str]:
        return sorted(self._gateway.config().nodes) if self._gateway else []

    def _known(self, nodes: list[str], what: str) -> list[str]:
        unknown = sorted(set(nodes) - set(self._nodes()))
        if unknown:
            raise ConfigError(f"there is no node {', '.join(unknown)} {what}")
        return nodes

    def _quiet_ms(self, node: str) -> int | None:
        table = self._gateway.config().nodes.get(node) if self._gateway else None
        line = self._gateway.line(table.line) if self._gateway and table else None
        heard_ms = line.heard_mono_ms.get(node) if line else None
        return None if heard_ms is None else self._clocks.mono_ms() - heard_ms

    def _now_s(self) -> int:
        return self._clocks.wall_ms() // 1000


def opened(table: Table, state: Path, clocks: Clocks) -> Updates:
    """Return what hands out updates. A key that cannot be used lets no bundle in, and is said."""
    keys: list[bytes] = []
    for file in table.public_keys[:MOST_KEYS]:
        try:
            keys.append(modulus(Path(file)))
        except ConfigError as error:
            log.error("no update that this key signed is taken error=%s", error)
    return Updates(Shelf(state / FOLDER), table, keys, clocks)


def _within(number: int | None, least: int, most: int, key: str) -> int | None:
    if number is not None and (type(number) is not int or not least <= number <= most):
        raise ConfigError(f"{key} must be a whole number from {least} to {most}")
    return number


def _plain(value: Any) -> str:
    """Return a text of a node fit for a terminal, '' if it is none."""
    if not isinstance(value, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in value)[:LONGEST_REASON].strip()
