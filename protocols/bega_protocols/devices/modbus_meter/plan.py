"""Which stretches of registers to ask a device for: the fewest that it answers, learned from what it refuses.

Neighbouring rows are read in one request, with the registers between them that
nobody wants. A device may refuse such a stretch, for a register in a gap or in
a row that this model lacks (MODBUS Application Protocol V1.1b3, section 7,
exceptions 2 and 3). It does not say which, so the stretch is asked for again in
two halves, until every row is read or known to be refused by itself; what was
found out holds for all later requests. No IO, no clock.
"""

from bega_protocols.devices.modbus_meter.profile import Request, Row
from bega_protocols.modbus_rtu import MAX_COUNT

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

UNKNOWN, THROUGH, HOLE = 0, 1, 2  # what is known of the way from one row to the next
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 60000, 3600000  # before what was refused is asked for again


class Plan:
    """The requests that read a device's rows, as far as it lets them be read."""

    def __init__(self, rows: "tuple[Row, ...]", max_registers: int, gap_registers: int, even: bool) -> None:
        """gap_registers: at most so many registers that nobody wants are read along to save a request.

        even: first register and count must be even.
        """
        self._rows = sorted(rows, key=lambda row: (row.function, row.address))
        self._index = {}
        for index, row in enumerate(self._rows):
            self._index[row.function, row.address] = index
        self._limits = (max_registers, gap_registers, even)
        self._ways = [UNKNOWN] * len(self._rows)  # from each row to the one behind it
        self._read: set[int] = set()  # rows that were in an answer
        self._lacking: set[int] = set()  # rows that are refused even alone
        self._split: list[tuple[int, int]] = []  # first and last row of what was refused since `settle`
        self._learned_ms = 0
        self._pause_ms = FIRST_PAUSE_MS
        self.requests = self._planned()

    def lacking(self) -> "list[Row]":
        """Return the rows that the device refuses even when asked for one by one."""
        return [self._rows[index] for index in sorted(self._lacking)]

    def recheck(self, now_ms: int) -> bool:
        """Ask again for what was refused long ago: a device may have been starting, or have new firmware.

        Return whether `requests` is another one now. The pauses grow to an hour;
        a clock that steps brings a question early, and does no harm.
        """
        if not self._lacking and HOLE not in self._ways:
            return False
        if 0 <= now_ms - self._learned_ms < self._pause_ms:
            return False
        self._learned_ms = now_ms
        self._pause_ms = min(2 * self._pause_ms, LONGEST_PAUSE_MS)
        self._ways = [UNKNOWN if way == HOLE else way for way in self._ways]
        self._lacking = set()
        self.requests = self._planned()
        return True

    def answered(self, request: Request) -> None:
        """Note that the device let `request` be read."""
        first, last = self._span(request)
        for index in range(first, last):
            self._read.add(index)
            self._ways[index] = THROUGH
        self._read.add(last)

    def refused(self, request: Request) -> "list[Request]":
        """Return the two halves to ask for in place of `request`; none if it was a single row."""
        first, last = self._span(request)
        if first == last:
            self._lacking.add(first)
            self._read.discard(first)
        if (first, last) not in self._split:
            self._split.append((first, last))
        if first == last:
            return []
        open_ways = [index for index in range(first, last) if self._ways[index] == UNKNOWN]
        if not open_ways:  # all of it was read before: the device has changed, or has a limit of its own
            self._pause_ms = FIRST_PAUSE_MS
            cut = (first + last - 1) // 2
            self._ways[cut] = HOLE
        else:
            cut = open_ways[(len(open_ways) - 1) // 2]
        even = self._limits[2]
        return [request_of(self._rows[first : cut + 1], even), request_of(self._rows[cut + 1 : last + 1], even)]

    def put_off(self, now_ms: int) -> None:
        """Note that a measurement was broken off: what was refused is settled when a later one is whole."""
        self._learned_ms = now_ms

    def settle(self, now_ms: int) -> bool:
        """Draw the conclusions of a measurement; return whether `requests` is another one now.

        A stretch that is refused although each of its rows is read has its hole
        on the one way in it that is not known to lead through.
        """
        if not self._split:
            return False
        for first, last in sorted(self._split, key=lambda span: span[1] - span[0]):
            ways = self._ways[first:last]
            rows_are_read = all(index in self._read for index in range(first, last + 1))
            if rows_are_read and HOLE not in ways and ways.count(UNKNOWN) == 1:
                self._ways[first + ways.index(UNKNOWN)] = HOLE
        self._split = []
        self._learned_ms = now_ms
        self.requests = self._planned()
        return True

    def _span(self, request: Request) -> "tuple[int, int]":
        first = self._index[request.function, request.rows[0].address]
        return first, first + len(request.rows) - 1

    def _planned(self) -> "list[Request]":
        """Return the fewest requests, in the order in which to ask."""
        runs: list[list[Row]] = []
        for index, row in enumerate(self._rows):
            if index in self._lacking:
                continue
            if runs and index - 1 not in self._lacking and self._ways[index - 1] != HOLE:
                runs[-1].append(row)
            else:
                runs.append([row])
        return plan(runs, self._limits[0], self._limits[1], self._limits[2])


def plan(runs: "list[list[Row]]", max_registers: int, gap_registers: int, even: bool) -> "list[Request]":
    """Return the fewest requests that read all rows, in the order in which to ask; none reaches over two runs.

    Two full requests in a row would have answers of one length, and RTU numbers
    no question: where that costs no further request, the second is a row shorter.
    """
    differing: list[Request] = []
    fewest: list[Request] = []
    for run in runs:
        differing += _greedy(run, max_registers, gap_registers, even, True)
        fewest += _greedy(run, max_registers, gap_registers, even, False)
    return _apart(differing if len(differing) == len(fewest) else fewest)


def request_of(rows: "list[Row]", even: bool) -> Request:
    """Return the request for `rows`, which are in order of their addresses."""
    first = rows[0].address
    end = rows[-1].address + rows[-1].length
    if even:
        first -= first % 2
        end += end % 2
    return Request(rows[0].function, first, end - first, tuple(rows))


def _greedy(rows: "list[Row]", max_registers: int, gap_registers: int, even: bool, differing: bool) -> "list[Request]":
    requests: list[Request] = []
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and _fits(rows, start, end, max_registers, gap_registers, even):
            end += 1
        request = request_of(rows[start:end], even)
        full = end < len(rows) and _fits(rows, start, end, MAX_COUNT, gap_registers, even)
        if differing and full and end - start > 1 and requests and requests[-1].length == request.length:
            end -= 1
            request = request_of(rows[start:end], even)
        requests.append(request)
        start = end
    return requests


def _fits(rows: "list[Row]", start: int, last: int, max_registers: int, gap_registers: int, even: bool) -> bool:
    """Return whether one request may read `rows` from `start` to `last`; up to the one before it may."""
    before, row = rows[last - 1], rows[last]
    if row.function != before.function or row.address - (before.address + before.length) > gap_registers:
        return False
    return request_of([rows[start], row], even).length <= max_registers


def _apart(requests: "list[Request]") -> "list[Request]":
    """Return `requests` so that neighbours differ in length where that can be.

    A late answer then never has the length of the one that is waited for.
    After a time-out the measurement ends, so the next question is the first
    one: it gets the rarest length.
    """
    left = list(requests)
    ordered: list[Request] = []
    while left:
        counts = [request.length for request in left]
        if ordered:
            others = [request for request in left if request.length != ordered[-1].length] or left
            chosen = max(others, key=lambda request: (counts.count(request.length), -request.address))
        else:
            chosen = min(left, key=lambda request: (counts.count(request.length), request.address))
        ordered.append(chosen)
        left.remove(chosen)
    return ordered
