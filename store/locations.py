"""Where blobs were seen: repositories of a registry from which it can mount them elsewhere."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from ..oci.digest import Digest
from .index import IndexDatabase


class Locations:
    """What this store knows of registries; it may be out of date. Thread-safe."""

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def add(self, registry: str, repository: str, digests: Iterable[Digest]) -> None:
        """Note that a repository has these blobs now.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        rows = [(registry, str(digest), repository, time.time()) for digest in digests]
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO locations (registry, digest, repository, seen)"
                " VALUES (?, ?, ?, ?)",
                rows,
            )
        )

    def find(self, registry: str, digests: Iterable[Digest]) -> dict[Digest, tuple[str, ...]]:
        """Return the repositories that had each of these blobs, the last seen first."""
        wanted = list(digests)
        query = (
            "SELECT repository FROM locations WHERE registry = ? AND digest = ? ORDER BY seen DESC"
        )

        def read(connection: sqlite3.Connection) -> dict[Digest, tuple[str, ...]]:
            return {
                digest: tuple(
                    str(repository)
                    for (repository,) in connection.execute(query, (registry, str(digest)))
                )
                for digest in wanted
            }

        return self._database.write(read)

    def forget(self, registry: str, repository: str, digest: Digest) -> None:
        """Note that a repository does not have a blob, or does not give it away."""
        self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM locations WHERE registry = ? AND repository = ? AND digest = ?",
                (registry, repository, str(digest)),
            )
        )
