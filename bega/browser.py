"""A Chromium without a window, told what to do over a pipe: to draw pages, and to measure how soon they are drawn.

The Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/), each message JSON that ends in a
NUL, over the descriptors 3 and 4 (`--remote-debugging-pipe`): no port that a stranger could reach, and no package that
has to be installed beside the browser.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bega.clock import mono_ms
from bega_protocols.errors import ConfigError, LineError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
ANSWER_S, END_S = 30.0, 5.0
CHUNK = 1 << 16
Facts = dict[str, Any]


def chromium() -> str:
    """Return the path of the browser; raises ConfigError that says what to install."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise ConfigError("there is no Chromium on this machine; install the package chromium")
    return found


class Browser:
    """One Chromium; `session` of a message is a page's, or "" for the browser itself."""

    def __init__(self, orders: int, answers: int, pid: int) -> None:
        self.pid = pid
        self._orders = orders
        self._answers = answers
        self._last = 0
        self._rest = b""
        self.events: list[Facts] = []  # in the order in which they came; whoever waits for one takes it out

    def order(self, method: str, session: str = "", **params: Any) -> Facts:
        """Return what the browser answers; raises LineError if it refuses, or is silent for long."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._write(json.dumps(message).encode() + b"\0")
        until_ms = mono_ms() + round(ANSWER_S * 1000)
        while True:
            heard = self._hear(until_ms, method)
            if heard.get("id") != self._last:
                self.events.append(heard)
            elif "error" in heard:
                raise LineError(f"the browser refuses {method}: {heard['error'].get('message')}")
            else:
                result: Facts = heard["result"]
                return result

    def wait_for(self, method: str, session: str, timeout_s: float = ANSWER_S) -> Facts:
        """Return the next event of this name; raises LineError if none comes in time."""
        until_ms = mono_ms() + round(timeout_s * 1000)
        while True:
            for at, event in enumerate(self.events):
                if event.get("method") == method and event.get("sessionId", "") == session:
                    found: Facts = self.events.pop(at)["params"]
                    return found
            self.events.append(self._hear(until_ms, method))

    def open(self, width_px: int, height_px: int) -> Page:
        """Return a page of this size, in a context of its own: nothing of another is in it."""
        context = self.order("Target.createBrowserContext")["browserContextId"]
        target = self.order("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        page = self._attach(target, context)
        page.size(width_px, height_px)
        return page

    def first_page(self) -> Page:
        """Return the page that the browser began with."""
        targets = self.order("Target.getTargets")["targetInfos"]
        return self._attach(next(target["targetId"] for target in targets if target["type"] == "page"), "")

    def _attach(self, target: str, context: str) -> Page:
        session = self.order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        page.order("Page.enable")
        return page

    def _write(self, message: bytes) -> None:
        try:
            while message:
                message = message[os.write(self._orders, message) :]
        except OSError:
            raise LineError("the browser ended") from None

    def _hear(self, until_ms: int, what: str) -> Facts:
        while b"\0" not in self._rest:
            left_s = (until_ms - mono_ms()) / 1000
            if left_s <= 0 or not select.select([self._answers], [], [], left_s)[0]:
                raise LineError(f"the browser does not answer: {what}")
            chunk = os.read(self._answers, CHUNK)
            if not chunk:
                raise LineError("the browser ended")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        heard: Facts = json.loads(message)
        return heard


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def order(self, method: str, **params: Any) -> Facts:
        """Return what the browser answers for this page."""
        return self._browser.order(method, self._session, **params)

    def size(self, width_px: int, height_px: int) -> None:
        """Make the page as large as a panel."""
        self.order(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    def go(self, address: str) -> None:
        """Load an address and wait until all of it is there, its letters too; raises LineError if it is not."""
        self._browser.events.clear()
        said = self.order("Page.navigate", url=address).get("errorText")
        if said:
            raise LineError(f"{address}: {said}")
        self._browser.wait_for("Page.loadEventFired", self._session)
        self.run("document.fonts.ready.then(() => null)")

    def run(self, script: str) -> Any:
        """Return what a script comes to, awaited; raises LineError if it throws."""
        answer = self.order("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise LineError(f"the page's script failed: {answer['exceptionDetails'].get('text')}")
        return answer["result"].get("value")

    def picture(self) -> str:
        """Return what is seen, a PNG in base64."""
        png: str = self.order("Page.captureScreenshot", format="png")["data"]
        return png

    def pdf(self, width_mm: float, height_mm: float) -> bytes:
        """Return what is printed on paper of this size, without margins of the browser's own."""
        size = {"paperWidth": width_mm / 25.4, "paperHeight": height_mm / 25.4}
        margins = dict.fromkeys(("marginTop", "marginBottom", "marginLeft", "marginRight"), 0)
        return base64.b64decode(self.order("Page.printToPDF", printBackground=True, **size, **margins)["data"])

    def close(self) -> None:
        """End the page and everything that it kept."""
        self._browser.order("Target.disposeBrowserContext", browserContextId=self._context)


@contextmanager
def running_browser(*flags: str, address: str = "about:blank") -> Iterator[Browser]:
    """Run a browser for the block, with a profile that is gone with it; its first page is at `address`."""
    program = chromium()
    with tempfile.TemporaryDirectory(prefix="bega-browser-", ignore_cleanup_errors=True) as profile:
        rights = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to be root with its sandbox
        words = [program, *FLAGS, *rights, *flags, f"--user-data-dir={profile}", address]
        browser = _start(words, Path(profile) / "log")
        try:
            yield browser
        finally:
            _end(browser)


def _start(words: list[str], log: Path) -> Browser:
    theirs_in, orders = (_high(end) for end in os.pipe())
    answers, theirs_out = (_high(end) for end in os.pipe())
    said = _high(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
    # The descriptors must be 3 and 4, whatever else is open: not even `pass_fds` gives them other numbers.
    moved = [(theirs_in, 3), (theirs_out, 4), (said, 1), (said, 2)]
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in moved]
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions, setsid=True)
    for end in (theirs_in, theirs_out, said):
        os.close(end)
    return Browser(orders, answers, pid)


def _high(end: int) -> int:
    """Return the same file under a number beyond those that the browser gets."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved


def _end(browser: Browser) -> None:
    with suppress(LineError):
        browser.order("Browser.close")
    os.close(browser._orders)
    os.close(browser._answers)
    until_ms = mono_ms() + round(END_S * 1000)
    while os.waitpid(browser.pid, os.WNOHANG)[0] == 0:
        if mono_ms() > until_ms:
            os.killpg(browser.pid, signal.SIGKILL)
            os.waitpid(browser.pid, 0)
            break
        time.sleep(0.02)
