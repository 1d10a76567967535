"""Blobs that leave the pool while a mount shows them. See ADR 17."""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeAlias

import trio

from ..oci.digest import Digest, is_encoded

log = logging.getLogger(__name__)

# A client that was told of a blob just now may not have noted it yet: an invalidation that
# overtook the answer would be lost. Many that go at once are also handled at once.
PAUSE = 0.2  # seconds

_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name
_MOVED_FROM, _DELETED, _OVERFLOW, _ENDED = 0x40, 0x200, 0x4000, 0x8000
_ONLY_A_DIRECTORY, _NO_LINK = 0x0100_0000, 0x0200_0000
_BUFFER = 64 << 10

Gone: TypeAlias = frozenset[Digest] | None  # None when anything may be


class Watch:
    """Hears through inotify(7) which names a pool loses. Lives on the event loop.

    For a `with` block. Where the system gives no inotify, nothing is covered.
    """

    def __init__(self, pool: Path) -> None:
        self._pool = pool
        self._file = -1
        self._watched: dict[int, str] = {}  # algorithms
        self._asked: set[str] = set()

    def __enter__(self) -> Self:
        self._file = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            log.info("no inotify: %s", os.strerror(ctypes.get_errno()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def covers(self, algorithm: str) -> bool:
        """Tell whether blobs named by this algorithm are watched from now on."""
        if algorithm not in self._asked:
            self._add(algorithm)
        return algorithm in self._watched.values()

    async def next(self) -> Gone:
        """Return the digests that the pool has lost, some time after it has."""
        if self._file < 0:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._file)
        await trio.sleep(PAUSE)
        return self._read()

    def _add(self, algorithm: str) -> None:
        if self._file < 0:
            return
        mask = _MOVED_FROM | _DELETED | _ONLY_A_DIRECTORY | _NO_LINK
        number = _libc().inotify_add_watch(
            self._file, os.fsencode(self._pool / algorithm), ctypes.c_uint32(mask)
        )
        if number >= 0:
            self._watched[number] = algorithm
        elif ctypes.get_errno() == errno.ENOENT:
            return  # nothing to watch yet
        else:
            log.info("%s is not watched: %s", algorithm, os.strerror(ctypes.get_errno()))
        self._asked.add(algorithm)

    def _read(self) -> Gone:
        """Return what the events that there are tell of."""
        found: set[Digest] = set()
        is_lost = False
        while data := _read_events(self._file):
            for number, mask, name in _events(data):
                algorithm = self._watched.get(number, "")
                if mask & _OVERFLOW:
                    is_lost = True
                elif mask & _ENDED:  # somebody removed the directory
                    self._watched.pop(number, None)
                    self._asked.discard(algorithm)
                    is_lost = True
                elif is_encoded(algorithm, name):
                    found.add(Digest(algorithm, name))
        return None if is_lost else frozenset(found)


def _read_events(file: int) -> bytes:
    try:
        return os.read(file, _BUFFER)
    except BlockingIOError:
        return b""


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    offset = 0
    while offset < len(data):
        number, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        yield number, mask, data[offset : offset + length].rstrip(b"\0").decode("latin-1")
        offset += length


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
