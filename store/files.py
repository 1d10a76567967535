"""Ordinary files below the layout root: what is neither blob nor index.

Paths are bytes relative to the root, and their last element is never followed when it is a
symbolic link. They are not deduplicated, and as durable as their writer makes them with fsync.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ..oci.digest import Digest
from .blobs import BlobStore
from .disk import Disk
from .reading import open_directory


class Files:
    """Changes to plain files and directories. Thread-safe; owns the descriptor of the root."""

    def __init__(self, root: int, blobs: BlobStore, disk: Disk) -> None:
        self._root = root
        self._blobs = blobs
        self._disk = disk

    def stat(self, path: bytes) -> os.stat_result:
        """Return the attributes of what lies at `path`, itself if it is a symbolic link."""
        return os.stat(path, dir_fd=self._root, follow_symlinks=False)

    def list(self, path: bytes) -> list[bytes]:
        """Return the names in a directory."""
        directory = open_directory(path, self._root)
        try:
            return [os.fsencode(name) for name in os.listdir(directory)]
        finally:
            os.close(directory)

    def open(self, path: bytes, flags: int, mode: int = 0o600) -> int:
        """Return a descriptor of a file, opened as the system would; the caller closes it.

        A blob that got an ordinary name is copied before it is opened for writing, since its
        bytes belong to the pool.
        """
        if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_EXCL:
            self._unshare(path)
        flags = flags & ~os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path, flags, mode, dir_fd=self._root)

    def reopen(self, file: int, mode: int) -> int:
        """Return a descriptor of an open file in an access mode; it need not have a name."""
        return os.open(f"/proc/self/fd/{file}", mode | os.O_NONBLOCK | os.O_CLOEXEC)

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link leads."""
        return os.readlink(path, dir_fd=self._root)

    def mkdir(self, path: bytes) -> None:
        """Make a directory."""
        os.mkdir(path, 0o755, dir_fd=self._root)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        os.rmdir(path, dir_fd=self._root)

    def unlink(self, path: bytes) -> None:
        """Remove a file's name."""
        os.unlink(path, dir_fd=self._root)

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symbolic link."""
        os.symlink(target, path, dir_fd=self._root)

    def link(self, path: bytes, new: bytes) -> None:
        """Give a file another name."""
        os.link(path, new, src_dir_fd=self._root, dst_dir_fd=self._root, follow_symlinks=False)

    def rename(self, path: bytes, new: bytes) -> None:
        """Move a file or directory; what may be replaced is what the system lets be replaced."""
        os.rename(path, new, src_dir_fd=self._root, dst_dir_fd=self._root)

    def chmod(self, path: bytes | int, mode: int) -> None:
        """Change the permissions of a file that is no blob; it may be an open one."""
        self._change(path, lambda file: os.fchmod(file, mode & 0o7777))

    def utime(self, path: bytes | int, atime_ns: int, mtime_ns: int) -> None:
        """Set the times of a file that is no blob; it may be an open one."""
        self._change(path, lambda file: os.utime(file, ns=(atime_ns, mtime_ns)))

    def resize(self, file: int, length: int) -> None:
        """Cut or extend an open file."""
        self._disk.truncate(file, length)

    def write(self, file: int, offset: int, data: bytes | memoryview) -> None:
        """Write to an open file."""
        self._disk.write(file, data, offset)

    def copy_range(self, source: int, offset: int, file: int, at: int, length: int) -> int:
        """Copy bytes between open files; see `Disk.copy_range`."""
        return self._disk.copy_range(source, offset, file, at, length)

    def begin_sync(self, file: int, offset: int, length: int) -> None:
        """Let the disk begin with what will be synced; see `Disk.begin_sync`."""
        self._disk.begin_sync(file, offset, length)

    def sync(self, file: int) -> None:
        """Return once an open file's bytes survive power loss."""
        self._disk.sync(file)

    def sync_names(self, path: bytes) -> None:
        """Return once the names in a directory survive power loss."""
        directory = open_directory(path, self._root)
        try:
            self._disk.sync(directory)
        finally:
            os.close(directory)

    @contextmanager
    def fenced(self, file: int) -> Generator[bool]:
        """Tell whether nobody writes to an open file; see `Disk.fenced`."""
        with self._disk.fenced(file) as alone:
            yield alone

    def statvfs(self) -> os.statvfs_result:
        """Return the size and the free space of the file system."""
        return os.fstatvfs(self._root)

    def link_blob(self, digest: Digest, path: bytes) -> None:
        """Give a blob of the pool the name `path`, replacing what has it.

        Raises:
            NotFound: the pool does not have it.
        """
        above, _, name = path.rpartition(b"/")
        directory = open_directory(above or b".", self._root)
        try:
            self._blobs.link(digest, directory, os.fsdecode(name))
        finally:
            os.close(directory)

    def _change(self, path: bytes | int, change: Callable[[int], None]) -> None:
        if isinstance(path, int):
            file = os.dup(path)
        else:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._root)
        try:
            if not is_shared(os.fstat(file)):
                change(file)
        finally:
            os.close(file)

    def _unshare(self, path: bytes) -> None:
        try:
            if not is_shared(self.stat(path)):
                return
        except FileNotFoundError:
            return  # to be created
        above, _, name = path.rpartition(b"/")
        directory = open_directory(above or b".", self._root)
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._root)
        try:
            self._disk.copy(source, directory, os.fsdecode(name), 0o644)
        finally:
            os.close(source)
            os.close(directory)


def is_shared(status: os.stat_result) -> bool:
    """Tell whether a file is a blob under another name: no write permission, several names."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and not status.st_mode & 0o222
