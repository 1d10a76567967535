"""The store's lock: one writer of names at a time, among all processes and threads."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..oci.errors import Busy

TIMEOUT = 30.0  # seconds; a holder needs milliseconds
_POLL = 0.005  # seconds between attempts; flock(2) itself cannot wait for a limited time


class Lock:
    """An exclusive flock(2) on one file; the kernel frees it when its holder dies.

    Thread-safe. Held while names change (an index replaced, an image removed), never while
    bytes are copied.
    """

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._thread = threading.Lock()

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the lock for the block.

        Raises:
            Busy: another process kept it for longer than the timeout.
        """
        if not self._thread.acquire(timeout=self._timeout):
            raise Busy(f"{self._path}: another thread holds the store")
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._wait(file)
                os.ftruncate(file, 0)
                os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
                yield
            finally:
                os.close(file)
        finally:
            self._thread.release()

    def _wait(self, file: int) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "unknown"
                    raise Busy(f"{self._path}: held by process {holder}") from None
                time.sleep(_POLL)
            else:
                return
