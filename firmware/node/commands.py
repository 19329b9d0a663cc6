"""What the gateway asks of the node: each command once, by its id, and none that has expired.

`node/<node>/cmd/<verb>` brings {"id": ..., "expires": Unix seconds, ...};
{"id": ..., "done": true} goes back, or "done": false with a reason, and
what else there is to say. What was done is on flash before it is begun, so
that a repetition, also after a restart, gets its first result and no second
doing.
"""

import asyncio
import json
import os

KEPT = 16  # ids; a gateway hands each command over once, a repetition comes within seconds
LONGEST_ID = 64
LONGEST_REASON = 120
UNKNOWN_OUTCOME = "begun before a restart: look whether it was done"


class Commands:
    """verbs: {verb: function(asked)}; it returns None when done, or why not, or an awaitable of one of these.

    Or it returns a table of what came of it, with a `reason` if that was not what was asked for.
    """

    def __init__(self, folder, now_ms, verbs, say):
        """now_ms() is Unix time, None while it is not known; say() is called when there is a result to send."""
        self.results = []  # to be sent: dicts
        self.doing = 0  # how many are being done
        self._path = folder + "/commands"
        self._now_ms = now_ms
        self._verbs = verbs
        self._say = say
        self._known = _read(self._path)  # [id, done, reason, more], oldest first; some have no more

    def hear(self, verb, payload):
        """Take a command; it is done beside everything else. Nonsense has no id to answer to."""
        try:
            asked = json.loads(payload)
            id_, expires_s = asked["id"], asked["expires"]
        except (ValueError, TypeError, KeyError, RuntimeError):
            print("bega: a command that is none")
            return
        if not isinstance(id_, str) or not 0 < len(id_) <= LONGEST_ID or not isinstance(expires_s, int):
            print("bega: a command that is none")
            return
        known = [row for row in self._known if row[0] == id_]
        if known:
            self._answer(known[0])
            return
        why_not = self._why_not(verb, expires_s)
        if why_not:
            self._answer([id_, False, why_not])
        else:
            self._begin(verb, id_, asked)

    def _why_not(self, verb, expires_s):
        now_ms = self._now_ms()
        if verb not in self._verbs:
            return "this node does not do %s" % verb[:20]
        if now_ms is None:
            return "the node does not know the time yet"
        if now_ms >= expires_s * 1000:
            return "expired"
        return ""

    def _begin(self, verb, id_, asked):
        row = [id_, False, UNKNOWN_OUTCOME]
        before, self._known = self._known, self._known[1 - KEPT :] + [row]
        try:
            self._write()
        except (OSError, MemoryError) as error:
            self._known = before
            self._answer([id_, False, "it cannot be written down: %s" % type(error).__name__])
            return
        self.doing += 1
        asyncio.create_task(self._do(self._verbs[verb], row, asked))

    async def _do(self, work, row, asked):
        try:
            came = work(asked)
            if hasattr(came, "send"):
                came = await came
        except Exception as error:  # a command that cannot be must not end the node
            came = "%s %s" % (type(error).__name__, error)
        more = came if isinstance(came, dict) else {"reason": came} if came else {}
        why_not = more.pop("reason", "")[:LONGEST_REASON]
        row[1:] = [not why_not, why_not, more]
        try:
            self._write()
        except (OSError, MemoryError):
            pass  # that it was begun is on flash
        self.doing -= 1
        self._answer(row)

    def _answer(self, row):
        result = dict(row[3]) if len(row) > 3 else {}
        result["id"], result["done"] = row[:2]
        if row[2]:
            result["reason"] = row[2]
        self.results.append(result)
        if len(self.results) > KEPT:
            self.results.pop(0)
        self._say()

    def _write(self):
        with open(self._path + ".new", "w") as file:
            json.dump(self._known, file)
        os.rename(self._path + ".new", self._path)


def _read(path):
    try:
        with open(path) as file:
            rows = json.load(file)
        return [row for row in rows if len(row) in (3, 4)][-KEPT:]
    except (OSError, ValueError, TypeError):
        return []
