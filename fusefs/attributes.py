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

    def of_blob(self, status: os.stat_result) -> Attributes:
        """Return the attributes of a blob, which never change; that it is there may end."""
        shown = self._shown(status, stat.S_IFREG | _BLOB_MODE)
        return replace(shown, attr_timeout=DAY)

    def of_absent(self, inode: int, size: int) -> Attributes:
        """Return the attributes of a blob that will be fetched when it is opened."""
        mode = stat.S_IFREG | _BLOB_MODE
        return Attributes(
            inode, mode, 1, self.uid, self.gid, size, 0, 0, 0, 0, SECOND, attr_timeout=SECOND
        )

    def of_directory(self, status: os.stat_result) -> Attributes:
        """Return the attributes of a directory."""
        return self._shown(status, stat.S_IFDIR | (0o777 & ~self.umask))

    def of_file(self, status: os.stat_result) -> Attributes:
        """Return the attributes of an ordinary file or a symbolic link."""
        return self._shown(status, status.st_mode)

    def of_guarded(self, status: os.stat_result) -> Attributes:
        """Return the attributes of an index or marker: another file after each commit."""
        return replace(self.of_file(status), entry_timeout=0.0, attr_timeout=0.0)

    def of_staged(self, status: os.stat_result, inode: int, mode: int, size: int) -> Attributes:
        """Return the attributes of a file that is still being written."""
        shown = self._shown(status, stat.S_IFREG | mode)
        return replace(shown, inode=inode, links=1, size=size, entry_timeout=0.0, attr_timeout=0.0)

    def _shown(self, status: os.stat_result, mode: int) -> Attributes:
        return Attributes(
            inode=status.st_ino,
            mode=mode,
            links=status.st_nlink,
            uid=self.uid,
            gid=self.gid,
            size=status.st_size,
            blocks=status.st_blocks,
            atime_ns=status.st_atime_ns,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            entry_timeout=SECOND,
            attr_timeout=SECOND,
        )
