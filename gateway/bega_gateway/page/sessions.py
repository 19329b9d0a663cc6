"""Who has logged in, and the token that each form carries. In memory: a restart asks for the password again.

Every browser is given a cookie at its first page. A form's token is an HMAC over that cookie, so that nothing needs to
be kept for who has not logged in; after the login the cookie is another one, which nobody can have planted.
"""

from __future__ import annotations

import hmac
import secrets

IDLE_MS = 30 * 60_000
LONGEST_MS = 12 * 3_600_000
MOST = 32  # then the one that has rested longest ends
TOKEN_BYTES = 32


class Sessions:
    """The cookies that mean somebody who gave the password."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(TOKEN_BYTES)
        self._began_ms: dict[str, int] = {}
        self._seen_ms: dict[str, int] = {}  # the one seen longest ago first

    def new_cookie(self) -> str:
        """Return a cookie for a browser that has none; it means nothing yet."""
        return secrets.token_urlsafe(TOKEN_BYTES)

    def begin(self, now_ms: int) -> str:
        """Return the cookie of a session that begins. now_ms: a clock that only rises."""
        cookie = self.new_cookie()
        self._began_ms[cookie] = self._seen_ms[cookie] = now_ms
        while len(self._seen_ms) > MOST:
            self.end(next(iter(self._seen_ms)))
        return cookie

    def is_open(self, cookie: str, now_ms: int, is_used: bool = True) -> bool:
        """Return whether `cookie` is of a session that goes on. is_used: somebody asks, and so it does not rest."""
        seen_ms = self._seen_ms.get(cookie)
        if seen_ms is None:
            return False
        if now_ms - seen_ms > IDLE_MS or now_ms - self._began_ms[cookie] > LONGEST_MS:
            self.end(cookie)
            return False
        if is_used:
            del self._seen_ms[cookie]
            self._seen_ms[cookie] = now_ms
        return True

    def end(self, cookie: str) -> None:
        """End a session, if there is one."""
        self._began_ms.pop(cookie, None)
        self._seen_ms.pop(cookie, None)

    def token(self, cookie: str) -> str:
        """Return what a form on a page for `cookie` must carry."""
        return hmac.new(self._secret, cookie.encode("utf-8", "surrogatepass"), "sha256").hexdigest()

    def is_token(self, cookie: str, token: str) -> bool:
        """Return whether a form came from a page of ours, made for `cookie`."""
        return bool(cookie) and hmac.compare_digest(self.token(cookie).encode(), token.encode("utf-8", "surrogatepass"))
