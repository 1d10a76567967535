"""The stat fields of what the mount shows: pure."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace

DAY = 86_400.0  # seconds; content under a digest never changes
SECOND = 1.0  # other processes work on the store too

_BLOB_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) answers, and for how many seconds the kernel may believe it."""

    inode: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    entry_timeout: float
    attr_timeout: float


@dataclass(frozen=True, slots=True)
class Presentation:
    """Whose files the mount shows, and with which permissions for directories."""

    uid: int
    gid: int
    umask: int

    def of_blob(self, status: os.stat_result, inode: int, entry: float = SECOND) -> Attributes:
        """Return the attributes of a blob, which never change.

        That it is there may end, but not before `entry` seconds.
        """
        return self._shown(status, inode, stat.S_IFREG | _BLOB_MODE, entry, DAY)

    def of_absent(self, inode: int, size: int) -> Attributes:
        """Return the attributes of a blob that will be fetched when it is opened."""
        mode = stat.S_IFREG | _BLOB_MODE
        return Attributes(
            inode, mode, 1, self.uid, self.gid, size, 0, 0, 0, 0, SECOND, attr_timeout=SECOND
        )

    def of_directory(self, status: os.stat_result, inode: int) -> Attributes:
        """Return the attributes of a directory.

        Asked for each time, so that nobody relies on one that another process has just removed.
        """
        return self._shown(status, inode, stat.S_IFDIR | (0o777 & ~self.umask), SECOND, 0.0)

    def of_file(self, status: os.stat_result, inode: int) -> Attributes:
        """Return the attributes of an ordinary file or a symbolic link."""
        return self._shown(status, inode, status.st_mode, SECOND, SECOND)

    def of_guarded(self, status: os.stat_result, inode: int) -> Attributes:
        """Return the attributes of an index or marker: another file after each commit."""
        return self._shown(status, inode, status.st_mode, 0.0, DAY)

    def of_staged(self, status: os.stat_result, inode: int, mode: int, size: int) -> Attributes:
        """Return the attributes of a file that is still being written."""
        shown = self._shown(status, inode, stat.S_IFREG | mode, 0.0, 0.0)
        return replace(shown, links=1, size=size)

    def _shown(
        self, status: os.stat_result, inode: int, mode: int, entry: float, attr: float
    ) -> Attributes:
        return Attributes(
            inode,
            mode,
            status.st_nlink,
            self.uid,
            self.gid,
            status.st_size,
            status.st_blocks,
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
            entry,
            attr,
        )
