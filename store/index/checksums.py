"""What is known of the pool's files: their BLAKE3, and when they were last read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ...oci.digest import Digest
from ...oci.errors import InvalidContent

if TYPE_CHECKING:  # who only takes blobs in need not have a database
    import sqlite3

    from .database import IndexDatabase

RUN = 7 * 24 * 3600.0  # seconds after which an interrupted verification is not gone on with

_SELECT = "SELECT size, blake3, inode, changed, verified, seal FROM checksums WHERE digest = ?"
_ALL = "SELECT digest, size, blake3, inode, changed, verified, seal FROM checksums"
_INSERT = (
    "INSERT OR REPLACE INTO checksums (digest, size, blake3, inode, changed, verified, seal)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Checksum:
    """A file of the pool that was seen to have the content that its name says, or only tried.

    Attributes:
        blake3: the hexadecimal BLAKE3 of that content; nothing if it was not that, or unreadable.
        inode: of the file.
        changed: its mtime, in nanoseconds: another one means that somebody wrote to it.
        verified: when it was read, or written, in seconds since the epoch.
    """

    digest: Digest
    size: int
    blake3: str
    inode: int
    changed: int
    verified: float

    @classmethod
    def of(cls, digest: Digest, blake3: str, status: os.stat_result) -> Self:
        """Return that of a file that was just found good."""
        return cls(digest, status.st_size, blake3, status.st_ino, status.st_mtime_ns, time.time())

    @classmethod
    def tried(cls, digest: Digest) -> Self:
        """Return that of a file that was not found good just now, so that others are read first."""
        return cls(digest, 0, "", 0, 0, time.time())

    @property
    def seal(self) -> str:
        """What a row must carry: power loss may leave one that is half of another."""
        facts = (self.digest, self.size, self.blake3, self.inode, self.changed, self.verified)
        return Digest.of(" ".join(map(str, facts)).encode()).encoded

    def is_of(self, status: os.stat_result) -> bool:
        """Tell whether this is about a file as it is now."""
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        return seen == (self.inode, self.changed, self.size)


class Checksums:
    """The checksums of a store. Thread-safe.

    Only who read or wrote a blob itself may add one. That two contents have the same BLAKE3
    is taken for impossible; that a BLAKE3 differs is no proof, since the row may be wrong.
    Of what was only tried, `times` alone tells.
    """

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def add(self, checksums: Iterable[Checksum]) -> None:
        """Note what was found good, all at once.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        rows = [
            (str(c.digest), c.size, c.blake3, c.inode, c.changed, c.verified, c.seal)
            for c in checksums
        ]
        if rows:
            self._database.write(lambda connection: connection.executemany(_INSERT, rows))

    def find(self, digests: Iterable[Digest]) -> dict[Digest, Checksum]:
        """Return what is known of these blobs.

        Raises:
            OSError: another process blocked the database for too long.
        """
        wanted = list(digests)
        return self._database.read(lambda connection: dict(_found(connection, wanted)))

    def times(self) -> dict[str, float]:
        """Return when each blob was last read, by its digest; for an order, not as a fact.

        Raises:
            OSError: another process blocked the database for too long.
        """
        return self._database.read(
            lambda connection: {
                str(digest): float(verified)
                for digest, verified in connection.execute("SELECT digest, verified FROM checksums")
            }
        )

    def broken(self) -> int:
        """Return how many rows nobody believes, since they are not what was written."""
        return self._database.read(_broken)

    def forget(self, digests: Iterable[str]) -> None:
        """Forget blobs that are gone."""
        rows = [(digest,) for digest in digests]
        if rows:
            self._database.write(
                lambda connection: connection.executemany(
                    "DELETE FROM checksums WHERE digest = ?", rows
                )
            )

    def begin(self, selection: str, *, anew: bool = False) -> float:
        """Return when the verification of a selection began: now, or before it was interrupted.

        A selection is any text that is the same whenever the same is to be verified.
        """
        now = time.time()

        def begin(connection: sqlite3.Connection) -> float:
            connection.execute("DELETE FROM runs WHERE began NOT BETWEEN ? AND ?", (now - RUN, now))
            if anew:
                connection.execute("DELETE FROM runs WHERE selection = ?", (selection,))
            connection.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (selection, now))
            query = "SELECT began FROM runs WHERE selection = ?"
            (began,) = connection.execute(query, (selection,)).fetchone()
            return float(began)

        return self._database.write(begin)

    def end(self, selection: str) -> None:
        """Note that all of a selection was verified."""
        self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM runs WHERE selection = ?", (selection,)
            )
        )


def _found(
    connection: sqlite3.Connection, digests: Iterable[Digest]
) -> Iterator[tuple[Digest, Checksum]]:
    for digest in digests:
        row = connection.execute(_SELECT, (str(digest),)).fetchone()
        if row is None:
            continue
        size, blake3, inode, changed, verified, seal = row
        found = Checksum(digest, size, blake3, inode, changed, verified)
        if found.seal == seal and found.blake3:
            yield digest, found


def _broken(connection: sqlite3.Connection) -> int:
    count = 0
    for digest, *facts, seal in connection.execute(_ALL):
        try:
            count += Checksum(Digest.parse(str(digest)), *facts).seal != seal
        except InvalidContent:
            count += 1
    return count
