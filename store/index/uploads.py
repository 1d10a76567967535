"""Uploads that were begun: where a registry waits for the rest of a blob."""

from __future__ import annotations

import sqlite3
import time

from ...oci.digest import Digest
from ..processes import is_alive, this_process
from .database import IndexDatabase

DURATION = 24 * 3600.0  # seconds; registries purge sessions sooner or later

_NOBODY = ""
_INSERT = (
    "INSERT OR REPLACE INTO uploads (registry, repository, digest, url, owner, begun, seal)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_SELECT = (
    "SELECT url, owner, begun, seal FROM uploads"
    " WHERE registry = ? AND repository = ? AND digest = ?"
)
_GIVE = (
    "UPDATE uploads SET owner = ?"
    " WHERE registry = ? AND repository = ? AND digest = ? AND owner = ?"
)
_DELETE = "DELETE FROM uploads WHERE registry = ? AND repository = ? AND digest = ? AND owner = ?"


class Uploads:
    """The upload sessions of a store, of all processes. Thread-safe.

    A session belongs to the process that noted it, until that leaves it or dies: two
    writers at one session spoil it. A URL may carry what lets one write to the session,
    so it is shown nowhere.
    """

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def note(self, registry: str, repository: str, digest: Digest, url: str) -> None:
        """Remember the session of a blob, or its latest URL, as this process' own.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        key = registry, repository, str(digest)
        row = *key, url, this_process(), time.time(), _seal(*key, url)
        self._database.write(lambda connection: connection.execute(_INSERT, row))

    def take(self, registry: str, repository: str, digest: Digest) -> str | None:
        """Return the URL of a blob's session that is nobody's, unless it is too old.

        From now on it is this process' own.
        """
        key = registry, repository, str(digest)

        def take(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(_SELECT, key).fetchone()
            if row is None:
                return None
            url, owner, begun, seal = row
            if (
                _seal(*key, str(url)) != seal
                or is_alive(str(owner))
                or begun < time.time() - DURATION
            ):
                return None
            connection.execute(_GIVE, (this_process(), *key, owner))
            return str(url)

        return self._database.write(take)

    def leave(self, registry: str, repository: str, digest: Digest) -> None:
        """Let this process' session be anybody's."""
        row = _NOBODY, registry, repository, str(digest), this_process()
        self._database.write(lambda connection: connection.execute(_GIVE, row))

    def forget(self, registry: str, repository: str, digest: Digest) -> None:
        """Forget this process' session, which ended one way or the other."""
        row = registry, repository, str(digest), this_process()
        self._database.write(lambda connection: connection.execute(_DELETE, row))


def _seal(*facts: str) -> str:
    """Return what a row must carry: nobody's half of a URL gets a blob."""
    return Digest.of(" ".join(facts).encode()).encoded
