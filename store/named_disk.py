"""A disk for file systems that know no unnamed files."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from contextlib import suppress

from .disk import LEFT_BEHIND, Disk

UNFINISHED = ".unfinished-"  # begins a new file's name, where a mount of ours hides what is spare

_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}  # vfat, NFS, FUSE


class NamedDisk(Disk):
    """A disk for file systems without unnamed files. Thread-safe.

    A new file is called `.unfinished-…` until it gets its name, and SIGKILL leaves it behind for
    `sweep`, which knows by a lock that nobody writes it any more.
    Who names a file at the same moment as another may replace the other's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spares: dict[int, tuple[int, str]] = {}  # by open file: its directory and its name

    def create(self, directory: int, mode: int | None = 0o444) -> int:
        """Open a new file; closing it before it has another name discards it."""
        spare = f"{UNFINISHED}{os.urandom(8).hex()}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = os.open(spare, flags, 0o666, dir_fd=directory)
        with suppress(OSError):  # without locks `sweep` removes nothing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with self._lock:
            self._spares[file] = (os.dup(directory), spare)
        if mode is not None:
            with suppress(PermissionError):  # vfat has one mode for all
                os.fchmod(file, mode | stat.S_IWUSR)
        return file

    def sweep(self, directory: int) -> None:
        """Remove what processes left behind that were killed a minute ago, or before."""
        super().sweep(directory)
        for name in os.listdir(directory):
            if not name.startswith(UNFINISHED):
                continue
            with suppress(OSError):  # somebody else's, or gone
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(name, flags, dir_fd=directory)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if time.time() - os.fstat(file).st_mtime > LEFT_BEHIND:
                        self.unlink(directory, name)
                finally:
                    os.close(file)

    def seal(self, file: int) -> None:
        """Leave the mode as it is: what lies here has no links in a pool."""

    def name(self, file: int, directory: int, name: str) -> bool:
        """Give a new file its name; False when the name was already taken."""
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            return False
        self.place(file, directory, name)
        return True

    def place(self, file: int, directory: int, name: str) -> None:
        """Give a new file its name, in the place of what has it."""
        above, spare = self._spares[file]
        self.rename(above, spare, directory, name)
        with self._lock:
            del self._spares[file]
        os.close(above)

    def close(self, file: int) -> None:
        """Close a file, and discard what has no name yet."""
        with self._lock:
            above, spare = self._spares.pop(file, (-1, ""))
        super().close(file)
        if spare:
            try:
                self.unlink(above, spare)
            finally:
                os.close(above)


def disk_of(directory: int) -> Disk:
    """Return the disk for the file system of an open directory, which may lack unnamed files."""
    try:
        os.close(os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory))
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        return NamedDisk()
    return Disk()
