"""Files that the kernel reads by itself, without asking us (FUSE passthrough)."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
from dataclasses import dataclass, field

from ..handles import Opened
from . import wire
from .wire import Open

log = logging.getLogger(__name__)

_OPEN = 0x4010E501  # FUSE_DEV_IOC_BACKING_OPEN
_CLOSE = 0x4004E502  # FUSE_DEV_IOC_BACKING_CLOSE


@dataclass(slots=True)
class _Backed:
    """How the handles of one inode are open, as far as the kernel distinguishes them."""

    number: int = 0  # by which the kernel knows the backing file; 0 is none
    file: tuple[int, int] = (0, 0)  # device and inode of that
    passed: set[int] = field(default_factory=set[int])
    cached: set[int] = field(default_factory=set[int])


class Backings:
    """Backing files by inode, for what is open on one mount.

    The kernel (fs/fuse/iomode.c) fails an open with EIO unless an inode's handles agree: all that
    pass through have one backing file; while there are any, no other uses the page cache of the
    mount, and all say so. A handle with DIRECT_IO, too, is in no one's way and is served by us.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._inodes: dict[int, _Backed] = {}
        self.is_possible = True

    def add(self, inode: int, opened: Opened, *, writable: bool) -> tuple[Open, int]:
        """Decide how an open file is read; returns what OPEN answers.

        Raises:
            OSError: ETXTBSY: the kernel would let its mappings write to another's backing file.
        """
        backed = self._inodes.get(inode)
        if opened.backing >= 0 and self.is_possible and not (backed and backed.cached):
            backed = backed or self._inodes.setdefault(inode, _Backed())
            if not backed.passed:
                self._register(backed, opened.backing)
            if backed.number:
                return self._pass(backed, opened)
        if backed and backed.passed:
            if writable:
                raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY))
            backed.passed.add(opened.handle)
            return Open.PASSTHROUGH | Open.DIRECT_IO, backed.number
        if opened.direct:
            return Open.DIRECT_IO, 0
        self._inodes.setdefault(inode, _Backed()).cached.add(opened.handle)
        return Open.KEEP_CACHE if opened.keep else Open(0), 0

    def remove(self, inode: int, handle: int) -> None:
        """Forget an open file that was closed."""
        backed = self._inodes.get(inode)
        if backed is None:
            return
        backed.cached.discard(handle)
        if handle in backed.passed:
            backed.passed.remove(handle)
            if not backed.passed:
                fcntl.ioctl(self._device, _CLOSE, backed.number.to_bytes(4, sys.byteorder))
                backed.number = 0
        if not backed.passed and not backed.cached:
            del self._inodes[inode]

    def _register(self, backed: _Backed, file: int) -> None:
        try:
            backed.number = fcntl.ioctl(self._device, _OPEN, bytearray(wire.BACKING.pack(file, 0)))
        except OSError as error:
            log.warning("the kernel does not read files of the store by itself: %s", error)
            self.is_possible = False
        else:
            backed.file = _identity(file)

    def _pass(self, backed: _Backed, opened: Opened) -> tuple[Open, int]:
        backed.passed.add(opened.handle)
        if backed.file == _identity(opened.backing):
            return Open.PASSTHROUGH, backed.number
        return Open.PASSTHROUGH | Open.DIRECT_IO, backed.number


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino
