"""A page in headless Chromium: what it says, what it looks like, and what it complains about.

The browser is spoken to over two pipes in its DevTools protocol: JSON objects, each ended by a
NUL byte. Source: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from ..oci.document import Object, inner, inners, string

WAIT = 60.0  # seconds until an answer must be there; the first start on a cold disk takes ten

Scheme = Literal["light", "dark"]

_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root has none
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # a container has 64 MiB there
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--password-store=basic",
    "--force-device-scale-factor=1",
)
_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32, "ArrowRight": 39, "ArrowLeft": 37}


class Chromium:
    """A browser with a profile of its own; alive inside the block. Not thread-safe.

    Attributes:
        process: its identifier, which is that of its process group, too.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self._program = program
        self._profile = profile
        self.process = -1
        self._read = self._write = -1
        self._rest = b""
        self._number = 0
        self._listeners: dict[str, Callable[[Object], None]] = {}

    def __enter__(self) -> Self:
        self._profile.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            its_read, self._write = self._pipe(stack)
            self._read, its_write = self._pipe(stack)
            log = str(self._profile / "stderr")
            arguments = [self._program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
            self.process = os.posix_spawn(
                self._program,
                arguments,
                {**os.environ, "HOME": str(self._profile)},
                setpgroup=0,  # all its processes are ended together
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT, 0o644),
                    (os.POSIX_SPAWN_DUP2, its_read, 3),
                    (os.POSIX_SPAWN_DUP2, its_write, 4),
                ],
            )
            os.close(its_read)
            os.close(its_write)
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with suppress(OSError, TimeoutError, AssertionError):
                self.call("Browser.close")
                ended = os.pidfd_open(self.process)
                try:
                    select.select([ended], [], [], WAIT)
                finally:
                    os.close(ended)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            os.close(self._read)
            os.close(self._write)

    @contextmanager
    def tab(self, width: int = 1280, height: int = 900) -> Generator[Tab]:
        """Open a tab for the block."""
        target = string(self.call("Target.createTarget", {"url": "about:blank"}), "targetId", "")
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        session = string(attached, "sessionId", "")
        tab = Tab(self, session)
        self._listeners[session] = tab.heard
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable", session=session)
            tab.resize(width, height)
            yield tab
        finally:
            del self._listeners[session]
            self.call("Target.closeTarget", {"targetId": target})

    def call(self, method: str, parameters: Object | None = None, session: str = "") -> Object:
        """Return the browser's answer to a command."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method}
        message["params"] = dict(parameters or {})
        if session:
            message["sessionId"] = session
        left = memoryview(json.dumps(message).encode() + b"\0")
        while left:
            left = left[os.write(self._write, left) :]
        until = time.monotonic() + WAIT
        while True:
            answer = self.next(until, method)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return inner(answer, "result", method)

    def next(self, until: float, awaited: str) -> Object:
        """Return the next message, after whom it is for has heard it."""
        while (end := self._rest.find(b"\0")) < 0:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError(f"{awaited}: no answer in time")
            data = os.read(self._read, 1 << 20)
            assert data, (self._profile / "stderr").read_text(errors="replace")[-2000:]
            self._rest += data
        raw, self._rest = self._rest[:end], self._rest[end + 1 :]
        message: Object = json.loads(raw)
        if (heard := self._listeners.get(string(message, "sessionId", ""))) is not None:
            heard(message)
        return message

    @staticmethod
    def _pipe(stack: ExitStack) -> tuple[int, int]:
        """Return a pipe whose ends are none of the numbers that the browser wants."""
        ends: list[int] = []
        for end in os.pipe():
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
            stack.callback(os.close, ends[-1])
            os.close(end)
        return ends[0], ends[1]


class Tab:
    """One page.

    Attributes:
        complaints: errors and warnings of its console, and exceptions that nobody caught.
        requests: the addresses that it asked for.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self._loaded = False
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def heard(self, message: Object) -> None:
        """Note what the browser tells about this tab."""
        about = inner(message, "params", "message")
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(string(inner(about, "request", ""), "url", ""))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about.get("type") in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(inners(about, "args", "")))
            case "Log.entryAdded":
                self.complaints.append(string(inner(about, "entry", ""), "text", ""))
            case _:
                pass

    def goto(self, url: str) -> None:
        """Load a page and return once it and all it needs are there."""
        self._loaded = False
        failed = string(self.call("Page.navigate", {"url": url}), "errorText", "")
        assert not failed, f"{url}: {failed}"
        until = time.monotonic() + WAIT
        while not self._loaded:
            self._browser.next(until, url)

    def evaluate(self, expression: str) -> object:
        """Return the value of an expression of JavaScript; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
        )
        assert "exceptionDetails" not in answer, json.dumps(answer["exceptionDetails"])
        return inner(answer, "result", expression).get("value")

    def text(self, selector: str) -> str:
        """Return what a reader sees of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """Return what a reader sees of all elements, but of none that is hidden."""
        found = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".filter(e => e.getClientRects().length).map(e => e.textContent)"
        )
        assert isinstance(found, list)  # of JSON's values
        return [str(text) for text in found]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element, after scrolling to it."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y = self.hover(selector)
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", event)

    def hover(self, selector: str) -> tuple[float, float]:
        """Move the mouse to the middle of an element, and return where that is."""
        middle = self.evaluate(
            f"(r => `${{r.x + r.width / 2}} ${{r.y + r.height / 2}}`)"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        x, y = map(float, str(middle).split())
        self.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
        return x, y

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", {"text": text})

    def press(self, key: str) -> None:
        """Press a key, by its name in the UI Events specification."""
        event: dict[str, object] = {"key": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"Enter": "\r", " ": " "}.get(key)
        down = {**event, "type": "keyDown", "text": text} if text else {**event, "type": "keyDown"}
        self.call("Input.dispatchKeyEvent", down)
        self.call("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def resize(self, width: int, height: int) -> None:
        """Give the page so many CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def show(self, scheme: Scheme, media: str = "screen") -> None:
        """Let the user prefer light or dark, or the page be printed."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def without_scripts(self) -> None:
        """Let no script of a page run that is loaded from now on."""
        self.call("Emulation.setScriptExecutionDisabled", {"value": True})

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return a PNG of the whole page, or of what fits."""
        how: dict[str, object] = {"captureBeyondViewport": whole}
        if whole:
            size = inner(self.call("Page.getLayoutMetrics"), "cssContentSize", "metrics")
            how["clip"] = {**size, "x": 0, "y": 0, "scale": 1}
        answer = self.call("Page.captureScreenshot", how)
        return base64.b64decode(string(answer, "data", "screenshot"))

    def pdf(self) -> bytes:
        """Return what a printer would get."""
        answer = self.call("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
        return base64.b64decode(string(answer, "data", "PDF"))

    def call(self, method: str, parameters: Object | None = None) -> Object:
        """Return the answer to a command that is about this tab."""
        return self._browser.call(method, parameters, self._session)
