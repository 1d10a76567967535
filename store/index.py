"""index.sqlite: what makes the store quick or careful, and can be lost.

No image depends on it. A database that is missing, damaged or of another version is
replaced by an empty one.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

VERSION = 1  # PRAGMA user_version
TIMEOUT = 30.0  # seconds to wait for another process' transaction

_SCHEMA = """
CREATE TABLE leases (
  owner TEXT NOT NULL,      -- who relies on the blob: see leases.py
  digest TEXT NOT NULL,
  expires REAL NOT NULL,    -- seconds since the epoch
  PRIMARY KEY (owner, digest)
) WITHOUT ROWID;
"""


class IndexDatabase:
    """The database of one store. Thread-safe, and safe among processes: a connection a use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Give a connection inside a write transaction, which the block's success commits.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        try:
            with contextlib.closing(self._open()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    yield connection
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            log.warning("%s: %s; starting an empty one", self._path, error)
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=TIMEOUT, isolation_level=None)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                self._reset(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reset(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == VERSION:
                return  # another process was first
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in tables.fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")
