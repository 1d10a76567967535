"""index.sqlite: what makes the store quick or careful, and can be lost.

No image depends on it. A database that is missing, damaged or of another version is
replaced by an empty one; `reindex` keeps what can be read of a damaged one.
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

from ...oci.errors import InvalidContent
from ..lock import take
from .schema import NotOurs, connect, rescue

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds to wait for another process' transaction

_ERRNOS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
}

T = TypeVar("T")


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

    def damage(self) -> str:
        """Return what is wrong with the database as far as SQLite can tell; nothing if all is well.

        Raises:
            OSError: another process blocked the database for too long.
        """
        try:
            with (
                self._locked(fcntl.LOCK_SH),
                contextlib.closing(connect(self._path, TIMEOUT)) as connection,
            ):
                (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except NotOurs:
            return ""  # or it is made anew before it is used
        except sqlite3.Error as error:
            if not self._is_damage(error):
                raise self._os_error(error) from error
            return str(error)
        return "" if found == "ok" else str(found).partition("\n")[0]

    def salvage(self) -> None:
        """Make the database anew, with all rows that can be read; others wait meanwhile.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        new = self._path.with_name(f".ocistow-{self._path.name}")
        try:
            with self._locked(fcntl.LOCK_EX):
                for file in _files(new):
                    file.unlink(missing_ok=True)
                with contextlib.closing(connect(new, TIMEOUT, alone=True)) as to:
                    self._rescue(to)
                self._discard()
                new.rename(self._path)
        except sqlite3.Error as error:
            raise self._os_error(error) from error

    def _rescue(self, to: sqlite3.Connection) -> None:
        try:
            with contextlib.closing(connect(self._path, TIMEOUT)) as damaged:
                rescue(damaged, to)
        except (sqlite3.DatabaseError, NotOurs) as error:
            log.warning("%s: no row can be read: %s", self._path, error)

    def _run(self, action: Callable[[sqlite3.Connection], T], begin: str) -> T:
        try:
            with self._locked(fcntl.LOCK_SH):
                return self._transaction(action, begin)
        except NotOurs:
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
        self._discard()
        return self._transaction(action, begin, alone=True)

    def _transaction(
        self, action: Callable[[sqlite3.Connection], T], begin: str, *, alone: bool = False
    ) -> T:
        with contextlib.closing(connect(self._path, TIMEOUT, alone=alone)) as connection:
            connection.execute(begin)
            with connection:
                try:
                    result = action(connection)
                    if isinstance(result, sqlite3.Cursor):
                        result.close()  # which would keep the files open beyond the lock
                    return result
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

    def _discard(self) -> None:
        for file in _files(self._path):
            if file.is_dir() and not file.is_symlink():
                file.rmdir()  # an empty one, such as what a container's mount leaves
            else:
                file.unlink(missing_ok=True)

    def _is_damage(self, error: sqlite3.Error | InvalidContent) -> bool:
        """Tell whether the cause is what the database holds, not what the system refuses."""
        if not isinstance(error, sqlite3.OperationalError):
            return not isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError)
        code = _code(error)
        if code == sqlite3.SQLITE_READONLY:  # also for a format of the future in the header
            return os.access(self._path, os.W_OK)
        if code == sqlite3.SQLITE_CANTOPEN:
            return any(map(os.path.isdir, _files(self._path)))
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


def _files(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-shm")]


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; SQLITE_OK for an error that is Python's."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF


def _is_full(directory: Path) -> bool:
    return os.statvfs(directory).f_bavail == 0
