"""Requests that clients make of one mount: those under way, and how the others were answered."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

import trio

from ..oci.errors import OcistowError
from .errnos import errno_of

log = logging.getLogger(__name__)

_BUCKETS = 44 << 2  # what takes over two hours is counted as that


class Refusal(Exception):
    """A request is answered with an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return os.strerror(self.code)


class Latencies:
    """How long something took, each time: in buckets of which each is at most a fourth wide."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0  # nanoseconds
        self.longest = 0  # nanoseconds
        self._buckets = [0] * _BUCKETS

    def note(self, elapsed: int) -> None:
        """Count one, of `elapsed` nanoseconds."""
        self.count += 1
        self.total += elapsed
        if elapsed > self.longest:
            self.longest = elapsed
        # four buckets between two powers of two: 0.2 us, and 1 KiB, whatever happens
        length = elapsed.bit_length()
        if length > 3:
            self._buckets[min(length << 2 | elapsed >> (length - 3) & 3, _BUCKETS - 1)] += 1
        else:
            self._buckets[0] += 1

    def quantile(self, share: float) -> int:
        """Return the nanoseconds in which this share of all was done, at most an eighth wrong."""
        left = share * self.count
        for place, number in enumerate(self._buckets):
            left -= number
            if number and left <= 0:
                return min(_middle(place), self.longest)
        return 0


def _middle(place: int) -> int:
    length, quarter = place >> 2, place & 3
    return ((4 + quarter) * 2 + 1) << length >> 4


class Request:
    """One request under way, for a `with` block in which it is answered."""

    __slots__ = ("_requests", "began", "name", "number", "operation", "task")

    def __init__(self, requests: Requests, operation: str, number: int, name: bytes) -> None:
        self._requests = requests
        self.operation = operation
        self.number = number  # of an inode or handle
        self.name = name
        self.task: trio.lowlevel.Task | None = None
        self.began = 0  # on the monotonic clock, in nanoseconds

    def __str__(self) -> str:
        return f"{self.operation} {self.number}" + (f" {self.name!r}" if self.name else "")

    def __enter__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self._requests.under_way.add(self)
        self.began = time.monotonic_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        requests = self._requests
        requests.latencies[self.operation].note(time.monotonic_ns() - self.began)
        requests.under_way.discard(self)
        if error is None:
            return
        if isinstance(error, OcistowError | OSError):
            log.debug("%s: %s", self, error)
            code = errno_of(error)
            requests.errors[code] += 1
            raise requests.refusal(code) from error
        if isinstance(error, Exception):
            requests.on_bug(self, error)


class _ByOperation(dict[str, Latencies]):
    def __missing__(self, operation: str) -> Latencies:
        latencies = self[operation] = Latencies()
        return latencies


class Requests:
    """The one place where every engine's requests begin and end.

    The event loop changes it; any thread may look, with `waiting`.

    Attributes:
        refusal: makes the exception that tells the engine to answer with an errno; for the
            engine to set before the first request.
        on_bug: is told of an exception that nobody foresaw, which then ends the mount.
    """

    def __init__(self) -> None:
        self.refusal: Callable[[int], Exception] = Refusal
        self.on_bug: Callable[[Request, Exception], None] = lambda request, error: None
        self.under_way: set[Request] = set()
        self.latencies = _ByOperation()
        self.errors: Counter[int] = Counter()

    def answering(self, operation: str, number: int = 0, name: bytes = b"") -> Request:
        """Return a block in which a request is answered, on an inode or a handle.

        Errors that we know leave it as `refusal`; others are bugs, and leave it as they are.
        """
        return Request(self, operation, number, name)

    def waiting(self) -> Sequence[Request]:
        """Return the requests under way, the oldest first."""
        return sorted(self.under_way, key=lambda request: request.began)
