"""An end for exchanges whose peer is never silent for long.

The timeout of a socket starts again with every byte, and `http.client` reads any number
of `100 Continue` or trailers by itself. So another thread looks at the clock, and shuts
the connection down.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

TICK = 0.1  # seconds between two looks at the clock; a step may last that much longer


@dataclass(slots=True, eq=False)
class _Step:
    connection: socket.socket
    end: float
    expired: bool = False


class _Watch:
    """Watches the steps of all threads from one more, which ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: set[_Step] = set()
        self._running = False

    def add(self, step: _Step) -> None:
        with self._lock:
            if not self._running:
                try:
                    threading.Thread(target=self._run, name="deadline", daemon=True).start()
                except RuntimeError as error:
                    raise BlockingIOError(errno.EAGAIN, "no thread can be started") from error
                self._running = True
            self._steps.add(step)

    def remove(self, step: _Step) -> None:
        """Forget a step; when this returns, its connection is not touched any more."""
        with self._lock:
            self._steps.discard(step)

    def _run(self) -> None:
        while self._look():
            time.sleep(TICK)

    def _look(self) -> bool:
        now = time.monotonic()
        with self._lock:
            for step in self._steps:
                if now >= step.end and not step.expired:
                    step.expired = True
                    with suppress(OSError):  # it is closed already
                        # not SSLSocket's, which takes the TLS state from under the reader
                        socket.socket.shutdown(step.connection, socket.SHUT_RDWR)
            self._running = bool(self._steps)
            return self._running


_watch = _Watch()


@contextmanager
def limit(connection: socket.socket, seconds: float) -> Generator[None]:
    """Shut a connection down when the block is not left in time. Thread-safe; may be nested.

    Raises:
        TimeoutError: it was not, whatever the block then raised or returned.
        BlockingIOError: no thread can look at the clock; the block was not entered.
    """
    step = _Step(connection, time.monotonic() + seconds)
    _watch.add(step)
    try:
        yield
    finally:
        _watch.remove(step)
        if step.expired:
            raise TimeoutError(f"it took over {seconds} seconds")
