"""What layouts cost on disk: apparent, shared and exclusive bytes, each inode counted once.

Directories are not counted: a layout has a handful, of one block each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.digest import is_encoded
from ..oci.errors import NotFound
from ..store.layout import BLOBS, INDEX, MARKER
from ..store.store import Store

_BLOCK = 512  # bytes; the unit of st_blocks, whatever the file system's own block size


@dataclass(frozen=True, slots=True)
class LayoutUsage:
    """What one layout costs. All numbers are bytes.

    Attributes:
        apparent: sum of the sizes of its files: what reading them all gives.
        on_disk: what its files take on disk; `shared` and `exclusive` together.
        shared: what it has in common with other layouts of the store.
        exclusive: what no other layout has.
        other: what files that belong to no image take; they are in `exclusive` or `shared` too.
    """

    name: PurePosixPath
    apparent: int
    on_disk: int
    shared: int
    exclusive: int
    other: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the layouts asked for cost together, and what the pool has beyond all layouts.

    Attributes:
        layouts: one entry a layout, sorted by name.
        apparent: sum of theirs.
        separate: what they would take on disk if none shared anything.
        on_disk: what they take on disk, whatever they share counted once.
        unreferenced_blobs: blobs of the pool that no layout has.
        unreferenced: what these take on disk.
        outside: what files take that lie beside the layouts, in none.
    """

    layouts: tuple[LayoutUsage, ...]
    apparent: int
    separate: int
    on_disk: int
    unreferenced_blobs: int
    unreferenced: int
    outside: int

    @property
    def factor(self) -> float:
        """How many times more disk the layouts would take without sharing; 1.0 for none."""
        return self.separate / self.on_disk if self.on_disk else 1.0


def usage(store: Store, names: Collection[PurePosixPath] | None = None) -> Usage:
    """Count what the named layouts cost, or all layouts for None.

    What is shared is always judged against every layout of the store. Memory
    grows with the number of blobs only. Nothing is locked: images that come or go
    meanwhile may be counted or not.

    Raises:
        NotFound: a name has no layout.
    """
    count = _Count(store, names)
    if missing := sorted(count.wanted - count.layouts.keys()):
        raise NotFound(missing[0])
    count.pool()
    layouts = [
        tally.frozen(name)
        for name, tally in sorted(count.layouts.items())
        if names is None or name in count.wanted
    ]
    return Usage(
        tuple(layouts),
        sum(layout.apparent for layout in layouts),
        sum(layout.on_disk for layout in layouts),
        count.on_disk,
        count.unreferenced_blobs,
        count.unreferenced,
        count.outside.exclusive + count.outside.shared,
    )


@dataclass(slots=True)
class _Tally:
    """The sums of one layout while its files are counted."""

    wanted: bool
    apparent: int = 0
    shared: int = 0
    exclusive: int = 0
    other: int = 0

    def frozen(self, name: PurePosixPath) -> LayoutUsage:
        on_disk = self.shared + self.exclusive
        return LayoutUsage(name, self.apparent, on_disk, self.shared, self.exclusive, self.other)


@dataclass(slots=True)
class _Inode:
    """A file with several names: the layout that had it first and the one that had it last."""

    owner: _Tally
    last: _Tally
    counted: bool  # in the total of the layouts asked for


class _Count:
    """One walk over all layouts.

    Layouts are visited one after another, a nested one after the one around it,
    so that remembering who saw an inode last is enough to count it once a layout.
    """

    def __init__(self, store: Store, names: Collection[PurePosixPath] | None) -> None:
        self._store = store
        self._all = names is None
        self._inodes: dict[tuple[int, int], _Inode] = {}
        self._digests: dict[str, bool] = {}  # blobs that layouts have -> one asked for has it
        self.wanted = frozenset(names or ())
        self.layouts: dict[PurePosixPath, _Tally] = {}
        self.outside = _Tally(wanted=False)
        self.on_disk = 0
        self.unreferenced = 0
        self.unreferenced_blobs = 0
        waiting = [PurePosixPath()]
        while waiting:
            waiting += self._visit(waiting.pop())

    def pool(self) -> None:
        """Count the blobs of the pool that no layout links."""
        for digest in self._store.blobs:
            try:
                status = self._store.blobs.stat(digest)
            except NotFound:
                continue  # removed since it was listed
            if (status.st_dev, status.st_ino) in self._inodes:
                continue
            wanted = self._digests.get(str(digest))
            if wanted is None:
                self.unreferenced_blobs += 1
                self.unreferenced += status.st_blocks * _BLOCK
            elif wanted:  # its layouts have copies: hard links were impossible
                self.on_disk += status.st_blocks * _BLOCK

    def _visit(self, top: PurePosixPath) -> list[PurePosixPath]:
        """Count the files of one layout, or those outside of all; return the layouts below."""
        tally, below = self.outside, list[PurePosixPath]()
        blobs = None
        if self._is_layout(top):
            tally = self.layouts[top] = _Tally(wanted=self._all or top in self.wanted)
            blobs = top / BLOBS  # never looked into for layouts
        directories = [top]
        while directories:
            directory = directories.pop()
            inside = blobs is not None and directory.is_relative_to(blobs)
            if directory != top and not inside and self._is_layout(directory):
                below.append(directory)
                continue
            with _scan(self._store.layouts / directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(directory / entry.name)
                    else:
                        self._file(tally, entry, (directory / entry.name).relative_to(top))
        return below

    def _is_layout(self, directory: PurePosixPath) -> bool:
        try:
            status = os.lstat(self._store.layouts / directory / INDEX)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(status.st_mode)

    def _file(self, tally: _Tally, entry: os.DirEntry[str], path: PurePosixPath) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # removed since it was listed
        blob = _blob(path) if stat.S_ISREG(status.st_mode) else None
        if blob and tally is not self.outside:
            self._digests[blob] = tally.wanted or self._digests.get(blob, False)
        tally.apparent += status.st_size
        size = status.st_blocks * _BLOCK
        if (
            self._is_new(tally, status, size)
            and not blob
            and path.as_posix() not in (INDEX, MARKER)
        ):
            tally.other += size

    def _is_new(self, tally: _Tally, status: os.stat_result, size: int) -> bool:
        """Count a file, unless this layout counted it by another name."""
        if status.st_nlink == 1:
            tally.exclusive += size
            self.on_disk += size if tally.wanted else 0
            return True
        key = (status.st_dev, status.st_ino)
        inode = self._inodes.get(key)
        if inode is None:
            inode = self._inodes[key] = _Inode(tally, tally, counted=False)
            tally.exclusive += size
        elif inode.last is tally:
            return False
        else:
            if inode.last is inode.owner:  # the second layout: until now it was exclusive
                inode.owner.exclusive -= size
                inode.owner.shared += size
            tally.shared += size
            inode.last = tally
        if tally.wanted and not inode.counted:
            inode.counted = True
            self.on_disk += size
        return True


def _blob(path: PurePosixPath) -> str | None:
    """Return the digest that a path inside a layout stands for."""
    parts = path.parts
    if len(parts) == 3 and parts[0] == BLOBS and is_encoded(parts[1], parts[2]):
        return f"{parts[1]}:{parts[2]}"
    return None


@contextmanager
def _scan(directory: Path) -> Generator[Iterator[os.DirEntry[str]]]:
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        yield iter(())  # removed since it was listed
        return
    with entries:
        yield entries
