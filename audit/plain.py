"""Layouts that are links to the pool and no more, as nearly all are: read by any process."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..oci.digest import HEX_LENGTHS
from ..oci.image_layout import BLOBS, INDEX, MARKER
from ..store.reading import BLOCK
from ..store.store import Store
from .extents import Sharing
from .needs import needs
from .visit import Directories, Entries, Pool

_BATCH = 100  # directories told about at once


class Plain(NamedTuple):
    """A layout that needs every blob that it has, each of which is a file of the pool.

    Attributes:
        path: below the store.
        size: bytes of content of what else it has, which are `index.json` and `oci-layout`.
        on_disk: bytes that these take on disk.
        blobs: st_ino of each blob; in arrays, pickled with a tenth of the work.
        lacking: digests that it needs and has no name for.
    """

    path: str
    size: int
    on_disk: int
    blobs: array[int]
    lacking: tuple[str, ...]


class Batch(NamedTuple):
    """Some of the directories that were read.

    Attributes:
        plain: such layouts.
        odd: directories that somebody must look at more closely, with all below.
        directories: bytes on disk that the others take.
    """

    plain: list[Plain]
    odd: list[str]
    directories: int


class _Odd(Exception):
    """Something is not as it usually is."""


class PlainReader:
    """Reads directories below `layouts/`. What is odd is not counted at all. Not thread-safe."""

    def __init__(self, store: Store, top: int, pool: Pool) -> None:
        """Prepare to read below the directory `top`, the store's, which stays open meanwhile."""
        self._store = store
        self._directories = Directories(top)
        self._pool = pool
        self._asking = Sharing()

    def read(self, paths: Sequence[str]) -> Iterator[Batch]:
        """Yield what the directories are, and all below them that is not below an odd one."""
        waiting = list(paths)
        while waiting:
            batch = Batch([], [], self._directories.on_disk)
            while waiting and len(batch.plain) + len(batch.odd) < _BATCH:
                path = waiting.pop()
                before = self._directories.on_disk
                try:
                    found = self._read(path)
                except (_Odd, OSError):
                    self._directories.on_disk = before
                    self._directories.unreadable.clear()
                    batch.odd.append(path)
                    continue
                if isinstance(found, Plain):
                    batch.plain.append(found)
                else:
                    waiting += found
            yield batch._replace(directories=self._directories.on_disk - batch.directories)

    def _read(self, path: str) -> Plain | list[str]:
        """Return a layout, or the paths of the directories that are all there is in this one."""
        with self._directories.opened(path) as (directory, found):
            entries = _read_all(directory, found)
            if INDEX not in entries:
                _expect(all(entry.is_dir(follow_symlinks=False) for entry in entries.values()))
                return [f"{path}/{name}" for name in entries]
            _expect(entries.keys() == {INDEX, MARKER, BLOBS})
            size = on_disk = 0
            for name in (INDEX, MARKER):
                status = entries[name].stat(follow_symlinks=False)
                _expect(stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
                _expect(not self._asking.shared(directory, name, status.st_dev))
                size += status.st_size
                on_disk += status.st_blocks * BLOCK
            blobs = self._blobs(f"{path}/{BLOBS}")
            needed = needs(self._store, path.partition("/")[2], directory)
            if needed is None or not needed >= blobs.keys():
                raise _Odd
            lacking = tuple(needed - blobs.keys())
            return Plain(path, size, on_disk, array("Q", blobs.values()), lacking)
        raise _Odd  # it may not be read

    def _blobs(self, path: str) -> dict[str, int]:
        """Return the numbers of the files by their digests."""
        blobs: dict[str, int] = {}
        algorithms = list[str]()
        with self._directories.opened(path) as (directory, found):
            algorithms += _read_all(directory, found)
        _expect(HEX_LENGTHS.keys() >= set(algorithms))
        for algorithm in algorithms:
            with self._directories.opened(f"{path}/{algorithm}") as (directory, found):
                _expect(directory >= 0 and os.fstat(directory).st_dev == self._pool.device)
                pool = self._pool.blobs[algorithm]
                for entry in found:
                    inode = pool.get(entry.name)
                    if inode is None or inode.number != entry.inode():
                        raise _Odd
                    blobs[f"{algorithm}:{entry.name}"] = inode.number
        _expect(not self._directories.unreadable)  # of what may not be read, the listing is short
        return blobs


def _read_all(directory: int, entries: Entries) -> dict[str, os.DirEntry[str]]:
    _expect(directory >= 0)
    return {entry.name: entry for entry in entries}


def _expect(*conditions: bool) -> None:
    if not all(conditions):
        raise _Odd
