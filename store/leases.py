"""Leases: blobs that somebody relies on although no index mentions them yet.

A mount that tells a client "this blob is there" makes a promise: the client
will mention the blob in an index without writing it. A copy relies on the blobs that it
found, too, until the image has its name. Garbage collection keeps what is leased. A
lease ends with its owner, at the latest when it expires.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..oci.digest import Digest
from .index import IndexDatabase

T = TypeVar("T")

DURATION = 3600.0  # seconds from the promise to the index; the longest builds take minutes
COPYING = 24 * 3600.0  # seconds that a copy may take; what ends before releases its leases

_numbers = itertools.count()

log = logging.getLogger(__name__)


class Leases:
    """The leases of a store, of all processes. Thread-safe."""

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def take(self, owner: str, digests: Iterable[Digest], duration: float = DURATION) -> None:
        """Keep these blobs for `duration` seconds, counted from now also for those leased before.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        rows = [(owner, str(digest), time.time() + duration) for digest in digests]
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO leases (owner, digest, expires) VALUES (?, ?, ?)", rows
            )
        )

    @contextmanager
    def keeping(self, digests: Iterable[Digest]) -> Generator[None]:
        """Keep these blobs for the block, as an owner of its own.

        Whoever may only read the store gets no lease, nor does anybody while its disk is
        full: images can still be published from there.

        Raises:
            OSError: as `take`.
        """
        owner = f"{this_process()}/{next(_numbers)}"
        try:
            self.take(owner, digests, COPYING)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOSPC):
                raise
            log.info("no lease: %s", error)
            yield
            return
        try:
            yield
        finally:
            try:
                self.release(owner)
            except OSError as error:  # it ends with this process, too
                log.warning("a lease stays: %s", error)

    def release(self, owner: str) -> None:
        """End all leases of an owner."""
        self._database.write(
            lambda connection: connection.execute("DELETE FROM leases WHERE owner = ?", (owner,))
        )

    def while_fixed(self, action: Callable[[frozenset[Digest]], T]) -> T:
        """Return what `action` returns for what is leased; nobody takes a lease meanwhile.

        `action` raises nothing but OSError, and may be called again.
        """
        return self._database.write(lambda connection: action(_held(connection)))

    def held(self) -> frozenset[Digest]:
        """Return what is leased now, ending the leases of the dead and those that expired."""
        return self._database.write(_held)


def this_process() -> str:
    """Return the owner name of this process: boot, PID and start time, so never reused."""
    return _name(os.getpid())


def is_alive(owner: str) -> bool:
    """Tell whether the process that a name was made for still runs on this machine.

    Several owners of one process have what `this_process` returns in front of their own part.
    """
    boot, _, rest = owner.partition("/")
    pid, _, rest = rest.partition("/")
    start = rest.partition("/")[0]
    try:
        return _name(int(pid)) == f"{boot}/{pid}/{start}"
    except (OSError, ValueError):
        return False


def _name(pid: int) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The name of the program stands in parentheses and may hold any character.
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state == "Z":
        raise ProcessLookupError(f"process {pid} has ended")
    return f"{boot}/{pid}/{fields[18]}"


def _held(connection: sqlite3.Connection) -> frozenset[Digest]:
    owners = [owner for (owner,) in connection.execute("SELECT DISTINCT owner FROM leases")]
    gone = [(owner,) for owner in owners if not is_alive(str(owner))]
    connection.executemany("DELETE FROM leases WHERE owner = ?", gone)
    connection.execute("DELETE FROM leases WHERE expires < ?", (time.time(),))
    return frozenset(
        Digest.parse(str(digest))
        for (digest,) in connection.execute("SELECT DISTINCT digest FROM leases")
    )
