"""Files that somebody asked for, outside of any store: written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .disk import Disk
from .named_disk import disk_of

_MAX_LINKS = 40  # as Linux counts them
_IN_PLACE = (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replacing(
    directory: int, name: str, disk: Disk | None = None, mode: int | None = None
) -> Generator[int]:
    """Open a file to write, which has the name `name` once the block has ended well.

    Its bytes are on disk then, and what had the name before had it until then. The caller
    syncs the directory. Without a `mode` it is what the umask leaves of 0666. Nothing shows
    that the file is being written, except on a `NamedDisk`.
    """
    disk = disk or disk_of(directory)
    file = disk.create(directory, mode)
    try:
        yield file
        disk.sync(file)
        disk.place(file, directory, name)
    finally:
        disk.close(file)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in an existing directory.

    Whoever reads it meets what was there before, or all of this. Only a file that cannot be
    replaced is written in place: one that is mounted itself, such as Kubernetes' termination log,
    one that is not regular, or one in a directory that may not be written.

    A symbolic link stays one if it belongs to root or to who writes; another's is replaced, for it
    may lead to what its owner may not write (Linux has the same rule, in fs.protected_symlinks).

    Raises:
        OSError: it cannot be written, or nobody reads a FIFO; `filename` is the whole path.
    """
    for _ in range(_MAX_LINKS):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not _is_followed(path.name, directory):
                _write(directory, path.name, content)
                return
            path = path.parent / os.readlink(path.name, dir_fd=directory)
        except OSError as error:
            error.filename, error.filename2 = str(path), None  # not the name before the right one
            raise
        finally:
            os.close(directory)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_followed(name: str, directory: int) -> bool:
    found = _found(name, directory)
    return found is not None and stat.S_ISLNK(found.st_mode) and found.st_uid in (0, os.geteuid())


def _write(directory: int, name: str, content: bytes) -> None:
    found = _found(name, directory)
    if found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        _write_in_place(directory, name, content)
        return
    try:
        with replacing(directory, name) as file, open(file, "wb", closefd=False) as stream:
            stream.write(content)
    except OSError as error:
        if error.errno not in _IN_PLACE or found is None:
            raise
        _write_in_place(directory, name, content)


def _write_in_place(directory: int, name: str, content: bytes) -> None:
    # without O_NONBLOCK a FIFO would wait for a reader
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "wb", buffering=0) as file:
        os.set_blocking(file.fileno(), True)
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]


def _found(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
