"""A census of a store: what every file is to its layouts, and what keeps it."""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

from ..oci.digest import HEX_LENGTHS, Digest, is_encoded
from ..oci.image_layout import BLOBS, INDEX
from ..store.forks import FEW, processors, spread
from ..store.layout import LAYOUTS
from ..store.spares import is_spare
from ..store.store import Store
from .inodes import Inodes, Totals
from .needs import needs
from .plain import Plain, PlainReader
from .visit import Directories, Pool, Tally, Visit, is_link

_STEP = 500  # layouts, or blobs of the pool, between two words on how far it is

Watch: TypeAlias = Callable[[int, int], None]  # hears how many layouts and names were seen


@dataclass(frozen=True, slots=True)
class Found:
    """What a census came to.

    Attributes:
        layouts: in the order in which they were seen, which is what `totals` count them by.
        totals: who has and who keeps which bytes of files.
        directories: bytes on disk that directories take.
        unreadable: directories of which nothing is known, since they may not be read.
    """

    layouts: list[Tally]
    totals: Totals
    directories: int
    unreadable: list[str]


class Census:
    """One walk over a store: the pool first, so that links to it need no stat(2) of their own.

    Layouts are seen one after another, a nested one after the one around it. Symbolic links
    are not followed.
    """

    def __init__(self, store: Store, top: int, watch: Watch | None) -> None:
        self._store = store
        self._top = top
        self._watch = watch
        self._directories = Directories(top)
        self._inodes = Inodes()
        self._pool = Pool({algorithm: {} for algorithm in HEX_LENGTHS})
        self._layouts: list[Tally] = []

    def take(self) -> Found:
        """Look at everything, once."""
        kept = leased(self._store)
        with self._directories.opened(".") as (directory, entries):
            self._see_pool()
            self._see_layouts()
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    self._see_file(directory, entry, entry.name)
                elif entry.name not in (BLOBS, LAYOUTS):
                    self._see_below(entry.name, entry.name)
        for digest in kept:
            blob = self._pool.blobs[digest.algorithm].get(digest.encoded)
            if blob is not None:
                blob.leased = True
        seen = self._directories
        return Found(self._layouts, self._inodes.end(), seen.on_disk, seen.unreadable)

    def _see_pool(self) -> None:
        with self._directories.opened(BLOBS) as (directory, entries):
            self._pool.device = os.fstat(directory).st_dev if directory >= 0 else -1
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    self._see_file(directory, entry, BLOBS, stays=not is_spare(entry.name))
                elif entry.name in HEX_LENGTHS:
                    self._see_blobs(entry.name)
                else:
                    self._see_below(f"{BLOBS}/{entry.name}", BLOBS)

    def _see_blobs(self, algorithm: str) -> None:
        path, blobs = f"{BLOBS}/{algorithm}", self._pool.blobs[algorithm]
        with self._directories.opened(path) as (directory, entries):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self._see_below(f"{path}/{entry.name}", BLOBS)
                elif not is_encoded(algorithm, entry.name):
                    self._see_file(directory, entry, BLOBS, stays=not is_spare(entry.name))
                elif (inode := self._inodes.see(directory, entry, waits=True)) is not None:
                    inode.place, inode.is_blob = BLOBS, True
                    blobs[entry.name] = inode
                    self._tell(len(blobs))

    def _see_layouts(self) -> None:
        waiting = deque([LAYOUTS])
        is_shared = processors() == 1
        while waiting:
            if len(waiting) >= FEW and not is_shared:
                waiting, is_shared = deque(self._share_out(list(waiting))), True
                continue
            path = waiting.popleft()
            with self._directories.opened(path) as (directory, found):
                entries = list(found)
                if any(e.name == INDEX and e.is_file(follow_symlinks=False) for e in entries):
                    waiting += self._see_layout(path, directory, entries)
                    continue
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
                    else:
                        self._see_file(directory, entry, LAYOUTS, stays=not is_link(path, entry))

    def _share_out(self, paths: Sequence[str]) -> list[str]:
        """Let all processors read directories; return those that need a closer look."""
        reader = PlainReader(self._store, self._top, self._pool)
        odd: list[str] = []
        for batch in spread(paths, reader.read):
            for plain in batch.plain:
                self._count_plain(plain)
            odd += batch.odd
            self._directories.on_disk += batch.directories
        return odd

    def _count_plain(self, plain: Plain) -> None:
        place = len(self._layouts)
        blobs = self._inodes.link(self._pool.device, plain.blobs, place, plain.on_disk)
        apparent = plain.size + sum(blob.size for blob in blobs)
        for digest in plain.lacking:
            if (blob := self._pool.get(digest)) is not None:
                blob.need(place)
        self._layouts.append(Tally(plain.path.partition("/")[2], apparent))
        self._tell(len(self._layouts))

    def _see_layout(self, path: str, directory: int, entries: list[os.DirEntry[str]]) -> list[str]:
        visit = Visit(path, len(self._layouts), self._directories, self._inodes, self._pool)
        visit.see(directory, entries)
        visit.end(needs(self._store, visit.tally.name, directory))
        self._layouts.append(visit.tally)
        self._tell(len(self._layouts))
        return visit.inside

    def _see_below(self, path: str, place: str) -> None:
        waiting = [path]
        while waiting:
            path = waiting.pop()
            with self._directories.opened(path) as (directory, entries):
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
                    else:
                        self._see_file(directory, entry, place)

    def _see_file(
        self, directory: int, entry: os.DirEntry[str], place: str, *, stays: bool = True
    ) -> None:
        inode = self._inodes.see(directory, entry)
        if inode is not None:
            inode.place = inode.place or place
            inode.stays |= stays
            self._inodes.count(inode)

    def _tell(self, number: int) -> None:
        if self._watch is not None and number % _STEP == 0:
            self._watch(len(self._layouts), self._inodes.names)


def take(store: Store, watch: Watch | None = None) -> Found:
    """Look at every file of a store, once.

    Raises:
        OSError: the disk fails, or the store's own directory may not be read.
    """
    top = os.open(store.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _no_cycles():
            return Census(store, top, watch).take()
    finally:
        os.close(top)


def leased(store: Store) -> frozenset[Digest]:
    """Return the blobs that are leased; nothing if the leases cannot be read."""
    with suppress(OSError):
        return frozenset(store.leases.held())
    return frozenset()


@contextmanager
def _no_cycles() -> Generator[None]:
    """Do not look for cycles of objects: there are none, and a third of the time went into it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
