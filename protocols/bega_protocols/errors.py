"""Errors sorted by what the caller can do about them."""


class WireError(Exception):
    """The peer sent bytes that break its own specification.

    One frame is lost, the stream is not: count it, keep reading.
    `raw` holds the offending bytes, ready to be pasted into vectors.json.
    """

    def __init__(self, why: str, raw: bytes = b"") -> None:
        super().__init__("%s: %s" % (why, raw.hex()) if raw else why)
        self.why = why
        self.raw = raw


class ChecksumError(WireError):
    """The frame has the right shape and the wrong check value: noise on the wire."""


class ConfigError(Exception):
    """The operator asked for something that cannot be: tell them where, and stop."""


class LineError(Exception):
    """The wire itself failed: no port, no answer, no connection. Back off and open it again."""
