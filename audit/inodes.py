"""The files of a store, each once whatever names it has, and what becomes of their bytes."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..store.reading import BLOCK
from .extents import Shared, Sharing, pieces
from .shares import NOBODY, Joining, Owners

Layouts: TypeAlias = Owners | frozenset[int]  # places in the order in which they were seen


@dataclass(slots=True, eq=False)
class Inode:
    """A file, and what is known of its names so far.

    Attributes:
        number: st_ino.
        size: bytes of content.
        on_disk: bytes on disk.
        own: the part of `on_disk` that no other file has.
        unseen: how many names were not seen yet.
        place: the entry of the store's directory below which it was first seen.
        is_blob: whether it is a blob of the pool.
        waits: whether it may have names that were not seen yet.
        owners: layouts with a name for it.
        spurned: layouts that have a name for it but do not need it: `gc` removes these names.
        needed: layouts without a name for it that need it, as a blob of the pool.
        stays: whether it has a name that neither `rm` nor `gc` removes.
        leased: whether it is a blob of the pool that somebody relies on.
    """

    number: int
    size: int
    on_disk: int
    own: int
    unseen: int
    place: str = ""
    is_blob: bool = False
    waits: bool = False
    owners: Owners = NOBODY
    spurned: set[int] | None = None
    needed: set[int] | None = None
    stays: bool = False
    leased: bool = False

    def need(self, layout: int) -> None:
        """Note a layout that needs it, as a blob of the pool, and has no name for it."""
        self.needed = self.needed or set()
        self.needed.add(layout)

    @property
    def holders(self) -> Layouts:
        """The layouts that must be removed before `gc` removes all its names."""
        if not self.spurned and not self.needed:
            return self.owners
        return (frozenset(self.owners) - (self.spurned or set())) | (self.needed or set())

    @property
    def is_kept(self) -> bool:
        """Whether something keeps it whatever images are removed."""
        return self.stays or self.leased or self.unseen > 0


@dataclass(slots=True)
class Totals:
    """Bytes on disk, by who has them.

    Attributes:
        shares: what these layouts have, and no other.
        releases: what removing all of these layouts and then `gc` frees.
        unlinked: blobs of the pool that layouts need but have no name for.
        unreferenced: blobs of the pool that no layout has or needs.
        unreferenced_blobs: how many these are.
        places: what else lies below the entries of the store's directory.
        leased: what `gc` would free without leases.
    """

    shares: Counter[Layouts] = field(default_factory=lambda: Counter[Layouts]())
    releases: Counter[Layouts] = field(default_factory=lambda: Counter[Layouts]())
    unlinked: int = 0
    unreferenced: int = 0
    unreferenced_blobs: int = 0
    places: Counter[str] = field(default_factory=lambda: Counter[str]())
    leased: int = 0


class Inodes:
    """What was seen of the files, and the sums over all of them. Not thread-safe.

    Attributes:
        names: how many names were seen.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, dict[int, Inode]] = {}  # by st_dev and st_ino: several names
        self._sharing: list[tuple[Shared, Inode]] = []
        self._asking = Sharing()
        self._totals = Totals()
        self.names = 0

    def see(self, directory: int, entry: os.DirEntry[str], *, waits: bool = False) -> Inode | None:
        """Return the file that a name in an open directory stands for; None if it is gone.

        The caller notes what the name means and then calls `count`. What `waits` is counted in
        the end, as is every file with other names.
        """
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None  # removed since it was listed
        self.names += 1
        device = self._waiting.setdefault(status.st_dev, {})
        inode = device.get(status.st_ino)
        if inode is not None:
            inode.unseen -= 1
            return inode
        on_disk = status.st_blocks * BLOCK
        inode = Inode(status.st_ino, status.st_size, on_disk, on_disk, status.st_nlink - 1)
        if on_disk and stat.S_ISREG(status.st_mode):
            shared = self._asking.shared(directory, entry.name, status.st_dev)
            if shared:
                inode.own = max(0, on_disk - sum(extent.length for extent in shared))
                self._sharing += [(extent, inode) for extent in shared]
                waits = True
        if waits or inode.unseen:
            device[status.st_ino] = inode
            inode.waits = True
        return inode

    @property
    def is_sharing(self) -> bool:
        """Whether files were seen that share bytes with others."""
        return bool(self._sharing)

    def again(self, inode: Inode) -> None:
        """Note another name of a file."""
        self.names += 1
        inode.unseen -= 1

    def link(self, device: int, numbers: Iterable[int], layout: int, own: int) -> list[Inode]:
        """Note that the last layout has names for files that wait, and return these.

        It has two more, with `own` bytes on disk, that nobody else has.
        """
        joining = Joining(layout)
        waiting = self._waiting[device]
        files = [waiting[number] for number in numbers]
        for inode in files:
            inode.unseen -= 1
            inode.owners = joining(inode.owners)
        self.names += len(files) + 2
        alone = joining(NOBODY)
        self._totals.shares[alone] += own
        self._totals.releases[alone] += own
        return files

    def count(self, inode: Inode) -> None:
        """Count a file, unless it has names that were not seen yet."""
        if not inode.waits:
            self._count(inode)

    def end(self) -> Totals:
        """Count what waited, and return the sums."""
        for device in self._waiting.values():
            for inode in device.values():
                self._count(inode)
        for piece in pieces(self._sharing):
            self._count_piece(piece.size, set(piece.files))
        return self._totals

    def _count(self, inode: Inode) -> None:
        size, totals = inode.own, self._totals
        if inode.owners is not NOBODY:
            totals.shares[inode.owners] += size
        elif inode.is_blob and inode.needed:
            totals.unlinked += size
        elif inode.is_blob:
            totals.unreferenced += size
            totals.unreferenced_blobs += 1
        else:
            totals.places[inode.place] += size
        if inode.stays or inode.unseen:
            return
        if not inode.leased:
            totals.releases[inode.holders] += size
        elif not inode.holders:
            totals.leased += size

    def _count_piece(self, size: int, files: set[Inode]) -> None:
        """Count bytes that several files have, or one of the store and others elsewhere."""
        owners = frozenset(owner for inode in files for owner in inode.owners)
        blobs = [inode for inode in files if inode.is_blob]
        totals = self._totals
        if owners:
            totals.shares[owners] += size
        elif any(inode.needed for inode in blobs):
            totals.unlinked += size
        elif blobs:
            totals.unreferenced += size
        else:
            totals.places[min(inode.place for inode in files)] += size
        if len(files) > 1 and not any(inode.is_kept for inode in files):
            totals.releases[frozenset(at for inode in files for at in inode.holders)] += size
