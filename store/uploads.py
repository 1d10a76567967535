"""Uploads that were begun: where a registry waits for the rest of a blob."""

from __future__ import annotations

import time

from ..oci.digest import Digest
from .index import IndexDatabase

DURATION = 24 * 3600.0  # seconds; registries purge sessions sooner or later


class Uploads:
    """The upload sessions of a store, of all processes. Thread-safe.

    A URL may carry what lets one write to the session, so it is shown nowhere.
    """

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def note(self, registry: str, repository: str, digest: Digest, url: str) -> None:
        """Remember the session of a blob, or its latest URL.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        row = registry, repository, str(digest), url, time.time()
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO uploads (registry, repository, digest, url, begun)"
                " VALUES (?, ?, ?, ?, ?)",
                row,
            )
        )

    def find(self, registry: str, repository: str, digest: Digest) -> str | None:
        """Return the URL of the session that was begun for a blob, if it is not too old."""
        row = self._database.write(
            lambda connection: connection.execute(
                "SELECT url FROM uploads"
                " WHERE registry = ? AND repository = ? AND digest = ? AND begun > ?",
                (registry, repository, str(digest), time.time() - DURATION),
            ).fetchone()
        )
        return str(row[0]) if row else None

    def forget(self, registry: str, repository: str, digest: Digest) -> None:
        """Forget a session that ended, one way or the other."""
        self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM uploads WHERE registry = ? AND repository = ? AND digest = ?",
                (registry, repository, str(digest)),
            )
        )
