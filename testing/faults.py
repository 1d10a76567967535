"""Faults that a test orders from the in-process registry."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with this status, and do nothing of what was asked.

    Any path works, so `Status(200, body=…)` also plays a token server.
    """

    code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Drop:
    """Reset the connection after `after` bytes of the body.

    The body is the answer's for GET; for every other method it is the
    request's, and an upload keeps the bytes that came.  A shorter body is
    dropped at its end.  What was sent but not read yet may be lost with it.
    """

    after: int = 0


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Do what was asked, then reset the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Send nothing until the client leaves or the registry closes.

    With `served`, what was asked is done first.
    """

    served: bool = False


@dataclass(frozen=True, slots=True)
class WrongDigest:
    """Answer as usual, with another Docker-Content-Digest."""

    digest: str = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Flip:
    """Invert the byte at offset `at` of the answer's body, modulo its length; that stays."""

    at: int = 0


@dataclass(frozen=True, slots=True)
class Truncate:
    """Announce the whole body, send `after` bytes of it and close in good order."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Surplus:
    """Announce and send `extra` zero bytes more than the content has."""

    extra: int = 1


@dataclass(frozen=True, slots=True)
class Endless:
    """Follow the body by zeros, without a length, until the client closes."""

    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Stall:
    """Send `after` bytes of the answer's body, set `reached`, and the rest when `go_on` is set."""

    after: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Cut:
    """Send `after` bytes of the answer, head and all, and close in good order.

    With `hang`, say nothing more instead, until the client leaves.
    """

    after: int = 0
    hang: bool = False


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the answer byte by byte, from byte `after` on, with `pause` seconds after each."""

    pause: float = 0.02
    after: int = 0


@dataclass(frozen=True, slots=True)
class EndlessHead:
    """Send header after header, without an end."""


Action = (
    Status | Drop | LoseAnswer | Hang | WrongDigest | Flip | Truncate | Surplus | Endless
    | Stall | Cut | Drip | EndlessHead
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the next requests of a kind.

    Attributes:
        method: regular expression that matches the whole method, such as "GET|HEAD".
        path: regular expression searched for in the path with its query.
        action: what happens instead of the right answer.
        times: how many requests it hits; None is all of them.
        skip: how many requests it spares before.
    """

    method: str
    path: str
    action: Action
    times: int | None = 1
    skip: int = 0


class Faults:
    """The faults still to come; the first that matches a request is used.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._used: list[int] = []

    def append(self, fault: Fault) -> None:
        """Order one more fault."""
        with self._lock:
            self._faults.append(fault)
            self._used.append(0)

    def clear(self) -> None:
        """Serve every request well from now on."""
        with self._lock:
            self._faults.clear()
            self._used.clear()

    def __len__(self) -> int:
        """Count the faults that may still happen."""
        with self._lock:
            return len(self._faults)

    def take(self, method: str, path: str) -> Action | None:
        """Return what shall happen to this request, and use it up; None is nothing."""
        with self._lock:
            for at, fault in enumerate(self._faults):
                if re.fullmatch(fault.method, method) and re.search(fault.path, path):
                    self._used[at] += 1
                    if self._used[at] <= fault.skip:
                        continue
                    if fault.times is not None and self._used[at] == fault.skip + fault.times:
                        del self._faults[at], self._used[at]
                    return fault.action
        return None
