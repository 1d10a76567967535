"""Where a file system has the bytes of a file, so that one can see what files share.

Source: Linux, Documentation/filesystems/fiemap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator
from dataclasses import dataclass

LAST, ENCODED, INLINE, SHARED = 0x1, 0x8, 0x200, 0x2000  # flags of extents

_FIEMAP = 0xC020660B  # ioctl: _IOWR('f', 11, struct fiemap)
_SYNC = 0x1  # flag of the call: write first what has no place yet
_HEADER = struct.Struct("=QQIIII")  # start, length, flags, mapped extents, room, reserved
_EXTENT = struct.Struct("=QQQQQIIII")  # logical, physical, length, 2 reserved, flags, 3 reserved
_ROOM = 17  # extents a call; fcntl.ioctl copies up to 1024 bytes without another allocation
_WHOLE = (1 << 64) - 1
_CANNOT_TELL = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a file that lie together on the disk.

    Attributes:
        logical: where they begin in the file.
        physical: where they begin on the disk, or what names them there if they are compressed.
        length: bytes; those of the file if they are compressed.
        flags: see fiemap.rst.
    """

    logical: int
    physical: int
    length: int
    flags: int


def extents(file: int, *, sync: bool = False) -> Iterator[Extent]:
    """Yield the extents of an open file, in order; holes have none.

    What was written lately has no place yet, unless `sync` makes the file system choose one.

    Raises:
        OSError: the file system cannot tell; see `cannot_tell`.
    """
    start = 0
    while True:
        request = bytearray(_HEADER.size + _ROOM * _EXTENT.size)
        _HEADER.pack_into(request, 0, start, _WHOLE - start, _SYNC if sync else 0, 0, _ROOM, 0)
        fcntl.ioctl(file, _FIEMAP, request)
        mapped: int = _HEADER.unpack_from(request)[3]
        flags = LAST
        for number in range(mapped):
            logical, physical, length, _, _, flags, _, _, _ = _EXTENT.unpack_from(
                request, _HEADER.size + number * _EXTENT.size
            )
            start = logical + length
            yield Extent(logical, physical, length, flags)
        if flags & LAST:
            return


def cannot_tell(error: OSError) -> bool:
    """Tell whether an error of `extents` means that the file system has no answer at all."""
    return error.errno in _CANNOT_TELL


def places(found: list[Extent], size: int) -> list[tuple[int, int, int]]:
    """Return where the first `size` bytes of a file lie: logical, physical, length.

    Two files whose places are the same share all their bytes. What follows each other in
    the file and on the disk is one, however the file system notes it.
    """
    joined: list[tuple[int, int, int]] = []
    for extent in found:
        length = min(extent.length, size - extent.logical)
        if length <= 0:
            continue
        if joined and not extent.flags & ENCODED:
            logical, physical, before = joined[-1]
            if (logical + before, physical + before) == (extent.logical, extent.physical):
                joined[-1] = (logical, physical, before + length)
                continue
        joined.append((extent.logical, extent.physical, length))
    return joined
