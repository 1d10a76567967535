"""The store's lock: one writer of names at a time, among all processes and threads."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ..oci.errors import Busy

TIMEOUT = 30.0  # seconds; a holder needs milliseconds
_POLL = 0.005  # seconds between attempts; flock(2) itself cannot wait for a limited time


class Lock:
    """An exclusive flock(2) on one file; the kernel frees it when its holder dies.

    Thread-safe, and a thread that holds it may take it again. Held while names change (an
    index replaced, an image removed), never while layers come in.
    """

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._thread = threading.RLock()
        self._holding = False

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the lock for the block.

        Raises:
            Busy: another process kept it for longer than the timeout.
        """
        if not self._thread.acquire(timeout=self._timeout):
            raise Busy(f"{self._path}: another thread holds the store")
        try:
            with nullcontext() if self._holding else self._flock():
                yield
        finally:
            self._thread.release()

    @contextmanager
    def _flock(self) -> Generator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o644)
        try:
            self._wait(file)
            _sign(file)
            self._holding = True
            yield
        finally:
            self._holding = False
            os.close(file)

    def _wait(self, file: int) -> None:
        if not take(file, fcntl.LOCK_EX, self._timeout):
            holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "unknown"
            raise Busy(f"{self._path}: held by process {holder}")


def _sign(file: int) -> None:
    """Write down who holds a lock, for who waits in vain.

    Not again by the same process: to cut a file that was just written waits for the disk, 0.5 ms.
    """
    holder = f"{os.getpid()}\n".encode()
    if os.pread(file, len(holder) + 1, 0) != holder:
        os.ftruncate(file, 0)
        os.pwrite(file, holder, 0)


@contextmanager
def one_of_many(path: Path, number: int) -> Generator[None]:
    """Hold one of 2^60 locks, which are the bytes of one empty file, for the block.

    Waits for as long as its holder, a thread of this or of another process, lives and holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    # each open file has locks of its own (fcntl(2), F_OFD_SETLK)
    file = os.open(path, flags, 0o644)
    try:
        while not _take_byte(file, number):
            time.sleep(_POLL)
        yield
    finally:
        os.close(file)


def _take_byte(file: int, number: int) -> bool:
    lock = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)  # struct flock
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as POSIX leaves it open
        return False
    return True


def take(file: int, how: int, timeout: float) -> bool:
    """Lock an open file with flock(2); False when somebody else kept it for `timeout` seconds.

    `how` is LOCK_SH or LOCK_EX. Closing the file frees it.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        else:
            return True
