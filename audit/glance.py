"""What a few images of many cost, by their own files alone: link counts tell what others have.

A name elsewhere counts as one of another image, also if it lies outside the store, and images
that need a blob without a link to it are not seen. `usage` reads the whole store and knows better.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..oci.digest import HEX_LENGTHS, Digest
from ..oci.errors import NotFound
from ..store.layout import LAYOUTS
from ..store.store import Store
from .census import leased
from .inodes import Inode, Inodes
from .needs import needs
from .usage import Cost
from .visit import Directories, Pool, Visit


@dataclass(frozen=True, slots=True)
class Glance:
    """What the layouts asked for cost: each, and together as if they were one."""

    layouts: tuple[Cost, ...]
    total: Cost


def glance(store: Store, names: Collection[PurePosixPath]) -> Glance | None:
    """Return what these layouts cost, in time that does not grow with the store.

    None where link counts do not tell: blobs are copies, or share extents with others, or the
    pool has one that a layout lacks.

    Raises:
        NotFound: a name has no layout.
        PermissionError: a directory of one may not be read.
    """
    top = os.open(store.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Glance(store, top, sorted(set(names))).take()
    finally:
        os.close(top)


class _Glance:
    def __init__(self, store: Store, top: int, names: list[PurePosixPath]) -> None:
        self._store = store
        self._names = names
        self._directories = Directories(top)
        self._inodes = Inodes()
        self._kept = leased(store)

    def take(self) -> Glance | None:
        visits: list[Visit] = []
        for place, name in enumerate(self._names):
            visit = self._visit(name, place)
            if visit is None:
                return None
            visits.append(visit)
        if self._inodes.is_sharing:
            return None
        costs = [
            _cost(name, visit.tally.apparent, visit.tally.other, visit.seen)
            for name, visit in zip(self._names, visits, strict=True)
        ]
        every = {inode for visit in visits for inode in visit.seen}
        total = Cost(
            PurePosixPath(),
            len(costs),
            sum(cost.apparent for cost in costs),
            sum(inode.on_disk for inode in every),
            sum(inode.on_disk for inode in every if inode.unseen <= 0),
            sum(cost.amortised for cost in costs),
            sum(i.on_disk for i in every if i.unseen <= 0 and not i.stays and not i.leased),
            sum(cost.other for cost in costs),
        )
        return Glance(tuple(costs), total)

    def _visit(self, name: PurePosixPath, place: int) -> Visit | None:
        path = "/".join((LAYOUTS, *name.parts))
        if not self._directories.has_index(path):
            raise NotFound(name)
        pool = Pool({algorithm: {} for algorithm in HEX_LENGTHS})
        visit = Visit(path, place, self._directories, self._inodes, pool)
        with self._directories.opened(path) as (directory, entries):
            visit.see(directory, entries)
            needed = needs(self._store, visit.tally.name, directory)
        if self._directories.unreadable:
            raise PermissionError(
                errno.EACCES, os.strerror(errno.EACCES), self._directories.unreadable[0]
            )
        for text, inode in visit.linked.items():
            digest = Digest.parse(text)
            with suppress(NotFound):
                status = self._store.blobs.stat(digest)
                if status.st_ino != inode.number:
                    return None
                if not inode.is_blob:
                    inode.is_blob = True
                    inode.unseen -= 1
                inode.leased = digest in self._kept
        for text in (needed or frozenset()) - visit.linked.keys():
            if Digest.parse(text) in self._store.blobs:
                return None
        return visit


def _cost(name: PurePosixPath, apparent: int, other: int, inodes: Iterable[Inode]) -> Cost:
    on_disk = exclusive = amortised = reclaimable = 0
    for inode in inodes:
        on_disk += inode.on_disk
        sharing = inode.owners.count + max(0, inode.unseen)
        amortised += inode.on_disk // sharing
        if sharing == 1:
            exclusive += inode.on_disk
            if not inode.stays and not inode.leased:
                reclaimable += inode.on_disk
    return Cost(name, 1, apparent, on_disk, exclusive, amortised, reclaimable, other)
