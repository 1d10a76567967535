"""index.sqlite: what makes the store quick or careful, and can be lost.

No image depends on it. A database that is missing, damaged or of another version is
replaced by an empty one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..oci.errors import InvalidContent
from .lock import take

log = logging.getLogger(__name__)

VERSION = 5  # PRAGMA user_version
TIMEOUT = 30.0  # seconds to wait for another process' transaction

_SCHEMA = (
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
    """
    CREATE TABLE checksums (
      digest TEXT NOT NULL PRIMARY KEY, -- of a blob of the pool
      size INTEGER NOT NULL,    -- its bytes
      blake3 TEXT NOT NULL,     -- of its content
      inode INTEGER NOT NULL,   -- of its file
      changed INTEGER NOT NULL, -- mtime of that, in nanoseconds
      verified REAL NOT NULL,   -- when it was found good, in seconds since the epoch
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
      PRIMARY KEY (registry, repository, digest)
    ) WITHOUT ROWID
    """,
)
_ERRNOS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
}

T = TypeVar("T")


class _NotOurs(Exception):
    """The database is new, or of another version: whoever has it alone makes it ours."""


class IndexDatabase:
    """The database of one store. Thread-safe, and safe among processes: a connection a use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `look` returns for a connection that sees one moment; writers go on.

        Otherwise as `write`.
        """
        return self._run(look, "BEGIN")

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `change` returns for a connection inside a write transaction.

        It is called again, in the end on an empty database, when the database is found
        to be damaged; for that it may raise InvalidContent, too.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        return self._run(change, "BEGIN IMMEDIATE")

    def _run(self, action: Callable[[sqlite3.Connection], T], begin: str) -> T:
        try:
            with self._locked(fcntl.LOCK_SH):
                return self._transaction(action, begin)
        except _NotOurs:
            pass
        except (sqlite3.Error, InvalidContent) as error:
            if not self._is_damage(error):
                raise self._os_error(error) from error
        try:
            with self._locked(fcntl.LOCK_EX):
                return self._repaired(action, begin)
        except (sqlite3.Error, InvalidContent) as error:
            raise self._os_error(error) from error

    def _repaired(self, action: Callable[[sqlite3.Connection], T], begin: str) -> T:
        try:
            return self._transaction(
                action, begin, alone=True
            )  # another process may have been first
        except (sqlite3.Error, InvalidContent) as error:
            if not self._is_damage(error):
                raise
            log.warning("%s: %s; starting an empty one", self._path, error)
        for file in self._files:
            if file.is_dir() and not file.is_symlink():
                file.rmdir()  # an empty one, such as what a container's mount leaves
            else:
                file.unlink(missing_ok=True)
        return self._transaction(action, begin, alone=True)

    def _transaction(
        self, action: Callable[[sqlite3.Connection], T], begin: str, *, alone: bool = False
    ) -> T:
        with contextlib.closing(self._connect(alone=alone)) as connection:
            connection.execute(begin)
            with connection:
                try:
                    return action(connection)
                except (MemoryError, ValueError, TypeError, OverflowError) as error:
                    # Damage may announce gigabytes, or be text where a number belongs.
                    raise sqlite3.DatabaseError("no value of ours") from error

    @contextmanager
    def _locked(self, how: int) -> Generator[None]:
        """Share the files of the database, or have them alone to replace them.

        SQLite's own locks go away with the files, and with them its word on who uses these.
        """
        path = self._path.with_suffix(".lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            if not take(file, how, TIMEOUT):
                raise OSError(errno.EBUSY, "another process keeps it", str(path))
            yield
        finally:
            os.close(file)

    def _connect(self, *, alone: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=TIMEOUT, isolation_level=None)
        try:
            connection.text_factory = _text
            # Power loss may damage what was not synced, and that is found and replaced. A sync
            # costs some milliseconds, several times in each command.
            connection.execute("PRAGMA synchronous = OFF")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                if not alone:
                    raise _NotOurs
                self._reset(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reset(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")  # refused at once if another has it open
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in tables.fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    @property
    def _files(self) -> list[Path]:
        return [self._path.with_name(f"{self._path.name}{end}") for end in ("", "-wal", "-shm")]

    def _is_damage(self, error: sqlite3.Error | InvalidContent) -> bool:
        """Tell whether the cause is what the database holds, not what the system refuses."""
        if not isinstance(error, sqlite3.OperationalError):
            return not isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError)
        code = _code(error)
        if code == sqlite3.SQLITE_READONLY:  # also for a format of the future in the header
            return os.access(self._path, os.W_OK)
        if code == sqlite3.SQLITE_CANTOPEN:
            return any(map(os.path.isdir, self._files))
        return code == sqlite3.SQLITE_ERROR  # such as a table that is not there

    def _os_error(self, error: sqlite3.Error | InvalidContent) -> OSError:
        code = _code(error)
        number = _ERRNOS.get(code, errno.EIO)
        if code == sqlite3.SQLITE_IOERR and _is_full(self._path.parent):
            number = errno.ENOSPC  # SQLite says so of its first file only
        elif code == sqlite3.SQLITE_CANTOPEN:
            number = self._why_not_opened()
        words = os.strerror(number) if number == errno.ENOSPC else str(error)
        return OSError(number, words, str(self._path))

    def _why_not_opened(self) -> int:
        there = self._path if self._path.exists() else self._path.parent
        if not there.exists():
            return errno.ENOENT
        return errno.EIO if os.access(there, os.R_OK | os.W_OK) else errno.EACCES


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; SQLITE_OK for an error that is Python's."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF


def _is_full(directory: Path) -> bool:
    return os.statvfs(directory).f_bavail == 0


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")  # damage, which whoever reads it will notice
