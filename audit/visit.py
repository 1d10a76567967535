"""One layout in a census: which files it has, which of them it needs, and which it lacks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ..oci.digest import HEX_LENGTHS, is_encoded
from ..oci.image_layout import BLOBS, INDEX, MARKER
from ..store.reading import BLOCK, open_directory
from ..store.spares import is_spare
from .inodes import Inode, Inodes
from .shares import Joining

Entries: TypeAlias = Iterable[os.DirEntry[str]]

_OWN = {INDEX, MARKER}
_HALF_DONE = {f".{INDEX}.new", f".{MARKER}.new"}  # `rm` removes these, too
_LOST = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # removed, or replaced by something else


class Directories:
    """The directories below one: opened through no symbolic link at their end, and added up.

    Attributes:
        on_disk: bytes that they take.
        unreadable: those that may not be read, so that nobody knows what they have.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self.on_disk = 0
        self.unreadable: list[str] = []

    @contextmanager
    def opened(self, path: str) -> Generator[tuple[int, Entries]]:
        """Open a directory to list it once; one that is gone or unreadable has no entries.

        If its files may not be asked for, the block ends at the first one.
        """
        try:
            directory = open_directory(path, self._top)
        except OSError as error:
            if isinstance(error, PermissionError):
                self.unreadable.append(path)
            elif error.errno not in _LOST:
                raise
            yield -1, []
            return
        try:
            self.on_disk += os.fstat(directory).st_blocks * BLOCK
            with os.scandir(directory) as entries:
                yield directory, entries
        except PermissionError:
            self.unreadable.append(path)
        finally:
            os.close(directory)

    def has_index(self, path: str) -> bool:
        """Tell whether a directory is a layout's."""
        try:
            status = os.stat(f"{path}/{INDEX}", dir_fd=self._top, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            return False
        return stat.S_ISREG(status.st_mode)


@dataclass(slots=True)
class Pool:
    """The blobs of the pool by algorithm and encoded digest, and their st_dev."""

    blobs: dict[str, dict[str, Inode]]
    device: int = -1

    def get(self, digest: str) -> Inode | None:
        """Return the file of a blob; None if the pool has none."""
        algorithm, _, encoded = digest.partition(":")
        return self.blobs.get(algorithm, {}).get(encoded)


@dataclass(slots=True)
class Tally:
    """What one layout has.

    Attributes:
        name: its path below `layouts/`.
        apparent: bytes of content.
        other: bytes on disk of files that belong to no image.
    """

    name: str
    apparent: int = 0
    other: int = 0


class Visit:
    """Counts the files of the layout at `path`, the `place`-th that is seen.

    Attributes:
        linked: blobs, by digest.
        seen: the files, apart from those that the pool was known to have.
        inside: directories of other layouts that lie in this one.
    """

    def __init__(
        self, path: str, place: int, directories: Directories, inodes: Inodes, pool: Pool
    ) -> None:
        self._path = path
        self._place = place
        self._directories = directories
        self._inodes = inodes
        self._pool = pool
        self._joining = Joining(place)
        self._collected: list[Inode] = []  # in directories of this layout that are none
        self.tally = Tally(path.partition("/")[2])
        self.linked: dict[str, Inode] = {}
        self.seen: set[Inode] = set()
        self.inside: list[str] = []

    def see(self, directory: int, entries: Entries) -> None:
        """Count everything in the layout's directory, which is open, and below."""
        for entry in entries:
            below = f"{self._path}/{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                own = entry.name in _OWN
                goes = own or entry.name in _HALF_DONE or is_spare(entry.name)
                self._see_file(directory, entry, stays=not goes, other=not own)
            elif entry.name == BLOBS:
                self._see_blobs(below)
            else:
                self._see_others(below)

    def end(self, needs: Collection[str] | None) -> None:
        """Compare with the digests that the index needs; with None, all that is there is."""
        if needs is None:
            needs = self.linked.keys()
        self._spurn(needs)
        for digest in needs:
            blob = self._pool.get(digest)
            if blob is not None and blob is not self.linked.get(digest):
                blob.need(self._place)
        for inode in (*self.linked.values(), *self._collected):
            self._inodes.count(inode)

    def _spurn(self, needs: Collection[str]) -> None:
        spurned = [inode for digest, inode in self.linked.items() if digest not in needs]
        spurned += self._collected
        if spurned:
            held = {id(inode) for digest, inode in self.linked.items() if digest in needs}
            for inode in spurned:
                if id(inode) not in held:
                    inode.spurned = inode.spurned or set()
                    inode.spurned.add(self._place)

    def _see_blobs(self, path: str) -> None:
        """Count what `blobs` has, which is never looked into for layouts."""
        with self._directories.opened(path) as (directory, entries):
            for entry in entries:
                below = f"{path}/{entry.name}"
                if not entry.is_dir(follow_symlinks=False):
                    self._see_file(directory, entry, stays=not is_spare(entry.name))
                elif entry.name in HEX_LENGTHS:
                    self._see_algorithm(below, entry.name)
                else:
                    self._see_others(below, deep=False)

    def _see_algorithm(self, path: str, algorithm: str) -> None:
        with self._directories.opened(path) as (directory, entries):
            pool = self._pool.blobs[algorithm]
            if directory < 0 or os.fstat(directory).st_dev != self._pool.device:
                pool = {}
            inodes, joining, tally = self._inodes, self._joining, self.tally
            for entry in entries:
                # What the pool has by the same name and number needs no stat(2), which is most.
                inode = pool.get(entry.name)
                if inode is not None and inode.number == entry.inode():
                    inodes.again(inode)
                    inode.owners = joining(inode.owners)
                    tally.apparent += inode.size
                    self.linked[f"{algorithm}:{entry.name}"] = inode
                elif entry.is_dir(follow_symlinks=False):
                    self._see_others(f"{path}/{entry.name}", deep=False)
                elif is_encoded(algorithm, entry.name) and entry.is_file(follow_symlinks=False):
                    self._see_blob(directory, entry, algorithm)
                else:
                    goes = is_spare(entry.name) or is_encoded(algorithm, entry.name)
                    self._see_file(directory, entry, stays=not goes)

    def _see_blob(self, directory: int, entry: os.DirEntry[str], algorithm: str) -> None:
        inode = self._inodes.see(directory, entry)
        if inode is not None:
            inode.owners = self._joining(inode.owners)
            self.seen.add(inode)
            self.tally.apparent += inode.size
            self.linked[f"{algorithm}:{entry.name}"] = inode

    def _see_others(self, top: str, *, deep: bool = True) -> None:
        """Count files that belong to no image; `deep` where layouts could lie and links count."""
        waiting = [top]
        while waiting:
            path = waiting.pop()
            if deep and self._directories.has_index(path):
                self.inside.append(path)
                continue
            with self._directories.opened(path) as (directory, entries):
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
                    elif deep and is_link(path, entry):
                        self._see_collected(directory, entry)
                    else:
                        self._see_file(directory, entry, stays=True)

    def _see_collected(self, directory: int, entry: os.DirEntry[str]) -> None:
        inode = self._see(directory, entry, other=True)
        if inode is not None:
            self._collected.append(inode)

    def _see_file(
        self, directory: int, entry: os.DirEntry[str], *, stays: bool, other: bool = True
    ) -> None:
        inode = self._see(directory, entry, other=other)
        if inode is not None:
            inode.stays |= stays
            self._inodes.count(inode)

    def _see(self, directory: int, entry: os.DirEntry[str], *, other: bool) -> Inode | None:
        inode = self._inodes.see(directory, entry)
        if inode is not None:
            known = inode.owners.last == self._place
            inode.owners = self._joining(inode.owners)
            self.seen.add(inode)
            self.tally.apparent += inode.size
            if other and not known:
                self.tally.other += inode.on_disk
        return inode


def is_link(path: str, entry: os.DirEntry[str]) -> bool:
    """Tell whether a file lies where a directory without an index has blobs: `gc` removes it."""
    above, _, algorithm = path.rpartition("/")
    return (
        is_encoded(algorithm, entry.name)
        and above.endswith(f"/{BLOBS}")
        and entry.is_file(follow_symlinks=False)
    )
