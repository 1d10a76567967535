"""Files that anybody may have made: opened without following links, read in bounded blocks."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..oci.digest import CANONICAL, Digest, new_hash
from ..oci.errors import InvalidContent

READ_SIZE = 1 << 20  # bytes; larger reads measured no faster, and this bounds memory
Buffer: TypeAlias = bytes | bytearray | memoryview

BLOCK = 512  # bytes; the unit of st_blocks, whatever the file system's own block size


@dataclass(frozen=True, slots=True)
class Portion:
    """Some bytes of an open file that stays somebody else's."""

    file: int
    offset: int
    size: int


def open_directory(name: str | bytes | os.PathLike[str], parent: int | None = None) -> int:
    """Open a directory, never through a symbolic link; the caller closes it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=parent)


def open_file(name: str, parent: int) -> int:
    """Open a regular file to read, never through a symbolic link; the caller closes it.

    Raises:
        InvalidContent: the name stands for something else, such as a link or a FIFO.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not wait
    try:
        file = os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise InvalidContent(f"{name!r} is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidContent(f"{name!r} is not a regular file")
    return file


def open_inside(path: Path, directory: Path) -> int:
    """Open a regular file that lies in a directory, wherever links may lead; the caller closes it.

    O_PATH touches nothing behind a link, such as a device or a FIFO, before the path that the
    kernel reports is known to be inside.

    Raises:
        InvalidContent: it is no regular file, or lies elsewhere.
    """
    inside = os.path.realpath(directory)
    try:
        os.stat(path)  # the kernel looks again for what a mount replaced; O_PATH would not
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise InvalidContent(f"{path} is not a regular file") from None
        raise
    try:
        entry = f"/proc/self/fd/{found}"
        if not os.readlink(entry).startswith(f"{inside.rstrip('/')}/"):
            raise InvalidContent(f"{path} leads out of {directory}")
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise InvalidContent(f"{path} is not a regular file")
        try:
            return os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            error.filename = str(path)
            raise
    finally:
        os.close(found)


def read_cached(file: int, offset: int, buffer: bytearray | memoryview) -> int | None:
    """Fill a buffer if the page cache holds it all; None instead of waiting for a disk.

    Returns how many bytes there are: fewer at the file's end.
    """
    try:
        count = os.preadv(file, [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not cached.  EOPNOTSUPP: this file system cannot tell.
        return None
    if count < len(buffer) and offset + count < os.fstat(file).st_size:
        return None
    return count


def digest_of_file(file: int, algorithm: str = CANONICAL) -> Digest:
    """Return the digest of an open file's whole content; its position does not change."""
    running, offset = new_hash(algorithm), 0
    while data := os.pread(file, READ_SIZE, offset):
        running.update(data)
        offset += len(data)
    return Digest(algorithm, running.hexdigest())
