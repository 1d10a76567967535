"""The tables of index.sqlite, and connections to a database that has them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

VERSION = 5  # PRAGMA user_version

_TABLES = (
    """
    CREATE TABLE layers (
      diff_id TEXT NOT NULL,    -- of the plain tar
      plain_size INTEGER NOT NULL, -- its bytes
      digest TEXT NOT NULL,     -- of a blob that was seen to inflate to it
      media_type TEXT NOT NULL,
      size INTEGER NOT NULL,    -- bytes of the blob
      seal TEXT NOT NULL,       -- of the row: see layers.py
      PRIMARY KEY (diff_id, digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX layers_by_size ON layers (plain_size)",
    "CREATE INDEX layers_by_digest ON layers (digest)",
    """
    CREATE TABLE checksums (
      digest TEXT NOT NULL PRIMARY KEY, -- of a blob of the pool
      size INTEGER NOT NULL,    -- its bytes
      blake3 TEXT NOT NULL,     -- of its content; empty if it was not found good
      inode INTEGER NOT NULL,   -- of its file
      changed INTEGER NOT NULL, -- mtime of that, in nanoseconds
      verified REAL NOT NULL,   -- when it was read, in seconds since the epoch
      seal TEXT NOT NULL        -- of the row: see checksums.py
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE runs (
      selection TEXT NOT NULL PRIMARY KEY, -- of blobs whose verification has not ended
      began REAL NOT NULL       -- seconds since the epoch
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE locations (
      registry TEXT NOT NULL,   -- host[:port]
      digest TEXT NOT NULL,
      repository TEXT NOT NULL, -- of that registry, where the blob was seen
      manifest TEXT NOT NULL,   -- that mentions the blob there; of a manifest, itself
      seen REAL NOT NULL,       -- seconds since the epoch
      PRIMARY KEY (registry, digest, repository)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE uploads (
      registry TEXT NOT NULL,
      repository TEXT NOT NULL,
      digest TEXT NOT NULL,
      url TEXT NOT NULL,        -- of the upload session
      owner TEXT NOT NULL,      -- who writes to it: see processes.py
      begun REAL NOT NULL,      -- seconds since the epoch
      seal TEXT NOT NULL,       -- of where the session is: see uploads.py
      PRIMARY KEY (registry, repository, digest)
    ) WITHOUT ROWID
    """,
)


class NotOurs(Exception):
    """The database is new, or of another version: whoever has it alone makes it ours."""


def connect(path: Path, timeout: float, *, alone: bool = False) -> sqlite3.Connection:
    """Return a connection, which waits for others for `timeout` seconds; the caller closes it.

    `alone` says that nobody else uses the file: what is not ours in it is replaced.

    Raises:
        NotOurs: it is new, or of another version.
        sqlite3.Error: it is damaged, or cannot be opened.
    """
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    try:
        connection.text_factory = _text
        # Power loss may damage what was not synced, and that is found and replaced. A sync
        # costs some milliseconds, several times in each command.
        connection.execute("PRAGMA synchronous = OFF")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            if not alone:
                raise NotOurs
            _reset(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def rescue(damaged: sqlite3.Connection, to: sqlite3.Connection) -> None:
    """Copy the rows that can be read: from either end of each table up to the damage."""
    tables = to.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    to.execute("BEGIN IMMEDIATE")
    with to:
        for (table,) in tables:
            columns = to.execute(f"PRAGMA table_info({table})").fetchall()
            keys = sorted((place, name) for _, name, *_, place in columns if place)
            values = ", ".join("?" * len(columns))
            names = ", ".join(name for _, name, *_ in columns)
            insert = f"INSERT OR IGNORE INTO {table} VALUES ({values})"  # noqa: S608 - words of ours
            for order in ("ASC", "DESC"):
                by = ", ".join(f"{name} {order}" for _, name in keys)
                select = f"SELECT {names} FROM {table} ORDER BY {by}"  # noqa: S608 - likewise
                try:
                    to.executemany(insert, damaged.execute(select))
                except (sqlite3.DatabaseError, MemoryError):
                    continue
                break


def _reset(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")  # refused at once if another has it open
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (name,) in tables.fetchall():
            connection.execute(f'DROP TABLE "{name}"')
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")  # damage, which whoever reads it will notice
