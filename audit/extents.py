"""Bytes that files share without being one: the extents of reflinks, each once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ..store.extents import ENCODED, SHARED, cannot_tell, extents

T = TypeVar("T")

_NEVER_SHARE = {"ext2", "ext3", "ext4", "tmpfs", "ramfs", "vfat", "exfat"}
_NOT_NOW = {errno.ENOENT, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class Shared:
    """Bytes of a disk that several files have, or one several times.

    Attributes:
        device: st_dev of the file system.
        start: the first byte.
        length: bytes; those of the file where the file system compressed them, since the kernel
            does not tell what they take.
        is_encoded: whether `start` is but the name of something compressed.
    """

    device: int
    start: int
    length: int
    is_encoded: bool


class Sharing:
    """Asks file systems for what files share; those that never share anything only once."""

    def __init__(self) -> None:
        self._may_share: dict[int, bool] = {}
        self._types = _types()

    def shared(self, directory: int, name: str, device: int) -> tuple[Shared, ...]:
        """Return what a regular file in an open directory shares with others, or may share.

        Nothing where that cannot be told: the file may not be read, or is gone.
        """
        if not self._may_share.setdefault(device, self._types.get(device) not in _NEVER_SHARE):
            return ()
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=directory)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return ()
            raise
        try:
            return tuple(
                Shared(device, extent.physical, extent.length, bool(extent.flags & ENCODED))
                for extent in extents(file)
                if extent.flags & SHARED
            )
        except OSError as error:
            if not cannot_tell(error):
                raise
            self._may_share[device] = False
            return ()
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """Bytes of a disk, and the files that have them."""

    size: int
    files: tuple[T, ...]


def pieces(found: Iterable[tuple[Shared, T]]) -> Iterator[Piece[T]]:
    """Yield the bytes that extents of files cover, each byte once, with all files that have it.

    Extents may overlap in any way. The same file may come several times.
    """
    encoded: dict[tuple[int, int], tuple[int, list[T]]] = {}
    edges: list[tuple[int, int, bool, int]] = []
    files: list[T] = []
    for extent, file in found:
        if extent.is_encoded:
            key = (extent.device, extent.start)
            size, others = encoded.get(key, (0, []))
            encoded[key] = (max(size, extent.length), [*others, file])
            continue
        edges.append((extent.device, extent.start, True, len(files)))
        edges.append((extent.device, extent.start + extent.length, False, len(files)))
        files.append(file)
    for size, sharing in encoded.values():
        yield Piece(size, tuple(sharing))
    edges.sort()
    here: dict[int, T] = {}
    device, at = -1, 0
    for other, edge, begins, number in edges:
        if here and other == device and edge > at:
            yield Piece(edge - at, tuple(here.values()))
        device, at = other, edge
        if begins:
            here[number] = files[number]
        else:
            del here[number]


def _types() -> dict[int, str]:
    """Return the types of the mounted file systems by st_dev; btrfs shows others there."""
    found: dict[int, str] = {}
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            major, _, minor = before.split()[2].partition(":")
            found[os.makedev(int(major), int(minor))] = after.split()[0]
    return found
